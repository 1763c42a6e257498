"""`model=egemaps`: openSMILE's eGeMAPSv02 functionals under a light head, the classical acoustic baseline."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_bench.config import Config
from ser_bench.features import egemaps_functionals
from ser_bench.predictors.base import DESCRIPTION_FILE, FORMAT
from ser_bench.predictors.capabilities import UsesLicensedParts
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.predictors.registry import Need, register
from ser_bench.predictors.stored_model import read_description
from ser_bench.types import FloatArray, Row
from ser_bench.weights import LicensedPart

log = logging.getLogger(__name__)

REVISION_KEY = "functionals_revision"
"""Key of the stored description: revision of the functionals that the head was fitted to; 1 if it is absent."""


# The group `augment`: variants are not trained on, but `split=paper` tests them.
@register("egemaps", groups=("head", "adapt", "augment"), needs=(Need.audio,))
class Egemaps(Probe, UsesLicensedParts):
    """88 functionals of a clip under the head chosen by `head=`."""

    _functionals_revision = egemaps_functionals.REVISION

    @classmethod
    def reason_outdated(cls, folder: Path) -> str:
        """Return a reason if the head was fitted to functionals of an earlier revision."""
        return _outdated(read_description(folder / DESCRIPTION_FILE, FORMAT).get(REVISION_KEY, 1))

    @classmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return openSMILE."""
        licence = "audEERING's licence allows research, not commercial use"
        return [LicensedPart("openSMILE, software", "audeering/opensmile-python", licence)]

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        return self._inputs.egemaps(rows)

    def _state(self, folder: Path) -> dict[str, Any]:
        revision = {} if self._functionals_revision == 1 else {REVISION_KEY: self._functionals_revision}
        return super()._state(folder) | revision

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        super()._restore(stored, folder)
        self._functionals_revision = int(stored.get(REVISION_KEY, 1))
        if reason := _outdated(self._functionals_revision):
            log.warning("warning  %s: its predictions for such clips are wrong; train it again with force=true", reason)


def _outdated(revision: int) -> str:
    if revision == egemaps_functionals.REVISION:
        return ""
    return (
        f"this predictor was fitted to eGeMAPS functionals of revision {revision}, and this version computes revision "
        f"{egemaps_functionals.REVISION}; they differ for clips with samples beyond full scale"
    )
