from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench.cache import Cache
from ser_bench.config import PitchConfig
from ser_bench.errors import BadClipError
from ser_bench.features import pitch
from ser_bench.types import Clip, digest_of

CFG = PitchConfig()


def write(path: Path, samples: np.ndarray, rate: int = 16_000) -> Clip:
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return Clip(path.stem, path, "happy", "s", digest=digest_of(path.read_bytes().hex()))


def glide(low_hz: float, high_hz: float, duration_s: float = 1.0, rate: int = 16_000) -> np.ndarray:
    """A buzz of ten harmonics whose F0 rises linearly in semitones."""
    t = np.arange(int(duration_s * rate)) / rate
    f0 = low_hz * (high_hz / low_hz) ** (t / duration_s)
    phase = 2 * np.pi * np.cumsum(f0) / rate
    return 0.05 * sum(np.cos(k * phase) for k in range(1, 11))


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_measures_a_steady_tone_at_any_rate(tmp_path, rate):
    clip = write(tmp_path / "tone.wav", glide(200, 200, rate=rate), rate)
    [found] = pitch.measure([clip], CFG, Cache(tmp_path / "cache"))
    assert found is not None
    assert found.mean_hz == pytest.approx(200, abs=0.5)
    assert found.range_semitones < 0.1
    assert found.voiced_fraction > 0.95


def test_range_of_an_octave(tmp_path):
    [found] = pitch.measure([write(tmp_path / "glide.wav", glide(120, 240))], CFG, Cache(tmp_path / "cache"))
    assert found is not None
    assert found.range_semitones == pytest.approx(12, abs=1.0)
    assert 118 < found.min_hz < 130 and 225 < found.max_hz < 245
    assert found.median_hz == pytest.approx(120 * 2**0.5, rel=0.03)


def test_statistics_by_hand():
    found = pitch.summarise(np.array([0, 100, 200, 0, 400, 100], dtype=np.float32))
    assert found == pitch.Pitch(200.0, 150.0, pytest.approx(122.474, abs=1e-3), 100.0, 400.0, 24.0, 4 / 6)


@pytest.mark.parametrize("samples", [np.zeros(16_000), np.zeros(300), np.zeros(1)])
def test_silence_and_clips_too_short_for_a_frame_have_no_pitch(tmp_path, samples):
    clip = write(tmp_path / "none.wav", samples)
    cache = Cache(tmp_path / "cache")
    assert pitch.measure([clip], CFG, cache) == [None]
    assert pitch.measure([clip], CFG, cache) == [None]


def test_second_time_reads_no_audio(tmp_path):
    cache = Cache(tmp_path / "cache")
    clip = write(tmp_path / "tone.wav", glide(200, 200))
    silent = write(tmp_path / "silent.wav", np.zeros(16_000))
    first = pitch.measure([clip, silent], CFG, cache)
    clip.path.unlink()
    silent.path.unlink()
    assert pitch.measure([clip, silent], CFG, cache) == first
    with pytest.raises(BadClipError, match=r"tone\.wav"):
        pitch.measure([clip], PitchConfig(floor_hz=60.0), cache)


def test_real_speech_and_the_silent_clip(corpora_root, tmp_path):
    folder = corpora_root / "cremad" / "AudioWAV"
    names = ["1076_MTI_SAD_XX", "1001_DFA_ANG_XX", "1002_DFA_ANG_XX"]
    found = pitch.measure([Clip(n, folder / f"{n}.ogg", "sad", n[:4]) for n in names], CFG, Cache(tmp_path))
    assert found[0] is None
    man, woman = found[1], found[2]
    assert man is not None and woman is not None
    for value in (man, woman):
        assert CFG.floor_hz <= value.min_hz <= value.median_hz <= value.max_hz <= CFG.ceiling_hz
    assert man.median_hz < woman.median_hz
