"""What a member of a head is: it sees standardised vectors only, and hands out numbers to be stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import HeadConfig

Array = npt.NDArray[Any]
"""Of floats; float64 unless said otherwise."""
Labels = npt.NDArray[np.int64]
"""[N] places of labels, 0 to C − 1."""
SMALLEST = 1e-12
"""Probability below which the logarithm is cut."""


class Labelled(NamedTuple):
    """Standardised vectors [N, D], the places [N] of their labels, and soft targets [N, C] where there are such."""

    x: Array
    y: Labels
    shares: Array | None = None


class Member(ABC):
    """A classifier of standardised vectors."""

    def __init__(self, cfg: HeadConfig, classes: int, seed: int) -> None:
        self._cfg = cfg
        self._classes = classes
        self._seed = seed

    @abstractmethod
    def fit(self, train: Labelled, val: Labelled) -> dict[str, float]:
        """Fit on training rows with what is best on validation rows; return what was chosen, to log."""

    @abstractmethod
    def refit(self, train: Labelled) -> None:
        """Fit again, on these rows, with what `fit` chose."""

    @abstractmethod
    def predict_proba(self, x: Array) -> Array:
        """[N, C], rows sum to 1."""

    @abstractmethod
    def arrays(self) -> dict[str, Array]:
        """What was learnt, for safetensors."""

    def settings(self) -> dict[str, Any]:
        """What else `restored` needs, for JSON."""
        return {}

    @classmethod
    @abstractmethod
    def restored(cls, settings: Mapping[str, Any], arrays: Mapping[str, Array], classes: int) -> Self:
        """The member that gave these."""


def log_loss(probabilities: Array, labels: Labels) -> float:
    """Mean of −ln P(label), natural logarithm, 0 or more.

    Settings are chosen by it rather than by UAR: of a few hundred rows, UAR moves by luck more than by settings.

    >>> round(log_loss(np.array([[0.5, 0.5], [0.25, 0.75]]), np.array([0, 1])), 3)
    0.49
    """
    likely = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(likely, SMALLEST)).mean())


def softmax(scores: Array) -> Array:
    """[N, C] probabilities of scores [N, C]; −inf becomes 0."""
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
