"""The networks over the paper's feature vector.

- `cnn`: the paper's audio-only 1D CNN, and the same with text embeddings (`cnn_text`); `paper_network`: its layers;
- `mlp`: one hidden layer over the same vector.
"""

from ser_bench.predictors.cnn.cnn import Cnn, CnnConfig, CnnText
from ser_bench.predictors.cnn.mlp import Mlp, MlpConfig

__all__ = ["Cnn", "CnnConfig", "CnnText", "Mlp", "MlpConfig"]
