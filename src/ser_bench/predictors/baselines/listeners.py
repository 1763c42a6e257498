"""`model=listeners`: the votes of human listeners as a baseline predictor; nothing is learnt.

Several people listened to each clip, audio only, and each chose one emotion. The prediction is the plurality of their
votes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ser_bench.config import Target
from ser_bench.errors import ConfigError
from ser_bench.evaluation import metrics
from ser_bench.predictors.base import LightPredictor, generator_of
from ser_bench.predictors.registry import Need, register
from ser_bench.types import Predictions, Row

TIE_BREAK = 1e-6
"""Added to the share of the tied label that was drawn; far below the share of one vote."""


@register("listeners", needs=(Need.votes,))
class Listeners(LightPredictor):
    """Vote shares as probabilities, and the most frequent vote as the label; without votes, an abstention.

    Votes for labels that are not the run's are dropped. One of several tied labels is drawn, by the run's seed and the
    clip's id; `facts` has the figures without that draw.
    """

    _facts: Mapping[str, float] = {}

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Return {}: nothing is learnt.

        Raises:
            ConfigError: the votes are the labels that are scored (`corpus.target=votes`).
        """
        if self._cfg.corpus.target is Target.votes:
            raise ConfigError("model=listeners under corpus.target=votes would score the listeners by their own votes")
        return {}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the votes for the clean clip; its variants share them. The latency is 0, because it is unknown.

        Raises:
            ConfigError: the corpus has no votes.
            CorpusError: the corpus has votes, but this copy lacks the table.
        """
        votes = self._inputs.votes(rows)
        counts = np.array(
            [[float((ballot or {}).get(label, 0)) for label in self._labels] for ballot in votes], dtype=np.float64
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
        } | tie_free_scores(winners, predictions.truth, self._labels)
        return predictions

    def facts(self) -> Mapping[str, float]:
        """Return counts of clips in the last `predict`, and the figures of `tie_free_scores`."""
        return self._facts


def tie_free_scores(winners: npt.NDArray[np.bool_], truth: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """Return accuracy, recall and UAR with the expected value over all ways to break a tie.

    The credit of a row is [truth in winners] / |winners|, 0 without votes. Accuracy is the mean credit, recall the mean
    over the rows of a class, UAR the mean recall of the classes that occur. Range [0, 1]. Rows without a known truth
    are left out.

    Args:
        winners: [N, C], the labels with most votes.
        truth: N labels.
        labels: C labels.

    Returns:
        `listeners/accuracy_shared`, `listeners/uar_shared` and `listeners/recall_shared/<label>`; {} without a truth.

    >>> winners = np.array([[True, True], [True, False], [False, True]])
    >>> tie_free_scores(winners, ("angry", "sad", "sad"), ("angry", "sad"))
    ... # doctest: +NORMALIZE_WHITESPACE
    {'listeners/accuracy_shared': 0.5, 'listeners/uar_shared': 0.5,
     'listeners/recall_shared/angry': 0.5, 'listeners/recall_shared/sad': 0.5}
    """
    known = [i for i, label in enumerate(truth) if label in labels]
    if not known:
        return {}
    tied = winners[known].sum(axis=1, keepdims=True)
    answers = np.concatenate([winners[known] / tied.clip(min=1), tied == 0], axis=1)  # no votes: an abstention
    counts = metrics.fractional_confusion([labels.index(truth[i]) for i in known], answers)
    recall = {
        f"listeners/recall_shared/{label}": float(value)
        for label, value, support in zip(labels, metrics.recall(counts), metrics.support(counts), strict=True)
        if support
    }
    return {
        "listeners/accuracy_shared": float(metrics.accuracy(counts)),
        "listeners/uar_shared": float(metrics.uar(counts)),
    } | recall
