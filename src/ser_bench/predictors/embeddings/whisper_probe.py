"""`model=whisper_probe`: frozen Whisper encoders, pooled over time, and a light head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cachetools import LRUCache

from ser_bench import weights
from ser_bench.config import Config, FixedEpochsConfig, ModelConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.capabilities import UsesLicensedParts
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.predictors.registry import Need, register
from ser_bench.types import FloatArray, Row
from ser_bench.weights import LicensedPart

if TYPE_CHECKING:
    from ser_bench.predictors.embeddings.attentive_pooling import TrainedPooling

POOLING_FILE = "pooling_{}.safetensors"
"""One file per encoder, in the order of `model.encoders`."""
POOLED_CLIPS = 1 << 15
"""Number of pooled vectors that stay in memory: those of CREMA-D for two encoders and more."""


class Pooling(Enum):
    """How the states of a layer over time become one vector."""

    stats = "stats"
    attentive = "attentive"


@dataclass
class AttentivePoolingConfig(FixedEpochsConfig):
    """Training of attentive pooling; more epochs fit it more closely to the training speakers."""

    epochs: int = 10
    hidden: int = 64
    """Units of the layer that scores a frame."""
    dropout: float = 0.3
    """Share of pooled numbers dropped in training."""
    seeds: int = 1
    """Number of poolings, whose vectors are concatenated."""


@dataclass
class WhisperProbeConfig(ModelConfig):
    """Frozen Whisper encoders, pooled over time, and a head."""

    name: str = "whisper_probe"
    encoders: list[str] = field(default_factory=lambda: ["tiny.en", "base"])
    """Encoders whose vectors are concatenated: names in the table of weights without "whisper-", or folders in
    CTranslate2's format."""
    layers: list[int] | None = None
    """Blocks counted from 1; -1 is the normalised output. Blocks that an encoder lacks are left out; null: all."""
    device: str = "cpu"
    """Device of the encoders."""
    pooling: Pooling = Pooling.stats
    """stats: mean and standard deviation over time; attentive: the same with learnt weights, one layer per encoder."""
    attention: AttentivePoolingConfig = field(default_factory=AttentivePoolingConfig)
    """attentive: how the weights are learnt."""


@register("whisper_probe", WhisperProbeConfig, groups=("head", "adapt"), needs=(Need.audio,))
class WhisperProbe(Probe, UsesLicensedParts):
    """Mean and standard deviation over time of chosen layers of one or several encoders, concatenated.

    With `model.pooling=attentive`, the weights of the frames of one layer per encoder are learnt from training rows.
    """

    _poolings: Mapping[str, TrainedPooling] | None = None
    _pooled: LRUCache[tuple[str, str], FloatArray]

    @classmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return the encoders."""
        return [
            weights.licensed_part(f"whisper-{encoder}", encoder)
            for encoder in model_config(cfg, WhisperProbeConfig).encoders
        ]

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Learn the pooling weights, if there are any, then fit the head as every probe.

        Raises:
            ConfigError: as every probe; or `model.pooling=attentive` with several layers of an encoder.
        """
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if cfg.pooling is Pooling.attentive:
            from ser_bench.predictors.embeddings.attentive_pooling import TrainedPooling

            rows, truth = self._clean(train)
            if self._cfg.shuffle_labels:
                truth = list(np.random.default_rng(self._seed).permutation(truth))
            targets, classes = self._label_index(truth), len(self._labels)
            self._poolings = {
                encoder: TrainedPooling.fit(self._frames(rows, encoder), targets, classes, cfg.attention, self._seed)
                for encoder in cfg.encoders
            }
            self._pooled = LRUCache(POOLED_CLIPS)
        return super().fit(train, val, test)

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if not cfg.encoders or len(set(cfg.encoders)) != len(cfg.encoders):
            raise ConfigError(f"model.encoders={list(cfg.encoders)}: name at least one encoder, and none twice")
        if cfg.pooling is Pooling.attentive:
            return np.concatenate([self._attentive(rows, encoder) for encoder in cfg.encoders], axis=1)
        parts = []
        for encoder in cfg.encoders:
            pooled = self._inputs.embedding(rows, encoder, cfg.encoders, cfg.device)
            parts.append(pooled[:, chosen(cfg.layers, pooled.shape[1])].reshape(len(rows), -1))
        return np.concatenate(parts, axis=1)

    def _attentive(self, rows: Sequence[Row], encoder: str) -> FloatArray:
        """Return [N, 2 · width · seeds] of one encoder; each clip is pooled once."""
        if self._poolings is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        pooling = self._poolings[encoder]
        keys = {row.clip_id: (encoder, row.clip_id) for row in rows}
        pooled = {clip_id: self._pooled[key] for clip_id, key in keys.items() if key in self._pooled}
        new = [row for row in dict.fromkeys(rows) if row.clip_id not in pooled]
        for row, frames in zip(new, self._frames(new, encoder), strict=True):
            pooled[row.clip_id] = self._pooled[encoder, row.clip_id] = pooling(frames)
        return np.stack([pooled[row.clip_id] for row in rows]) if rows else np.zeros((0, 0), dtype=np.float32)

    def _frames(self, rows: Sequence[Row], encoder: str) -> Iterator[FloatArray]:
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if not rows:
            return iter(())
        count = self._inputs.embedding(rows[:1], encoder, cfg.encoders, cfg.device).shape[1]
        layers = chosen(cfg.layers, count)
        if len(layers) != 1:
            raise ConfigError(
                f"model.layers={cfg.layers}: model.pooling=attentive reads one layer of {encoder}, and these are "
                f"{len(layers)}; name one, as model.layers=[4]"
            )
        return self._inputs.frames(rows, encoder, layers[0], cfg.device)

    def _state(self, folder: Path) -> dict[str, Any]:
        state = super()._state(folder)
        for number, pooling in enumerate((self._poolings or {}).values()):
            pooling.save(folder / POOLING_FILE.format(number))
        return state

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        super()._restore(stored, folder)
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if cfg.pooling is Pooling.attentive:
            from ser_bench.predictors.embeddings.attentive_pooling import TrainedPooling

            files = [folder / POOLING_FILE.format(number) for number in range(len(cfg.encoders))]
            self._poolings = {name: TrainedPooling.load(path) for name, path in zip(cfg.encoders, files, strict=True)}
            self._pooled = LRUCache(POOLED_CLIPS)


def chosen(layers: Sequence[int] | None, count: int) -> list[int]:
    """Return the indices of the chosen layers among `count`, of which the last is the normalised output.

    Args:
        layers: blocks counted from 1; −1 is the normalised output, −2 the last block; None is all of them. Numbers
            beyond the depth of an encoder are left out, so that one list serves encoders of unequal depth.
        count: number of layers of the encoder, the normalised output included.

    Raises:
        ConfigError: no layer is left, or 0 is among them.

    >>> chosen([2, 3, 9, -1], 5), chosen(None, 3)
    ([1, 2, 4], [0, 1, 2])
    """
    if layers is None or not count:
        return list(range(count))
    indices = [layer - 1 if layer > 0 else count + layer for layer in layers if -count <= layer < count]
    if 0 in layers or not indices:
        raise ConfigError(
            f"model.layers={list(layers)}: blocks are counted from 1 to {count - 1}, and -1 is the normalised output"
        )
    return sorted(set(indices))
