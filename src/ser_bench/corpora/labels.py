"""Canonical names of emotions, their order, and the two label sets that a run can ask for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ser_bench.config import LabelSet

BASIC6: tuple[str, ...] = ("angry", "disgust", "fearful", "happy", "neutral", "sad")
"""CREMA-D's six, which every corpus here has."""
CANONICAL: tuple[str, ...] = (*BASIC6, "calm", "surprised", "bored")
"""Every label of a published corpus; the columns of a probability matrix follow this order."""

SYNONYMS: dict[str, str] = {
    "anger": "angry",
    "disgusted": "disgust",
    "fear": "fearful",
    "afraid": "fearful",
    "anxiety": "fearful",
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprise": "surprised",
    "boredom": "bored",
    "calmness": "calm",
}
"""What people write in their own tables → canonical."""


def canonical(name: str) -> str:
    """The canonical spelling of an emotion; a name that is not known comes back in lower case.

    >>> canonical("Anger"), canonical(" joy "), canonical("Frustrated")
    ('angry', 'happy', 'frustrated')
    """
    key = name.strip().lower()
    return SYNONYMS.get(key, key)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels in canonical order, those that are not canonical last, by name."""
    rank = {label: i for i, label in enumerate(CANONICAL)}
    return tuple(sorted(set(names), key=lambda label: (rank.get(label, len(rank)), label)))


def choose(native: Sequence[str], label_set: LabelSet) -> tuple[str, ...]:
    """The labels of a run: all that the corpus has, or CREMA-D's six."""
    return ordered(native) if label_set is LabelSet.native else BASIC6


def left_out(emotions: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Label → how many clips of it are left out because it is not among `labels`."""
    counts = Counter(emotion for emotion in emotions if emotion not in labels)
    return {label: counts[label] for label in ordered(counts)}
