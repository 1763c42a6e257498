"""Changes of a recording that leave it the same recording."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import soundfile

from ser_bench import audio
from ser_bench.types import FloatArray

Sound = tuple[FloatArray, int]
"""Samples [T], and their rate in Hz."""
Change = Callable[[Sound], Sound]


def encoded(kind: str, subtype: str | None = None) -> Change:
    """Return a change that writes a sound in a format and reads it."""

    def change(sound: Sound) -> Sound:
        buffer = io.BytesIO()
        soundfile.write(buffer, sound[0], sound[1], format=kind, subtype=subtype)
        buffer.seek(0)
        samples, rate = soundfile.read(buffer, dtype="float32")
        return samples, rate

    return change


def resampled(rate_hz: int) -> Change:
    """Return a change that resamples a sound to another rate and back."""
    return lambda sound: (audio.resample(audio.resample(sound[0], sound[1], rate_hz), rate_hz, sound[1]), sound[1])


def noisy(snr_db: float) -> Change:
    """Return a change that adds white noise at this ratio to the mean power of the clip."""

    def change(sound: Sound) -> Sound:
        samples, rate = sound
        level = np.sqrt(np.square(samples).mean()) * 10 ** (-snr_db / 20)
        return samples + (level * np.random.default_rng(0).standard_normal(len(samples))).astype(np.float32), rate

    return change


def shifted(seconds: float) -> Change:
    """Return a change that cuts this much off the front, or with a negative number puts silence there."""

    def change(sound: Sound) -> Sound:
        samples, rate = sound
        count = round(abs(seconds) * rate)
        return (samples[count:] if seconds > 0 else np.pad(samples, (count, 0))), rate

    return change


def played_at(speed: float) -> Change:
    """Return a change that plays a sound faster, with a higher pitch, or slower."""

    def change(sound: Sound) -> Sound:
        from scipy.signal import resample_poly

        ratio = Fraction(1 / speed).limit_denominator(200)
        return resample_poly(sound[0], ratio.numerator, ratio.denominator).astype(np.float32), sound[1]

    return change


def telephone(sound: Sound) -> Sound:
    """Return the sound between 300 and 3,400 Hz."""
    from scipy.signal import butter, sosfilt

    band = butter(6, [300, 3_400], "bandpass", fs=sound[1], output="sos")
    return sosfilt(band, sound[0]).astype(np.float32), sound[1]


def louder(sound: Sound) -> Sound:
    """Return the sound 12 dB louder, clipped."""
    return np.clip(sound[0] * 4, -1, 1), sound[1]


def all_at_once(sound: Sound) -> Sound:
    """Return the sound 100 ms later, 2 % faster, and through a telephone."""
    return telephone(played_at(1.02)(shifted(-0.1)(sound)))


CHANGES: dict[str, Change] = {
    "FLAC": encoded("FLAC", "PCM_16"),
    "Ogg Vorbis": encoded("OGG", "VORBIS"),
    "MP3": encoded("MP3"),
    "to 8 kHz and back": resampled(8_000),
    "12 dB softer": lambda sound: (sound[0] * np.float32(0.25), sound[1]),
    "12 dB louder, clipped": louder,
    "white noise 30 dB below": noisy(30.0),
    "white noise 20 dB below": noisy(20.0),
    "30 ms cut off the front": shifted(0.03),
    "100 ms cut off the front": shifted(0.1),
    "500 ms cut off the front": shifted(0.5),
    "1 s of silence before": shifted(-1.0),
    "speed 0.98": played_at(0.98),
    "speed 0.99": played_at(0.99),
    "speed 1.01": played_at(1.01),
    "speed 1.02": played_at(1.02),
    "telephone": telephone,
    "100 ms later, speed 1.02, telephone": all_at_once,
}
