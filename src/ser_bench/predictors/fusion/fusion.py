"""`model=fusion`: the probabilities of other finished runs, combined, or their vectors under attention.

The members come from `Inputs.members`. `stored_predictors.py` has chosen them and checked that they belong to the same
split. No member is trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from omegaconf import MISSING

from ser_bench.config import FixedEpochsConfig, ModelConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictions import require_complete
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import CombinesRuns
from ser_bench.predictors.fusion import stacking
from ser_bench.predictors.fusion.stacking import Array, StackedRegression
from ser_bench.predictors.registry import Need, register
from ser_bench.predictors.stored_model import reading
from ser_bench.types import CLEAN, FusionMember, Predictions, Row

if TYPE_CHECKING:
    from ser_bench.predictors.fusion.attention import AttentionFusion

WEIGHTS_FILE = "fusion.safetensors"
ARRAYS = ("coefficients", "intercepts", "val_logs")
"""`val_logs` [V, M, C] is stored with its rows, so that the audit can fit the regression again."""


class Combine(Enum):
    """How a fusion combines its members.

    Attributes:
        stack: a logistic regression over their log-probabilities, fitted on validation rows.
        mean: the mean of their probabilities.
        attention: attention over their vectors, trained on training rows.
    """

    stack = "stack"
    mean = "mean"
    attention = "attention"


@dataclass
class FusionConfig(FixedEpochsConfig, ModelConfig):
    """Probabilities, or vectors, of other finished runs, combined."""

    name: str = "fusion"
    members: list[str] = MISSING
    """Two or more: the name of a model, which means its newest finished run on the same corpus, labels, partition and
    seed, or the id of a run, or the start of an id."""
    combine: Combine = Combine.stack
    C: float = 1.0
    """Only `stack`: inverse strength of the L2 penalty, as in scikit-learn."""
    max_iter: int = 1000
    """Only `stack`: largest number of L-BFGS iterations."""
    width: int = 128
    """Only `attention`, like all keys below: units that each member's vector is projected to."""
    dropout: float = 0.5
    """Share of these units dropped in training."""
    member_dropout: float = 0.1
    """Probability that a member is dropped from a training row; at least one member stays."""


