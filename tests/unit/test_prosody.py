"""Prosody of sounds whose measures are known by construction."""

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
    """A pulse train of this F0 (a value a sample), its periods and amplitudes disturbed, through one resonance."""
    draw, out, at = np.random.default_rng(seed), np.zeros(len(f0_hz)), 0.0
    while at < len(out) - 1:
        out[int(at)] += 1.0 + shimmer * draw.normal()
        at += RATE / f0_hz[int(at)] * (1.0 + jitter * draw.normal())
    tail = np.exp(-np.arange(200) / 25.0) * np.cos(2 * np.pi * 700 * np.arange(200) / RATE)
    return 0.1 * np.convolve(out, tail)[: len(out)]


def steady(f0_hz: float, duration_s: float = 1.5) -> np.ndarray:
    return np.full(int(duration_s * RATE), f0_hz)


def measure(samples: np.ndarray) -> prosody.Prosody:
    return prosody.of_samples(samples.astype(np.float32), RATE, CFG)


@pytest.mark.parametrize(("f0_hz", "semitones"), [(100.0, 0.0), (200.0, 12.0), (150.0, 12 * math.log2(1.5))])
def test_pitch_level_in_semitones(f0_hz, semitones):
    found = measure(voice(steady(f0_hz)))
    assert found.pitch_semitones == pytest.approx(semitones, abs=0.2)
    assert found.pitch_range_semitones == pytest.approx(0.0, abs=0.3)
    assert found.pitch_slope == pytest.approx(0.0, abs=0.3)


@pytest.mark.parametrize("direction", [1, -1])
def test_range_and_slope_of_a_glide(direction):
    t = np.arange(int(1.5 * RATE)) / RATE
    found = measure(voice(150.0 * 2 ** (direction * 6.0 * (t - 0.75) / 12)))
    assert found.pitch_slope == pytest.approx(direction * 6.0, abs=0.5)
    assert found.pitch_range_semitones == pytest.approx(0.8 * 9.0, abs=0.8)
    assert found.pitch_semitones == pytest.approx(12 * math.log2(1.5), abs=0.4)


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
    found = measure(bursts(6, 0.2, 0.05))
    spoken_s = 6 * 0.25 - 0.05
    assert found.syllables_per_second == pytest.approx(6 / spoken_s, rel=0.1)
    assert found.pause_percent == 0.0, "a gap below a tenth of a second is no pause"
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
    assert measure(samples) == prosody.NOTHING


def test_noise_alone_has_loudness_and_no_pitch():
    found = measure(0.01 * np.random.default_rng(1).normal(size=RATE))
    assert found.pitch_semitones is None and found.loudness_db is not None


def test_cached_by_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, voice(steady(150)), RATE, subtype="PCM_16")
    clip, cache = Clip("a", path, "", "s", digest=digest_of(path.read_bytes().hex())), Cache(tmp_path / "cache")
    first = prosody.measure([clip], CFG, cache)
    path.unlink()
    assert prosody.measure([clip], CFG, cache) == first
    with pytest.raises(BadClipError, match=r"a\.wav"):
        prosody.measure([clip], PitchConfig(floor_hz=60.0), cache)


def test_real_anger_is_louder_and_higher_than_sadness(corpora_root, tmp_path):
    folder: Path = corpora_root / "cremad" / "AudioWAV"
    names = [f"{speaker}_{s}_{e}_XX" for speaker in ("1001", "1002") for s in ("DFA", "ITS") for e in ("ANG", "SAD")]
    found = prosody.measure([Clip(n, folder / f"{n}.ogg", "", n[:4]) for n in names], CFG, Cache(tmp_path))
    for angry, sad in zip(found[::2], found[1::2], strict=True):
        assert angry.loudness_db > sad.loudness_db + 3 and angry.harmonicity_db > sad.harmonicity_db
    level = [one.pitch_semitones for one in found]
    assert np.mean(level[::2]) > np.mean(level[1::2]) + 1
    assert all(getattr(one, name) is not None for one in found for name in NAMES)
