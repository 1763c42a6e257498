"""What can be exported: its graph, its input, the answers that the graph must give, and what is timed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench import predictors
from ser_bench.config import Config, run_here
from ser_bench.errors import ConfigError
from ser_bench.evaluation.calibration import Calibration, tempered
from ser_bench.export import network_graph, whisper_graph
from ser_bench.export.onnx_predictor import OnnxPredictor
from ser_bench.features.encoders.whisper_states import MAX_SAMPLES, MIN_SAMPLES, SAMPLE_RATE_HZ
from ser_bench.features.feature_store import Features
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.predictors import HasNetwork
from ser_bench.predictors.crnn import CrnnConfig
from ser_bench.predictors.embeddings import WhisperProbe
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    import onnx

CHECKED_SECONDS = (0.02, 0.5, 1.0, 2.345, 3.0, 7.1)
"""Lengths of the generated signals."""
CHECKED_ROWS = (1, 2, 5)
"""Numbers of random feature rows."""
TIMED_SECONDS = 3.0


class Exportable(ABC):
    """A trained predictor that can be exported.

    Attributes:
        products: names of the nodes that can be quantised; () before `graph`, and for networks.
        sample_rate_hz: of the input of the graph; None if the input are features.
    """

    products: tuple[str, ...] = ()
    sample_rate_hz: int | None = None

    @abstractmethod
    def graph(self) -> onnx.ModelProto:
        """Return the model."""

    @abstractmethod
    def input_description(self) -> dict[str, Any]:
        """Return name, type, shape and meaning of the input, as JSON values."""

    @abstractmethod
    def largest_difference(self, exported: OnnxPredictor) -> float:
        """Return the largest difference of a probability between the exported file and the predictor."""

    @abstractmethod
    def answer_once(self) -> None:
        """Predict one recording of 3 s, or one row of features, with the predictor itself."""

    @abstractmethod
    def answer_once_with(self, exported: OnnxPredictor) -> None:
        """Predict the same with the exported file."""

    @abstractmethod
    def example(self) -> Sequence[str]:
        """Return lines of Python that give the input of the graph."""


def exportable(files: PredictorFiles, here: Config) -> Exportable:
    """Return the predictor as something that can be exported.

    Raises:
        ConfigError: it cannot; the message names the models that can.
    """
    name = files.cfg.model.name
    if name == WhisperProbe.name:
        return _ExportableProbe(files, here)
    if predictors.has_capability(name, HasNetwork):
        return _ExportableNetwork(files, here)
    possible = [m for m in predictors.names() if m == WhisperProbe.name or predictors.has_capability(m, HasNetwork)]
    raise ConfigError(
        f"run {files.run_id} ({files.name}): model={name} cannot be exported to ONNX; {', '.join(possible)} can"
    )


class _ExportableProbe(Exportable):
    """A Whisper probe: samples in, probabilities out."""

    sample_rate_hz = SAMPLE_RATE_HZ

    def __init__(self, files: PredictorFiles, here: Config) -> None:
        self._files = files
        self._here = here
        self._timed = generated_signal(TIMED_SECONDS, seed=0)

    def graph(self) -> onnx.ModelProto:
        made = whisper_graph.probe_graph(self._files)
        self.products = made.products
        self._predictor = AudioPredictor(self._files, self._here)
        return made.model

    def input_description(self) -> dict[str, Any]:
        return {
            "name": whisper_graph.SAMPLES,
            "type": "float32",
            "shape": ["batch", "time"],
            "meaning": f"mono samples at {SAMPLE_RATE_HZ} Hz, full scale ±1; the clips of a batch have one length; "
            f"fewer than {MIN_SAMPLES} samples are padded with zeros, and what follows {MAX_SAMPLES} is not used",
            "normalisation": "none is needed: spectrogram and standardisation are in the graph",
        }

    def largest_difference(self, exported: OnnxPredictor) -> float:
        signals = [generated_signal(duration_s, seed) for seed, duration_s in enumerate(CHECKED_SECONDS)]
        answers = self._predictor.predict([Recording.from_samples(wave, SAMPLE_RATE_HZ) for wave in signals])
        expected = np.array([list(answer.probabilities.values()) for answer in answers])
        found = np.array([exported.predict_samples(wave, SAMPLE_RATE_HZ) for wave in signals])
        return float(np.abs(found - expected).max())

    def answer_once(self) -> None:
        self._predictor.predict([Recording.from_samples(self._timed, SAMPLE_RATE_HZ)])

    def answer_once_with(self, exported: OnnxPredictor) -> None:
        exported.predict_samples(self._timed, SAMPLE_RATE_HZ)

    def example(self) -> Sequence[str]:
        return (
            "import json, onnxruntime, soundfile",
            f'samples, rate = soundfile.read("clip.wav", dtype="float32")  # mono, {SAMPLE_RATE_HZ} Hz',
            "batch = samples[None]",
        )


class _ExportableNetwork(Exportable):
    """A network: features in, probabilities out."""

    def __init__(self, files: PredictorFiles, here: Config) -> None:
        cfg = run_here(files.cfg, here)
        features = Features(cfg, {}, cfg.corpus.language)
        loaded = predictors.load(files.folder, cfg, files.labels, features)
        self._predictor = predictors.require_capability(loaded, HasNetwork)
        self._cfg = cfg
        self._temperature = temperature_of(files)
        self._timed = network_graph.example_features(self._predictor, 1, seed=0)

    def graph(self) -> onnx.ModelProto:
        return network_graph.network_graph(self._predictor)

    def input_description(self) -> dict[str, Any]:
        shape = list(self._timed.shape[1:])
        described: dict[str, Any] = {
            "name": network_graph.FEATURES,
            "type": "float32",
            "shape": ["batch", *shape],
            "meaning": f"what model={self._cfg.model.name} computes of a clip (docs/predictors.md)",
            "normalisation": "none is needed: the standardisation is in the graph",
        }
        groups = predictors.predictor_class(self._cfg.model.name).groups
        if "features" in groups:
            described["features"] = _plain(self._cfg.features)
        if "text" in groups:
            described["text"] = {"name": self._cfg.text.name, "dim": self._cfg.text.dim}
        if isinstance(self._cfg.model, CrnnConfig):
            described["log_mel"] = _plain(self._cfg.model.log_mel)
        return described

    def largest_difference(self, exported: OnnxPredictor) -> float:
        differences = []
        for count in CHECKED_ROWS:
            features = network_graph.example_features(self._predictor, count, seed=count)
            raw = network_graph.expected_probabilities(self._predictor, features)
            expected = raw if self._temperature == 1.0 else tempered(raw, self._temperature)
            differences.append(float(np.abs(exported.predict_features(features) - expected).max()))
        return max(differences)

    def answer_once(self) -> None:
        network_graph.expected_probabilities(self._predictor, self._timed)

    def answer_once_with(self, exported: OnnxPredictor) -> None:
        exported.predict_features(self._timed)

    def example(self) -> Sequence[str]:
        shape = self._timed.shape[1:]
        return (
            "import json, numpy, onnxruntime",
            f"batch = numpy.zeros((1, {', '.join(map(str, shape))}), numpy.float32)  # features of one clip",
        )


def temperature_of(files: PredictorFiles) -> float:
    """Return the temperature of the run's calibration; 1 if it has none.

    Raises:
        SerBenchError: the calibration cannot be read.
    """
    return 1.0 if files.calibration is None else Calibration.load(files.calibration).temperature


def generated_signal(duration_s: float, seed: int) -> FloatArray:
    """Return samples [T] float32 at 16 kHz: a tone with gliding pitch and four pulses a second, and noise."""
    rng = np.random.default_rng(seed)
    times = np.arange(round(duration_s * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = rng.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(0.5, 3) * times))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    voice = sum(np.sin(number * phase) / number for number in range(1, 13))
    loudness = 0.1 * np.abs(np.sin(4 * np.pi * times + rng.uniform(0, 3)))
    signal: FloatArray = (loudness * voice + rng.normal(scale=0.003, size=len(times))).astype(np.float32)
    return signal


def _plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass as JSON values."""
    return {name: getattr(value, "value", value) for name, value in asdict(settings).items()}
