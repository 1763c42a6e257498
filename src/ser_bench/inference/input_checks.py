"""Why an answer about a recording is unsure: checks of the recording itself, each with a measured rate of false alarms.

A flag does not change an answer. It says that the recording differs from what predictors are trained on: short acted
utterances, one speaker, little noise. docs/unsure_input.md lists the checks, and how often each is right and wrong on
real clips and on made signals (`benchmarks/input_flags.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ser_bench import audio, extras, weights
from ser_bench.inference import speech_gate
from ser_bench.types import FloatArray

FRAME_S = speech_gate.FRAME_S
"""Length of the frames whose level and spectrum are measured: those of the speech gate."""
LOUD_PERCENTILE = 95.0
"""The level of a recording is that of its loudest 5 % of frames, because pauses are of any length."""
QUIET_PERCENTILE = 10.0
"""The noise of a recording is the level of its quietest 10 % of frames."""
SILENCE_DBFS = -70.0
"""Level below which there is no signal. The quietest of the real clips has −56 dB."""
LOW_LEVEL_DBFS = -55.0
"""Level below which quantisation and noise of the recorder matter: 16 bits have their noise at −98 dB, and a room with
its recorder has it at −70 dB or above."""
FULL_SCALE = 0.99
"""Absolute value from which a sample counts as clipped."""
CLIPPED_SHARE = 0.005
"""Share of clipped samples. Loud clips of CREMA-D reach 0.3 % (99th percentile) and are well recognised."""
PLATEAU = 0.98
"""Samples of this share of the peak lie on a plateau: a clipped recording that was turned down afterwards."""
PLATEAU_SHARE = 0.01
"""Share of samples on the plateau, of a recording with speech. Real clips reach 0.1 %; a steady tone has 13 %."""
TOO_LOUD_PEAK = audio.LOUD_PEAK
NO_SPEECH_S = 0.1
"""Speech below this is none: a musical note may be taken for speech for a few frames."""
LITTLE_SPEECH_S = 0.3
"""Speech below this is about one syllable; 0.5 % of the clips of CREMA-D have less."""
SHORT_S = 0.5
"""Recordings below this have about two syllables at most; the shortest clip of the corpora has 1.2 s."""
LONGER_FACTOR = 1.5
"""A recording is long if it is this many times as long as the longest training clip. Networks read its beginning only,
and probes average over more than one utterance."""
NARROW_BAND_HZ = (300.0, 3_700.0)
"""What a telephone transmits and every recording of speech has."""
HIGH_BAND_HZ = (4_300.0, 7_600.0)
"""What a telephone, and any sampling rate of 8 kHz on the way, removes."""
NARROW_BAND_DB = -50.0
"""Energy of the high band relative to the narrow one. The lowest of the real clips has −37 dB; a recording that was
resampled from 8 kHz has −65 dB (16 bits) or less."""
WIDE_BAND_RATE_HZ = 16_000
"""Lower sampling rates cannot hold the high band."""
NOISE_GAP_DB = 7.5
"""Distance between level and noise of a recording below which it is noisy. It is 6.5 dB for white noise as loud as the
speech (0 dB SNR), 15 dB at 10 dB SNR, and 8.3 dB for the first percentile of CREMA-D."""
MIN_FRAMES_FOR_NOISE = 16
"""Frames from which a level and a noise can be told apart: 0.5 s."""
LANGUAGE_WEIGHTS = "whisper-base"
LANGUAGE_SURE = 0.8
"""Probability of a language from which it is stated."""
NO_GATE = "no_speech_gate"
SMALLEST = 1e-12
"""Power that stands for digital silence, −120 dB."""


@dataclass(frozen=True)
class Flag:
    """One reason why an answer is unsure.

    Attributes:
        code: for programs, one of `CODES`.
        text: for people; one line without a full stop, with the measured value.
    """

    code: str
    text: str


CODES = {
    "silence": "no signal",
    "no_speech": "no speech: music, noise, or anything else",
    "little_speech": "less speech than a syllable",
    "clipping": "samples cut off at full scale, or below it",
    "too_loud": "samples far above full scale",
    "low_level": "a very low level",
    "short": "shorter than half a second",
    "long": "longer than the training clips",
    "narrow_band": "nothing above 4 kHz: a telephone, or a rate that was raised afterwards",
    "noisy": "noise almost as loud as the speech",
    "channels_cancelled": "channels that cancel each other in their mean",
    "language": "another language than in training",
    NO_GATE: "not checked for speech, because a package is missing",
}
"""Every code, with what it means."""


@dataclass(frozen=True)
class TrainedOn:
    """What a predictor was trained on, as far as the checks compare a recording with it.

    Attributes:
        longest_s: length of the longest training clip, seconds; 0 if unknown.
        language: ISO 639-1 code, several with spaces between; "" if unknown.
    """

    longest_s: float = 0.0
    language: str = ""


class Recorded(Protocol):
    """What the checks read of a `Recording`."""

    @property
    def samples(self) -> FloatArray:
        """Samples [T], mono, full scale ±1."""

    @property
    def sample_rate_hz(self) -> int:
        """Sampling rate."""


def flags(
    recording: Recorded,
    trained_on: TrainedOn | None = None,
    cancelled: bool = False,
    check_language: bool = False,
    probabilities: FloatArray | None = None,
) -> tuple[Flag, ...]:
    """Return why an answer about this recording is unsure, in the order of `CODES`; () if nothing was found.

    A recording without a signal, or without speech, has no flags about its quality, because they would describe
    something else than speech.

    Args:
        recording: the samples and their rate; NaN is refused where it is read.
        trained_on: of the predictor; None: length and language are not compared.
        cancelled: whether the channels of the file cancel in their mean (`AudioInfo.cancelled`), which the mono samples
            no longer show.
        check_language: recognise the language; see `spoken_language`.
        probabilities: of speech, if the caller has them already (`speech_gate.speech_probabilities`).
    """
    samples, rate = recording.samples, recording.sample_rate_hz
    known = trained_on or TrainedOn()
    extent = _extent_flags(len(samples) / rate, known)
    before = [Flag("channels_cancelled", "the channels of the file cancel each other")] if cancelled else []
    peak = float(np.abs(samples).max())
    if peak > TOO_LOUD_PEAK:
        before.append(Flag("too_loud", f"samples reach {peak:.3g}, and full scale is 1"))
    power = frame_powers(samples, rate)
    level = level_dbfs(power)
    if level < SILENCE_DBFS:
        return _ordered([Flag("silence", f"no signal ({_dbfs(level)})"), *extent, *before])
    gate: list[Flag] = []
    speech_s = math.nan
    if speech_gate.reason_unavailable():
        gate = [Flag(NO_GATE, "not checked for speech: the speech gate is not installed (extra asr)")]
    else:
        if probabilities is None:
            probabilities = speech_gate.speech_probabilities(at_gate_rate(samples, rate))
        speech_s = float((probabilities >= speech_gate.THRESHOLD).sum()) * FRAME_S
        if speech_s < NO_SPEECH_S:
            return _ordered([Flag("no_speech", "no speech found"), *extent, *before])
        if speech_s < LITTLE_SPEECH_S:
            gate = [Flag("little_speech", f"only {speech_s:.1f} s of speech found")]
    found = [*gate, *extent, *before, *_level_flags(samples, level, with_speech=not math.isnan(speech_s))]
    found += _spectrum_flags(samples, rate) + _noise_flags(power)
    if check_language and known.language:
        spoken = spoken_language(samples, rate)
        if spoken not in ("", *known.language.split()):
            found.append(Flag("language", f"spoken in {spoken!r}, and the predictor was trained on {known.language!r}"))
    return _ordered(found)


def frame_powers(samples: FloatArray, rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the mean squares of frames of 32 ms, [N]; one for all samples if there are fewer."""
    frame = max(1, round(FRAME_S * rate_hz))
    count = len(samples) // frame
    whole = samples[: count * frame].reshape(count, frame) if count else samples.reshape(1, -1)
    if not whole.size:
        return np.zeros(1)
    powers: npt.NDArray[np.float64] = np.square(whole, dtype=np.float64).mean(axis=1)
    return powers


