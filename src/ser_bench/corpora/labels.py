"""Canonical labels, their order, and the label sets of `corpus.labels`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ser_bench.config import LabelSet

BASIC6: tuple[str, ...] = ("angry", "disgust", "fearful", "happy", "neutral", "sad")
"""The six labels of CREMA-D; every published corpus here has them."""
CANONICAL: tuple[str, ...] = (*BASIC6, "calm", "surprised", "bored")
"""All labels of the published corpora. The columns of a probability matrix are in this order."""

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
"""Common names of emotions in users' tables → canonical label."""


def canonical(name: str) -> str:
    """Return the canonical label of an emotion; a name without a canonical label is returned in lower case.

    >>> canonical("Anger"), canonical(" joy "), canonical("Frustrated")
    ('angry', 'happy', 'frustrated')
    """
    key = name.strip().lower()
    return SYNONYMS.get(key, key)


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Return distinct labels in canonical order, followed by those that are not canonical in alphabetical order.

    >>> ordered(["sad", "amused", "angry", "sad"])
    ('angry', 'sad', 'amused')
    """
    rank = {label: i for i, label in enumerate(CANONICAL)}
    return tuple(sorted(set(names), key=lambda label: (rank.get(label, len(rank)), label)))


def choose(native: Sequence[str], label_set: LabelSet) -> tuple[str, ...]:
    """Return the labels of a run: all labels of the corpus (`native`), or `BASIC6`."""
    return ordered(native) if label_set is LabelSet.native else BASIC6


def count_excluded(emotions: Iterable[str], labels: Sequence[str]) -> dict[str, int]:
    """Return label → number of clips that are left out because their label is not one of `labels`."""
    counts = Counter(emotion for emotion in emotions if emotion not in labels)
    return {label: counts[label] for label in ordered(counts)}
