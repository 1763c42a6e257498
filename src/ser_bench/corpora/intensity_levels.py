"""Intensity as the label (`corpus.target=intensity`): the ordered levels that actors were asked for.

The level is the instruction that an actor was given. It is not a measurement of how intense the voice sounds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ser_bench.corpora.data_sheet import DataSheet, Fields, HeardIntensity
from ser_bench.corpora.sheets import SHEETS
from ser_bench.errors import ConfigError, CorpusError

if TYPE_CHECKING:
    Listed = tuple[Path, Fields]

SCALES: tuple[tuple[str, ...], ...] = (("low", "medium", "high"), ("normal", "strong"))
"""Ordered levels, from the least to the most, of tables of the user's own clips."""


def levels_of(sheet: DataSheet, found: Sequence[str]) -> tuple[str, ...]:
    """Return the ordered levels of a corpus.

    Args:
        sheet: of the corpus.
        found: the intensities of the clips, "" where none is known.

    Raises:
        ConfigError: if the corpus has no intensities.
        CorpusError: if a table of the user's has intensities that are not of one of `SCALES`.
    """
    if sheet.intensities:
        return sheet.intensities
    given = set(found) - {""}
    if not given:
        choices = ", ".join(name for name, other in SHEETS.items() if other.intensities)
        raise ConfigError(
            f"corpus {sheet.name} has no intensities, which corpus.target=intensity needs; choose corpus={choices}, or "
            "fill the column intensity of your table"
        )
    scale = next((scale for scale in SCALES if given <= set(scale)), None)
    if scale is None:
        allowed = " or ".join(", ".join(scale) for scale in SCALES)
        raise CorpusError(
            f"corpus {sheet.name}: the intensities {', '.join(sorted(given))} are not of one known scale, so their "
            f"order is unknown; write {allowed}, or leave the cell empty"
        )
    return scale


def label_by_intensity(sheet: DataSheet, listed: Sequence[Listed]) -> tuple[list[Listed], tuple[str, ...], str]:
    """Replace the emotion of each clip by the level of intensity that the actor was asked for.

    A clip without a level is left out. So is every clip of an emotion that does not have all levels (RAVDESS has no
    strong neutral): there the emotion would give away the level.

    Args:
        sheet: of the corpus.
        listed: audio file and fields of each clip.

    Returns:
        The remaining clips, in the same order; the levels, from the least to the most; and what was left out, in one
        line.

    Raises:
        ConfigError, CorpusError: as `levels_of`; CorpusError also if no emotion has all levels.

    >>> from ser_bench.corpora.sheets import sheet_of
    >>> fields = [Fields(str(i), emotion, "s", intensity=level) for i, (emotion, level) in enumerate(
    ...     [("sad", "strong"), ("sad", "normal"), ("neutral", "normal"), ("calm", "")])]
    >>> clips, levels, summary = label_by_intensity(sheet_of("ravdess"), [(Path(f.id), f) for f in fields])
    >>> [clip.emotion for _, clip in clips], levels
    (['strong', 'normal'], ('normal', 'strong'))
    >>> print(summary)
    ravdess: corpus.target=intensity: 2 of 4 clips are used, with the levels normal < strong; left out are 1 clip \
without a level and 1 clip of emotions without all levels (neutral)
    """
    levels = levels_of(sheet, [fields.intensity for _, fields in listed])
    with_level = [(path, fields) for path, fields in listed if fields.intensity in levels]
    spoken = Counter((fields.emotion, fields.intensity) for _, fields in with_level)
    emotions = sorted({emotion for emotion, _ in spoken})
    incomplete = [emotion for emotion in emotions if any(not spoken[emotion, level] for level in levels)]
    kept = [
        (path, replace(fields, emotion=fields.intensity))
        for path, fields in with_level
        if fields.emotion not in incomplete
    ]
    if not kept:
        raise CorpusError(
            f"{sheet.name}: no emotion of this copy was spoken at all of the levels {', '.join(levels)}, which "
            "corpus.target=intensity needs; complete the copy"
        )
    without, dropped = len(listed) - len(with_level), len(with_level) - len(kept)
    left_out = [f"{_clips(without)} without a level"] if without else []
    left_out += [f"{_clips(dropped)} of emotions without all levels ({', '.join(incomplete)})"] if dropped else []
    summary = (
        f"{sheet.name}: corpus.target=intensity: {len(kept):,} of {_clips(len(listed))} are used, with the levels "
        f"{' < '.join(levels)}{'; left out are ' if left_out else ''}{' and '.join(left_out)}"
    )
    return kept, levels, summary


def heard_intensity_of(sheet: DataSheet, root: Path) -> HeardIntensity:
    """Return clip id → mean intensity that listeners heard; {} if the corpus or this copy has no such ratings.

    Raises:
        CorpusError: if the table of this copy cannot be read.
    """
    return {} if sheet.heard_intensity is None else sheet.heard_intensity(root)


def _clips(count: int) -> str:
    return f"{count:,} clip{'' if count == 1 else 's'}"
