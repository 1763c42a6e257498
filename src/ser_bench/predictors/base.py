"""What the predictors without a network share: how they are stored, and how probabilities become predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config
from ser_bench.errors import ConfigError
from ser_bench.predictors.registry import Need
from ser_bench.predictors.stored_model import check_description, read_description
from ser_bench.types import CLEAN, EpochLog, Inputs, Predictions, Row, digest_of

FORMAT = 1
"""Version of the saved folder; raised when `load` can no longer read older ones."""
DESCRIPTION_FILE = "predictor.json"


class LightPredictor:
    """Base of the predictors without a network. A subclass writes `fit`, `predict`, `_state` and `_restore`."""

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[Need]]

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        self._cfg = cfg
        self._labels = labels
        self._inputs = inputs
        self._seed = cfg.seed

    def facts(self) -> Mapping[str, float]:
        """Return {}: the predictions hold everything."""
        return {}

    def save(self, folder: Path) -> None:
        """Write what `load` needs: a JSON description, and arrays as safetensors."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {"format": FORMAT, "predictor": self.name, "labels": self._labels, "seed": self._seed}
        text = json.dumps(described | self._state(folder), indent=2, ensure_ascii=False)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """Restore what `save` wrote, with its seed; nothing in the folder is executed.

        Raises:
            SerBenchError: the folder holds another predictor, other labels, or files that cannot be read.
        """
        stored = read_description(folder / DESCRIPTION_FILE, FORMAT)
        check_description(stored, folder, cls.name, labels)
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, metrics: None)
        predictor._seed = int(stored["seed"])
        predictor._restore(stored, folder)
        return predictor

    def _state(self, folder: Path) -> dict[str, Any]:
        """Return what was learnt, for the JSON; write arrays to files in `folder`."""
        return {}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        """Read back what `_state` returned and wrote."""

    def _label_index(self, labels: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return [N] label indices."""
        return np.array([self._labels.index(label) for label in labels], dtype=np.int64)

    def _clean(self, train: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """Return the clean training rows and their labels: a clip counts once, however many variants it has.

        Raises:
            ConfigError: there is none, or one has a label that is not among the run's.
        """
        rows = [row for row in train if row.variant == CLEAN]
        truth = self._inputs.truth(rows)
        unknown = sorted(set(truth) - set(self._labels))
        if unknown:
            raise ConfigError(f"labels {unknown} of training rows are not among {', '.join(self._labels)}")
        if not rows:
            raise ConfigError(f"model={self.name} is trained on clean rows, and there are none: see augment.variants")
        return rows, truth

    def _predictions(
        self,
        rows: Sequence[Row],
        probabilities: npt.NDArray[np.floating[Any]],
        source: str,
        seconds: float = 0.0,
        abstained: npt.NDArray[np.bool_] | None = None,
    ) -> Predictions:
        """Return [N, C] probabilities as predictions; `seconds` are divided evenly among the rows."""
        count = len(rows)
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self._inputs.truth(rows)),
            labels=self._labels,
            probabilities=probabilities.reshape(count, len(self._labels)).astype(np.float32),
            abstained=np.zeros(count, dtype=np.bool_) if abstained is None else abstained,
            latency_s=np.full(count, seconds / max(1, count), dtype=np.float32),
            cost_usd=np.zeros(count, dtype=np.float32),
            source=source,
        )


def generator_of(seed: int, clip_id: str) -> np.random.Generator:
    """Return the random numbers of one clip: the same in any order, batch or process."""
    return np.random.default_rng(int(digest_of([seed, clip_id]), 16))
