"""`model.combine=attention`: a weighted sum of the members' vectors for each clip, and a linear layer above it.

For the vector z_m [D_m] of member m, standardised by the training rows:

    h_m = tanh(W_m z_m + b_m)                 [H]
    a   = softmax_m(q · h_m)                  [M], the attention of this clip
    P   = softmax_c(U Σ_m a_m h_m + d)        [C]

Additive attention (Bahdanau, Cho & Bengio 2015, arXiv 1409.0473, where the score is v · tanh(W x)) with one learnt
query. tanh keeps every member within ±1, so that no member dominates by scale.

`AttentionNetwork` is trained in PyTorch: AdamW with a cosine schedule over a fixed number of epochs, without early
stopping, so that only training rows decide anything. `TrainedAttention` predicts with matrix products in NumPy, and
averages S networks of different seeds. `AttentionFusion` connects both to the members of a fusion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.probabilities import Array, Labels, softmax, validation_metrics
from ser_bench.predictors.stored_model import reading
from ser_bench.training import fixed_epochs
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray, FusionMember, Row

if TYPE_CHECKING:
    from ser_bench.predictors.fusion.fusion import FusionConfig

FILE = "attention.safetensors"
NAMES = ("biases", "query", "out_weights", "out_biases")


@dataclass(frozen=True)
class TrainedAttention:
    """A trained attention over M members.

    Attributes:
        scaler: standardisation of the concatenated vectors of the members, ΣD_m columns.
        weights: W of each member, [S, H, D_m].
        arrays: the arrays of `NAMES`: [S, M, H], [S, H], [S, C, H], [S, C].
    """

    scaler: Standardizer
    weights: tuple[Array, ...]
    arrays: Mapping[str, Array]

    @classmethod
    def fit(cls, vectors: Sequence[FloatArray], truth: Labels, classes: int, cfg: FusionConfig, seed: int) -> Self:
        """Train `cfg.seeds` networks.

        Args:
            vectors: M arrays [N, D_m] of training rows, not standardised.
            truth: label indices [N]; a label without training rows gets probability 0.
            classes: C, number of labels.
            cfg: configuration of the fusion.
            seed: seed of the run.
        """
        scaler = Standardizer.fit(np.concatenate(vectors, axis=1))
        widths = [part.shape[1] for part in vectors]
        scaled = [scale(part) for scale, part in zip(_by_member(scaler, widths), vectors, strict=True)]
        networks = [_trained_arrays(scaled, truth, classes, cfg, seed * 1000 + i) for i in range(cfg.seeds)]
        arrays = {name: np.stack([network[name] for network in networks]) for name in NAMES}
        arrays["out_biases"][:, np.setdiff1d(np.arange(classes), truth)] = -np.inf
        weights = [np.stack([network[f"weights_{m}"] for network in networks]) for m in range(len(vectors))]
        return cls(scaler, tuple(weights), arrays)

    def __call__(self, vectors: Sequence[FloatArray]) -> tuple[Array, Array]:
        """Return probabilities [N, C] and attention [N, M] for M arrays [N, D_m]; the rows of both sum to 1.

        Raises:
            SerBenchError: the members, or the lengths of their vectors, are not those of training.
        """
        widths, given = [part.shape[-1] for part in self.weights], [part.shape[1] for part in vectors]
        if given != widths:
            raise SerBenchError(
                f"the members give vectors of {given} numbers, but training used {widths}; make the fusion "
                "again with force=true"
            )
        scalers = _by_member(self.scaler, widths)
        scaled = [scale(part).astype(np.float64) for scale, part in zip(scalers, vectors, strict=True)]
        answers = [self._answer(number, scaled) for number in range(len(self.arrays["query"]))]
        probabilities, shares = (np.mean(parts, axis=0) for parts in zip(*answers, strict=True))
        return probabilities, shares

    @property
    def parameters(self) -> int:
        """Number of learnt parameters of all networks."""
        return sum(array.size for array in (*self.weights, *self.arrays.values()))

    def save(self, folder: Path) -> None:
        """Write the arrays as safetensors; the audit reads the scaler as `mean` and `std`."""
        from safetensors.numpy import save_file

        arrays = {"mean": self.scaler.mean, "std": self.scaler.std} | dict(self.arrays)
        arrays |= {f"weights_{m}": part for m, part in enumerate(self.weights)}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Restore what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors.numpy import load_file

        with reading(folder):
            arrays = load_file(folder / FILE)
            weights = tuple(arrays[f"weights_{m}"] for m in range(arrays["biases"].shape[1]))
            return cls(Standardizer(arrays["mean"], arrays["std"]), weights, {name: arrays[name] for name in NAMES})

    def _answer(self, number: int, scaled: Sequence[Array]) -> tuple[Array, Array]:
        """Return probabilities and attention of one network."""
        biases, query, out_weights, out_biases = (self.arrays[name][number].astype(np.float64) for name in NAMES)
        matrices = [weight[number].T.astype(np.float64) for weight in self.weights]
        products = [part @ matrix for part, matrix in zip(scaled, matrices, strict=True)]
        hidden = np.tanh(np.stack(products, axis=1) + biases)
        shares = softmax(hidden @ query)
        mixed = np.einsum("nm,nmh->nh", shares, hidden)
        return softmax(mixed @ out_weights.T + out_biases), shares


def _by_member(scaler: Standardizer, widths: Sequence[int]) -> list[Standardizer]:
    """Return the standardisation of each member's columns."""
    ends = np.cumsum(widths)[:-1]
    pairs = zip(np.split(scaler.mean, ends), np.split(scaler.std, ends), strict=True)
    return [Standardizer(mean, std) for mean, std in pairs]


