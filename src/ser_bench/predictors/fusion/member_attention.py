"""Attention over the vectors of several members: for each clip one weighted sum of them, and a linear layer above it.

Of the vector z_m [D_m] of member m, standardised by the training rows:

    h_m = tanh(W_m z_m + b_m)                 [H]
    a   = softmax_m(q · h_m)                  [M], the attention of this clip
    P   = softmax_c(U Σ_m a_m h_m + d)        [C]

Additive attention (Bahdanau, Cho & Bengio 2015, arXiv 1409.0473, where the score is v · tanh(W x)) with one learnt
query. tanh keeps every member within ±1, so that none outshouts the others.

Trained by PyTorch (`attention_network.py`), of several seeds; the answers are matrix products in NumPy. Below S is the
number of networks, whose probabilities and shares are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ser_bench.config import FusionConfig
from ser_bench.errors import SerBenchError
from ser_bench.predictors.heads.classifier import Array, Labels, softmax
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray

FILE = "attention.safetensors"
NAMES = ("biases", "query", "out_weights", "out_biases")


@dataclass(frozen=True)
class Attention:
    """A trained attention.

    Attributes:
        scaler: of the members' vectors side by side, ΣD_m columns.
        weights: W of each member, [S, H, D_m].
        arrays: by `NAMES`: [S, M, H], [S, H], [S, C, H], [S, C].
    """

    scaler: Standardizer
    weights: tuple[Array, ...]
    arrays: Mapping[str, Array]

    @classmethod
    def fit(cls, vectors: Sequence[FloatArray], truth: Labels, classes: int, cfg: FusionConfig, seed: int) -> Self:
        """Train `cfg.seeds` networks.

        Args:
            vectors: M of them, [N, D_m], of training rows and not standardised.
            truth: [N] places in the label list; a label that is not there gets probability 0.
            classes: C.
            cfg: the recipe.
            seed: of the run.
        """
        from ser_bench.predictors.fusion import attention_network

        scaler = Standardizer.fit(np.concatenate(vectors, axis=1))
        widths = [part.shape[1] for part in vectors]
        scaled = [one(part) for one, part in zip(_by_member(scaler, widths), vectors, strict=True)]
        networks = [
            attention_network.trained(scaled, truth, classes, cfg, seed * 1000 + number) for number in range(cfg.seeds)
        ]
        arrays = {name: np.stack([one[name] for one in networks]) for name in NAMES}
        arrays["out_biases"][:, np.setdiff1d(np.arange(classes), truth)] = -np.inf
        weights = [np.stack([one[f"weights_{m}"] for one in networks]) for m in range(len(vectors))]
        return cls(scaler, tuple(weights), arrays)

    def __call__(self, vectors: Sequence[FloatArray]) -> tuple[Array, Array]:
        """Probabilities [N, C] and shares of attention [N, M] of M vectors [N, D_m]; the rows of both sum to 1.

        Raises:
            SerBenchError: other members, or vectors of another length, than those it was trained on.
        """
        widths, asked = [part.shape[-1] for part in self.weights], [part.shape[1] for part in vectors]
        if asked != widths:
            raise SerBenchError(
                f"vectors of {asked} numbers a member, but the attention was trained on {widths}; make the fusion "
                "again with force=true"
            )
        scalers = _by_member(self.scaler, widths)
        scaled = [one(part).astype(np.float64) for one, part in zip(scalers, vectors, strict=True)]
        answers = [self._answer(number, scaled) for number in range(len(self.arrays["query"]))]
        probabilities, shares = (np.mean(parts, axis=0) for parts in zip(*answers, strict=True))
        return probabilities, shares

    @property
    def parameters(self) -> int:
        """How many numbers were learnt, of all networks."""
        return sum(array.size for array in (*self.weights, *self.arrays.values()))

    def save(self, folder: Path) -> None:
        """Write the numbers; the scaler as `mean` and `std`, by which the audit knows it."""
        from safetensors.numpy import save_file

        found = {"mean": self.scaler.mean, "std": self.scaler.std} | dict(self.arrays)
        found |= {f"weights_{m}": part for m, part in enumerate(self.weights)}
        save_file({name: np.ascontiguousarray(array) for name, array in found.items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """From what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            found = load_file(folder / FILE)
            weights = tuple(found[f"weights_{m}"] for m in range(found["biases"].shape[1]))
            return cls(Standardizer(found["mean"], found["std"]), weights, {name: found[name] for name in NAMES})
        except (OSError, KeyError, SafetensorError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error

    def _answer(self, number: int, scaled: Sequence[Array]) -> tuple[Array, Array]:
        """Probabilities and shares of one network."""
        biases, query, out_weights, out_biases = (self.arrays[name][number].astype(np.float64) for name in NAMES)
        products = [part @ own[number].T.astype(np.float64) for part, own in zip(scaled, self.weights, strict=True)]
        hidden = np.tanh(np.stack(products, axis=1) + biases)
        shares = softmax(hidden @ query)
        mixed = np.einsum("nm,nmh->nh", shares, hidden)
        return softmax(mixed @ out_weights.T + out_biases), shares


def _by_member(scaler: Standardizer, widths: Sequence[int]) -> list[Standardizer]:
    """The columns of each member."""
    ends = np.cumsum(widths)[:-1]
    pairs = zip(np.split(scaler.mean, ends), np.split(scaler.std, ends), strict=True)
    return [Standardizer(mean, std) for mean, std in pairs]
