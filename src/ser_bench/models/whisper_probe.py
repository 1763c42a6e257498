"""`model=whisper_probe`: frozen Whisper encoders, pooled over time, and a light head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ser_bench.config import WhisperProbeConfig
from ser_bench.errors import ConfigError
from ser_bench.models.probe import Probe
from ser_bench.types import FloatArray, Row


class WhisperProbe(Probe):
    """Mean and deviation over time of chosen layers of one or several encoders, side by side."""

    name: ClassVar[str] = "whisper_probe"

    def _raw(self, rows: Sequence[Row]) -> FloatArray:
        cfg: WhisperProbeConfig = self._cfg.model
        if not cfg.encoders or len(set(cfg.encoders)) != len(cfg.encoders):
            raise ConfigError(f"model.encoders={list(cfg.encoders)}: name at least one encoder, and none twice")
        parts = []
        for encoder in cfg.encoders:
            pooled = self._inputs.embedding(rows, encoder, cfg.encoders, cfg.device)
            parts.append(pooled[:, chosen(cfg.layers, pooled.shape[1])].reshape(len(rows), -1))
        return np.concatenate(parts, axis=1)


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
