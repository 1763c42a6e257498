"""The best accuracy and UAR that knowledge of the spoken sentence alone allows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Ceiling(NamedTuple):
    """The best result of any predictor whose only input is the sentence that was spoken; both in [0, 1]."""

    accuracy: float
    uar: float


def sentence_ceiling(sentences: Sequence[str], truth: Sequence[str]) -> Ceiling:
    """Return the best accuracy and UAR that a function from sentence to label can reach on these clips.

    With n(s, c) clips of sentence s and class c, n(c) of class c, N clips and C classes that occur:

        accuracy = Σ_s max_c n(s, c) / N            UAR = (1 / C) Σ_s max_c n(s, c) / n(c)

    because one label is chosen per sentence: this adds n(s, c) / N to accuracy and n(s, c) / (C · n(c)) to UAR. The two
    maxima may need different choices. Range [1/C, 1]: 1/C (UAR) if every sentence is spoken equally often in every
    class, 1 if every sentence belongs to one class. A predictor that reads a recogniser's transcript can exceed the
    ceiling, because the recogniser's errors depend on how a sentence was spoken.

    Args:
        sentences: N codes of sentences.
        truth: N labels.

    Raises:
        ValueError: if there are no clips, or the two arguments differ in length.

    >>> sentence_ceiling(["a", "a", "a", "b", "b"], ["sad", "sad", "angry", "sad", "angry"])
    Ceiling(accuracy=0.6, uar=0.5833333333333333)
    """
    if not truth:
        raise ValueError("the ceiling of no clips is undefined; give at least one clip")
    together = Counter(zip(sentences, truth, strict=True))
    support = Counter(truth)
    most: dict[str, int] = {}
    gain: dict[str, float] = {}
    for (sentence, label), count in together.items():
        most[sentence] = max(most.get(sentence, 0), count)
        gain[sentence] = max(gain.get(sentence, 0.0), count / support[label])
    return Ceiling(sum(most.values()) / len(truth), sum(gain.values()) / len(support))
