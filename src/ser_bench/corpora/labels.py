"""Canonical labels, their order, the label sets of `corpus.labels`, and what a label may be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from ser_bench.config import LabelSet
from ser_bench.corpora.names import check_characters, find_alike, likeness, nfc, normalised

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

MAX_CHARACTERS = 64
"""Longest label; MLflow allows 250 characters for the name of a metric, which contains a label."""
RESERVED = frozenset(
    {"abstained", "(abstained)", "accuracy", "macro avg", "weighted avg", "predictor", "file", "emotion"}
)
"""Rows and columns beside those of the labels, in reports and in the output of `ser-bench predict`."""


def canonical(name: str) -> str:
    """Return the canonical label of an emotion; a name without a canonical label is returned normalised in lower case.

    >>> canonical("Anger"), canonical(" joy "), canonical("Frustrated")
    ('angry', 'happy', 'frustrated')
    """
    key = nfc(normalised(name).lower())
    return SYNONYMS.get(key, key)


def check_label(label: str) -> None:
    """Check that a label can be stored and shown: it is part of the names of metrics and a column of reports.

    Raises:
        ValueError: if the label is empty or too long, consists of dots, is reserved, or contains a slash, a backslash
            or an invisible character.
    """
    check_characters("emotion", label)
    problem = ""
    if not 1 <= len(label) <= MAX_CHARACTERS:
        problem = f"has {len(label)} characters"
    elif "/" in label or "\\" in label:
        problem = "contains a slash or backslash"
    elif not label.strip("."):
        problem = "is a dot"
    elif label in RESERVED:
        problem = "is reserved for a row or column of reports"
    if problem:
        raise ValueError(
            f"the emotion {label[:MAX_CHARACTERS]!r} {problem}; a label has 1 to {MAX_CHARACTERS} characters, without "
            "slash and backslash, and is not the name of a column of a report; choose another name"
        )


def find_alike_labels(labels: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two different labels that are probably one, or whose metrics would have one name; else None.

    >>> find_alike_labels(["very sad", "sad", "very_sad"]), find_alike_labels(["a+", "a*"])
    (('very sad', 'very_sad'), ('a+', 'a*'))
    >>> find_alike_labels(["+", "-"])
    """
    names = list(labels)
    return find_alike(names, _spaced) or find_alike(names, _in_metric_names)


def _spaced(label: str) -> str:
    return re.sub(r"(?<=\w)[_-]+(?=\w)", " ", likeness(label).replace("_", "-"))


def _in_metric_names(label: str) -> str:
    """Return the label as the names of metrics contain it, where only these characters are possible."""
    return re.sub(r"[^\w.\- :]", "_", label)


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
