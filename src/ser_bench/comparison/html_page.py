"""A report as one HTML page: no network, no other file; sounds and drawings are in it."""

from __future__ import annotations

import base64
import io
import logging
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_bench import audio, corpora
from ser_bench.comparison import across_protocols, report_figures, report_tables
from ser_bench.comparison.claims import Claim
from ser_bench.comparison.markdown import claims_table, leak_statements
from ser_bench.comparison.paired import Comparison
from ser_bench.comparison.verdict import heading, share, verdict
from ser_bench.errors import SerBenchError
from ser_bench.types import Clip

if TYPE_CHECKING:
    from jinja2 import Template

    from ser_bench.comparison.report import Report

log = logging.getLogger(__name__)

SOUND_RATE_HZ = 16_000
SOUND_SECONDS = 6.0
"""Longer clips are cut: twelve of them stay below half a megabyte."""
SPEAKERS_SHOWN_OPEN = 30
"""A longer table of groups is folded."""


@dataclass(frozen=True)
class HeatTable:
    """A matrix of shares to be coloured by value, -1 to 1."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[float]]]


def as_html(report: Report) -> str:
    """The whole report. Its size is that of its tables and sounds, whatever the number of clips."""
    sections = [_section(c, report.claims_on(c)) for c in report.comparisons]
    refused = [str(error) for error in report.refused]
    return _template().render(title=report.title, falls=_falls(report), sections=sections, refused=refused)


def _falls(report: Report) -> list[dict[str, Any]]:
    """Where predictors were run under several protocols: the figures side by side, a corpus at a time."""
    falls = []
    for corpus in dict.fromkeys(comparison.corpus for comparison in report.comparisons):
        own = [comparison for comparison in report.comparisons if comparison.corpus == corpus]
        steps = across_protocols.steps(own)
        if steps:
            drawn = across_protocols.drawing(steps, report.claims.get(corpus, []))
            name = f"{corpus} (SYNTHETIC speech)" if own[0].synthetic else corpus
            falls.append({"corpus": name, "drawing": drawn, "table": _plain(across_protocols.as_frame(steps))})
    return falls


def _section(comparison: Comparison, claims: list[Claim]) -> dict[str, Any]:
    headings, rows = report_tables.main_table(comparison)
    groups = [(column, report_tables.by_group(comparison, column)) for column in report_tables.GROUPS]
    return {
        "heading": heading(comparison),
        "verdict": verdict(comparison),
        "columns": headings,
        "rows": rows,
        "leakage": leak_statements(comparison),
        "claims": _plain(claims_table(claims)) if claims else None,
        "remark": report_tables.sentence_remark(comparison),
        "drawings": report_figures.all_of(comparison),
        "confusions": _confusions(comparison),
        "by_class": _plain(report_tables.by_class(comparison)),
        "by_group": [(column, _plain(frame)) for column, frame in groups if frame is not None],
        "disagreements": _disagreements(comparison),
        "open_rows": SPEAKERS_SHOWN_OPEN,
    }


def _confusions(comparison: Comparison) -> list[HeatTable]:
    """Each predictor's matrix; then each one's less the baseline's."""
    shares = {line.series.name: report_tables.confusion_shares(line) for line in comparison.lines}
    columns = [*comparison.labels, "abstained"]
    if not any(matrix[:, -1].any() for matrix in shares.values()):
        shares, columns = {name: matrix[:, :-1] for name, matrix in shares.items()}, columns[:-1]
    baseline = comparison.lines[0].series.name
    pictures = list(shares.items())
    pictures += [(f"{name} less {baseline}", shares[name] - shares[baseline]) for name in shares if name != baseline]
    return [
        HeatTable(title, columns, [(label, row.tolist()) for label, row in zip(comparison.labels, matrix, strict=True)])
        for title, matrix in pictures
    ]


def _disagreements(comparison: Comparison) -> dict[str, Any] | None:
    """A table of the clips on which predictors differ most, each with its sound where the audio is at hand."""
    frame = report_tables.disagreements(comparison)
    if frame.empty:
        return None
    clips = _clips(comparison)
    sounds = [_sound(clips[clip_id]) if clip_id in clips else None for clip_id in frame["clip"]]
    return _plain(frame) | {"sounds": sounds}


def _clips(comparison: Comparison) -> dict[str, Clip]:
    """The clips with their files, as far as the corpus lies where the first run found it."""
    run = comparison.lines[0].series.all[0]
    try:
        return corpora.load(run.config()).by_id
    except (SerBenchError, OSError) as error:
        log.warning("warning  the report has no sounds: %s", error)
        return {}


def _sound(clip: Clip) -> str | None:
    """The clip as an MP3 data address, which every browser plays; None where the file is gone."""
    import soundfile

    try:
        samples = audio.load(clip.path, SOUND_RATE_HZ, duration_s=SOUND_SECONDS)
    except (SerBenchError, OSError) as error:
        log.warning("warning  the report has no sound of %s: %s", clip.id, error)
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), SOUND_RATE_HZ, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns and cells; a cell is (text, what it is sorted by)."""
    return {"columns": list(frame.columns), "rows": [[_cell(v) for v in row] for row in frame.itertuples(index=False)]}


def _cell(value: object) -> report_tables.Cell:
    if isinstance(value, float):
        return report_tables.Cell(share(value), value)
    return report_tables.Cell(str(value), value if isinstance(value, int) else str(value))


@lru_cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["share"] = short_share
    return environment.from_string((Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8"))


def short_share(value: float) -> str:
    """Two decimals without the leading zero: ".07", "−.12", "1".

    >>> short_share(0.071), short_share(-0.12), short_share(1.0)
    ('.07', '−.12', '1')
    """
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return "1" if text == "1.00" else text.replace("0.", ".", 1)
