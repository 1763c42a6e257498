"""`model=listeners`: what people heard, as a row beside the predictors. A reference: nothing is learnt.

Every clip was heard by several people, and each named one emotion. The answer is the plurality, from sound alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ser_bench.config import Target
from ser_bench.errors import ConfigError
from ser_bench.predictors.base import Plain, generator_of
from ser_bench.types import Predictions, Row

TIE_BREAK = 1e-6
"""Added to the share of a tied label that was drawn: far below one vote, and enough to make it the largest."""


class Listeners(Plain):
    """Vote shares as probabilities, the most frequent vote as the answer; without votes, an abstention.

    Votes for labels that are not the run's are dropped. Of tied labels one is drawn, by the run's seed and the clip's
    id; `facts` has the figures without that draw.
    """

    name: ClassVar[str] = "listeners"
    _facts: Mapping[str, float] = {}

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Nothing is learnt: listeners saw no training rows.

        Raises:
            ConfigError: their votes are what is scored.
        """
        if self._cfg.corpus.target is Target.votes:
            raise ConfigError("model=listeners under corpus.target=votes would score the listeners by their own votes")
        return {}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Answers of the people who heard the clean clip; variants of a clip share them. Nobody's time is known: 0 s.

        Raises:
            ConfigError: the corpus has no votes.
            CorpusError: it has, but this copy lacks the table.
        """
        votes = self._inputs.votes(rows)
        counts = np.array(
            [[float((one or {}).get(label, 0)) for label in self._labels] for one in votes], dtype=np.float64
        ).reshape(len(rows), len(self._labels))
        silent = counts.sum(axis=1) == 0
        winners = (counts == counts.max(axis=1, keepdims=True)) & ~silent[:, None]
        shares = np.where(silent[:, None], 1.0, counts)
        shares /= shares.sum(axis=1, keepdims=True)
        for i in map(int, np.flatnonzero(winners.sum(axis=1) > 1)):
            shares[i, generator_of(self._seed, rows[i].clip_id).choice(np.flatnonzero(winners[i]))] += TIE_BREAK
        shares /= shares.sum(axis=1, keepdims=True)
        predictions = self._predictions(rows, shares, "votes", abstained=silent)
        self._facts = {
            "listeners/votes_per_clip": float(counts.sum() / max(1, len(rows))),
            "listeners/without_votes": float(silent.sum()),
            "listeners/tied": float((winners.sum(axis=1) > 1).sum()),
        } | shared_out(winners, predictions.truth, self._labels)
        return predictions

    def facts(self) -> Mapping[str, float]:
        """Of the last `predict`: counts of clips, and the figures of `shared_out`."""
        return self._facts


def shared_out(winners: npt.NDArray[np.bool_], truth: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Accuracy, recall and UAR in which a tie is worth its share rather than a draw's luck.

    The credit of a row is [truth in winners] / |winners|, 0 where nobody voted: the expected value over all ways to
    break its tie. Accuracy is the mean credit, recall that over the rows of a class, UAR the mean recall of the
    classes that occur. Range [0, 1]. Rows without a known truth are left out.

    Args:
        winners: [N, C], the labels with most votes.
        truth: N labels.
        labels: C labels.

    Returns:
        `listeners/accuracy_shared`, `listeners/uar_shared` and `listeners/recall_shared/<label>`; {} without a truth.

    >>> shared_out(np.array([[True, True], [True, False], [False, True]]), ("angry", "sad", "sad"), ("angry", "sad"))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'listeners/accuracy_shared': 0.5, 'listeners/uar_shared': 0.5,
     'listeners/recall_shared/angry': 0.5, 'listeners/recall_shared/sad': 0.5}
    """
    known = [i for i, label in enumerate(truth) if label in labels]
    if not known:
        return {}
    right = winners[known, [labels.index(truth[i]) for i in known]]
    credit = right / winners[known].sum(axis=1).clip(min=1)
    said = np.array([truth[i] for i in known])
    recall = {label: float(credit[said == label].mean()) for label in labels if label in said}
    return {
        "listeners/accuracy_shared": float(credit.mean()),
        "listeners/uar_shared": sum(recall.values()) / len(recall),
    } | {f"listeners/recall_shared/{label}": value for label, value in recall.items()}
