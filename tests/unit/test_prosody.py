"""Pitch and prosody of sounds whose measures are known by construction."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench.cache import Cache
from ser_bench.config import PitchConfig
from ser_bench.errors import BadClipError
from ser_bench.features import prosody
from ser_bench.types import Clip, digest_of

CFG, RATE = PitchConfig(), 16_000
NAMES = set(prosody.Prosody.__dataclass_fields__)


def voice(f0_hz: np.ndarray, jitter: float = 0.0, shimmer: float = 0.0, seed: int = 0) -> np.ndarray:
    """A pulse train of this F0 (one value per sample), its periods and amplitudes disturbed, through one resonance."""
    draw, out, at = np.random.default_rng(seed), np.zeros(len(f0_hz)), 0.0
    while at < len(out) - 1:
        out[int(at)] += 1.0 + shimmer * draw.normal()
        at += RATE / f0_hz[int(at)] * (1.0 + jitter * draw.normal())
    tail = np.exp(-np.arange(200) / 25.0) * np.cos(2 * np.pi * 700 * np.arange(200) / RATE)
    return 0.1 * np.convolve(out, tail)[: len(out)]


def steady(f0_hz: float, duration_s: float = 1.5) -> np.ndarray:
    return np.full(int(duration_s * RATE), f0_hz)


def measure(samples: np.ndarray) -> prosody.Prosody:
    return prosody.prosody_of(samples.astype(np.float32), RATE, CFG)


@pytest.mark.parametrize(("f0_hz", "semitones"), [(100.0, 0.0), (200.0, 12.0), (150.0, 12 * math.log2(1.5))])
def test_pitch_level_in_semitones(f0_hz, semitones):
    measured = measure(voice(steady(f0_hz)))
    assert measured.pitch_semitones == pytest.approx(semitones, abs=0.2)
    assert measured.pitch_range_semitones == pytest.approx(0.0, abs=0.3)
    assert measured.pitch_slope == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize("direction", [1, -1])
def test_range_and_slope_of_a_glide(direction):
    t = np.arange(int(1.5 * RATE)) / RATE
    measured = measure(voice(150.0 * 2 ** (direction * 6.0 * (t - 0.75) / 12)))
    assert measured.pitch_slope == pytest.approx(direction * 6.0, abs=0.5)
    assert measured.pitch_range_semitones == pytest.approx(0.8 * 9.0, abs=0.8)
    assert measured.pitch_semitones == pytest.approx(12 * math.log2(1.5), abs=0.4)


def test_ten_times_the_amplitude_is_twenty_decibels():
    quiet, loud = measure(0.1 * voice(steady(150))), measure(voice(steady(150)))
    assert loud.loudness_db - quiet.loudness_db == pytest.approx(20.0, abs=0.1)
    assert loud.syllables_per_second == quiet.syllables_per_second


def bursts(count: int, on_s: float, off_s: float) -> np.ndarray:
    """Voice that swells and fades `count` times, silence between."""
    envelope = np.concatenate([np.hanning(int(on_s * RATE)), np.zeros(int(off_s * RATE))])
    envelope = np.tile(envelope, count)
    return voice(np.full(len(envelope), 150.0)) * envelope


def test_syllables_are_counted_and_pauses_too():
    measured = measure(bursts(6, 0.2, 0.05))
    spoken_s = 6 * 0.25 - 0.05
    assert measured.syllables_per_second == pytest.approx(6 / spoken_s, rel=0.1)
    assert measured.pause_percent == 0.0, "a gap below a tenth of a second is no pause"
    paused = measure(bursts(4, 0.2, 0.3))
    assert paused.syllables_per_second == pytest.approx(4 / (4 * 0.5 - 0.3), rel=0.15)
    assert 40 < paused.pause_percent < 75


def test_silence_before_and_after_speech_is_no_pause():
    speech = bursts(5, 0.2, 0.02)
    alone = measure(speech)
    padded = measure(np.concatenate([np.zeros(RATE), speech, np.zeros(RATE)]))
    assert padded.pause_percent == pytest.approx(alone.pause_percent, abs=1.0)
    assert padded.syllables_per_second == pytest.approx(alone.syllables_per_second, rel=0.1)


def test_disturbed_periods_are_jitter_and_disturbed_amplitudes_shimmer():
    clean = measure(voice(steady(160)))
    jittered = measure(voice(steady(160), jitter=0.01))
    shimmered = measure(voice(steady(160), shimmer=0.1))
    assert clean.jitter_percent < 0.6 < jittered.jitter_percent < 3.0
    assert clean.shimmer_percent < 4.0 < shimmered.shimmer_percent < 25.0


def test_noise_lowers_the_harmonics_to_noise_ratio_by_its_level():
    clean = voice(steady(160))
    noise = np.random.default_rng(0).normal(size=len(clean))
    noise *= np.sqrt(np.mean(clean**2) / np.mean(noise**2))
    ten, twenty = (measure(clean + noise * 10 ** (-db / 20)).harmonicity_db for db in (10, 20))
    assert ten == pytest.approx(10.0, abs=2.0) and twenty == pytest.approx(20.0, abs=2.5)


@pytest.mark.parametrize("samples", [np.zeros(RATE), np.zeros(10), np.zeros(0), np.full(700, 0.1)])
def test_nothing_to_measure(samples):
    assert measure(samples) == prosody.NO_PROSODY


def test_noise_alone_has_loudness_and_no_pitch():
    measured = measure(0.01 * np.random.default_rng(1).normal(size=RATE))
    assert measured.pitch_semitones is None and measured.loudness_db is not None


def test_cached_by_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(steady(150)), RATE, subtype="PCM_16")
    clip, cache = Clip("a", path, "", "s", digest=digest_of(path.read_bytes().hex())), Cache(tmp_path / "cache")
    first = prosody.measure_prosody([clip], CFG, cache)
    path.unlink()
    assert prosody.measure_prosody([clip], CFG, cache) == first
    with pytest.raises(BadClipError, match=r"a\.wav"):
        prosody.measure_prosody([clip], PitchConfig(floor_hz=60.0), cache)


def test_real_anger_is_louder_and_higher_than_sadness(corpora_root, tmp_path):
    folder: Path = corpora_root / "cremad" / "AudioWAV"
    names = [f"{speaker}_{s}_{e}_XX" for speaker in ("1001", "1002") for s in ("DFA", "ITS") for e in ("ANG", "SAD")]
    measured = prosody.measure_prosody([Clip(n, folder / f"{n}.ogg", "", n[:4]) for n in names], CFG, Cache(tmp_path))
    for angry, sad in zip(measured[::2], measured[1::2], strict=True):
        assert angry.loudness_db > sad.loudness_db + 3 and angry.harmonicity_db > sad.harmonicity_db
    level = [clip.pitch_semitones for clip in measured]
    assert np.mean(level[::2]) > np.mean(level[1::2]) + 1
    assert all(getattr(clip, name) is not None for clip in measured for name in NAMES)


# Pitch


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Clip:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return Clip(path.stem, path, "happy", "s", digest=digest_of(path.read_bytes().hex()))


def glide(low_hz: float, high_hz: float, duration_s: float = 1.0, rate: int = RATE) -> np.ndarray:
    """A buzz of ten harmonics whose F0 rises linearly in semitones."""
    t = np.arange(int(duration_s * rate)) / rate
    f0 = low_hz * (high_hz / low_hz) ** (t / duration_s)
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return 0.05 * sum(np.cos(k * phase) for k in range(1, 11))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_pitch_of_a_steady_tone_at_any_rate(tmp_path, rate):
    clip = write(tmp_path / "tone.wav", glide(200, 200, rate=rate), rate)
    [pitch] = prosody.measure_pitch([clip], CFG, Cache(tmp_path / "cache"))
    assert pitch is not None
    assert pitch.mean_hz == pytest.approx(200, abs=0.5)
    assert pitch.range_semitones < 0.1
    assert pitch.voiced_fraction > 0.95


def test_pitch_range_of_an_octave(tmp_path):
    [pitch] = prosody.measure_pitch([write(tmp_path / "glide.wav", glide(120, 240))], CFG, Cache(tmp_path / "cache"))
    assert pitch is not None
    assert pitch.range_semitones == pytest.approx(12, abs=1.0)
    assert 118 < pitch.min_hz < 130 and 225 < pitch.max_hz < 245
    assert pitch.median_hz == pytest.approx(120 * 2**0.5, rel=0.03)


def test_pitch_statistics_computed_by_hand():
    pitch = prosody.summarise_f0(np.array([0, 100, 200, 0, 400, 100], dtype=np.float32))
    assert pitch == prosody.Pitch(200.0, 150.0, pytest.approx(122.474, abs=1e-3), 100.0, 400.0, 24.0, 4 / 6)


@pytest.mark.parametrize("samples", [np.zeros(16_000), np.zeros(300), np.zeros(1)])
def test_silence_and_clips_too_short_for_a_frame_have_no_pitch(tmp_path, samples):
    clip = write(tmp_path / "none.wav", samples)
    cache = Cache(tmp_path / "cache")
    assert prosody.measure_pitch([clip], CFG, cache) == [None]
    assert prosody.measure_pitch([clip], CFG, cache) == [None]


def test_cached_pitch_is_read_without_audio(tmp_path):
    cache = Cache(tmp_path / "cache")
    clip = write(tmp_path / "tone.wav", glide(200, 200))
    silent = write(tmp_path / "silent.wav", np.zeros(16_000))
    first = prosody.measure_pitch([clip, silent], CFG, cache)
    clip.path.unlink()
    silent.path.unlink()
    assert prosody.measure_pitch([clip, silent], CFG, cache) == first
    with pytest.raises(BadClipError, match=r"tone\.wav"):
        prosody.measure_pitch([clip], PitchConfig(floor_hz=60.0), cache)


def test_pitch_of_real_speech_and_of_the_silent_clip(corpora_root, tmp_path):
    folder = corpora_root / "cremad" / "AudioWAV"
    names = ["1076_MTI_SAD_XX", "1001_DFA_ANG_XX", "1002_DFA_ANG_XX"]
    pitches = prosody.measure_pitch([Clip(n, folder / f"{n}.ogg", "sad", n[:4]) for n in names], CFG, Cache(tmp_path))
    assert pitches[0] is None
    man, woman = pitches[1], pitches[2]
    assert man is not None and woman is not None
    for value in (man, woman):
        assert CFG.floor_hz <= value.min_hz <= value.median_hz <= value.max_hz <= CFG.ceiling_hz
    assert man.median_hz < woman.median_hz
