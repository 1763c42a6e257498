"""Cache entries of earlier versions are still read: the keys below are literal, and so are the formats of the payloads.

No audio exists under the clip's path, so a key that changed makes a test fail with an unreadable clip or weights.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ser_bench import asr
from ser_bench.cache import Cache
from ser_bench.config import AsrConfig, AugmentConfig, FeaturesConfig, LogMelConfig, PitchConfig, TextConfig
from ser_bench.features import egemaps_functionals, log_mel, paper_features, prosody, text_embedding
from ser_bench.features.encoders import huggingface_encoder, whisper_states
from ser_bench.types import VARIANTS, Clip, Row

CLIP = Clip("c", Path("/nonexistent/gone.wav"), "sad", "s", digest="00000000000000000000000000000001")
ROWS = [Row("c", variant) for variant in VARIANTS]
AUGMENT = AugmentConfig(name="paper", variants=list(VARIANTS))

SPECTRAL_KEYS = (
    "25ca86c5279482c75b37d6d0ba4fac5c",
    "b3d704a1c624e7fa57b4013a2cb4627a",
    "9607c31ea97d14bc56f02c819c59358b",
    "f756156194fcf21c1ecdbc4015776107",
)
EGEMAPS_KEYS = (
    "dd3070c90c69b52272105cc19966248a",
    "0a3030b9a9940297102af8d8b24d14b1",
    "357b77da3256aa49547fd7384a4b971c",
    "fcbebc960d5f5a6a5af7740aef63f317",
)
"""Of revision 2: entries of revision 1 hold functionals of samples that were not clipped, and are not read."""
LOG_MEL_KEY = "254a348e95c62c938f12e6d06efcbc2e"
PITCH_KEY = "807f17be1481656c68acbe6eddd5bbb3"
PROSODY_KEY = "e338dc3c65f3b5a89821635c0853cab0"
MINILM_KEYS = ("8437240fcbb7fdce7888dbe82801b25f", "3c9c0964cb03ec6e376677302c38e550")
OPENAI_KEY = "77baa42a5f1a5ac354acf77a6c197845"
FASTER_WHISPER_KEY = "984e24eab4b805c3d0c56a0bed01db23"
OPENAI_WHISPER_KEY = "41f3db31e1524b579580abac2c8f0837"
WHISPER_POOLED_KEY = "422fb06ad207fb13d0dd84196624c846"
WHISPER_FRAMES_KEY = "081670b6b09848f5ee26ea14614c92eb"
HUGGINGFACE_KEY = "b0e235ee04391d775de1962162f2b0bd"


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def npy(array: npt.NDArray[Any]) -> bytes:
    """NumPy's .npy format, written by NumPy itself."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def numbers(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_spectral_features(cache: Cache) -> None:
    expected = numbers(4, 2_376)
    for key, vector in zip(SPECTRAL_KEYS, expected, strict=True):
        cache.write(key, vector.astype("<f4").tobytes())
    np.testing.assert_array_equal(paper_features.extract(ROWS, {"c": CLIP}, FeaturesConfig(), AUGMENT, cache), expected)


def test_log_mel_spectrograms(cache: Cache) -> None:
    expected = numbers(219, 64).astype(np.float16)
    cache.write(LOG_MEL_KEY, npy(expected))
    np.testing.assert_array_equal(log_mel.extract([CLIP], LogMelConfig(), cache)[0], expected.astype(np.float32))


def test_egemaps_functionals(cache: Cache) -> None:
    expected = numbers(4, 88)
    for key, vector in zip(EGEMAPS_KEYS, expected, strict=True):
        cache.write(key, npy(vector))
    np.testing.assert_array_equal(egemaps_functionals.extract(ROWS, {"c": CLIP}, AUGMENT, cache), expected)


def test_pitch_and_clips_without_pitch(cache: Cache) -> None:
    cache.write(
        PITCH_KEY,
        b'{"mean_hz": 200.0, "median_hz": 150.0, "std_hz": 1.5, "min_hz": 100.0, "max_hz": 400.0, '
        b'"range_semitones": 24.0, "voiced_fraction": 0.5}',
    )
    expected = prosody.Pitch(200.0, 150.0, 1.5, 100.0, 400.0, 24.0, 0.5)
    assert prosody.measure_pitch([CLIP], PitchConfig(), cache) == [expected]
    cache.write(PITCH_KEY, b"{}")
    assert prosody.measure_pitch([CLIP], PitchConfig(), cache) == [None]


def test_prosody(cache: Cache) -> None:
    names = (
        *("pitch_semitones", "pitch_range_semitones", "pitch_slope", "loudness_db", "syllables_per_second"),
        *("pause_percent", "jitter_percent", "shimmer_percent", "harmonicity_db"),
    )
    stored = {name: None if name == "pitch_slope" else float(i) for i, name in enumerate(names)}
    cache.write(PROSODY_KEY, json.dumps(stored).encode())
    assert prosody.measure_prosody([CLIP], PitchConfig(), cache) == [prosody.Prosody(**stored)]


def test_text_embeddings(cache: Cache) -> None:
    expected = numbers(2, 384)
    for key, vector in zip(MINILM_KEYS, expected, strict=True):
        cache.write(key, npy(vector))
    minilm = TextConfig(name="minilm", model="all-MiniLM-L6-v2", dim=384)
    np.testing.assert_array_equal(text_embedding.embed(["It's eleven o'clock.", ""], minilm, "en", cache), expected)
    cache.write(OPENAI_KEY, npy(expected[0]))
    openai = TextConfig(name="openai", model="text-embedding-3-small", dim=384)
    np.testing.assert_array_equal(text_embedding.embed(["It's eleven o'clock."], openai, "en", cache), expected[:1])


def test_transcripts(cache: Cache) -> None:
    cache.write(FASTER_WHISPER_KEY, '"Grüße"'.encode())
    faster = AsrConfig(
        name="faster_whisper", model="tiny.en", max_frames=1000, fallback_frames=3000, fallback_logprob=-0.5
    )
    assert asr.transcribe([CLIP], faster, "en", cache) == ["Grüße"]
    cache.write(OPENAI_WHISPER_KEY, b'""')
    assert asr.transcribe([CLIP], AsrConfig(name="whisper", model="tiny.en"), "en", cache) == [""]


def test_states_of_whisper(cache: Cache) -> None:
    pooled, frames = numbers(5, 2, 384), numbers(60, 384).astype(np.float16)
    cache.write(WHISPER_POOLED_KEY, npy(pooled))
    cache.write(WHISPER_FRAMES_KEY, npy(frames))
    np.testing.assert_array_equal(whisper_states.embed([CLIP], "tiny.en", (), "cpu", cache), pooled[None])
    (read,) = whisper_states.frames([CLIP], "tiny.en", 2, "cpu", cache)
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, frames)


def test_states_of_a_hugging_face_encoder(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_encoder, "identity", lambda encoder, revision: "f" * 64)
    pooled = numbers(13, 2, 768)
    cache.write(HUGGINGFACE_KEY, npy(pooled))
    np.testing.assert_array_equal(huggingface_encoder.embed([CLIP], "some/encoder", None, "cpu", cache), pooled[None])
