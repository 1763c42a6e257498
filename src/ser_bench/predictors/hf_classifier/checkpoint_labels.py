"""Which label of a corpus each label of a checkpoint stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_bench.corpora.labels import canonical


@dataclass(frozen=True)
class LabelMatch:
    """The labels of a checkpoint and those of a corpus.

    Attributes:
        columns: for each label of the checkpoint, the index of the corpus's label that it stands for; −1 for none.
        supported: labels of the corpus that the checkpoint knows, in the order of the corpus.
        missing: labels of the corpus that it does not know.
        dropped: labels of the checkpoint that the corpus does not have, as the checkpoint names them.
    """

    columns: tuple[int, ...]
    supported: tuple[str, ...]
    missing: tuple[str, ...]
    dropped: tuple[str, ...]


def match(of_checkpoint: Sequence[str], of_corpus: Sequence[str], aliases: Mapping[str, str]) -> LabelMatch:
    """Return which labels stand for one another.

    Args:
        of_checkpoint: K labels, as the checkpoint names them.
        of_corpus: C labels.
        aliases: name in a checkpoint, in lower case → canonical label; a label of the corpus stands for itself, and
            other names are read as those in tables of corpora (`corpora.labels.canonical`).
    """
    known = {name.lower(): label for name, label in aliases.items()} | {label.lower(): label for label in of_corpus}
    stands_for = [known.get(name.strip().lower()) or canonical(name) for name in of_checkpoint]
    columns = tuple(of_corpus.index(label) if label in of_corpus else -1 for label in stands_for)
    return LabelMatch(
        columns,
        tuple(label for i, label in enumerate(of_corpus) if i in columns),
        tuple(label for i, label in enumerate(of_corpus) if i not in columns),
        tuple(name for name, column in zip(of_checkpoint, columns, strict=True) if column < 0),
    )


def probabilities_of(scores: npt.NDArray[np.floating], labels: LabelMatch, count: int) -> npt.NDArray[np.float64]:
    """Return the probabilities [N, C] of the corpus's labels from the scores [N, K] of the checkpoint's.

    They are the softmax over the labels that the corpus has. Labels that stand for the same one are added; a label that
    the checkpoint does not know has probability 0.
    """
    columns = np.array(labels.columns)
    kept = scores[:, columns >= 0].astype(np.float64)
    shares = np.exp(kept - kept.max(axis=1, keepdims=True)) if kept.size else kept
    result = np.zeros((len(scores), count))
    for place, column in enumerate(columns[columns >= 0]):
        result[:, column] += shares[:, place]
    result /= result.sum(axis=1, keepdims=True)
    return result
