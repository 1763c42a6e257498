"""`model=egemaps`: openSMILE's eGeMAPSv02 functionals under a light head: the field's classical baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.types import FloatArray, Row


class Egemaps(Probe):
    """88 functionals of a clip → (adapted to the speaker) → the head chosen by `head=`."""

    name: ClassVar[str] = "egemaps"
    groups: ClassVar[tuple[str, ...]] = ("head", "adapt", "augment")
    """Variants are not trained on, but `split=paper` tests them."""

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        return self._inputs.egemaps(rows)
