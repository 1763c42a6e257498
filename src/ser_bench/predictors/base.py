"""What the predictors without a network have in common: how they are stored, and how answers become predictions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.types import CLEAN, EpochLog, Inputs, Predictions, Row, digest_of

FORMAT = 1
"""Of the saved folder; raised when `load` could no longer read what older versions wrote."""
DESCRIPTION_FILE = "predictor.json"


class Plain:
    """Base of the controls: `fit`, `predict`, `_state` and `_restore` are theirs to write."""

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]] = ()
    """Model, seed, corpus and split are in every run's key; most controls depend on nothing else."""

    def __init__(
        self, cfg: Config, labels: tuple[str, ...], inputs: Inputs, work_dir: Path, on_epoch: EpochLog
    ) -> None:
        self._cfg = cfg
        self._labels = labels
        self._inputs = inputs
        self._seed = cfg.seed

    def facts(self) -> Mapping[str, float]:
        """Nothing beyond what the predictions themselves say."""
        return {}

    def save(self, folder: Path) -> None:
        """Write what `load` needs as JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {"format": FORMAT, "predictor": self.name, "labels": self._labels, "seed": self._seed}
        text = json.dumps(described | self._state(folder), indent=2, ensure_ascii=False)
        (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, cfg: Config, labels: tuple[str, ...], inputs: Inputs) -> Self:
        """Restore what `save` wrote, its seed included; nothing in the folder is executed.

        Raises:
            SerBenchError: the folder holds another predictor, other labels, or files that cannot be read.
        """
        try:
            stored: dict[str, Any] = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error
        if stored.get("format") != FORMAT:
            raise SerBenchError(f"{folder}: stored in format {stored.get('format')}, but {FORMAT} is read here")
        if stored.get("predictor") != cls.name or tuple(stored.get("labels", ())) != labels:
            raise SerBenchError(
                f"{folder}: holds {stored.get('predictor')} for {', '.join(stored.get('labels', ()))}, not {cls.name} "
                f"for {', '.join(labels)}; choose the run that was trained on these labels"
            )
        predictor = cls(cfg, labels, inputs, folder, lambda epoch, metrics: None)
        predictor._seed = int(stored["seed"])
        predictor._restore(stored, folder)
        return predictor

    def _state(self, folder: Path) -> dict[str, Any]:
        """What was learnt, for the JSON; arrays go into files of their own in `folder`."""
        return {}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        """Take back what `_state` gave."""

    def _clean(self, train: Sequence[Row]) -> tuple[list[Row], list[str]]:
        """The clean training rows and their labels: a clip counts once, however many variants it has.

        Raises:
            ConfigError: there is none, or one has a label that is not among the run's.
        """
        rows = [row for row in train if row.variant == CLEAN]
        truth = self._inputs.truth(rows)
        unknown = sorted(set(truth) - set(self._labels))
        if unknown:
            raise ConfigError(f"labels {unknown} of training rows are not among {', '.join(self._labels)}")
        if not rows:
            raise ConfigError(f"model={self.name} learns from clean rows, and no training row is: see augment.variants")
        return rows, truth

    def _predictions(
        self,
        rows: Sequence[Row],
        probabilities: npt.NDArray[np.floating[Any]],
        source: str,
        seconds: float = 0.0,
        abstained: npt.NDArray[np.bool_] | None = None,
    ) -> Predictions:
        """[N, C] probabilities as predictions; the seconds are shared out evenly."""
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
    """Randomness of one clip: the same in whatever order, company or process the clip is asked about."""
    return np.random.default_rng(int(digest_of([seed, clip_id]), 16))
