"""`model=cnn_text`: the same network over the audio features followed by the transcript's embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ser_bench.config import Config
from ser_bench.predictors.cnn.cnn import Cnn
from ser_bench.types import FloatArray, Row


class CnnText(Cnn):
    """The audio CNN with the text embedding appended to its input; the four variants of a clip share one transcript."""

    name: ClassVar[str] = "cnn_text"
    groups: ClassVar[tuple[str, ...]] = (*Cnn.groups, "asr", "text")

    @classmethod
    def input_length(cls, cfg: Config) -> int:
        """Numbers in one feature vector: 2,760 at the paper's settings."""
        return super().input_length(cfg) + cfg.text.dim

    def _features(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] audio features, then text embedding."""
        return np.concatenate([super()._features(rows), self.inputs.text(rows)], axis=1)
