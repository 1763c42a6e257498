"""Reading of audio files as mono float32 samples, and detection of damaged files.

libsndfile decodes WAV, FLAC, Ogg, MP3 and more, with any sample format, number of channels and sampling rate. It
decodes a truncated or damaged file without an error, so `audio_containers` checks that the file is complete. Only
regular files of limited size are opened: a named pipe would wait for a writer without end.

Recordings that are not files, such as an upload or the signal of a microphone, are read by the same functions: `held`
gives them a path that exists in this process only, so nothing is written to the disk.

The check has a limit for MP3 files whose header does not count the frames (no Xing, Info or VBRI tag). libsndfile then
estimates the length from the first frame: a truncated file with a constant bit rate is not detected, and an intact file
with a variable bit rate may be refused.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ser_bench import audio_containers
from ser_bench.errors import BadClipError
from ser_bench.types import Clip, FloatArray

MAX_DURATION_S = 60.0
"""Default limit of the length, seconds; a longer file is not a single utterance."""
SILENCE_PEAK = 1.0 / 32768
"""Peak below which a file counts as silent: one quantisation step of 16-bit audio (full scale is 1)."""
LOUD_PEAK = 2.0
"""Peak above which a file is far above full scale (6 dB). Lossy formats overshoot full scale, 1, by some 10 %; a file
of floating-point samples that were never divided by 32,768 has a peak of thousands."""
CANCELLED_SHARE = 0.1
"""Channels cancel if the RMS of their mean is below this share (−20 dB) of the RMS of all channels. It is 0.71 for two
independent channels of equal level, and also if one of two channels is silent."""
DIGEST_BYTES = 16
MAX_FILE_BYTES = 1 << 30
"""Largest file that is opened: 1 GiB. One minute of 8 channels at 192 kHz with 32 bits has 370 MB."""
MAX_SAMPLES = 1 << 28
"""Largest number of samples of all channels that is decoded: 1 GiB of float32. A small file can contain more."""
HEAD_BYTES = 64

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

EXTENSIONS = frozenset(
    [".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"]
)
"""File extensions, in lower case, that are searched for in a folder. libsndfile reads all of these formats."""
UNREAD_EXTENSIONS = frozenset(
    [".m4a", ".m4b", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mka", ".mov", ".avi", ".3gp", ".amr", ".ape", ".wv"]
)
"""File extensions, in lower case, of audio and video formats that libsndfile does not read."""
HOW_TO_CONVERT = "convert each to WAV, for example with `ffmpeg -i clip.m4a clip.wav`"

HELD_FOLDER = Path("<in memory>")
"""First part of the paths of `held`."""
_held: dict[Path, tuple[FloatArray, int]] = {}
"""Path → samples [T] and sampling rate of the recordings that are in memory now."""
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Properties of one audio file, measured by decoding all of it.

    Attributes:
        duration_s: length, seconds.
        sample_rate_hz: sampling rate of the file.
        channels: number of channels in the file.
        silent: True if no sample of the mean of the channels reaches `SILENCE_PEAK`.
        digest: `content_digest` of the file.
        peak: largest absolute sample of all channels.
        cancelled: True if the channels cancel each other in their mean (`CANCELLED_SHARE`).
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    silent: bool
    digest: str
    peak: float
    cancelled: bool


@dataclass(frozen=True, slots=True)
class Mono:
    """The mean of the channels of a recording.

    Attributes:
        samples: [T] float32, full scale ±1.
        sample_rate_hz: sampling rate of the file.
        cancelled: True if the channels cancel each other in their mean (`CANCELLED_SHARE`).
    """

    samples: FloatArray
    sample_rate_hz: int
    cancelled: bool

    @classmethod
    def of(cls, frames: FloatArray, sample_rate_hz: int) -> Mono:
        """Return the mean of frames [T, channels]."""
        samples: FloatArray = frames.mean(axis=1, dtype=np.float32)
        cancelled = frames.shape[1] > 1 and _rms(samples) < CANCELLED_SHARE * _rms(frames)
        return cls(samples, sample_rate_hz, cancelled)


def read_mono(path: Path, max_duration_s: float = MAX_DURATION_S) -> Mono:
    """Read a whole file.

    Raises:
        BadClipError: if the file is missing, empty, not audio, truncated, longer than `max_duration_s`, or contains NaN
            or infinite samples.
    """
    return Mono.of(*_decode(path, max_duration_s))


def read(path: Path, max_duration_s: float = MAX_DURATION_S) -> tuple[FloatArray, int]:
    """Return the samples [T] and the sampling rate, Hz, of `read_mono`.

    Raises:
        BadClipError: as in `read_mono`.
    """
    mono = read_mono(path, max_duration_s)
    return mono.samples, mono.sample_rate_hz


def decode(content: bytes, name: str, max_duration_s: float = MAX_DURATION_S) -> Mono:
    """Decode the content of a file, as `read_mono` does; `name` stands for it in error messages."""
    return Mono.of(*_decoded(checked_bytes(content, name), name, max_duration_s))


def checked_bytes(content: bytes, name: str) -> io.BytesIO:
    """Check the content of a file as `open_checked` does, and return it as a file that libsndfile can decode."""
    file = io.BytesIO(content)
    with _oserrors(name):
        corrected = _checked(file, name, len(content))
    file.seek(0)
    return corrected or file


@contextlib.contextmanager
def held(samples: FloatArray, sample_rate_hz: int, name: str) -> Iterator[Path]:
    """Give samples a path, which `read` and `load` accept inside a `with` block; nothing is written to the disk.

    Args:
        samples: [T] float32, mono, full scale ±1.
        sample_rate_hz: their sampling rate.
        name: last part of the path, for messages.

    Raises:
        BadClipError: there are no samples, or they contain NaN or infinite numbers.
    """
    if not len(samples):
        raise BadClipError(f"{name}: contains no audio samples")
    if not np.isfinite(samples).all():
        raise BadClipError(f"{name}: contains samples that are not numbers (NaN or infinite)")
    path = HELD_FOLDER / str(next(_numbers)) / (Path(name).name or "samples")
    _held[path] = (samples, sample_rate_hz)
    try:
        yield path
    finally:
        del _held[path]


def is_held(path: Path) -> bool:
    """Return True for a path of `held`; another process cannot read it."""
    return path in _held


def load(path: Path, sample_rate_hz: int, offset_s: float = 0.0, duration_s: float | None = None) -> FloatArray:
    """Read a section of a file and resample it.

    The section is cut at the sampling rate of the file and then resampled (soxr, high quality), in the order and with
    the rounding of `librosa.load`.

    Args:
        path: the audio file.
        sample_rate_hz: sampling rate of the result.
        offset_s: start of the section, seconds.
        duration_s: length of the section, seconds; None: to the end of the file.

    Returns:
        Samples [T] float32, mono. T is smaller than requested if the file ends early: the result is not padded.

    Raises:
        BadClipError: as in `read`, but without a limit on the length.
    """
    frames, rate = _decode(path, math.inf, offset_s, duration_s)
    samples: FloatArray = frames.mean(axis=1, dtype=np.float32)
    return samples if rate == sample_rate_hz else resample(samples, rate, sample_rate_hz)


def resample(samples: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    """Resample [T] samples to ceil(T · to_hz / from_hz) samples (soxr, high quality)."""
    length = math.ceil(len(samples) * to_hz / from_hz)
    if not len(samples):
        return np.zeros(0, dtype=np.float32)
    out: FloatArray = np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), dtype=np.float32)[:length]
    return np.pad(out, (0, length - len(out)))


def probe(path: Path, max_duration_s: float = MAX_DURATION_S) -> AudioInfo:
    """Decode a whole file, check it, and measure its properties.

    Raises:
        BadClipError: as in `read`.
    """
    frames, rate = _decode(path, max_duration_s)
    mono = Mono.of(frames, rate)
    return AudioInfo(
        duration_s=len(frames) / rate,
        sample_rate_hz=rate,
        channels=frames.shape[1],
        silent=bool(np.abs(mono.samples).max() < SILENCE_PEAK),
        digest=content_digest(path),
        peak=float(np.abs(frames).max()),
        cancelled=mono.cancelled,
    )


def content_digest(path: Path) -> str:
    """Return the digest by which caches and corpora identify the content of a file: BLAKE2b, 16 bytes, hexadecimal.

    Raises:
        BadClipError: if the file cannot be read, is not a regular file, or is larger than `MAX_FILE_BYTES`.
    """
    _regular_size(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    except OSError as error:
        raise BadClipError(f"{path}: cannot be read ({error.strerror})") from error


def clip_digest(clip: Clip) -> str:
    """Return the `content_digest` of a clip's file: the one that the corpus recorded, else computed now.

    Raises:
        BadClipError: as in `content_digest`.
    """
    return clip.digest or content_digest(clip.path)


def _rms(samples: FloatArray) -> float:
    return math.sqrt(np.square(samples, dtype=np.float64).mean())


def is_lfs_pointer(head: bytes) -> bool:
    """Return True if a file that starts with `head` is a Git LFS pointer and not audio."""
    return head.startswith(LFS_POINTER)


def _decode(
    path: Path, max_duration_s: float, offset_s: float = 0.0, duration_s: float | None = None
) -> tuple[FloatArray, int]:
    """Return the samples [T, channels] of a section, checked, and the sampling rate of the file."""
    if path in _held:
        samples, rate = _held[path]
        _refuse_long(path, len(samples), rate, max_duration_s)
        start, wanted = _section(len(samples), rate, offset_s, duration_s)
        return samples[start : start + wanted, None], rate
    corrected = open_checked(path)
    return _decoded(path if corrected is None else corrected, path, max_duration_s, offset_s, duration_s)


def _decoded(
    source: Path | BinaryIO,
    name: str | Path,
    max_duration_s: float,
    offset_s: float = 0.0,
    duration_s: float | None = None,
) -> tuple[FloatArray, int]:
    """As `_decode`, of a complete file; `name` stands for it in messages."""
    try:
        with soundfile.SoundFile(source) as file:
            rate, total, kind = int(file.samplerate), int(file.frames), str(file.format)
            _refuse_long(name, total, rate, max_duration_s)
            start, wanted = _section(total, rate, offset_s, duration_s)
            if total * file.channels > MAX_SAMPLES:
                raise BadClipError(
                    f"{name}: contains {total * file.channels:,} samples, the limit is {MAX_SAMPLES:,}; cut it into "
                    "utterances"
                )
            skipped = 0 if file.seekable() else start  # GSM 6.10 and ADPCM codings can only be read from the start
            if file.seekable():
                file.seek(start)
            frames: FloatArray = file.read(skipped + wanted, dtype="float32", always_2d=True)[skipped:]
    except soundfile.LibsndfileError as error:
        raise undecodable(name, error) from error
    if not total:
        raise BadClipError(f"{name}: contains no audio samples")
    if len(frames) < wanted:
        raise BadClipError(
            f"{name}: truncated, {len(frames)} of {wanted} samples can be decoded; download it again"
            + (", or convert it to WAV if its MP3 header does not count the frames" if kind == "MP3" else "")
        )
    if not np.isfinite(frames).all():
        raise BadClipError(f"{name}: contains samples that are not numbers (NaN or infinite)")
    return frames, rate


def _refuse_long(name: str | Path, total: int, rate: int, max_duration_s: float) -> None:
    if total > max_duration_s * rate:
        raise BadClipError(
            f"{name}: {total / rate:.0f} s long, the limit for one utterance is "
            f"corpus.max_duration_s={max_duration_s:g}"
        )


def _section(total: int, rate: int, offset_s: float, duration_s: float | None) -> tuple[int, int]:
    """Return the first sample of a section, and how many samples it has."""
    start = min(int(offset_s * rate), total)
    return start, total - start if duration_s is None else min(int(duration_s * rate), total - start)


def undecodable(name: str | Path, error: soundfile.LibsndfileError) -> BadClipError:
    """Return the error for a file that libsndfile does not decode, with what to do about it."""
    convert = f"; {HOW_TO_CONVERT}" if Path(name).suffix.lower() in UNREAD_EXTENSIONS else ""
    return BadClipError(f"{name}: not audio that can be decoded ({error.error_string}){convert}")


def open_checked(path: Path, max_bytes: int = MAX_FILE_BYTES) -> io.BytesIO | None:
    """Check that the file exists, is audio and is complete.

    Returns:
        A corrected copy in memory where libsndfile cannot decode the file itself, else None.

    Raises:
        BadClipError: if the file is absent, empty, too large, a Git LFS pointer, or not complete.
    """
    size = _regular_size(path, max_bytes)
    with _oserrors(path), path.open("rb") as file:
        return _checked(file, path, size)


def _checked(file: BinaryIO, name: str | Path, size: int) -> io.BytesIO | None:
    """As `open_checked`, of an open file of `size` bytes."""
    head = file.read(HEAD_BYTES)
    if not size:
        raise BadClipError(f"{name}: is empty (0 bytes); download it again")
    if is_lfs_pointer(head):
        raise BadClipError(
            f"{name}: is a Git LFS pointer, not audio; run `git lfs pull` in its repository, "
            "or `ser-bench corpora prepare cremad`"
        )
    fault = audio_containers.fault_of(file, head, size)
    if fault:
        remedy = "; download it again" if fault.startswith(("truncated", "damaged")) else ""
        raise BadClipError(f"{name}: {fault}{remedy}")
    return audio_containers.with_stated_size(file, head, size)


@contextlib.contextmanager
def _oserrors(name: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadClipError(f"{name}: cannot be read ({error.strerror})") from error


def _regular_size(path: Path, max_bytes: int = MAX_FILE_BYTES) -> int:
    """Return the size of a file, bytes. The file is not opened.

    Raises:
        BadClipError: if it is absent, a named pipe, a device or a folder, or larger than `max_bytes`.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise BadClipError(f"{path}: cannot be read ({error.strerror})") from error
    if stat.S_ISDIR(status.st_mode):
        raise BadClipError(f"{path}: is a folder, not an audio file")
    if not stat.S_ISREG(status.st_mode):
        raise BadClipError(f"{path}: is not a regular file but a named pipe, a socket or a device; remove it")
    if status.st_size > max_bytes:
        raise BadClipError(f"{path}: has {status.st_size:,} bytes, the limit is {max_bytes:,}; cut it into utterances")
    return status.st_size