# No groups: the members have runs of their own, whose ids are in the run key.
@register("fusion", FusionConfig, needs=(Need.runs,))
class Fusion(LightPredictor, CombinesRuns):
    """A regression over the members' log-probabilities, the mean of their probabilities, or attention over vectors.

    The regression is fitted on validation rows only, because members are overconfident on their training rows.
    Latency and cost are sums over the members.

    Under `combine=attention` the members give vectors, and the attention is trained on training rows (`attention.py`).
    The latency is then that of the attention only.
    """

    _combine: Combine | None = None
    _attention: AttentionFusion | None = None
    _stack: StackedRegression | None = None
    _stored: tuple[str, ...] = ()
    _logs: Array | None = None
    _truth: npt.NDArray[np.int64] | None = None
    _val_rows: tuple[Row, ...] = ()

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit the regression on the clean validation rows, or the attention on the clean training rows.

        Returns:
            `fit/seconds` (of the regression only), `params/total`, `params/trainable`; with `stack` also
            `fit/iterations`, `fusion/val_rows` and `fusion/val_cost_usd` (cost of the members' answers for these
            rows); with `attention` those of `AttentionFusion.fit`.

        Raises:
            ConfigError: there are fewer than two members; with `stack`, there are no validation rows, or a label is
                absent from them; with `attention`, a member has no fixed vectors, or training rows have one label.
        """
        cfg = model_config(self._cfg, FusionConfig)
        if len(self._members) < 2:
            raise ConfigError("model=fusion combines two runs or more: model.members=[cnn,text_only]")
        self._combine = cfg.combine
        if cfg.combine is Combine.mean:
            return {"fit/seconds": 0.0, "params/total": 0, "params/trainable": 0}
        if cfg.combine is Combine.attention:
            return self._fit_attention(train, val)
        rows = [row for row in val if row.variant == CLEAN]
        self._truth, self._val_rows = self._targets(rows), tuple(rows)
        answers = self._ask(rows)
        self._logs = stacking.log_probabilities(answers)
        started = time.perf_counter()
        self._stack = stacking.fit(self._logs, self._truth, cfg.C, cfg.max_iter)
        return {
            "fit/seconds": time.perf_counter() - started,
            "fit/iterations": self._stack.iterations,
            "fusion/val_rows": len(rows),
            "fusion/val_cost_usd": float(sum(answer.cost_usd.sum() for answer in answers)),
            "params/total": self._stack.parameters,
            "params/trainable": self._stack.parameters,
        }

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return probabilities; a row is an abstention if every member abstained.

        Raises:
            SerBenchError: the fusion is neither fitted nor loaded, or the members are not those of the stored fusion.
        """
        if self._combine is None:
            raise SerBenchError("this fusion is not fitted; call fit, or load a stored run")
        if self._attention is not None:
            probabilities, seconds = self._attention.predict(self._known(), rows)
            return self._predictions(rows, probabilities, "softmax", seconds)
        return self._answer(rows, self._ask(rows), self._stack)

    def without_each(self, rows: Sequence[Row]) -> Mapping[str, Predictions]:
        """Return member → predictions of the fusion without it; call it after `fit`.

        With `stack` the regression is fitted again over the other members, on the same validation rows; with
        `attention` a new attention is trained, on the same training rows.
        """
        cfg = model_config(self._cfg, FusionConfig)
        if self._attention is not None:
            answers_of = self._attention.without_each(self._known(), rows)
            return {
                name: self._predictions(rows, answer.probabilities, "softmax", answer.seconds)
                for name, answer in answers_of.items()
            }
        answers = self._ask(rows)
        predictions = {}
        for left_out, member in enumerate(self._members):
            others = [i for i in range(len(answers)) if i != left_out]
            stack = None
            if self._logs is not None and self._truth is not None:
                stack = stacking.fit(self._logs[:, others], self._truth, cfg.C, cfg.max_iter)
            predictions[member.name] = self._answer(rows, [answers[i] for i in others], stack)
        return predictions

    def facts(self) -> Mapping[str, float]:
        """Return the mean attention of each member over the last predicted rows; {} without attention."""
        return {} if self._attention is None else self._attention.facts()

    def _fit_attention(self, train: Sequence[Row], val: Sequence[Row]) -> Mapping[str, float]:
        from ser_bench.predictors.fusion.attention import AttentionFusion

        rows, truth = self._clean(train)
        targets = self._label_index(truth)
        if self._cfg.shuffle_labels:
            targets = np.random.default_rng(self._seed).permutation(targets)
        clean = [row for row in val if row.variant == CLEAN]
        self._attention = AttentionFusion(model_config(self._cfg, FusionConfig), len(self._labels), self._seed)
        return self._attention.fit(self._known(), rows, targets, clean, self._label_index(self._inputs.truth(clean)))

    @property
    def _members(self) -> Sequence[FusionMember]:
        return self._inputs.members()

    def _known(self) -> Sequence[FusionMember]:
        """Return the members.

        Raises:
            SerBenchError: they are not those of the stored fusion.
        """
        members = self._members
        ids = tuple(member.run_id for member in members)
        if self._stored and ids != self._stored:
            raise SerBenchError(
                f"this fusion combines the runs {', '.join(self._stored)}, not of {', '.join(ids) or 'none'}"
            )
        return members

    def _ask(self, rows: Sequence[Row]) -> list[Predictions]:
        """Return the predictions of each member.

        Raises:
            SerBenchError: a member leaves out a row, or predicts other labels.
            IncompleteRunError: requests of a member failed.
        """
        members = self._known()
        answers = [member.predict(rows) for member in members]
        for member, answer in zip(members, answers, strict=True):
            require_complete(answer)
            if answer.labels != self._labels or answer.rows != tuple(rows):
                raise SerBenchError(
                    f"run {member.run_id} ({member.name}) predicted {len(answer.rows)} of {len(rows)} rows over "
                    f"{', '.join(answer.labels)}; a fusion needs all of them, over {', '.join(self._labels)}"
                )
        return answers

    def _answer(
        self, rows: Sequence[Row], answers: Sequence[Predictions], stack: StackedRegression | None
    ) -> Predictions:
        started = time.perf_counter()
        if stack is None:
            probabilities = stacking.mean(answers)
            # The mean of one-hot predictions is not a probability either.
            source = "mean" if all(answer.gives_probabilities for answer in answers) else "one_hot"
        else:
            probabilities, source = stack(stacking.log_probabilities(answers)), "softmax"
        abstained = np.logical_and.reduce([answer.abstained for answer in answers])
        probabilities[abstained] = 1 / len(self._labels)
        combined = self._predictions(rows, probabilities, source, time.perf_counter() - started, abstained)
        return replace(
            combined,
            latency_s=combined.latency_s + np.sum([answer.latency_s for answer in answers], axis=0, dtype=np.float32),
            cost_usd=np.sum([answer.cost_usd for answer in answers], axis=0, dtype=np.float32),
        )

    def _targets(self, rows: Sequence[Row]) -> npt.NDArray[np.int64]:
        """Return the label indices [N] of the rows, permuted under `shuffle_labels`."""
        if not rows:
            raise ConfigError(
                "model.combine=stack is fitted on validation rows, and "
                f"split={self._cfg.split.protocol.value} has none: choose model.combine=mean"
            )
        truth = self._inputs.truth(rows)
        missing = sorted(set(self._labels) - set(truth))
        if missing:
            raise ConfigError(
                f"no validation row is {missing[0]}, so model.combine=stack could never predict it: choose "
                "model.combine=mean, or more validation rows (split.val_fraction) for this run and its members"
            )
        targets = self._label_index(truth)
        return np.random.default_rng(self._seed).permutation(targets) if self._cfg.shuffle_labels else targets

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if self._combine is None:
            raise SerBenchError("this fusion is not fitted; call fit before save")
        members = [{"run_id": member.run_id, "name": member.name} for member in self._members]
        state: dict[str, Any] = {"combine": self._combine.value, "members": members}
        if self._attention is not None:
            self._attention.save(folder)
        if self._stack is None or self._logs is None:
            return state
        arrays = (self._stack.coefficients, self._stack.intercepts, self._logs)
        named = {name: np.ascontiguousarray(array) for name, array in zip(ARRAYS, arrays, strict=True)}
        save_file(named, folder / WEIGHTS_FILE)
        return state | {"val_rows": self._val_rows}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        with reading(folder):
            self._combine = Combine(stored["combine"])
            self._stored = tuple(str(member["run_id"]) for member in stored["members"])
            self._val_rows = tuple(Row(*row) for row in stored.get("val_rows", ()))
        if self._combine is Combine.stack:
            arrays = read(folder)
            self._stack = StackedRegression(arrays["coefficients"], arrays["intercepts"])
            self._logs = arrays["val_logs"]
        if self._combine is Combine.attention:
            from ser_bench.predictors.fusion.attention import AttentionFusion

            cfg = model_config(self._cfg, FusionConfig)
            self._attention = AttentionFusion.load(folder, cfg, len(self._labels), self._seed)


def read(folder: Path) -> dict[str, Array]:
    """Return the arrays of a stored regression: `coefficients` [C, M·C], `intercepts` [C], `val_logs` [V, M, C].

    Raises:
        SerBenchError: they cannot be read.
    """
    from safetensors.numpy import load_file

    with reading(folder):
        arrays = load_file(folder / WEIGHTS_FILE)
        return {name: arrays[name].astype(np.float64) for name in ARRAYS}
