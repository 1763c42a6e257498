"""Reading of audio files as mono float32 samples, and detection of damaged files.

libsndfile decodes WAV, FLAC, Ogg, MP3 and more, with any sample format, number of channels and sampling rate. It
decodes a truncated file without an error, so this module checks from the container that the file is complete.

The check has a limit for MP3 files whose header does not count the frames (no Xing, Info or VBRI tag). libsndfile then
estimates the length from the first frame: a truncated file with a constant bit rate is not detected, and an intact file
with a variable bit rate may be refused.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ser_bench.errors import BadClipError
from ser_bench.types import Clip, FloatArray

MAX_DURATION_S = 60.0
"""Default limit of the length, seconds; a longer file is not a single utterance."""
SILENCE_PEAK = 1.0 / 32768
"""Peak below which a file counts as silent: one quantisation step of 16-bit audio (full scale is 1)."""
DIGEST_BYTES = 16

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
UNKNOWN_SIZE = 0xFFFFFFFF
"""Size field of a WAV file that was written to a pipe."""
OGG_PAGE_HEADER_BYTES = 27
OGG_PAGE_MAX_BYTES = OGG_PAGE_HEADER_BYTES + 255 + 255 * 255
OGG_END_OF_STREAM = 0x04

EXTENSIONS = frozenset(
    [".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"]
)
"""File extensions, in lower case, that are searched for in a folder. libsndfile reads all of these formats."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Properties of one audio file, measured by decoding all of it.

    Attributes:
        duration_s: length, seconds.
        sample_rate_hz: sampling rate of the file.
        channels: number of channels in the file.
        silent: True if no sample reaches `SILENCE_PEAK`.
        digest: `content_digest` of the file.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    silent: bool
    digest: str


def read(path: Path, max_duration_s: float = MAX_DURATION_S) -> tuple[FloatArray, int]:
    """Read a whole file.

    Returns:
        Samples [T] float32, mono (mean of the channels), full scale ±1; and the sampling rate of the file, Hz.

    Raises:
        BadClipError: if the file is missing, empty, not audio, truncated, longer than `max_duration_s`, or contains NaN
            or infinite samples.
    """
    frames, rate = _decode(path, max_duration_s)
    return frames.mean(axis=1, dtype=np.float32), rate


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
    peak = float(np.abs(frames).max())
    return AudioInfo(len(frames) / rate, rate, frames.shape[1], peak < SILENCE_PEAK, content_digest(path))


def content_digest(path: Path) -> str:
    """Return the digest by which caches and corpora identify the content of a file: BLAKE2b, 16 bytes, hexadecimal.

    Raises:
        BadClipError: if the file cannot be read.
    """
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


def is_lfs_pointer(head: bytes) -> bool:
    """Return True if a file that starts with `head` is a Git LFS pointer and not audio."""
    return head.startswith(LFS_POINTER)


def _decode(
    path: Path, max_duration_s: float, offset_s: float = 0.0, duration_s: float | None = None
) -> tuple[FloatArray, int]:
    """Return the samples [T, channels] of a section, checked, and the sampling rate of the file."""
    _check_container(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, total, kind = int(file.samplerate), int(file.frames), str(file.format)
            if total > max_duration_s * rate:
                raise BadClipError(
                    f"{path}: {total / rate:.0f} s long, the limit for one utterance is "
                    f"corpus.max_duration_s={max_duration_s:g}"
                )
            start = min(int(offset_s * rate), total)
            wanted = total - start if duration_s is None else min(int(duration_s * rate), total - start)
            file.seek(start)
            frames: FloatArray = file.read(wanted, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BadClipError(
            f"{path}: not audio that can be decoded ({error.error_string})"
        ) from error
    if not total:
        raise BadClipError(f"{path}: contains no audio samples")
    if len(frames) < wanted:
        raise BadClipError(
            f"{path}: truncated, {len(frames)} of {wanted} samples can be decoded; download it again"
            + (", or convert it to WAV if its MP3 header does not count the frames" if kind == "MP3" else "")
        )
    if not np.isfinite(frames).all():
        raise BadClipError(f"{path}: contains samples that are not numbers (NaN or infinite)")
    return frames, rate


def _check_container(path: Path) -> None:
    """Raise BadClipError if the file is absent, empty, a Git LFS pointer, or shorter than its container states."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(64)
            if not size:
                raise BadClipError(f"{path}: is empty (0 bytes); download it again")
            if is_lfs_pointer(head):
                raise BadClipError(
                    f"{path}: is a Git LFS pointer, not audio; run `git lfs pull` in its repository, "
                    "or `ser-bench corpora prepare cremad`"
                )
            missing = _missing_bytes(file, head, size)
    except OSError as error:
        raise BadClipError(f"{path}: cannot be read ({error.strerror})") from error
    if missing:
        raise BadClipError(f"{path}: truncated, {missing}; download it again")


def _missing_bytes(file: BinaryIO, head: bytes, size: int) -> str:
    """Describe what is missing at the end of a WAV, AIFF or Ogg file; "" if it is complete."""
    kind = head[:4]
    if kind in (b"RIFF", b"RIFX"):
        end = _wav_data_end(file, size, "little" if kind == b"RIFF" else "big")
    elif kind == b"FORM":
        end = 8 + int.from_bytes(head[4:8], "big")
    elif kind == b"OggS":
        return "" if _ogg_is_complete(file, size) else "its last Ogg page is missing"
    else:
        return ""
    return f"its header states {end:,} bytes and the file has {size:,}" if end > size else ""


def _wav_data_end(file: BinaryIO, size: int, order: str) -> int:
    """Return the end of the `data` chunk by its header, bytes; more than `size` if the header itself is truncated."""
    position = 12
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], "little" if order == "little" else "big")
        if chunk[:4] == b"data":
            return 0 if length == UNKNOWN_SIZE else position + 8 + length
        position += 8 + length + length % 2  # chunks are padded to an even length
    return position + 8


def _ogg_is_complete(file: BinaryIO, size: int) -> bool:
    """Return True if the last page is complete and marked as the end of its stream."""
    file.seek(max(0, size - OGG_PAGE_MAX_BYTES))
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    if len(page) < OGG_PAGE_HEADER_BYTES or not page[5] & OGG_END_OF_STREAM:
        return False
    segments = page[26]
    table = page[OGG_PAGE_HEADER_BYTES : OGG_PAGE_HEADER_BYTES + segments]
    return len(table) == segments and len(page) >= OGG_PAGE_HEADER_BYTES + segments + sum(table)
