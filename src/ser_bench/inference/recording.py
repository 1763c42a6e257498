"""A recording in memory: samples with their sampling rate, from a file, from bytes, or from an array."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench import audio
from ser_bench.errors import ConfigError
from ser_bench.types import FloatArray


@dataclass(frozen=True)
class Recording:
    """Samples of one recording.

    Attributes:
        name: the path as it was given, or "samples 0"; it is shown in answers and messages.
        samples: [T] float32, mono, full scale ±1; T > 0, all finite.
        sample_rate_hz: their sampling rate.
        digest: hexadecimal BLAKE2b-128 of the file's bytes, or of samples and rate.
        speaker: name of an enrolled speaker (`AudioPredictor.enrol`), else "".
        cancelled: whether the channels of the file cancel each other in their mean, so that the samples are no speech.
    """

    name: str
    samples: FloatArray
    sample_rate_hz: int
    digest: str
    speaker: str = ""
    cancelled: bool = False

    @property
    def duration_s(self) -> float:
        """Length, seconds."""
        return len(self.samples) / self.sample_rate_hz

    @classmethod
    def from_file(cls, path: str | Path, max_duration_s: float = audio.MAX_DURATION_S) -> Recording:
        """Read a file.

        Raises:
            BadClipError: it is missing, empty, not audio, truncated, too long, or contains NaN or infinite samples.
        """
        mono, digest = audio.read_mono(Path(path), max_duration_s), audio.content_digest(Path(path))
        return cls(str(path), mono.samples, mono.sample_rate_hz, digest, cancelled=mono.cancelled)

    @classmethod
    def from_bytes(cls, content: bytes, name: str, max_duration_s: float = audio.MAX_DURATION_S) -> Recording:
        """Decode the content of a file; nothing is written to the disk.

        Raises:
            BadClipError: as in `from_file`.
        """
        mono = audio.decode(content, name, max_duration_s)
        return cls(name, mono.samples, mono.sample_rate_hz, _digest(content), cancelled=mono.cancelled)

    @classmethod
    def from_samples(
        cls, samples: npt.NDArray[Any], sample_rate_hz: int, name: str = "samples", speaker: str = ""
    ) -> Recording:
        """Take samples [T], mono: floating-point numbers of full scale ±1, or integers of 16 or 32 bits.

        Raises:
            ConfigError: the array is not one-dimensional or of another type, or the rate is not positive.
            BadClipError: there are no samples, or they contain NaN or infinite numbers.
        """
        array = np.asarray(samples)
        if array.ndim != 1:
            raise ConfigError(f"{name}: give mono samples [T], not an array of shape {array.shape}")
        if sample_rate_hz < 1:
            raise ConfigError(f"{name}: sample_rate_hz={sample_rate_hz} is not a sampling rate")
        if array.dtype in (np.int16, np.int32):
            array = array / -float(np.iinfo(array.dtype).min)
        elif not np.issubdtype(array.dtype, np.floating):
            raise ConfigError(f"{name}: samples are float, int16 or int32, not {array.dtype}")
        wave: FloatArray = np.ascontiguousarray(array, dtype=np.float32)
        with audio.held(wave, sample_rate_hz, name):  # checks the samples
            return cls(name, wave, int(sample_rate_hz), _digest(wave.tobytes() + str(sample_rate_hz).encode()), speaker)

    def section(self, start_s: float, end_s: float) -> Recording:
        """Return the samples from `start_s` to `end_s`, seconds, as a recording with the same name."""
        start, end = (round(time_s * self.sample_rate_hz) for time_s in (start_s, end_s))
        part = self.samples[max(0, start) : max(0, end)]
        return replace(self, samples=part, digest=_digest(part.tobytes() + str(self.sample_rate_hz).encode()))


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=audio.DIGEST_BYTES).hexdigest()
