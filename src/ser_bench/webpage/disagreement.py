"""How often each predictor was right on the test clips about which several predictors disagreed.

It is computed from the stored predictions of the runs. It says nothing about the clip of the user, except what it has
in common with those test clips: the same predictors disagreed, where possible with the same labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ser_bench.errors import NotComparableError
from ser_bench.types import Predictions

MIN_ROWS = 20
"""Rows with the same labels from which their shares are stated; with fewer, those of all disagreements are."""


@dataclass(frozen=True)
class PredictorTest:
    """The test of one run.

    Attributes:
        name: unique among the runs.
        partition: digest of the split (`types.Split.partition`).
        predictions: of the test rows.
    """

    name: str
    partition: str
    predictions: Predictions


@dataclass(frozen=True)
class DisagreementShares:
    """How often each predictor was right on a set of test rows.

    Attributes:
        right: name of the run → number of rows for which it was right.
        rows: number of rows on which at least two of the runs differ.
        of_rows: number of rows that all runs predicted.
        same_labels: True if the rows are those on which each run gave the label that it gives now.
    """

    right: Mapping[str, int]
    rows: int
    of_rows: int
    same_labels: bool

    def share(self, name: str) -> float:
        """Return the share of the rows for which this run was right, 0 to 1; NaN without rows."""
        return self.right[name] / self.rows if self.rows else float("nan")


class Disagreements:
    """The test rows on which runs of one partition disagree. An abstention is a label of its own, which is wrong.

    Args:
        runs: at least two, with different names.

    Raises:
        NotComparableError: the runs were tested on different clips or over different labels.
    """

    def __init__(self, runs: Sequence[PredictorTest]) -> None:
        first = runs[0]
        for run in runs[1:]:
            if run.partition != first.partition:
                raise NotComparableError(
                    f"{run.name} and {first.name} were tested on different splits, so their test clips differ"
                )
            if set(run.predictions.labels) != set(first.predictions.labels):
                raise NotComparableError(f"{run.name} and {first.name} have different labels")
        by_row = [dict(zip(run.predictions.rows, run.predictions.predicted, strict=True)) for run in runs]
        truth = dict(zip(first.predictions.rows, first.predictions.truth, strict=True))
        common = [row for row in truth if all(row in labels for labels in by_row)]
        self.names = tuple(run.name for run in runs)
        self._of_rows = len(common)
        answers = [(tuple(labels[row] for labels in by_row), truth[row]) for row in common]
        self._rows = [(given, right) for given, right in answers if len(set(given)) > 1]

    def all(self) -> DisagreementShares:
        """Return the shares over all rows with a disagreement."""
        return self._shares(lambda given: True, same_labels=False)

    def like(self, labels: Sequence[str]) -> DisagreementShares:
        """Return the shares over the rows on which each run gave these labels.

        If there are fewer than `MIN_ROWS`, return those over all rows with a disagreement.

        Args:
            labels: what each run says now, in the order of `names`; "" for an abstention.
        """
        wanted = tuple(labels)
        same = self._shares(lambda given: given == wanted, same_labels=True)
        return same if same.rows >= MIN_ROWS else self.all()

    def _shares(self, chosen: Callable[[tuple[str, ...]], bool], same_labels: bool) -> DisagreementShares:
        rows = [(given, right) for given, right in self._rows if chosen(given)]
        right = {name: sum(given[i] == truth for given, truth in rows) for i, name in enumerate(self.names)}
        return DisagreementShares(right, len(rows), self._of_rows, same_labels)
