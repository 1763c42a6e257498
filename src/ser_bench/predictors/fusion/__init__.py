"""`model=fusion`: the predictions of other finished runs, combined.

- `fusion`: the predictor; `stacking`: regression over probabilities, and their mean; `attention`: over vectors.
"""

from ser_bench.predictors.fusion.fusion import Combine, Fusion, FusionConfig

__all__ = ["Combine", "Fusion", "FusionConfig"]
