"""A recording is known again after it was encoded anew, and no other recording is taken for it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_bench import audio
from ser_bench.config import FeaturesConfig
from ser_bench.config.choices import Engine, MfccOrder
from ser_bench.features import fingerprint, paper_vector
from ser_bench.types import FloatArray

FEATURES = FeaturesConfig()
RATE_HZ = 16_000


def vectors(*sounds: tuple[FloatArray, int]) -> FloatArray:
    def vector_of(samples: FloatArray, rate: int) -> FloatArray:
        start = int(FEATURES.offset_s * rate)
        part = samples[start : start + int(FEATURES.duration_s * rate)]
        part = paper_vector.fit(audio.resample(part, rate, FEATURES.sample_rate_hz), FEATURES)
        vector: FloatArray = paper_vector.by_torch(torch.from_numpy(part)[None], FEATURES)[0].numpy()
        return vector

    return np.stack([vector_of(*sound) for sound in sounds])


def encoded(sound: tuple[FloatArray, int], kind: str, subtype: str | None = None) -> tuple[FloatArray, int]:
    buffer = io.BytesIO()
    soundfile.write(buffer, sound[0], sound[1], format=kind, subtype=subtype)
    buffer.seek(0)
    samples, rate = soundfile.read(buffer, dtype="float32")
    return samples, rate


def cosine(one: FloatArray, other: FloatArray) -> float:
    prints = fingerprint.fingerprints(np.stack([one, other]))
    return float(next(fingerprint.similarities(prints[:1], prints[1:]))[1][0, 0])


@pytest.fixture(scope="module")
def takes(corpora_root: Path) -> list[tuple[FloatArray, int]]:
    """One sentence by one speaker in six emotions: the clips that are hardest to tell apart."""
    return [audio.read(path) for path in sorted((corpora_root / "cremad" / "AudioWAV").glob("1001_WSI_*"))]


@pytest.mark.parametrize("change", ["vorbis", "mp3", "8 kHz", "softer", "shifted", "noise"])
def test_a_recording_encoded_anew_is_known_again(takes, change):
    samples, rate = sound = takes[0]
    noise = np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    changed = {
        "vorbis": lambda: encoded(sound, "OGG", "VORBIS"),
        "mp3": lambda: encoded(sound, "MP3"),
        "8 kHz": lambda: (audio.resample(samples, rate, 8_000), 8_000),
        "softer": lambda: (samples * np.float32(0.25), rate),
        "shifted": lambda: (samples[round(0.03 * rate) :], rate),
        "noise": lambda: (samples + noise * np.float32(10 ** (-30 / 20) * samples.std()), rate),
    }[change]()
    assert cosine(*vectors(sound, changed)) >= fingerprint.THRESHOLD
    waves = [audio.resample(wave, hz, fingerprint.WAVEFORM_HZ) for wave, hz in (sound, changed)]
    assert fingerprint.correlation(*waves) >= fingerprint.CORRELATED


def test_takes_of_one_sentence_by_one_speaker_are_told_apart(takes):
    prints = fingerprint.fingerprints(vectors(*takes))
    matches = {(i, j) for i, j, _ in fingerprint.similar(prints, prints)}
    assert len(takes) == 6 and matches == {(i, i) for i in range(6)}


def test_two_voices_with_one_spectrum_are_not_one_recording(tmp_path):
    rng = np.random.default_rng(0)
    one, other = (rng.standard_normal(RATE_HZ).astype(np.float32) * 0.1 for _ in range(2))
    soundfile.write(tmp_path / "one.wav", one, RATE_HZ)
    soundfile.write(tmp_path / "other.wav", other, RATE_HZ)
    soundfile.write(tmp_path / "late.flac", np.concatenate([np.zeros(700, np.float32), 0.5 * one]), RATE_HZ)
    assert fingerprint.same_recording(tmp_path / "one.wav", tmp_path / "late.flac")
    assert not fingerprint.same_recording(tmp_path / "one.wav", tmp_path / "other.wav")
    assert fingerprint.correlation(one, np.zeros(5, np.float32)) == 0.0


def test_a_silent_clip_is_like_nothing_not_even_silence():
    silent = vectors((np.zeros(RATE_HZ * 3, np.float32), RATE_HZ))
    assert not fingerprint.fingerprints(silent).any()
    assert not list(fingerprint.similar(*[fingerprint.fingerprints(silent)] * 2))


def test_pairs_are_named_by_their_places_across_blocks(monkeypatch):
    monkeypatch.setattr(fingerprint, "BLOCK_CLIPS", 2)
    prints = np.random.default_rng(0).normal(size=(5, 108, fingerprint.SIZE)).astype(np.float32)
    prints /= np.sqrt(np.square(prints).sum(axis=(1, 2), keepdims=True))
    matches = [(i, j) for i, j, _ in fingerprint.similar(prints, prints[[3, 4]])]
    assert matches == [(3, 0), (4, 1)]
    later = np.roll(prints, 2, axis=1)
    later[:, :2] = 0
    assert [(i, j) for i, j, _ in fingerprint.similar(later, prints)] == [(i, i) for i in range(5)]


def test_only_the_papers_features_have_fingerprints():
    assert fingerprint.applies_to(FeaturesConfig(engine=Engine.librosa, batch_clips=3))
    assert not fingerprint.applies_to(FeaturesConfig(mfcc_order=MfccOrder.coefficient))
    assert not fingerprint.applies_to(FeaturesConfig(duration_s=2.0))