class AttentionNetwork(nn.Module):
    """Standardised vectors of M members, [N, D_m] each → scores [N, C].

    The parameter is √D_m · W_m. AdamW changes every parameter by about the same amount, so that otherwise a sum over
    7,000 columns would change a hundred times as fast as one over 88, and saturate its tanh after a few steps.

    Args:
        widths: D_m of each member.
        cfg: `width`, `dropout` and `member_dropout` are used.
        classes: C, number of labels.
    """

    def __init__(self, widths: Sequence[int], cfg: FusionConfig, classes: int) -> None:
        super().__init__()
        # Uniform within ±1 here is uniform within ±1/√D in W, PyTorch's default for a linear layer.
        self.weights = nn.ParameterList([torch.empty(cfg.width, width).uniform_(-1, 1) for width in widths])
        self.biases = nn.Parameter(torch.zeros(len(widths), cfg.width))
        self.query = nn.Parameter(torch.zeros(cfg.width))
        """Zero, so that the attention starts as the mean of the members."""
        self.out = nn.Linear(cfg.width, classes)
        self.dropout = nn.Dropout(cfg.dropout)
        self.member_dropout = cfg.member_dropout

    def forward(self, vectors: Sequence[Tensor]) -> Tensor:
        """Map M tensors [N, D_m] to [N, C]."""
        projected = [
            part @ weights.T / math.sqrt(part.shape[1]) for part, weights in zip(vectors, self.weights, strict=True)
        ]
        hidden = torch.tanh(torch.stack(projected, dim=1) + self.biases)
        scores = hidden @ self.query
        if self.training and self.member_dropout > 0:
            scores = scores.masked_fill(self._left_out(*scores.shape), -math.inf)
        shares = torch.softmax(scores, dim=1)
        mixed = torch.einsum("nm,nmh->nh", shares, self.dropout(hidden))
        scored: Tensor = self.out(mixed)
        return scored

    def _left_out(self, rows: int, members: int) -> Tensor:
        """Return [N, M] bool, the members dropped from each row; at least one member stays."""
        out = torch.rand(rows, members) < self.member_dropout
        empty = out.all(dim=1)
        out[empty, torch.randint(members, (int(empty.sum()),))] = False
        return out

    def arrays(self) -> dict[str, FloatArray]:
        """Return `weights_<m>` [H, D_m], `biases` [M, H], `query` [H], `out_weights` [C, H] and `out_biases` [C]."""
        arrays = {f"weights_{m}": w / math.sqrt(w.shape[1]) for m, w in enumerate(self.weights)}
        arrays |= {"biases": self.biases, "query": self.query}
        arrays |= {"out_weights": self.out.weight, "out_biases": self.out.bias}
        return {name: value.detach().numpy() for name, value in arrays.items()}


def _trained_arrays(
    vectors: Sequence[FloatArray], truth: Labels, classes: int, cfg: FusionConfig, seed: int
) -> Mapping[str, FloatArray]:
    """Return the arrays of one network trained on M standardised vectors [N, D_m] and label indices [N]."""
    with torch.random.fork_rng(devices=[]):  # the global random state stays as it was
        torch.manual_seed(seed)
        network = AttentionNetwork([part.shape[1] for part in vectors], cfg, classes)
        _train(network, [torch.from_numpy(np.ascontiguousarray(part)) for part in vectors], truth, cfg)
    return network.arrays()


def _train(network: AttentionNetwork, vectors: Sequence[Tensor], truth: Labels, cfg: FusionConfig) -> None:
    targets = torch.from_numpy(truth)

    def loss_of(batch: Tensor) -> Tensor:
        scores = network([part[batch] for part in vectors])
        return nn.functional.cross_entropy(scores, targets[batch], label_smoothing=cfg.label_smoothing)

    fixed_epochs.train(network, len(truth), cfg, loss_of, "model.learning_rate")


