"""`model=egemaps`: openSMILE's eGeMAPSv02 functionals under a light head, the classical acoustic baseline."""

from __future__ import annotations

from collections.abc import Sequence

from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.predictors.registry import Need, register
from ser_bench.types import FloatArray, Row


# The group `augment`: variants are not trained on, but `split=paper` tests them.
@register("egemaps", groups=("head", "adapt", "augment"), needs=(Need.audio,))
class Egemaps(Probe):
    """88 functionals of a clip under the head chosen by `head=`."""

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        return self._inputs.egemaps(rows)