def level_dbfs(powers: npt.NDArray[np.float64], percentile: float = LOUD_PERCENTILE) -> float:
    """Return a percentile of the levels of frames, dB relative to full scale, −120 or more."""
    return _db(float(np.percentile(powers, percentile)))


def high_band_db(samples: FloatArray, rate_hz: int) -> float:
    """Return the energy from 4.3 to 7.6 kHz relative to that from 300 to 3,700 Hz, dB, over frames of 32 ms.

    −inf if the sampling rate is below 16 kHz, and NaN for less than a frame.
    """
    if rate_hz < WIDE_BAND_RATE_HZ:
        return -math.inf
    frame = round(FRAME_S * rate_hz)
    count = len(samples) // frame
    if not count:
        return math.nan
    # A window: the leakage of strong low tones would hide that the high band is empty.
    frames = samples[: count * frame].reshape(count, frame) * np.hanning(frame).astype(np.float32)
    spectrum = np.square(np.abs(np.fft.rfft(frames, axis=1))).sum(axis=0)
    at_hz = np.fft.rfftfreq(frame, 1 / rate_hz)
    high, low = (
        float(spectrum[(at_hz >= band[0]) & (at_hz <= band[1])].sum()) for band in (HIGH_BAND_HZ, NARROW_BAND_HZ)
    )
    return 10 * math.log10(max(high, SMALLEST) / max(low, SMALLEST))