class TimedProbabilities(NamedTuple):
    """Probabilities [N, C], and the seconds for all rows without those for the members' vectors."""

    probabilities: Array
    seconds: float


class AttentionFusion:
    """An attention and, after `fit`, its training vectors, so that it can be trained again without a member.

    Args:
        cfg: configuration of the fusion.
        classes: C, number of labels.
        seed: seed of the run.
    """

    def __init__(self, cfg: FusionConfig, classes: int, seed: int) -> None:
        self._cfg = cfg
        self._classes = classes
        self._seed = seed
        self._attention: TrainedAttention | None = None
        self._vectors: Sequence[FloatArray] = ()
        self._truth: Labels = np.zeros(0, dtype=np.int64)
        self._shares: dict[str, float] = {}

    def fit(
        self,
        members: Sequence[FusionMember],
        train: Sequence[Row],
        truth: Labels,
        val: Sequence[Row],
        val_truth: Labels,
    ) -> dict[str, float]:
        """Train on training rows; validation rows are scored afterwards and choose nothing.

        Returns:
            `fit/seconds` (of the training only), `params/total`, `params/trainable` and, with validation rows,
            `fit/val_uar` and `fit/val_log_loss`.

        Raises:
            ConfigError: a member has no fixed vectors, a setting is out of range, or the training rows have one label.
        """
        _check(self._cfg, truth)
        self._vectors, self._truth = [member.vectors(train) for member in members], truth
        started = time.perf_counter()
        self._attention = self._trained(self._vectors)
        parameters = float(self._attention.parameters)
        facts = {"params/total": parameters, "params/trainable": parameters}
        facts["fit/seconds"] = time.perf_counter() - started
        return facts | (validation_metrics(self.predict(members, val).probabilities, val_truth) if val else {})

    def predict(self, members: Sequence[FusionMember], rows: Sequence[Row]) -> TimedProbabilities:
        """Return probabilities of rows; afterwards `facts` has the mean attention.

        Raises:
            SerBenchError: neither fitted nor loaded, or the members have other vectors.
        """
        if self._attention is None:
            raise SerBenchError("this fusion is not fitted; call fit, or load a stored run")
        self._shares = {}
        if not rows:
            return TimedProbabilities(np.zeros((0, self._classes)), 0.0)
        vectors = [member.vectors(rows) for member in members]
        started = time.perf_counter()
        probabilities, shares = self._attention(vectors)
        names = [member.name for member in members]
        self._shares = dict(zip(names, map(float, shares.mean(axis=0)), strict=True))
        return TimedProbabilities(probabilities, time.perf_counter() - started)

    def without_each(self, members: Sequence[FusionMember], rows: Sequence[Row]) -> dict[str, TimedProbabilities]:
        """Return member → probabilities of an attention over the other members, trained on the same rows.

        Raises:
            SerBenchError: it was loaded; a stored attention does not keep its training vectors.
        """
        if not self._vectors:
            raise SerBenchError("without_each trains again, and a stored fusion keeps no training vectors; call fit")
        vectors = [member.vectors(rows) for member in members]
        results = {}
        for left_out, member in enumerate(members):
            others = [i for i in range(len(members)) if i != left_out]
            attention = self._trained([self._vectors[i] for i in others])
            started = time.perf_counter()
            probabilities, _ = attention([vectors[i] for i in others])
            results[member.name] = TimedProbabilities(probabilities, time.perf_counter() - started)
        return results

    def facts(self) -> dict[str, float]:
        """Return `fusion/attention/<member>`, its mean attention over the rows of the last `predict`; they sum to 1."""
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
        """Restore what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        fusion = cls(cfg, classes, seed)
        fusion._attention = TrainedAttention.load(folder)
        return fusion

    def _trained(self, vectors: Sequence[FloatArray]) -> TrainedAttention:
        return TrainedAttention.fit(vectors, self._truth, self._classes, self._cfg, self._seed)


def _check(cfg: FusionConfig, truth: Labels) -> None:
    if len(np.unique(truth)) < 2:
        raise ConfigError("all training rows have one label; an attention needs two")
    for name in ("width", "epochs", "batch_size", "seeds"):
        if getattr(cfg, name) < 1:
            raise ConfigError(f"model.{name}={getattr(cfg, name)}: must be at least 1")
    for name in ("dropout", "member_dropout", "label_smoothing"):
        if not 0 <= getattr(cfg, name) < 1:
            raise ConfigError(f"model.{name}={getattr(cfg, name)} must be at least 0 and less than 1")
