"""Log-mel spectrograms: levels and bands of tones that are known, and the cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.config import LogMelConfig
from ser_bench.features import log_mel
from ser_bench.types import Clip

CFG = LogMelConfig(duration_s=1.0)
RATE_HZ = 16_000


def clip_of(folder: Path, samples: np.ndarray, name: str = "clip") -> Clip:  # type: ignore[type-arg]
    soundfile.write(folder / f"{name}.wav", samples, RATE_HZ, subtype="FLOAT")
    return Clip(name, folder / f"{name}.wav", "", "")


def tone(hz: float, seconds: float = 1.0, amplitude: float = 1.0) -> np.ndarray:  # type: ignore[type-arg]
    return amplitude * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def test_a_tone_is_in_its_band_and_ten_times_softer_is_20_db_less(tmp_path: Path) -> None:
    clips = [clip_of(tmp_path, tone(1000), "loud"), clip_of(tmp_path, tone(1000, amplitude=0.1), "soft")]
    loud, soft = log_mel.extract(clips, CFG, Cache(tmp_path / "cache"))
    assert loud.shape == (63, 64) == (log_mel.frames(CFG), CFG.bands)
    edges = librosa.mel_frequencies(CFG.bands + 2, fmin=0.0, fmax=RATE_HZ / 2, htk=True)
    band = int(loud[30].argmax())
    assert edges[band] < 1000 < edges[band + 2]
    assert loud[30, band] - soft[30, band] == pytest.approx(20, abs=0.1)
    assert -6 < loud[30, band] < 3


def test_it_is_librosas(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, RATE_HZ)
    ours = log_mel.extract([clip_of(tmp_path, samples)], CFG, Cache(tmp_path / "cache"))[0]
    power = librosa.feature.melspectrogram(
        y=samples, sr=RATE_HZ, n_fft=512, hop_length=256, n_mels=64, htk=True, norm=None, pad_mode="constant"
    )
    reference = 10 * np.log10(np.maximum(power * (2 / librosa.filters.get_window("hann", 512).sum()) ** 2, 1e-8)).T
    np.testing.assert_allclose(ours, reference, atol=0.07)


def test_silence_is_the_floor_and_a_short_clip_is_padded_with_it(tmp_path: Path) -> None:
    clips = [clip_of(tmp_path, np.zeros(RATE_HZ), "silent"), clip_of(tmp_path, tone(500, 0.4), "short")]
    silent, short = log_mel.extract(clips, CFG, Cache(tmp_path / "cache"))
    assert (silent == -80).all()
    assert (short[30:] == -80).all() and short[10].max() > -10


def test_a_long_clip_is_cut(tmp_path: Path) -> None:
    cut = log_mel.extract([clip_of(tmp_path, tone(500, 3.0))], CFG, Cache(tmp_path / "cache"))
    assert cut.shape == (1, 63, 64) and cut[0, 30].max() > -10


def test_what_is_cached_is_what_was_computed_and_settings_do_not_mix(tmp_path: Path) -> None:
    clip, cache = clip_of(tmp_path, tone(700)), Cache(tmp_path / "cache")
    first = log_mel.extract([clip], CFG, cache)
    other = log_mel.extract([clip], replace(CFG, hop_length=512), cache)
    known = replace(clip, digest=audio.clip_digest(clip), path=tmp_path / "gone.wav")
    np.testing.assert_array_equal(log_mel.extract([known], CFG, cache), first)
    assert other.shape == (1, 32, 64)
    assert log_mel.extract([], CFG, cache).shape == (0, 63, 64)
