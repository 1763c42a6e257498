"""How a voice differs from what is usual, in words with figures; what is usual is learnt from training rows alone.

A voice is set against its own speaker's recordings where enough of them are training rows (protocols that split clips
or sentences), else against all training recordings. Nothing of a test row enters what is usual.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ser_bench.features.prosody import Prosody

OWN_CLIPS = 10
"""From so many training recordings on a speaker is compared with himself."""
SLIGHT, STRONG = 0.5, 1.5
"""Standard deviations from which a difference is told, and from which it is called "much"."""
NO_VOICE = "no voiced speech in this recording"


@dataclass(frozen=True, slots=True)
class Measure:
    """How one measure is told.

    Attributes:
        field: of `Prosody`.
        name: as it stands in the prompt.
        more: word for more of it.
        less: word for less of it.
        unit: of the figure.
        difference: True where only the difference from the usual means something, not the figure itself.
    """

    field: str
    name: str
    more: str
    less: str
    unit: str
    difference: bool = False


MEASURES = (
    Measure("pitch_semitones", "pitch level", "higher", "lower", "semitones", difference=True),
    Measure("pitch_range_semitones", "pitch range", "wider", "narrower", "semitones"),
    Measure("pitch_slope", "pitch slope", "more rising", "more falling", "semitones per second"),
    Measure("loudness_db", "loudness", "louder", "softer", "dB", difference=True),
    Measure("syllables_per_second", "speaking rate", "faster", "slower", "syllables per second"),
    Measure("pause_percent", "pauses", "more", "fewer", "% of the time"),
    Measure("jitter_percent", "jitter", "higher", "lower", "%"),
    Measure("shimmer_percent", "shimmer", "higher", "lower", "%"),
    Measure("harmonicity_db", "harmonics-to-noise ratio", "higher", "lower", "dB"),
)

Usual = Mapping[str, tuple[float, float]]
"""Field → (mean, standard deviation)."""


@dataclass(frozen=True)
class Norms:
    """What is usual.

    Attributes:
        corpus: over all training recordings.
        speakers: over each speaker's own, for those who have enough.
    """

    corpus: Usual
    speakers: Mapping[str, Usual]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"corpus": dict(self.corpus), "speakers": {name: dict(usual) for name, usual in self.speakers.items()}}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Norms:
        """The inverse of `to_json`."""

        def usual(one: Mapping[str, Sequence[float]]) -> Usual:
            return {field: (mean, spread) for field, (mean, spread) in one.items()}

        return cls(usual(value["corpus"]), {name: usual(one) for name, one in value["speakers"].items()})


def learn(measured: Sequence[Prosody], speakers: Sequence[str]) -> Norms:
    """What is usual in training recordings, given with the speaker of each."""
    by_speaker: dict[str, list[Prosody]] = defaultdict(list)
    for one, speaker in zip(measured, speakers, strict=True):
        by_speaker[speaker].append(one)
    enough = {name: own for name, own in sorted(by_speaker.items()) if len(own) >= OWN_CLIPS}
    return Norms(_usual(measured), {name: _usual(own) for name, own in enough.items()})


def describe(found: Prosody, speaker: str, norms: Norms) -> str:
    """One line a measure, against the speaker's own usual or the corpus's.

    For example "- speaking rate: faster (5.1 syllables per second; usual 4.2)".
    """
    own = norms.speakers.get(speaker)
    usual = norms.corpus if own is None else own
    lines = [_line(measure, getattr(found, measure.field), usual) for measure in MEASURES]
    told = [line for line in lines if line]
    if not told:
        return NO_VOICE
    whose = "recordings of other speakers" if own is None else "other recordings of this speaker"
    return "\n".join([f"compared with {whose}:", *told])


def _usual(measured: Sequence[Prosody]) -> Usual:
    usual = {}
    for measure in MEASURES:
        values = [value for one in measured if (value := getattr(one, measure.field)) is not None]
        if values:
            usual[measure.field] = (statistics.fmean(values), statistics.pstdev(values))
    return usual


def _line(measure: Measure, value: float | None, usual: Usual) -> str:
    if value is None or measure.field not in usual:
        return ""
    mean, spread = usual[measure.field]
    distance = (value - mean) / spread if spread > 0 else 0.0
    word = measure.more if distance > 0 else measure.less
    words = "as usual" if abs(distance) < SLIGHT else word if abs(distance) < STRONG else f"much {word}"
    if measure.difference:
        return f"- {measure.name}: {words} ({value - mean:+.1f} {measure.unit})"
    return f"- {measure.name}: {words} ({value:.1f} {measure.unit}; usual {mean:.1f})"
