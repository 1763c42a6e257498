"""The batched vector is librosa's, block by block, in every layout."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from ser_bench import audio
from ser_bench.config import FeaturesConfig, MfccOrder, Pad
from ser_bench.features import paper_vector
from ser_bench.types import FloatArray
from tests.support.signals import voice_like

FEATURES = FeaturesConfig()
FRAMES = 108
ZCR_TOLERANCE = 0.0
RMS_TOLERANCE = 1e-6
MFCC_TOLERANCE = 5e-3
"""In dB; values reach some hundreds."""


def batched(samples: FloatArray, features: FeaturesConfig = FEATURES) -> FloatArray:
    return paper_vector.by_torch(torch.from_numpy(samples)[None], features)[0].numpy()


def assert_close(ours: FloatArray, reference: FloatArray, frames: int = FRAMES) -> None:
    difference = np.abs(ours - reference)
    assert difference[:frames].max() <= ZCR_TOLERANCE
    assert difference[frames : 2 * frames].max() <= RMS_TOLERANCE
    assert difference[2 * frames :].max() <= MFCC_TOLERANCE


def test_the_papers_sizes() -> None:
    assert paper_vector.samples_in(FEATURES) == 55_125
    assert paper_vector.frames_in(FEATURES) == FRAMES
    assert paper_vector.length(FEATURES) == 2_376


@pytest.mark.parametrize("engine", [batched, lambda x, f: paper_vector.by_librosa(x, f)])
def test_blocks_stand_where_they_should(engine) -> None:  # type: ignore[no-untyped-def]
    """Against librosa called by hand with its defaults, which are the paper's."""
    clip = voice_like()
    zcr = librosa.feature.zero_crossing_rate(clip)[0]
    rms = librosa.feature.rms(y=clip)[0]
    mfcc = librosa.feature.mfcc(y=clip, sr=22_050, n_mfcc=20)
    frame_major = engine(clip, FEATURES)
    assert frame_major.shape == (2_376,) and frame_major.dtype == np.float32
    assert_close(frame_major, np.concatenate([zcr, rms, np.ravel(mfcc.T)]))
    coefficient_major = engine(clip, FeaturesConfig(mfcc_order=MfccOrder.coefficient))
    assert_close(coefficient_major, np.concatenate([zcr, rms, np.ravel(mfcc)]))
    assert not np.array_equal(frame_major, coefficient_major)


@pytest.mark.parametrize(
    "features",
    [
        FeaturesConfig(n_mfcc=13),
        FeaturesConfig(frame_length=1_024, hop_length=256),
        FeaturesConfig(frame_length=400, hop_length=300),
        FeaturesConfig(sample_rate_hz=16_000, duration_s=1.0),
    ],
)
def test_other_parameters(features: FeaturesConfig) -> None:
    clip = paper_vector.fit(voice_like(), features)
    ours = batched(clip, features)
    assert len(ours) == paper_vector.length(features)
    assert_close(ours, paper_vector.by_librosa(clip, features), paper_vector.frames_in(features))


@pytest.mark.parametrize("samples", [0, 1, 700, 2_048, 30_001, 55_125, 90_000])
def test_padding_of_the_vector_comes_last(samples: int) -> None:
    features = FeaturesConfig(pad=Pad.vector)
    clip = paper_vector.fit(voice_like(100_000)[:samples], features)
    ours = batched(clip, features)
    assert len(clip) == min(samples, 55_125)
    reference = paper_vector.by_librosa(clip, features)
    assert len(ours) == len(reference) == 2_376
    np.testing.assert_allclose(ours, reference, atol=MFCC_TOLERANCE)
    used = 22 * (1 + samples // 512) if samples else 0
    assert not ours[used:].any()
    assert samples == 0 or ours[:used].any()


def test_padding_of_the_audio_is_digital_silence() -> None:
    clip = voice_like()[:30_000]
    fitted = paper_vector.fit(clip, FEATURES)
    assert len(fitted) == 55_125
    np.testing.assert_array_equal(fitted[:30_000], clip)
    assert not fitted[30_000:].any()
    assert len(paper_vector.fit(voice_like(90_000), FEATURES)) == 55_125


def test_silence_is_finite_and_constant() -> None:
    silence = np.zeros(55_125, dtype=np.float32)
    ours = batched(silence)
    assert np.isfinite(ours).all()
    assert not ours[: 2 * FRAMES].any()
    np.testing.assert_allclose(ours, paper_vector.by_librosa(silence, FEATURES), atol=MFCC_TOLERANCE)


def test_no_variant_of_a_batch_sets_the_floor_of_another() -> None:
    """The 80 dB below the maximum are counted from each waveform's own maximum."""
    loud, faint = voice_like(), 1e-4 * voice_like(seed=1)
    both = paper_vector.by_torch(torch.from_numpy(np.stack([loud, faint])), FEATURES).numpy()
    assert_close(both[0], paper_vector.by_librosa(loud, FEATURES))
    assert_close(both[1], paper_vector.by_librosa(faint, FEATURES))


def test_a_sample_below_the_threshold_has_no_sign() -> None:
    dust = np.tile(np.array([5e-11, -5e-11], dtype=np.float32), 27_563)[:55_125]
    assert not batched(dust)[:FRAMES].any()
    np.testing.assert_array_equal(batched(10 * dust)[:FRAMES], paper_vector.by_librosa(10 * dust, FEATURES)[:FRAMES])
    assert batched(10 * dust)[50] > 0.99


@pytest.mark.corpora
@pytest.mark.parametrize(
    "name",
    [
        "cremad/AudioWAV/1001_DFA_ANG_XX.ogg",
        "cremad/AudioWAV/1076_MTI_SAD_XX.ogg",
        "ravdess/Actor_01/03-01-01-01-01-01-01.flac",
        "emodb/wav/03a01Fa.ogg",
    ],
)
def test_speech(corpora_root: Path, name: str) -> None:
    clip = paper_vector.fit(audio.load(corpora_root / name, 22_050, 0.6, 2.5), FEATURES)
    assert_close(batched(clip), paper_vector.by_librosa(clip, FEATURES))
