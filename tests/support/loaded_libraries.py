"""Import the libraries of whole runs; the processes of `forked_process` are forked from one that has imported this."""

# ruff: noqa: E402, F401
from __future__ import annotations

from tests.support import store_template

store_template.install()

import librosa.beat
import librosa.core.audio
import librosa.core.pitch
import librosa.feature
import librosa.util.utils
import matplotlib.pyplot
import mlflow.store.tracking.sqlalchemy_store
import pyarrow.parquet
import pytorch_lightning
import scipy.stats
import sklearn.linear_model
import sklearn.metrics
import torchmetrics

import ser_bench.cli.app
import ser_bench.hydra_program
import ser_bench.pipeline
import ser_bench.tracking
from ser_bench.features.torchaudio_cpu import torchaudio
