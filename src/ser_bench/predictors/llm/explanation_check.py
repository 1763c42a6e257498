"""Are the reasons of `prompt=explain` about what was measured? Two figures, computed from words, not judged by a model.

- The cue: of the measures of a clip, the one that differs most from the norms. A reason names it if it holds one of the
  measure's words, and names its direction if the same clause holds a word of the right direction and none of the other.
  A reason that lists every measure would always name the cue. `names_cue_by_chance` is therefore the share that would
  result if reasons and cues were paired at random.
- The label: is it the one that the model gives without being asked for a reason? This is counted where the answer to
  the same prompt without the reason is in the cache. The label is written before the reason, so that the reason cannot
  change it; a difference comes from the sentence of the prompt that asks for a reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ser_bench.features.prosody import Prosody
from ser_bench.predictors.llm.prompting.prosody_norms import SLIGHT, ProsodyNorms, z_scores

WITHOUT_REASON = {"explain": "prosody"}
"""Prompt that asks for a reason → the prompt that differs from it only in not asking for one."""
CLAUSE = re.compile(r"[,;.:!?]|\b(?:and|but|while|with|which)\b")


@dataclass(frozen=True, slots=True)
class CueWords:
    """How a reason may speak of one measure; regular expressions, searched in lower case.

    Attributes:
        names: any of these names the measure.
        more: any of these says that the value is above the norm.
        less: any of these says that it is below.
    """

    names: str
    more: str
    less: str


HIGH, LOW = r"\bhigh\w*|\braised|\belevated|\bincreased", r"\blow\w*|\breduced|\bdecreased"
CUE_WORDS: Mapping[str, CueWords] = {
    "pitch_semitones": CueWords(r"\bpitch(?! (range|slope))|\bf0\b", HIGH, LOW + r"|\bdeep\w*"),
    "pitch_range_semitones": CueWords(
        r"\b(pitch )?range|\bmonoton\w*|\bintonation",
        HIGH + r"|\bwid\w+|\blarge\w*",
        LOW + r"|\bnarrow\w*|\bmonoton\w*",
    ),
    "pitch_slope": CueWords(
        r"\bslope|\bris(e|es|ing)\b|\bfall(s|ing)\b", r"\bris\w+|\bupward", r"\bfall\w*|\bdownward"
    ),
    "loudness_db": CueWords(
        r"\bloud\w*|\bsoft\w*|\bquiet\w*|\bvolume|\bintensity",
        HIGH + r"|\bloud(er|ly)?\b",
        LOW + r"|\bsoft\w*|\bquiet\w*",
    ),
    "syllables_per_second": CueWords(
        r"\brate\b|\bspeed|\btempo|\bpace|\bfast\w*|\bslow\w*|\bquick\w*|\brapid\w*",
        HIGH + r"|\bfast\w*|\bquick\w*|\brapid\w*",
        LOW + r"|\bslow\w*",
    ),
    "pause_percent": CueWords(
        r"\bpaus\w*|\bhesita\w*",
        HIGH + r"|\bmore\b|\bmany\b|\blong\w*|\bfrequent\w*",
        LOW + r"|\bfew\w*|\bless\b|\bno\b",
    ),
    "jitter_percent": CueWords(r"\bjitter|\btrembl\w*|\brough\w*", HIGH + r"|\btrembl\w*|\brough\w*", LOW),
    "shimmer_percent": CueWords(r"\bshimmer|\btrembl\w*|\brough\w*", HIGH + r"|\btrembl\w*|\brough\w*", LOW),
    "harmonicity_db": CueWords(
        r"\bharmonic\w*|\bhnr\b|\bbreath\w*|\bhoarse\w*", HIGH + r"|\bclear\w*", LOW + r"|\bbreath\w*|\bhoarse\w*"
    ),
}
"""Field of `Prosody` → the words that name the measure and its direction."""


def cue_of(prosody: Prosody, speaker: str, norms: ProsodyNorms) -> tuple[str, bool] | None:
    """Return the field of the measure that differs most from the norms, and whether it is above them.

    None if no measure differs by as much as the prompt calls a difference (`SLIGHT`).
    """
    z = z_scores(prosody, speaker, norms)
    field = max(z, key=lambda name: abs(z[name]), default=None)
    return None if field is None or abs(z[field]) < SLIGHT else (field, z[field] > 0)


def names_cue(reason: str, field: str) -> bool:
    """Return whether a reason names a measure.

    >>> names_cue("The voice is much louder than usual.", "loudness_db"), names_cue("It is sad.", "loudness_db")
    (True, False)
    """
    return re.search(CUE_WORDS[field].names, reason.lower()) is not None


def names_direction(reason: str, field: str, is_above: bool) -> bool:
    """Return whether a clause that names the measure has a word of this direction, and none of the other.

    >>> names_direction("low pitch and a fast rate", "pitch_semitones", is_above=False)
    True
    >>> names_direction("low pitch and a fast rate", "syllables_per_second", is_above=False)
    False
    """
    words = CUE_WORDS[field]
    right, wrong = (words.more, words.less) if is_above else (words.less, words.more)
    clauses = [clause for clause in CLAUSE.split(reason.lower()) if re.search(words.names, clause)]
    return any(re.search(right, clause) and not re.search(wrong, clause) for clause in clauses)


def reason_figures(reasons: Sequence[str], cues: Sequence[tuple[str, bool] | None]) -> dict[str, float]:
    """Return `reasons`, `names_cue`, `names_cue_by_chance` and `names_direction`.

    `reasons` is the number of clips that have a reason and a cue; the other three are shares of these, in [0, 1], and
    are absent if there are none.

    Args:
        reasons: one per clip; "" if there is none.
        cues: as `cue_of` returns them, one per clip.
    """
    pairs = [(reason, cue) for reason, cue in zip(reasons, cues, strict=True) if reason and cue is not None]
    figures = {"reasons": float(len(pairs))}
    if not pairs:
        return figures
    fields = Counter(field for _, (field, _) in pairs)
    named = {field: sum(names_cue(reason, field) for reason, _ in pairs) / len(pairs) for field in fields}
    return figures | {
        "names_cue": sum(names_cue(reason, field) for reason, (field, _) in pairs) / len(pairs),
        "names_cue_by_chance": sum(count / len(pairs) * named[field] for field, count in fields.items()),
        "names_direction": sum(names_direction(reason, *cue) for reason, cue in pairs) / len(pairs),
    }


def label_figures(labels: Sequence[str], without: Sequence[str | None]) -> dict[str, float]:
    """Return `same_label`, the share of clips with equal labels, and `same_label_clips`, of how many clips.

    Args:
        labels: of the answers with a reason; "" for an abstention.
        without: of the stored answers to the same prompt without the reason; None if that was never asked.
    """
    pairs = [(label, other) for label, other in zip(labels, without, strict=True) if label and other]
    share = {"same_label": sum(a == b for a, b in pairs) / len(pairs)} if pairs else {}
    return {"same_label_clips": float(len(pairs))} | share
