"""How much of the emotion the words alone can give away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Ceiling(NamedTuple):
    """The best that any predictor can reach that knows which sentence was spoken and nothing else; both in [0, 1]."""

    accuracy: float
    uar: float


def sentence_ceiling(sentences: Sequence[str], truth: Sequence[str]) -> Ceiling:
    """Best possible accuracy and UAR of a function from sentence to label, on these very clips.

    With n(s, c) clips of sentence s and class c, n(c) of class c, N clips and C classes that occur:

        accuracy = Σ_s max_c n(s, c) / N            UAR = (1 / C) Σ_s max_c n(s, c) / n(c)

    because one label is chosen per sentence: accuracy gains n(s, c) / N by it, UAR gains n(s, c) / (C · n(c)). The two
    maxima may need different choices. Range [1/C, 1]; 1/C where every sentence is spoken equally often in every class
    (UAR), and 1 where a sentence belongs to one class. A predictor that reads a recogniser's transcript can exceed it,
    because the recogniser's errors depend on how a sentence was said.

    Args:
        sentences: N codes of sentences.
        truth: N labels.

    Raises:
        ValueError: there are no clips, or the two are not equally long.

    >>> sentence_ceiling(["a", "a", "a", "b", "b"], ["sad", "sad", "angry", "sad", "angry"])
    Ceiling(accuracy=0.6, uar=0.5833333333333333)
    """
    if not truth:
        raise ValueError("there are no clips to know the sentence of")
    together = Counter(zip(sentences, truth, strict=True))
    support = Counter(truth)
    most: dict[str, int] = {}
    gain: dict[str, float] = {}
    for (sentence, label), count in together.items():
        most[sentence] = max(most.get(sentence, 0), count)
        gain[sentence] = max(gain.get(sentence, 0.0), count / support[label])
    return Ceiling(sum(most.values()) / len(truth), sum(gain.values()) / len(support))
