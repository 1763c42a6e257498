"""The prosody of a clip in words and figures, relative to norms from training rows.

A clip is compared with the norms of its speaker if the training rows hold at least `MIN_SPEAKER_CLIPS` clips of that
speaker, which happens only under protocols that split clips or sentences. Otherwise it is compared with the norms of
all training clips. Test rows never enter the norms.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ser_bench.features.prosody import Prosody

MIN_SPEAKER_CLIPS = 10
"""Training clips of a speaker that are needed for norms of this speaker."""
SLIGHT, STRONG = 0.5, 1.5
"""Standard deviations from which a difference is stated, and from which it is called "much"."""
NO_VOICE = "no voiced speech in this recording"


@dataclass(frozen=True, slots=True)
class ProsodyMeasure:
    """How one measure is described in a prompt.

    Attributes:
        field: name of the field of `Prosody`.
        name: name in the prompt.
        more: word for a value above the norm.
        less: word for a value below the norm.
        unit: unit of the figure.
        difference: True if only the difference from the norm has a meaning, and the absolute value has none.
    """

    field: str
    name: str
    more: str
    less: str
    unit: str
    difference: bool = False


MEASURES = (
    ProsodyMeasure("pitch_semitones", "pitch level", "higher", "lower", "semitones", difference=True),
    ProsodyMeasure("pitch_range_semitones", "pitch range", "wider", "narrower", "semitones"),
    ProsodyMeasure("pitch_slope", "pitch slope", "more rising", "more falling", "semitones per second"),
    ProsodyMeasure("loudness_db", "loudness", "louder", "softer", "dB", difference=True),
    ProsodyMeasure("syllables_per_second", "speaking rate", "faster", "slower", "syllables per second"),
    ProsodyMeasure("pause_percent", "pauses", "more", "fewer", "% of the time"),
    ProsodyMeasure("jitter_percent", "jitter", "higher", "lower", "%"),
    ProsodyMeasure("shimmer_percent", "shimmer", "higher", "lower", "%"),
    ProsodyMeasure("harmonicity_db", "harmonics-to-noise ratio", "higher", "lower", "dB"),
)

Moments = Mapping[str, tuple[float, float]]
"""Field of `Prosody` → (mean, standard deviation)."""


@dataclass(frozen=True)
class ProsodyNorms:
    """Mean and standard deviation of every measure over training clips.

    Attributes:
        corpus: over all training clips.
        speakers: speaker → the same over the clips of this speaker, for speakers with enough clips.
    """

    corpus: Moments
    speakers: Mapping[str, Moments]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        speakers = {name: dict(moments) for name, moments in self.speakers.items()}
        return {"corpus": dict(self.corpus), "speakers": speakers}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ProsodyNorms:
        """Return the norms that `to_json` wrote."""

        def moments(stored: Mapping[str, Sequence[float]]) -> Moments:
            return {field: (mean, std) for field, (mean, std) in stored.items()}

        return cls(moments(value["corpus"]), {name: moments(stored) for name, stored in value["speakers"].items()})


def learn(prosodies: Sequence[Prosody], speakers: Sequence[str]) -> ProsodyNorms:
    """Return the norms of training clips, given the prosody and the speaker of each clip."""
    by_speaker: dict[str, list[Prosody]] = defaultdict(list)
    for prosody, speaker in zip(prosodies, speakers, strict=True):
        by_speaker[speaker].append(prosody)
    enough = {name: clips for name, clips in sorted(by_speaker.items()) if len(clips) >= MIN_SPEAKER_CLIPS}
    return ProsodyNorms(_moments(prosodies), {name: _moments(clips) for name, clips in enough.items()})


def z_scores(prosody: Prosody, speaker: str, norms: ProsodyNorms) -> dict[str, float]:
    """Return field of `Prosody` → distance from the norm in standard deviations; measures that are missing are absent.

    The norms are those of the speaker or of the corpus, as in `describe`.
    """
    moments = _moments_for(speaker, norms)
    pairs = [(measure.field, getattr(prosody, measure.field)) for measure in MEASURES if measure.field in moments]
    return {field: _distance(value, moments[field]) for field, value in pairs if value is not None}


def describe(prosody: Prosody, speaker: str, norms: ProsodyNorms) -> str:
    """Return one line per measure, relative to the norms of the speaker or of the corpus.

    For example "- speaking rate: faster (5.1 syllables per second; usual 4.2)".
    """
    moments = _moments_for(speaker, norms)
    lines = [_line(measure, getattr(prosody, measure.field), moments) for measure in MEASURES]
    stated = [line for line in lines if line]
    if not stated:
        return NO_VOICE
    of_speaker = speaker in norms.speakers
    reference = "other recordings of this speaker" if of_speaker else "recordings of other speakers"
    return "\n".join([f"compared with {reference}:", *stated])


def _moments_for(speaker: str, norms: ProsodyNorms) -> Moments:
    return norms.speakers.get(speaker, norms.corpus)


def _distance(value: float, moments: tuple[float, float]) -> float:
    """Return the distance from the mean in standard deviations; 0 if the training clips do not vary."""
    mean, std = moments
    return (value - mean) / std if std > 0 else 0.0


def _moments(prosodies: Sequence[Prosody]) -> Moments:
    moments = {}
    for measure in MEASURES:
        values = [value for prosody in prosodies if (value := getattr(prosody, measure.field)) is not None]
        if values:
            moments[measure.field] = (statistics.fmean(values), statistics.pstdev(values))
    return moments


def _line(measure: ProsodyMeasure, value: float | None, moments: Moments) -> str:
    """Return the line of one measure, or "" if the clip or the norms do not have it."""
    if value is None or measure.field not in moments:
        return ""
    mean, _ = moments[measure.field]
    distance = _distance(value, moments[measure.field])
    word = measure.more if distance > 0 else measure.less
    words = "as usual" if abs(distance) < SLIGHT else word if abs(distance) < STRONG else f"much {word}"
    if measure.difference:
        return f"- {measure.name}: {words} ({value - mean:+.1f} {measure.unit})"
    return f"- {measure.name}: {words} ({value:.1f} {measure.unit}; usual {mean:.1f})"
