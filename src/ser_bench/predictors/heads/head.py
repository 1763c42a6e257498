"""One head: the scaler, its members, and the mean of their probabilities."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.heads.classifier import Array, Labelled, Labels, Member, log_loss
from ser_bench.predictors.heads.hidden_layer import Mlp
from ser_bench.predictors.heads.logistic import Logistic
from ser_bench.predictors.heads.svm import Svm

MEMBERS: dict[str, type[Member]] = {"logistic": Logistic, "svm": Svm, "mlp": Mlp}
"""What `head.members` may name."""
HEAD_FILE = "head.json"
SCALER_FILE = "head.safetensors"
"""First of the safetensors files by name where members are `member_….safetensors`: the audit reads the scaler in it."""
FORMAT = 1
EXACT_COLUMNS = 1_024
SVD_PASSES = 1
"""Power iterations: the last of the directions are not exact, and need not be; validation rows know no difference."""
CONSTANT = 1e-6
"""A column whose deviation is below this share of its mean does not vary, and is not divided."""


class Head:
    """Standardises [N, D] vectors by their training rows and averages the probabilities of its members.

    Args:
        cfg: the group `head`.
        classes: how many labels; a label without training rows gets probability 0.
        seed: of whatever is random in a member.

    Raises:
        ConfigError: `head.members` is empty, or names what is no member.
    """

    def __init__(self, cfg: HeadConfig, classes: int, seed: int = 0) -> None:
        unknown = [name for name in cfg.members if name not in MEMBERS]
        if unknown or not cfg.members or len(set(cfg.members)) != len(cfg.members):
            raise ConfigError(f"head.members={list(cfg.members)}: name each of {', '.join(MEMBERS)} once at most")
        self._cfg = cfg
        self._classes = classes
        self._seed = seed
        self._scaler: tuple[Array, Array] | None = None
        self._axes: Array | None = None
        self._members: dict[str, Member] = {}

    def fit(
        self,
        x_train: Array,
        y_train: Labels,
        x_val: Array,
        y_val: Labels,
        shares: tuple[Array, Array] | None = None,
    ) -> dict[str, float]:
        """Choose on validation rows, fit on training rows; with `head.refit`, then fit on both at what was chosen.

        Args:
            x_train: [N, D] vectors as they are, not standardised.
            y_train: [N] places of the labels, 0 to classes − 1.
            x_val: [M, D]; M may be 0: then the first of the values listed in the configuration is taken.
            y_val: [M].
            shares: soft targets [N, C] and [M, C] of both; `logistic` and `mlp` learn from these in place of the
                labels, which `svm` cannot. Settings are chosen by the labels in any case.

        Returns:
            Facts to log: `fit/seconds`, `fit/val_uar`, `fit/val_log_loss` (both of validation rows, before the
            refit; absent where there are none), `params/total`, and what each member chose, as `head/<member>_<what>`.

        Raises:
            ConfigError: the training rows have one label only.
        """
        if len(np.unique(y_train)) < 2:
            raise ConfigError("all training rows have one label; a classifier needs two to tell apart")
        started = time.perf_counter()
        self._axes = None
        train, val = self._scaled(x_train, y_train, x_val, y_val, None if shares is None else shares[0])
        if self._cfg.components is not None and self._cfg.components < x_train.shape[1]:
            # Fewer rows than that span fewer directions, and along these nothing of them is lost.
            self._axes = principal_axes(train.x, min(self._cfg.components, len(x_train)), self._seed)
            train, val = self._turned(train), self._turned(val)
        self._members = {name: MEMBERS[name](self._cfg, self._classes, self._seed) for name in self._cfg.members}
        facts: dict[str, float] = {}
        for name, member in self._members.items():
            facts |= {f"head/{name}_{what}": value for what, value in member.fit(train, val).items()}
        if len(y_val):
            facts |= judged(self.predict_proba(x_val), y_val)
        if len(y_val) and self._cfg.refit:
            both, labels = np.concatenate([x_train, x_val]), np.concatenate([y_train, y_val])
            soft = None if shares is None else np.concatenate(shares)
            train = self._turned(self._scaled(both, labels, x_val[:0], y_val[:0], soft)[0])
            for member in self._members.values():
                member.refit(train)
        parameters = float(sum(array.size for member in self._members.values() for array in member.arrays().values()))
        facts |= {"params/total": parameters, "params/trainable": parameters}
        return facts | {"fit/seconds": time.perf_counter() - started}

    def predict_proba(self, x: Array) -> Array:
        """Probabilities [N, C] of vectors [N, D]; rows sum to 1.

        Raises:
            SerBenchError: not fitted, or vectors of another length than those it was fitted on.
        """
        scaled = self._turned(Labelled(self._standardised(x.astype(np.float64)), np.zeros(0, dtype=np.int64))).x
        mean: Array = np.mean([member.predict_proba(scaled) for member in self._members.values()], axis=0)
        return mean

    def save(self, folder: Path) -> None:
        """Write settings and numbers.

        Raises:
            SerBenchError: not fitted.
        """
        from safetensors.numpy import save_file

        if self._scaler is None:
            raise SerBenchError("this head is not fitted; call fit before save")
        folder.mkdir(parents=True, exist_ok=True)
        mean, std = self._scaler
        save_file({"mean": mean, "std": std} | self._stored_axes(), folder / SCALER_FILE)
        described: dict[str, Any] = {"format": FORMAT, "classes": self._classes, "members": {}}
        for name, member in self._members.items():
            arrays = {key: np.ascontiguousarray(array) for key, array in member.arrays().items()}
            save_file(arrays, folder / f"member_{name}.safetensors")
            described["members"][name] = member.settings()
        (folder / HEAD_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """A fitted head from what `save` wrote; whatever the present configuration says, it answers as it did.

        Raises:
            SerBenchError: a file is missing or cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            described: Mapping[str, Any] = json.loads((folder / HEAD_FILE).read_text(encoding="utf-8"))
            if described["format"] != FORMAT:
                raise SerBenchError(f"{folder}: head stored in format {described['format']}, but {FORMAT} is read here")
            head = cls(HeadConfig(members=list(described["members"])), int(described["classes"]))
            scaler = load_file(folder / SCALER_FILE)
            head._scaler, head._axes = (scaler["mean"], scaler["std"]), scaler.get("axes")
            for name, settings in described["members"].items():
                arrays = load_file(folder / f"member_{name}.safetensors")
                head._members[name] = MEMBERS[name].restored(settings, arrays, head._classes)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise SerBenchError(f"{folder}: no readable stored head ({error}); run again with force=true") from error
        return head

    def _scaled(
        self, x_train: Array, y_train: Labels, x_val: Array, y_val: Labels, shares: Array | None
    ) -> tuple[Labelled, Labelled]:
        """Fit the scaler on the first pair; both pairs standardised by it."""
        mean, std = x_train.mean(axis=0, dtype=np.float64), x_train.std(axis=0, dtype=np.float64)
        self._scaler = mean, np.where(std > CONSTANT * np.maximum(np.abs(mean), CONSTANT), std, 1.0)
        # Single precision to learn from: a member passes over all rows a hundred times, and waits for memory.
        train, val = (self._standardised(x).astype(np.float32, copy=False) for x in (x_train, x_val))
        return Labelled(train, y_train, shares), Labelled(val, y_val)

    def _turned(self, rows: Labelled) -> Labelled:
        """Standardised rows along the principal axes, where there are such."""
        if self._axes is None:
            return rows
        return rows._replace(x=rows.x @ self._axes.astype(rows.x.dtype))

    def _stored_axes(self) -> dict[str, Array]:
        return {} if self._axes is None else {"axes": np.ascontiguousarray(self._axes)}

    def _standardised(self, x: Array) -> Array:
        if self._scaler is None:
            raise SerBenchError("this head is not fitted; call fit, or load a stored run")
        mean, std = self._scaler
        if x.shape[1:] != mean.shape:
            raise SerBenchError(
                f"{x.shape[-1]} numbers a row, but the head was fitted on {len(mean)}; use the settings of its run"
            )
        scaled: Array = (x - mean.astype(x.dtype)) / std.astype(x.dtype)
        return scaled


def principal_axes(x: Array, count: int, seed: int) -> Array:
    """[D, count] float32, orthonormal: the directions in which standardised rows [N, D] vary most.

    From the covariance where that is small, which is faster and exact; else by a randomised SVD.
    """
    from sklearn.utils.extmath import randomized_svd

    if x.shape[1] <= EXACT_COLUMNS:
        _, ascending = np.linalg.eigh((x.T @ x).astype(np.float64))
        exact: Array = ascending[:, : -count - 1 : -1].astype(np.float32)
        return exact
    _, _, axes = randomized_svd(x.astype(np.float32, copy=False), count, n_iter=SVD_PASSES, random_state=seed)
    found: Array = np.asarray(axes.T, dtype=np.float32)
    return found


def judged(probabilities: Array, truth: Labels) -> dict[str, float]:
    """UAR and log-loss of validation rows: what settings may be chosen by."""
    right = probabilities.argmax(axis=1) == truth
    recalls = [right[truth == label].mean() for label in np.unique(truth)]
    return {"fit/val_uar": float(np.mean(recalls)), "fit/val_log_loss": log_loss(probabilities, truth)}
