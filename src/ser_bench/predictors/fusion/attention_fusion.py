"""A fusion's members under `combine=attention`: what is asked of them, trained on their vectors, and said of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from ser_bench.config import FusionConfig
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.fusion.member_attention import Attention
from ser_bench.predictors.heads.classifier import Array, Labels
from ser_bench.predictors.heads.head import judged
from ser_bench.types import FloatArray, Member, Row


class Answer(NamedTuple):
    """Probabilities [N, C], and the seconds that all rows took; the members' vectors are not counted."""

    probabilities: Array
    seconds: float


class Attended:
    """An attention and, after `fit`, what it was trained on, so that it can be trained again without a member.

    Args:
        cfg: the fusion's; its recipe.
        classes: C, how many labels.
        seed: of the run.
    """

    def __init__(self, cfg: FusionConfig, classes: int, seed: int) -> None:
        self._cfg = cfg
        self._classes = classes
        self._seed = seed
        self._attention: Attention | None = None
        self._vectors: Sequence[FloatArray] = ()
        self._truth: Labels = np.zeros(0, dtype=np.int64)
        self._shares: dict[str, float] = {}

    def fit(
        self, members: Sequence[Member], train: Sequence[Row], truth: Labels, val: Sequence[Row], val_truth: Labels
    ) -> dict[str, float]:
        """Train on training rows; validation rows are scored afterwards and choose nothing.

        Returns `fit/seconds` (of the training alone), `params/total`, `params/trainable` and, where there are
        validation rows, `fit/val_uar` and `fit/val_log_loss`.

        Raises:
            ConfigError: a member without fixed vectors, a number that trains nothing, or training rows of one label.
        """
        _check(self._cfg, truth)
        self._vectors, self._truth = [member.vectors(train) for member in members], truth
        started = time.perf_counter()
        self._attention = self._trained(self._vectors)
        parameters = float(self._attention.parameters)
        facts = {"params/total": parameters, "params/trainable": parameters}
        facts["fit/seconds"] = time.perf_counter() - started
        return facts | (judged(self.answer(members, val).probabilities, val_truth) if val else {})

    def answer(self, members: Sequence[Member], rows: Sequence[Row]) -> Answer:
        """Probabilities of rows; afterwards `facts` tells where the attention lay.

        Raises:
            SerBenchError: neither fitted nor loaded, or members of other vectors.
        """
        if self._attention is None:
            raise SerBenchError("this fusion is not fitted; call fit, or load a stored run")
        self._shares = {}
        if not rows:
            return Answer(np.zeros((0, self._classes)), 0.0)
        vectors = [member.vectors(rows) for member in members]
        started = time.perf_counter()
        probabilities, shares = self._attention(vectors)
        names = [member.name for member in members]
        self._shares = dict(zip(names, map(float, shares.mean(axis=0)), strict=True))
        return Answer(probabilities, time.perf_counter() - started)

    def without_each(self, members: Sequence[Member], rows: Sequence[Row]) -> dict[str, Answer]:
        """Member → what an attention over the others answers, trained as the whole one was, on the same rows.

        Raises:
            SerBenchError: not fitted here: a stored attention does not keep its training vectors.
        """
        if not self._vectors:
            raise SerBenchError("without_each trains again, and a stored fusion keeps no training vectors; call fit")
        vectors = [member.vectors(rows) for member in members]
        found = {}
        for out, member in enumerate(members):
            others = [i for i in range(len(members)) if i != out]
            attention = self._trained([self._vectors[i] for i in others])
            started = time.perf_counter()
            probabilities, _ = attention([vectors[i] for i in others])
            found[member.name] = Answer(probabilities, time.perf_counter() - started)
        return found

    def facts(self) -> dict[str, float]:
        """`fusion/attention/<member>`: its mean share over the rows answered last; the members' shares sum to 1."""
        return {f"fusion/attention/{name}": share for name, share in self._shares.items()}

    def save(self, folder: Path) -> None:
        """Write the attention.

        Raises:
            SerBenchError: not fitted.
        """
        if self._attention is None:
            raise SerBenchError("this fusion is not fitted; call fit before save")
        self._attention.save(folder)

    @classmethod
    def load(cls, folder: Path, cfg: FusionConfig, classes: int, seed: int) -> Self:
        """From what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        found = cls(cfg, classes, seed)
        found._attention = Attention.load(folder)
        return found

    def _trained(self, vectors: Sequence[FloatArray]) -> Attention:
        return Attention.fit(vectors, self._truth, self._classes, self._cfg, self._seed)


def _check(cfg: FusionConfig, truth: Labels) -> None:
    if len(np.unique(truth)) < 2:
        raise ConfigError("all training rows have one label; an attention needs two to tell apart")
    for name in ("width", "epochs", "batch_size", "seeds"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"model.{name}={getattr(cfg, name)}: give 1 or more")
    for name in ("dropout", "member_dropout", "label_smoothing"):
        if not 0 <= getattr(cfg, name) < 1:
            raise ConfigError(f"model.{name}={getattr(cfg, name)} is a share: give 0 or more, and less than 1")