def spoken_language(samples: FloatArray, rate_hz: int) -> str:
    """Return the ISO 639-1 code of the spoken language by multilingual Whisper (base); "" if it is not sure or absent.

    Nothing is downloaded: the check needs the extra `asr` and the weights `whisper-base` in the cache folder, which
    `model=whisper_probe` brings. It takes as long as an encoder pass over 30 s.
    """
    model = _language_model()
    if model is None or not len(samples):
        return ""
    code, probability = model.detect_language(audio=at_gate_rate(samples, rate_hz))[:2]
    return str(code) if probability >= LANGUAGE_SURE else ""


def at_gate_rate(samples: FloatArray, rate_hz: int) -> FloatArray:
    """Return the samples at the sampling rate of the speech gate."""
    gate_hz = speech_gate.SAMPLE_RATE_HZ
    return samples if rate_hz == gate_hz else audio.resample(samples, rate_hz, gate_hz)


def _extent_flags(duration_s: float, known: TrainedOn) -> list[Flag]:
    if duration_s < SHORT_S:
        return [Flag("short", f"{duration_s:.2f} s long")]
    if known.longest_s and duration_s > LONGER_FACTOR * known.longest_s:
        return [Flag("long", f"{duration_s:.0f} s long, and the longest training clip has {known.longest_s:.1f} s")]
    return []


def _level_flags(samples: FloatArray, level: float, with_speech: bool) -> list[Flag]:
    magnitudes = np.abs(samples)
    peak = float(magnitudes.max())
    if peak > TOO_LOUD_PEAK:  # no scale by which samples could be clipped or quiet
        return []
    clipped = float((magnitudes >= FULL_SCALE).mean())
    if clipped >= CLIPPED_SHARE:
        return [Flag("clipping", f"{clipped:.1%} of the samples are at full scale")]
    plateau = float((magnitudes >= PLATEAU * peak).mean())
    if with_speech and plateau >= PLATEAU_SHARE:
        return [Flag("clipping", f"{plateau:.1%} of the samples are cut off at {peak:.2f}")]
    return [Flag("low_level", f"very quiet ({_dbfs(level)})")] if level < LOW_LEVEL_DBFS else []


def _spectrum_flags(samples: FloatArray, rate_hz: int) -> list[Flag]:
    if rate_hz < WIDE_BAND_RATE_HZ:
        return [Flag("narrow_band", f"sampled at {rate_hz:,} Hz, which holds nothing above {rate_hz // 2:,} Hz")]
    band = high_band_db(samples, rate_hz)
    if band < NARROW_BAND_DB:
        return [Flag("narrow_band", f"nothing above 4 kHz ({band:.0f} dB), as by telephone")]
    return []


def _noise_flags(powers: npt.NDArray[np.float64]) -> list[Flag]:
    gap = level_dbfs(powers) - level_dbfs(powers, QUIET_PERCENTILE)
    if len(powers) < MIN_FRAMES_FOR_NOISE or gap >= NOISE_GAP_DB:
        return []
    return [Flag("noisy", f"the loudest parts are only {gap:.0f} dB above the quietest")]


def _ordered(found: list[Flag]) -> tuple[Flag, ...]:
    order = list(CODES)
    return tuple(sorted(found, key=lambda flag: order.index(flag.code)))


def _db(power: float) -> float:
    return 10 * math.log10(max(power, SMALLEST))


def _dbfs(level: float) -> str:
    return f"{level:.0f} dB below full scale".replace("-", "")


@cache
def _language_model() -> Any:
    """Return the multilingual Whisper model, loaded once; None if the package or the weights are absent."""
    if not extras.is_installed("faster_whisper"):
        return None
    folder = weights.find(LANGUAGE_WEIGHTS)
    if folder is None:
        return None
    from faster_whisper import WhisperModel

    return WhisperModel(str(folder), device="cpu", compute_type="int8")
