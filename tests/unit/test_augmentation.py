"""Variants are reproducible, and the batched pitch shift agrees with librosa."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from ser_bench import audio
from ser_bench.config import AugmentConfig
from ser_bench.errors import ConfigError
from ser_bench.features import augmentation
from ser_bench.types import VARIANTS, FloatArray
from tests.support.signals import RATE_HZ, voice_like

CONFIG = AugmentConfig(name="paper", variants=list(VARIANTS))
TOLERANCE_DOUBLE = 1e-5
"""Of the peak, from librosa computing in double precision."""
TOLERANCE_SINGLE = 1e-2
"""Of the peak, from librosa in single precision, whose phases are rounded to about 0.01 rad a frame at the top."""


def shifted(samples: FloatArray, semitones: float) -> FloatArray:
    return augmentation.pitch_shift(torch.from_numpy(samples)[None], semitones)[0].numpy()


def distance(a: FloatArray, b: np.ndarray) -> float:
    """Largest difference in units of the peak."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def test_noise_is_seeded_by_seed_clip_and_variant_alone() -> None:
    clip = voice_like()
    again = [augmentation.noisy(clip, "a", "noise", CONFIG) for _ in range(2)]
    augmentation.noisy(clip, "b", "noise", CONFIG)
    np.testing.assert_array_equal(again[0], again[1])
    reseeded = AugmentConfig(name="paper", variants=list(VARIANTS), seed=1)
    others = [
        augmentation.noisy(clip, "b", "noise", CONFIG),
        augmentation.noisy(clip, "a", "noise_pitch", CONFIG),
        augmentation.noisy(clip, "a", "noise", reseeded),
    ]
    assert all(np.abs(other - again[0]).max() > 0 for other in others)


def test_noise_is_the_same_in_another_process() -> None:
    code = (
        "from ser_bench.features import augmentation; rng = augmentation.generator(3, 'clip', 'noise');"
        "print(repr(rng.uniform()), rng.standard_normal(5, dtype='float32').tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rng = augmentation.generator(3, "clip", "noise")
    assert done.stdout.strip() == f"{rng.uniform()!r} {rng.standard_normal(5, dtype=np.float32).tolist()}"


def test_noise_is_gaussian_in_proportion_to_the_peak() -> None:
    clip = voice_like()
    peak = np.abs(clip).max()
    strengths = []
    for i in range(200):
        noise = (augmentation.noisy(clip, f"clip {i}", "noise", CONFIG) - clip) / peak
        strengths.append(noise.std())
    assert max(strengths) <= CONFIG.noise_amplitude * 1.02
    assert np.mean(strengths) == pytest.approx(CONFIG.noise_amplitude / 2, rel=0.15)
    assert np.mean(np.abs(noise) < noise.std()) == pytest.approx(0.6827, abs=0.01)
    louder = augmentation.noisy(2 * clip, "clip 0", "noise", CONFIG)
    np.testing.assert_allclose(louder, 2 * augmentation.noisy(clip, "clip 0", "noise", CONFIG), atol=1e-6)


def test_a_negative_peak_counts_as_the_maximum() -> None:
    dip = np.full(55_125, 1e-3, dtype=np.float32)
    dip[100] = -0.5
    down, up = (augmentation.noisy(clip, "a", "noise", CONFIG) - clip for clip in (dip, -dip))
    np.testing.assert_allclose(down, up, atol=1e-7)


def test_silence_stays_silent() -> None:
    silence = np.zeros(55_125, dtype=np.float32)
    assert not augmentation.noisy(silence, "a", "noise", CONFIG).any()
    assert not shifted(silence, 0.7).any()


def test_clean_and_pitch_are_not_noisy() -> None:
    clip = voice_like()
    assert augmentation.noisy(clip, "a", "clean", CONFIG) is clip
    assert augmentation.noisy(clip, "a", "pitch", CONFIG) is clip
    assert [augmentation.is_shifted(v) for v in VARIANTS] == [False, False, True, True]
    assert [augmentation.is_noisy(v) for v in VARIANTS] == [False, True, False, True]


def test_only_the_parameters_of_a_variant_are_in_its_key() -> None:
    assert augmentation.parameters("clean", CONFIG) == {}
    assert augmentation.parameters("pitch", CONFIG) == {"pitch_semitones": 0.7}
    assert augmentation.parameters("noise", CONFIG) == {"noise_amplitude": 0.035, "seed": 0}
    assert len(augmentation.parameters("noise_pitch", CONFIG)) == 3


@pytest.mark.parametrize("semitones", [0.7, 3.0, -2.0])
def test_pitch_moves_by_so_many_semitones(semitones: float) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(55_125) / RATE_HZ).astype(np.float32)
    for moved in (shifted(tone, semitones), augmentation.pitch_shift_librosa(tone, RATE_HZ, semitones)):
        assert moved.shape == tone.shape
        spectrum = np.abs(np.fft.rfft(moved * np.hanning(len(moved)), 1 << 19))
        peak_hz = spectrum.argmax() * RATE_HZ / (1 << 19)
        assert 12 * np.log2(peak_hz / 440) == pytest.approx(semitones, abs=0.02)


