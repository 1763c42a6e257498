"""`model=crnn`: a small network over log-mel spectrograms, trained from scratch."""

from ser_bench.predictors.crnn.crnn import Crnn, CrnnConfig

__all__ = ["Crnn", "CrnnConfig"]
