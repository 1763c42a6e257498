"""`model=whisper_probe`: frozen Whisper encoders, pooled over time, and a light head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ser_bench.config import Pooling, WhisperProbeConfig, model_config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.embeddings.attentive_pooling import Attention
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.types import FloatArray, Row

ATTENTION_FILE = "pooling_{}.safetensors"
"""One an encoder, in the order of `model.encoders`."""


class WhisperProbe(Probe):
    """Mean and deviation over time of chosen layers of one or several encoders, side by side.

    Under `model.pooling=attentive` of one layer an encoder, under weights that were learnt from training rows.
    """

    name: ClassVar[str] = "whisper_probe"
    _attentions: Mapping[str, Attention] | None = None
    _attended: dict[tuple[str, str], FloatArray]

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """As every probe, after the attention over time is learnt, where there is one.

        Raises:
            ConfigError: as every probe; `model.pooling=attentive` over several layers of an encoder.
        """
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if cfg.pooling is Pooling.attentive:
            rows, truth = self._clean(train)
            if self._cfg.shuffle_labels:
                truth = list(np.random.default_rng(self._seed).permutation(truth))
            targets, classes = self._places(truth), len(self._labels)
            self._attentions = {
                encoder: Attention.learnt(self._frames(rows, encoder), targets, classes, cfg.attention, self._seed)
                for encoder in cfg.encoders
            }
            self._attended = {}
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
        """[N, 2 · width · seeds] of one encoder; a clip is pooled once."""
        if self._attentions is None:
            raise SerBenchError(f"this {self.name} is not trained; call fit, or load a stored run")
        attention, known = self._attentions[encoder], self._attended
        new = [row for row in dict.fromkeys(rows) if (encoder, row.clip_id) not in known]
        for row, frames in zip(new, self._frames(new, encoder), strict=True):
            known[encoder, row.clip_id] = attention(frames)
        pooled = [known[encoder, row.clip_id] for row in rows]
        return np.stack(pooled) if pooled else np.zeros((0, 0), dtype=np.float32)

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
        for number, attention in enumerate((self._attentions or {}).values()):
            attention.save(folder / ATTENTION_FILE.format(number))
        return state

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        super()._restore(stored, folder)
        cfg = model_config(self._cfg, WhisperProbeConfig)
        if cfg.pooling is Pooling.attentive:
            files = [folder / ATTENTION_FILE.format(number) for number in range(len(cfg.encoders))]
            self._attentions = {name: Attention.load(path) for name, path in zip(cfg.encoders, files, strict=True)}
            self._attended = {}


def chosen(layers: Sequence[int] | None, count: int) -> list[int]:
    """Places of the chosen layers among `count`, of which the last is the normalised output.

    Args:
        layers: blocks counted from 1; −1 is the normalised output, −2 the last block; None is all of them. Numbers
            that an encoder has not are left out, so that one list serves encoders of unequal depth.

    Raises:
        ConfigError: none is left, or 0 is among them.

    >>> chosen([2, 3, 9, -1], 5), chosen(None, 3)
    ([1, 2, 4], [0, 1, 2])
    """
    if layers is None or not count:
        return list(range(count))
    places = [layer - 1 if layer > 0 else count + layer for layer in layers if -count <= layer < count]
    if 0 in layers or not places:
        raise ConfigError(
            f"model.layers={list(layers)}: blocks are counted from 1 to {count - 1}, and -1 is the normalised output"
        )
    return sorted(set(places))
