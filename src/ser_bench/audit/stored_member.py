"""The members of a fusion during its audit: they answer with their stored predictions, as when the fusion was made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ser_bench import predictors
from ser_bench.errors import SerBenchError
from ser_bench.predictors import GivesVectors
from ser_bench.tracking import StoredRun
from ser_bench.types import FloatArray, Predictions, Predictor, Row


@dataclass(frozen=True)
class AuditedMember:
    """A member of a fusion (`types.FusionMember`).

    Attributes:
        stored: its run.
        restore: returns its restored predictor; called for vectors only.
    """

    stored: StoredRun
    restore: Callable[[], Predictor] = field(repr=False)

    @property
    def name(self) -> str:
        """Name of its model."""
        return self.stored.tags["model"].replace("+", "_")

    @property
    def run_id(self) -> str:
        """Id of its run."""
        return self.stored.run_id

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the stored predictions of these rows.

        Raises:
            SerBenchError: the run has not stored one of them.
        """
        index = {row: i for i, row in enumerate(self._stored_predictions.rows)}
        if not set(rows) <= set(index):
            raise SerBenchError(f"run {self.run_id} ({self.stored.name}) has not stored predictions of all rows")
        return self._stored_predictions.take([index[row] for row in rows])

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return vectors [N, D] of its classifier.

        Raises:
            SerBenchError: it has none, or cannot be restored.
        """
        return predictors.require_capability(self._predictor, GivesVectors).vectors(rows)

    @cached_property
    def _stored_predictions(self) -> Predictions:
        return self.stored.predictions()

    @cached_property
    def _predictor(self) -> Predictor:
        return self.restore()
