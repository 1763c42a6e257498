"""Recordings of any length, read in blocks and resampled as they are read, so that memory does not grow with length."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ser_bench import audio
from ser_bench.errors import BadClipError
from ser_bench.types import FloatArray

BLOCK_S = 10.0
"""Length of a block, seconds."""
MAX_FILE_BYTES = 1 << 34
"""Largest file: 16 GiB, 26 hours of 16-bit stereo at 44.1 kHz. It is never in memory as a whole."""
MAX_CHANNELS = 64
MAX_RATE_HZ = 768_000


@dataclass(frozen=True)
class LongRecording:
    """A file that is complete and can be decoded; its samples are read later, in blocks.

    Attributes:
        name: the path as it was given, or what stands for it.
        sample_rate_hz: its sampling rate.
        duration_s: length, seconds, by the header.
        channels: number of channels, which `blocks` averages.
    """

    name: str
    sample_rate_hz: int
    duration_s: float
    channels: int
    _source: Path | io.BytesIO = field(repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> LongRecording:
        """Check a file and read its header. WAV, FLAC, Ogg, MP3 and all else that libsndfile reads are possible.

        Raises:
            BadClipError: it is missing, empty, not audio, truncated, damaged, or larger than `MAX_FILE_BYTES`.
        """
        corrected = audio.open_checked(Path(path), MAX_FILE_BYTES)
        return cls._of(Path(path) if corrected is None else corrected, str(path))

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> LongRecording:
        """Check the content of a file, and keep it in memory as it is.

        Raises:
            BadClipError: as `open`.
        """
        return cls._of(audio.checked_bytes(content, name), name)

    @classmethod
    def _of(cls, source: Path | io.BytesIO, name: str) -> LongRecording:
        try:
            with soundfile.SoundFile(source) as file:
                rate, frames, channels = int(file.samplerate), int(file.frames), int(file.channels)
        except soundfile.LibsndfileError as error:
            raise audio.undecodable(name, error) from error
        if not frames:
            raise BadClipError(f"{name}: contains no audio samples")
        if channels > MAX_CHANNELS or rate > MAX_RATE_HZ:
            raise BadClipError(f"{name}: states {channels} channels at {rate:,} Hz; write it again as mono at 16 kHz")
        return cls(name, rate, frames / rate, channels, source)

    def blocks(self, block_s: float = BLOCK_S) -> Iterator[FloatArray]:
        """Yield the samples in blocks [T] float32, mono (mean of the channels), full scale ±1, in order.

        All blocks but the last one have `block_s`.

        Raises:
            BadClipError: a sample is NaN or infinite, or the file ends before the length that its header states. What
                could be read was yielded before.
        """
        read, size = 0, max(1, round(block_s * self.sample_rate_hz))
        if isinstance(self._source, io.BytesIO):
            self._source.seek(0)
        try:
            with soundfile.SoundFile(self._source) as file:
                while len(frames := file.read(size, dtype="float32", always_2d=True)):
                    if not np.isfinite(frames).all():
                        at_s = read / self.sample_rate_hz
                        raise BadClipError(
                            f"{self.name}: contains samples that are not numbers (NaN or infinite) after {at_s:.0f} s"
                        )
                    read += len(frames)
                    block: FloatArray = frames.mean(axis=1, dtype=np.float32)
                    yield block
        except soundfile.LibsndfileError as error:
            raise audio.undecodable(self.name, error) from error
        stated = round(self.duration_s * self.sample_rate_hz)
        if read < stated:
            raise BadClipError(
                f"{self.name}: truncated, {read / self.sample_rate_hz:.1f} of {self.duration_s:.1f} s can be decoded; "
                "download it again"
            )


class StreamResampler:
    """Resampling of samples that arrive in chunks; the result does not depend on how they are divided.

    Args:
        from_hz: rate of the samples.
        to_hz: rate of the result.
    """

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._stream = None if from_hz == to_hz else soxr.ResampleStream(from_hz, to_hz, 1, "float32", "HQ")

    def feed(self, samples: FloatArray, last: bool = False) -> FloatArray:
        """Return the samples [T] that can be computed now. They are aligned with the input, and some follow later.

        Args:
            samples: [T] float32, the next ones.
            last: whether no more follow; the rest is then returned.
        """
        if self._stream is None:
            return samples
        out: FloatArray = self._stream.resample_chunk(np.ascontiguousarray(samples, dtype=np.float32), last=last)
        return out
