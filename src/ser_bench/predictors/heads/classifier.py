"""The interface of the classifiers in a head: they receive standardised vectors and give arrays to store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from ser_bench.config import HeadConfig
from ser_bench.predictors.probabilities import Array, Labels


class LabelledVectors(NamedTuple):
    """Standardised vectors [N, D], their label indices [N], and soft targets [N, C] or None."""

    x: Array
    y: Labels
    shares: Array | None = None


class HeadClassifier(ABC):
    """A classifier of standardised vectors.

    Args:
        cfg: the group `head`.
        classes: number of labels C; a label without training rows gets probability 0.
        seed: seed of the random numbers of the classifier.
    """

    def __init__(self, cfg: HeadConfig, classes: int, seed: int) -> None:
        self._cfg = cfg
        self._classes = classes
        self._seed = seed

    @abstractmethod
    def fit(self, train: LabelledVectors, val: LabelledVectors) -> dict[str, float]:
        """Choose settings on validation rows, fit on training rows, and return the chosen settings, to be logged."""

    @abstractmethod
    def refit(self, train: LabelledVectors) -> None:
        """Fit again, on these rows, with the settings that `fit` chose."""

    @abstractmethod
    def predict_proba(self, x: Array) -> Array:
        """Return probabilities [N, C] of vectors [N, D]; rows sum to 1."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """Return the fitted arrays, which are stored as safetensors."""

    def settings(self) -> dict[str, Any]:
        """Return what `restored` needs beyond the arrays; it is stored as JSON."""
        return {}

    @classmethod
    @abstractmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """Return the classifier that returned these settings and arrays."""