@pytest.mark.parametrize("semitones", [0.7, -0.7, 3.0, -5.0, 12.0])
def test_pitch_shift_is_librosas(semitones: float) -> None:
    clip = voice_like()
    ours = shifted(clip, semitones)
    exact = librosa.effects.pitch_shift(clip.astype(np.float64), sr=RATE_HZ, n_steps=semitones)
    assert distance(ours, exact) < TOLERANCE_DOUBLE
    assert distance(ours, augmentation.pitch_shift_librosa(clip, RATE_HZ, semitones)) < TOLERANCE_SINGLE


@pytest.mark.parametrize("samples", [1, 100, 511, 2_048, 3_000, 30_001])
def test_pitch_shift_of_short_clips_is_librosas(samples: int) -> None:
    clip = voice_like(60_000)[10_000 : 10_000 + samples]
    exact = librosa.effects.pitch_shift(clip.astype(np.float64), sr=RATE_HZ, n_steps=0.7)
    assert distance(shifted(clip, 0.7), exact) < TOLERANCE_DOUBLE


@pytest.mark.parametrize("dust", [1e-12, 1e-24])
def test_phase_survives_digital_silence(dust: float) -> None:
    """Sound that sets in after silence takes its phase from bins far below what single precision can square."""
    clip = voice_like()
    clip[:20_000] = 0
    clip[19_900:20_000] = dust
    exact = librosa.effects.pitch_shift(clip.astype(np.float64), sr=RATE_HZ, n_steps=0.7)
    assert distance(shifted(clip, 0.7), exact) < TOLERANCE_DOUBLE


@pytest.mark.parametrize("rate", [0.96, 0.5, 1.3, 2.0])
def test_stretch_is_librosas_phase_vocoder(rate: float) -> None:
    spectra = augmentation.stft(torch.from_numpy(voice_like())[None])
    ours = augmentation.stretch(spectra, rate)[0].numpy().T
    # Some processors' FFT gives −0 for silent frames, whose phase is π in librosa; adding 0 makes it +0 everywhere.
    exact = librosa.phase_vocoder(spectra[0].numpy().T.astype(np.complex128) + 0.0, rate=rate, hop_length=512)
    assert ours.shape == exact.shape
    assert np.abs(ours - exact).max() / np.abs(exact).max() < 1e-5


def test_istft_inverts_stft() -> None:
    clip = voice_like()
    back = augmentation.istft(augmentation.stft(torch.from_numpy(clip)[None]), len(clip))
    np.testing.assert_allclose(back[0].numpy(), clip, atol=1e-5)


def test_a_batch_is_its_clips_one_by_one() -> None:
    batch = np.stack([voice_like(seed=i) for i in range(5)])
    together = augmentation.pitch_shift(torch.from_numpy(batch), 0.7).numpy()
    alone = np.stack([shifted(clip, 0.7) for clip in batch])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_nothing_to_shift() -> None:
    clip = voice_like()
    np.testing.assert_array_equal(shifted(clip, 0.0), clip)
    assert augmentation.pitch_shift(torch.zeros(2, 0), 0.7).shape == (2, 0)
    assert augmentation.pitch_shift_librosa(clip[:0], RATE_HZ, 0.7).size == 0
    assert augmentation.add_noise(clip[:0], 0.035, np.random.default_rng(0)).size == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": ["clean", "reverb"]}, "reverb"),
        ({"variants": ["noise"]}, "clean"),
        ({"noise_amplitude": -1.0}, "noise_amplitude"),
        ({"pitch_semitones": 40.0}, "pitch_semitones"),
    ],
)
def test_senseless_settings_are_refused(changes: dict[str, object], words: str) -> None:
    config = AugmentConfig(**({"name": "x", "variants": list(VARIANTS)} | changes))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        augmentation.check(config)


@pytest.mark.corpora
@pytest.mark.parametrize(
    "name",
    [
        "cremad/AudioWAV/1001_DFA_ANG_XX.ogg",
        "cremad/AudioWAV/1091_TIE_SAD_XX.ogg",
        "ravdess/Actor_01/03-01-01-01-01-01-01.flac",
        "ravdess/Actor_06/03-01-06-02-02-02-06.flac",
        "emodb/wav/03a01Fa.ogg",
    ],
)
def test_pitch_shift_of_speech_is_librosas(corpora_root: Path, name: str) -> None:
    clip = audio.load(corpora_root / name, RATE_HZ, 0.6, 2.5)
    clip = np.pad(clip, (0, 55_125 - len(clip)))
    exact = librosa.effects.pitch_shift(clip.astype(np.float64), sr=RATE_HZ, n_steps=0.7)
    ours = shifted(clip, 0.7)
    assert distance(ours, exact) < TOLERANCE_DOUBLE
    assert distance(ours, augmentation.pitch_shift_librosa(clip, RATE_HZ, 0.7)) < TOLERANCE_SINGLE
