"""`model=fusion`: the probabilities of other finished runs, combined, or their vectors under attention.

The members are handed in (`Inputs.members`); which runs they are, and that they were measured on this very split, is
settled before (`stored_predictors.py`). Nothing of a member is trained again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ser_bench.config import Combine, FusionConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.base import Plain
from ser_bench.predictors.fusion import stacking
from ser_bench.predictors.fusion.attention_fusion import Attended
from ser_bench.predictors.fusion.stacking import Array, Stack
from ser_bench.types import CLEAN, Member, Predictions, Row

WEIGHTS_FILE = "fusion.safetensors"
ARRAYS = ("coefficients", "intercepts", "val_logs")
"""The last, [V, M, C], is kept with the rows that it is of, so that an audit can fit the regression again."""


class Fusion(Plain):
    """Members' log-probabilities into a multinomial logistic regression (`combine=stack`), or their mean (`mean`).

    The regression sees validation rows only: on training rows members are too sure of themselves, and test rows are
    for testing. What a member answers costs what the member costs: latency and US dollars are sums over members.

    Under `combine=attention` members give vectors instead, which know nothing of labels, and training rows train what
    weighs them (`attended.py`). Their probabilities play no part; the latency is that of the attention alone.
    """

    name: ClassVar[str] = "fusion"
    groups: ClassVar[tuple[str, ...]] = ()
    """What the members read is in their own runs, whose ids are in the key."""
    _combine: Combine | None = None
    _attended: Attended | None = None
    _stack: Stack | None = None
    _stored: tuple[str, ...] = ()
    _logs: Array | None = None
    _truth: npt.NDArray[np.int64] | None = None
    _val_rows: tuple[Row, ...] = ()

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit the regression on the clean validation rows, or the attention on the clean training rows.

        Returns `fit/seconds` (of the regression alone), `params/total`, `params/trainable`; with `stack` also
        `fit/iterations`, `fusion/val_rows` and `fusion/val_cost_usd` (what the members' answers to these rows cost);
        with `attention` those of `Attended.fit`. The mean needs no fitting.

        Raises:
            ConfigError: fewer than two members; with `stack`, no validation rows, or a label that none of them has;
                with `attention`, a member without fixed vectors, or training rows of one label.
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
        """Probabilities of all labels; a row is an abstention where every member abstained.

        Raises:
            SerBenchError: neither fitted nor loaded, or the members are not those of the stored fusion.
        """
        if self._combine is None:
            raise SerBenchError("this fusion is not fitted; call fit, or load a stored run")
        if self._attended is not None:
            probabilities, seconds = self._attended.answer(self._known(), rows)
            return self._predictions(rows, probabilities, "softmax", seconds)
        return self._answer(rows, self._ask(rows), self._stack)

    def without_each(self, rows: Sequence[Row]) -> Mapping[str, Predictions]:
        """Member → what this fusion answers without it, combined anew; call it after `fit`.

        With `stack` the regression is fitted again over the others, on the same validation rows; with `attention` the
        others are trained again, on the same training rows.
        """
        cfg = model_config(self._cfg, FusionConfig)
        if self._attended is not None:
            answers_of = self._attended.without_each(self._known(), rows)
            return {name: self._predictions(rows, one.probabilities, "softmax", one.seconds)
                    for name, one in answers_of.items()}  # fmt: skip
        answers = self._ask(rows)
        found = {}
        for out, member in enumerate(self._members):
            others = [i for i in range(len(answers)) if i != out]
            stack = None
            if self._logs is not None and self._truth is not None:
                stack = stacking.fit(self._logs[:, others], self._truth, cfg.C, cfg.max_iter)
            found[member.name] = self._answer(rows, [answers[i] for i in others], stack)
        return found

    def facts(self) -> Mapping[str, float]:
        """With `attention`, the mean share of each member over the rows predicted last; else nothing."""
        return {} if self._attended is None else self._attended.facts()

    def _fit_attention(self, train: Sequence[Row], val: Sequence[Row]) -> Mapping[str, float]:
        rows, truth = self._clean(train)
        places = self._places(truth)
        if self._cfg.shuffle_labels:
            places = np.random.default_rng(self._seed).permutation(places)
        clean = [row for row in val if row.variant == CLEAN]
        self._attended = Attended(model_config(self._cfg, FusionConfig), len(self._labels), self._seed)
        return self._attended.fit(self._known(), rows, places, clean, self._places(self._inputs.truth(clean)))

    @property
    def _members(self) -> Sequence[Member]:
        return self._inputs.members()

    def _known(self) -> Sequence[Member]:
        """The members.

        Raises:
            SerBenchError: they are not those of the stored fusion.
        """
        members = self._members
        ids = tuple(member.run_id for member in members)
        if self._stored and ids != self._stored:
            raise SerBenchError(
                f"this fusion is of the runs {', '.join(self._stored)}, not of {', '.join(ids) or 'none'}"
            )
        return members

    def _ask(self, rows: Sequence[Row]) -> list[Predictions]:
        """One answer a member.

        Raises:
            SerBenchError: a member leaves out a row, or answers with other labels.
        """
        members = self._known()
        answers = [member.predict(rows) for member in members]
        for member, answer in zip(members, answers, strict=True):
            if answer.labels != self._labels or answer.rows != tuple(rows):
                raise SerBenchError(
                    f"run {member.run_id} ({member.name}) answered {len(answer.rows)} of {len(rows)} rows over "
                    f"{', '.join(answer.labels)}; a fusion needs all of them, over {', '.join(self._labels)}"
                )
        return answers

    def _answer(self, rows: Sequence[Row], answers: Sequence[Predictions], stack: Stack | None) -> Predictions:
        started = time.perf_counter()
        if stack is None:
            probabilities = stacking.mean(answers)
            # The mean of answers that are no probabilities is none either: its log-loss would mean nothing.
            source = "mean" if all(answer.gives_probabilities for answer in answers) else "one_hot"
        else:
            probabilities, source = stack(stacking.log_probabilities(answers)), "softmax"
        abstained = np.logical_and.reduce([answer.abstained for answer in answers])
        probabilities[abstained] = 1 / len(self._labels)
        own = self._predictions(rows, probabilities, source, time.perf_counter() - started, abstained)
        return replace(
            own,
            latency_s=own.latency_s + np.sum([answer.latency_s for answer in answers], axis=0, dtype=np.float32),
            cost_usd=np.sum([answer.cost_usd for answer in answers], axis=0, dtype=np.float32),
        )

    def _targets(self, rows: Sequence[Row]) -> npt.NDArray[np.int64]:
        """[N] places of the rows' truth in the label list; permuted under `shuffle_labels`."""
        if not rows:
            raise ConfigError(
                "model.combine=stack is fitted on validation rows, and "
                f"split={self._cfg.split.protocol.value} has none: choose model.combine=mean"
            )
        truth = self._inputs.truth(rows)
        missing = sorted(set(self._labels) - set(truth))
        if missing:
            raise ConfigError(
                f"no validation row is {missing[0]}, so model.combine=stack could never say it: choose "
                "model.combine=mean, or more validation rows (split.val_fraction) for this run and its members"
            )
        places = self._places(truth)
        return np.random.default_rng(self._seed).permutation(places) if self._cfg.shuffle_labels else places

    def _places(self, truth: Sequence[str]) -> npt.NDArray[np.int64]:
        """[N] places of labels in the run's list."""
        return np.array([self._labels.index(label) for label in truth], dtype=np.int64)

    def _state(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        if self._combine is None:
            raise SerBenchError("this fusion is not fitted; call fit before save")
        members = [{"run_id": member.run_id, "name": member.name} for member in self._members]
        state: dict[str, Any] = {"combine": self._combine.value, "members": members}
        if self._attended is not None:
            self._attended.save(folder)
        if self._stack is None or self._logs is None:
            return state
        arrays = (self._stack.coefficients, self._stack.intercepts, self._logs)
        named = {name: np.ascontiguousarray(array) for name, array in zip(ARRAYS, arrays, strict=True)}
        save_file(named, folder / WEIGHTS_FILE)
        return state | {"val_rows": self._val_rows}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        try:
            self._combine = Combine(stored["combine"])
            self._stored = tuple(str(member["run_id"]) for member in stored["members"])
            self._val_rows = tuple(Row(*row) for row in stored.get("val_rows", ()))
        except (KeyError, ValueError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error
        if self._combine is Combine.stack:
            arrays = read(folder)
            self._stack, self._logs = Stack(arrays["coefficients"], arrays["intercepts"]), arrays["val_logs"]
        if self._combine is Combine.attention:
            self._attended = Attended.load(folder, model_config(self._cfg, FusionConfig), len(self._labels), self._seed)


def read(folder: Path) -> dict[str, Array]:
    """The arrays of a stored stacked fusion: `coefficients` [C, M·C], `intercepts` [C], `val_logs` [V, M, C].

    Raises:
        SerBenchError: they cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        arrays = load_file(folder / WEIGHTS_FILE)
        return {name: arrays[name].astype(np.float64) for name in ARRAYS}
    except (OSError, KeyError, SafetensorError) as error:
        raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error
