"""A predictor from an exported folder, run by onnxruntime. PyTorch is not needed."""

from __future__ import annotations

import hashlib
import json
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench import audio, extras
from ser_bench.errors import BadClipError, ConfigError, SerBenchError, one_line
from ser_bench.evaluation.calibration import tempered
from ser_bench.types import FloatArray

FORMAT = 1
"""Version of the folder; raised when older readers can no longer read it."""
DESCRIPTION_FILE = "model.json"
NEEDED_FOR = "ser-bench export --onnx"
DESCRIPTION_BYTES = 1_000_000
"""A larger description is damaged."""


class Precision(Enum):
    """Which file of the folder is run."""

    float32 = "float32"
    int8 = "int8"


class OnnxPredictor:
    """A predictor that `ser-bench export RUN --onnx` wrote, on the CPU. Several threads may use it.

    `predict_samples` of a Whisper probe is what a latency benchmark times: from samples to calibrated probabilities.

    Args:
        folder: what the command wrote.
        precision: int8 needs the file that `--int8` adds.
        threads: number of threads of onnxruntime; None: the number of cores.

    Attributes:
        name: name of the run.
        run_id: id of the run.
        labels: the label list, the order of the probabilities.
        sample_rate_hz: sampling rate of the graph's input; None if the input are features.
        temperature: of the calibration, 1 if the run has none.
        description: the content of model.json.

    Raises:
        ConfigError: onnxruntime is not installed, or the folder has no file of this precision.
        SerBenchError: a file is missing, damaged, or was changed after the export.
    """

    def __init__(
        self, folder: str | Path, precision: Precision = Precision.float32, threads: int | None = None
    ) -> None:
        extras.require("onnxruntime", NEEDED_FOR)
        import onnxruntime

        self.folder = Path(folder)
        self.precision = precision
        self.description = read_folder(self.folder)
        with_file = self.description["files"].get(precision.value)
        if with_file is None:
            raise ConfigError(f"{folder}: has no {precision.value} file; export the run again with --{precision.value}")
        content = _checked_content(self.folder / with_file["name"], with_file["sha256"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base class
            raise SerBenchError(
                f"{self.folder / with_file['name']}: onnxruntime cannot load it ({one_line(error)}); update "
                "onnxruntime, or export the run again"
            ) from error
        self.name: str = self.description["run"]["name"]
        self.run_id: str = self.description["run"]["id"]
        self.labels: tuple[str, ...] = tuple(self.description["labels"])
        self.sample_rate_hz: int | None = self.description["sample_rate_hz"]
        self.temperature = float(self.description["temperature"])

    def predict_samples(self, samples: npt.NDArray[Any], sample_rate_hz: int) -> FloatArray:
        """Return the calibrated probabilities [C] float32 of one recording.

        Args:
            samples: [T], mono, full scale ±1; what comes after 30 s is not used.
            sample_rate_hz: their sampling rate; another one than the graph's is resampled.

        Raises:
            ConfigError: the input of the graph are features, or the samples are not mono.
            BadClipError: there are no samples, or they contain NaN or infinite numbers.
        """
        if self.sample_rate_hz is None:
            raise ConfigError(
                f"{self.folder}: the graph of {self.description['predictor']} takes features and no samples; use "
                "predict_features, or 'ser-bench predict' with the run"
            )
        wave = np.ascontiguousarray(samples, dtype=np.float32)
        if wave.ndim != 1:
            raise ConfigError(f"give mono samples [T], not an array of shape {wave.shape}")
        if not len(wave) or not np.isfinite(wave).all():
            raise BadClipError("samples: there are none, or they contain NaN or infinite numbers")
        if sample_rate_hz != self.sample_rate_hz:
            wave = audio.resample(wave, sample_rate_hz, self.sample_rate_hz)
        probabilities: FloatArray = self._probabilities(wave[None])[0]
        return probabilities

    def predict_features(self, features: FloatArray) -> FloatArray:
        """Return the calibrated probabilities [N, C] float32 of features [N, …], not standardised.

        Raises:
            ConfigError: the features have another shape than the input of the graph, or that are samples.
        """
        shape = self.description["input"]["shape"][1:]
        if self.sample_rate_hz is not None:
            raise ConfigError(f"{self.folder}: the graph takes samples; use predict_samples")
        if list(features.shape[1:]) != shape:
            raise ConfigError(f"{self.folder}: the graph takes features [N, {shape}], not {list(features.shape)}")
        return self._probabilities(features.astype(np.float32))

    def _probabilities(self, batch: FloatArray) -> FloatArray:
        found = np.asarray(self._session.run(None, {self.description["input"]["name"]: batch})[0])
        if self.temperature != 1.0:
            found = tempered(found, self.temperature)
        probabilities: FloatArray = found.astype(np.float32)
        return probabilities

    def __repr__(self) -> str:
        return f"<ONNX predictor of run {self.run_id[:8]} ({self.name}), {self.precision.value}>"


def read_folder(folder: Path) -> dict[str, Any]:
    """Return the content of an exported folder's model.json.

    Raises:
        SerBenchError: it is missing or damaged, or was written in another format.
    """
    path = folder / DESCRIPTION_FILE
    try:
        if path.stat().st_size > DESCRIPTION_BYTES:
            raise ValueError("it is too large")
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = description["format"]
        missing = {"run", "labels", "input", "files", "sample_rate_hz", "temperature", "predictor"} - set(description)
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SerBenchError(
            f"{path}: no readable description of an exported predictor ({one_line(error)}); export the run again with "
            "'ser-bench export RUN --onnx'"
        ) from error
    if found != FORMAT:
        raise SerBenchError(f"{path}: exported in format {found}, but this version reads {FORMAT}; export it again")
    return description


def _checked_content(path: Path, sha256: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SerBenchError(f"{path}: cannot be read ({error.strerror}); export the run again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise SerBenchError(f"{path}: its sha256 is not that of model.json; it was changed or damaged: export it again")
    return content
