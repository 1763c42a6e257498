"""A head: standardisation, principal components, and the mean of the probabilities of its classifiers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Self

import numpy as np

from ser_bench.config import HeadConfig
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.heads.classifier import HeadClassifier, LabelledVectors
from ser_bench.predictors.heads.hidden_layer import HiddenLayerClassifier
from ser_bench.predictors.heads.logistic import LogisticClassifier
from ser_bench.predictors.heads.ordinal import OrdinalClassifier
from ser_bench.predictors.heads.svm import SvmClassifier
from ser_bench.predictors.probabilities import Array, Labels, validation_metrics
from ser_bench.predictors.stored_model import read_description, reading
from ser_bench.training.standardizer import Standardizer

CLASSIFIERS: dict[str, type[HeadClassifier]] = {
    "logistic": LogisticClassifier,
    "svm": SvmClassifier,
    "mlp": HiddenLayerClassifier,
    "ordinal": OrdinalClassifier,
}
"""The names that `head.members` may contain."""
HEAD_FILE = "head.json"
SCALER_FILE = "head.safetensors"
"""It precedes the files `member_….safetensors` in alphabetical order: the audit reads the first file with a scaler."""
FORMAT = 1
EXACT_COLUMNS = 1_024
SVD_PASSES = 1
"""Power iterations of the randomised SVD. More of them made no difference on validation rows."""


class Head:
    """Classifiers over vectors [N, D] that are standardised by the training rows.

    Args:
        cfg: the group `head`.
        classes: number of labels C; a label without training rows gets probability 0.
        seed: seed of all random numbers.

    Attributes:
        validation_probabilities: [M, C] of the validation rows, by the classifiers that were fitted to training rows
            alone; None if there were no validation rows, and of a loaded head.

    Raises:
        ConfigError: `head.members` is empty, or contains an unknown or repeated name.
    """

    validation_probabilities: Array | None = None

    def __init__(self, cfg: HeadConfig, classes: int, seed: int = 0) -> None:
        unknown = [name for name in cfg.members if name not in CLASSIFIERS]
        if unknown or not cfg.members or len(set(cfg.members)) != len(cfg.members):
            raise ConfigError(
                f"head.members={list(cfg.members)}: list one or more of {', '.join(CLASSIFIERS)}, each at most once"
            )
        self._cfg = cfg
        self._classes = classes
        self._seed = seed
        self._standardizer: Standardizer | None = None
        self._axes: Array | None = None
        self._classifiers: dict[str, HeadClassifier] = {}

    def fit(
        self,
        x_train: Array,
        y_train: Labels,
        x_val: Array,
        y_val: Labels,
        shares: tuple[Array, Array] | None = None,
    ) -> dict[str, float]:
        """Choose settings on validation rows and fit on training rows; with `head.refit`, fit again on both.

        Args:
            x_train: vectors [N, D], not standardised.
            y_train: label indices [N].
            x_val: vectors [M, D]; without validation rows (M = 0) the first of the listed settings is used.
            y_val: label indices [M].
            shares: soft targets of both, [N, C] and [M, C]. `logistic` and `mlp` are fitted to them, the others to the
                labels. Settings are always chosen by the labels.

        Returns:
            Values to log: `fit/seconds`, `fit/val_uar` and `fit/val_log_loss` (before the second fit; absent without
            validation rows), `params/total`, `params/trainable`, and the chosen settings as `head/<member>_<setting>`.

        Raises:
            ConfigError: all training rows have the same label.
        """
        if len(np.unique(y_train)) < 2:
            raise ConfigError(
                "all training rows have one label; a classifier needs two or more: check split and corpus"
            )
        started = time.perf_counter()
        self._axes = None
        train, val = self._fit_standardizer(x_train, y_train, x_val, y_val, None if shares is None else shares[0])
        if self._cfg.components is not None and self._cfg.components < x_train.shape[1]:
            # N rows span at most N directions. Projection on N directions preserves them exactly.
            self._axes = principal_axes(train.x, min(self._cfg.components, len(x_train)), self._seed)
            train, val = self._projected(train), self._projected(val)
        self._classifiers = {
            name: CLASSIFIERS[name](self._cfg, self._classes, self._seed) for name in self._cfg.members
        }
        facts: dict[str, float] = {}
        for name, classifier in self._classifiers.items():
            facts |= {f"head/{name}_{setting}": value for setting, value in classifier.fit(train, val).items()}
        self.validation_probabilities = self.predict_proba(x_val) if len(y_val) else None
        if self.validation_probabilities is not None:
            facts |= validation_metrics(self.validation_probabilities, y_val)
        if len(y_val) and self._cfg.refit:
            x_both, y_both = np.concatenate([x_train, x_val]), np.concatenate([y_train, y_val])
            shares_both = None if shares is None else np.concatenate(shares)
            both = self._projected(self._fit_standardizer(x_both, y_both, x_val[:0], y_val[:0], shares_both)[0])
            for classifier in self._classifiers.values():
                classifier.refit(both)
        parameters = float(sum(array.size for c in self._classifiers.values() for array in c.arrays().values()))
        facts |= {"params/total": parameters, "params/trainable": parameters}
        return facts | {"fit/seconds": time.perf_counter() - started}

    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C] of vectors [N, D]; rows sum to 1.

        Raises:
            SerBenchError: not fitted, or vectors of another length than those of the fit.
        """
        standardised = self._standardised(x.astype(np.float64))
        vectors = self._projected(LabelledVectors(standardised, np.zeros(0, dtype=np.int64))).x
        mean: Array = np.mean([c.predict_proba(vectors) for c in self._classifiers.values()], axis=0)
        return mean

    def save(self, folder: Path) -> None:
        """Write settings and arrays to `folder`.

        Raises:
            SerBenchError: not fitted.
        """
        from safetensors.numpy import save_file

        if self._standardizer is None:
            raise SerBenchError("this head is not fitted; call fit before save")
        folder.mkdir(parents=True, exist_ok=True)
        scaler = {"mean": self._standardizer.mean, "std": self._standardizer.std}
        axes = {} if self._axes is None else {"axes": np.ascontiguousarray(self._axes)}
        save_file(scaler | axes, folder / SCALER_FILE)
        description: dict[str, Any] = {"format": FORMAT, "classes": self._classes, "members": {}}
        for name, classifier in self._classifiers.items():
            arrays = {key: np.ascontiguousarray(array) for key, array in classifier.arrays().items()}
            save_file(arrays, folder / f"member_{name}.safetensors")
            description["members"][name] = classifier.settings()
        (folder / HEAD_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Return the fitted head that `save` wrote; its predictions do not depend on the present configuration.

        Raises:
            SerBenchError: a file is missing or cannot be read.
        """
        from safetensors.numpy import load_file

        description = read_description(folder / HEAD_FILE, FORMAT)
        with reading(folder):
            head = cls(HeadConfig(members=list(description["members"])), int(description["classes"]))
            scaler = load_file(folder / SCALER_FILE)
            head._standardizer, head._axes = Standardizer(scaler["mean"], scaler["std"]), scaler.get("axes")
            for name, settings in description["members"].items():
                arrays = load_file(folder / f"member_{name}.safetensors")
                head._classifiers[name] = CLASSIFIERS[name].restored(settings, arrays, head._classes)
        return head

    def _fit_standardizer(
        self, x_train: Array, y_train: Labels, x_val: Array, y_val: Labels, shares: Array | None
    ) -> tuple[LabelledVectors, LabelledVectors]:
        """Compute the statistics of the training rows, and return both sets of rows standardised by them, float32."""
        self._standardizer = Standardizer.fit(x_train, np.float64)
        # Single precision: a fit reads all rows a hundred times, and memory limits its speed.
        train, val = (self._standardised(x).astype(np.float32, copy=False) for x in (x_train, x_val))
        return LabelledVectors(train, y_train, shares), LabelledVectors(val, y_val)

    def _projected(self, rows: LabelledVectors) -> LabelledVectors:
        """Return the rows projected on the principal axes, if there are any."""
        if self._axes is None:
            return rows
        return rows._replace(x=rows.x @ self._axes.astype(rows.x.dtype))

    def _standardised(self, x: Array) -> Array:
        if self._standardizer is None:
            raise SerBenchError("this head is not fitted; call fit, or load a stored run")
        if x.shape[1:] != self._standardizer.mean.shape:
            raise SerBenchError(
                f"the vectors have {x.shape[-1]} columns, but the head was fitted to {len(self._standardizer.mean)}; "
                "use the settings of its run"
            )
        return self._standardizer(x)


def principal_axes(x: Array, count: int, seed: int) -> Array:
    """Return the directions of largest variance [D, count], orthonormal, float32, of standardised rows [N, D].

    With few columns they are exact, from the covariance; with many, a randomised SVD is faster. This is not
    scikit-learn's `PCA`, which would subtract the mean of each column again, although it is 0 already: predictions
    would change in their last digits, and that mean would have to be stored as well.
    """
    from sklearn.utils.extmath import randomized_svd

    if x.shape[1] <= EXACT_COLUMNS:
        _, ascending = np.linalg.eigh((x.T @ x).astype(np.float64))
        exact: Array = ascending[:, : -count - 1 : -1].astype(np.float32)
        return exact
    _, _, components = randomized_svd(x.astype(np.float32, copy=False), count, n_iter=SVD_PASSES, random_state=seed)
    axes: Array = np.asarray(components.T, dtype=np.float32)
    return axes
