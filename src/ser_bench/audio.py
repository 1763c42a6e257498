"""From a file to mono float32 samples, and the checks that make a damaged file an error instead of a short clip.

libsndfile decodes WAV, FLAC, Ogg, MP3 and more; 8-bit, 24-bit, stereo and any sampling rate come out alike. It also
shortens a truncated file without a word, so completeness is checked here from the containers themselves. Of an MP3
whose header does not count its frames (no Xing, Info or VBRI tag) libsndfile guesses the length from the first frame:
with a constant bit rate a truncated one passes for a shorter one, and with a varying one a sound one may be refused.
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
from ser_bench.types import FloatArray

MAX_DURATION_S = 60.0
"""A longer file is not one utterance."""
SILENCE_PEAK = 1.0 / 32768
"""Full scale is 1; a peak below one step of 16-bit audio is no signal."""
DIGEST_BYTES = 16

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
UNKNOWN_SIZE = 0xFFFFFFFF
"""What a WAV written to a pipe has for a size."""
OGG_PAGE_HEADER_BYTES = 27
OGG_PAGE_MAX_BYTES = OGG_PAGE_HEADER_BYTES + 255 + 255 * 255
OGG_END_OF_STREAM = 0x04

EXTENSIONS = frozenset(
    [".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf", ".w64", ".rf64"]
)
"""Extensions by which audio is found in a folder; all are formats that libsndfile reads."""


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a full decode of one file tells.

    Attributes:
        duration_s: length, seconds.
        sample_rate_hz: the file's own rate.
        channels: how many were mixed down to one.
        silent: no sample reaches one step of 16-bit audio.
        digest: hexadecimal BLAKE2b-128 of the file's bytes.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    silent: bool
    digest: str


def read(path: Path, max_duration_s: float = MAX_DURATION_S) -> tuple[FloatArray, int]:
    """The whole file.

    Returns:
        samples [T] float32, mono (the mean of the channels), full scale ±1; and the file's own rate, Hz.

    Raises:
        BadClipError: missing, empty, not audio, truncated, longer than `max_duration_s`, or with NaN in it.
    """
    frames, rate = _decode(path, max_duration_s)
    return frames.mean(axis=1, dtype=np.float32), rate


def load(path: Path, sample_rate_hz: int, offset_s: float = 0.0, duration_s: float | None = None) -> FloatArray:
    """Samples [T] float32 of a stretch of the file at `sample_rate_hz`.

    The stretch is cut at the file's own rate and then resampled (soxr, high quality), in the order and with the
    rounding of `librosa.load`. A file that ends before the stretch does gives fewer samples: nothing is padded.

    Raises:
        BadClipError: as `read`, but for the length.
    """
    frames, rate = _decode(path, math.inf, offset_s, duration_s)
    samples: FloatArray = frames.mean(axis=1, dtype=np.float32)
    return samples if rate == sample_rate_hz else resample(samples, rate, sample_rate_hz)


def resample(samples: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    """Samples [T] at another rate, ceil(T · to / from) of them (soxr, high quality)."""
    length = math.ceil(len(samples) * to_hz / from_hz)
    if not len(samples):
        return np.zeros(0, dtype=np.float32)
    out: FloatArray = np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), dtype=np.float32)[:length]
    return np.pad(out, (0, length - len(out)))


def probe(path: Path, max_duration_s: float = MAX_DURATION_S) -> AudioInfo:
    """Decode the whole file, check it, and say what it is.

    Raises:
        BadClipError: as `read`.
    """
    frames, rate = _decode(path, max_duration_s)
    peak = float(np.abs(frames).max())
    try:
        digest = hashlib.blake2b(path.read_bytes(), digest_size=DIGEST_BYTES).hexdigest()
    except OSError as error:
        raise BadClipError(f"{path}: cannot be read ({error.strerror})") from error
    return AudioInfo(len(frames) / rate, rate, frames.shape[1], peak < SILENCE_PEAK, digest)


def is_lfs_pointer(head: bytes) -> bool:
    """True where a file that starts so stands for audio that Git LFS did not fetch."""
    return head.startswith(LFS_POINTER)


def _decode(
    path: Path, max_duration_s: float, offset_s: float = 0.0, duration_s: float | None = None
) -> tuple[FloatArray, int]:
    """Checked samples [T, channels] and the rate."""
    _check_container(path)
    try:
        with soundfile.SoundFile(path) as file:
            rate, total, kind = int(file.samplerate), int(file.frames), str(file.format)
            if total > max_duration_s * rate:
                raise BadClipError(
                    f"{path}: {total / rate:.0f} s long; more than corpus.max_duration_s={max_duration_s:g} "
                    "is not one utterance"
                )
            start = min(int(offset_s * rate), total)
            wanted = total - start if duration_s is None else min(int(duration_s * rate), total - start)
            file.seek(start)
            frames: FloatArray = file.read(wanted, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BadClipError(f"{path}: not audio that can be decoded ({error.error_string})") from error
    if not total:
        raise BadClipError(f"{path}: holds no audio samples")
    if len(frames) < wanted:
        raise BadClipError(
            f"{path}: truncated, {len(frames)} of {wanted} samples can be decoded; fetch it again"
            + (", or convert an MP3 whose header does not count its frames to WAV" if kind == "MP3" else "")
        )
    if not np.isfinite(frames).all():
        raise BadClipError(f"{path}: holds samples that are not numbers (NaN or infinite)")
    return frames, rate


def _check_container(path: Path) -> None:
    """Raise where the bytes alone show that the file is absent, empty, a pointer, or cut short."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(64)
            if not size:
                raise BadClipError(f"{path}: is empty (zero bytes); fetch it again")
            if is_lfs_pointer(head):
                raise BadClipError(
                    f"{path}: is a Git LFS pointer, not audio; run `git lfs pull` in its repository, "
                    "or `ser-bench corpora prepare cremad`"
                )
            missing = _missing_bytes(file, head, size)
    except OSError as error:
        raise BadClipError(f"{path}: cannot be read ({error.strerror})") from error
    if missing:
        raise BadClipError(f"{path}: truncated, {missing}; fetch it again")


def _missing_bytes(file: BinaryIO, head: bytes, size: int) -> str:
    """What is missing at the end of a WAV, AIFF or Ogg file, in words; "" where nothing is."""
    kind = head[:4]
    if kind in (b"RIFF", b"RIFX"):
        end = _wav_data_end(file, size, "little" if kind == b"RIFF" else "big")
    elif kind == b"FORM":
        end = 8 + int.from_bytes(head[4:8], "big")
    elif kind == b"OggS":
        return "" if _ogg_is_complete(file, size) else "its last Ogg page is missing"
    else:
        return ""
    return f"its header promises {end:,} bytes and {size:,} are here" if end > size else ""


def _wav_data_end(file: BinaryIO, size: int, order: str) -> int:
    """Where the `data` chunk says that it ends; beyond `size` where the header itself is cut."""
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
    """True where the last page is whole and marked as the end of its stream."""
    file.seek(max(0, size - OGG_PAGE_MAX_BYTES))
    tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:] if start >= 0 else b""
    if len(page) < OGG_PAGE_HEADER_BYTES or not page[5] & OGG_END_OF_STREAM:
        return False
    segments = page[26]
    table = page[OGG_PAGE_HEADER_BYTES : OGG_PAGE_HEADER_BYTES + segments]
    return len(table) == segments and len(page) >= OGG_PAGE_HEADER_BYTES + segments + sum(table)
