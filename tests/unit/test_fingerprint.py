"""A recording is known again after it was changed, and no other recording is taken for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.features import fingerprint
from ser_bench.features.feature_store import Features
from ser_bench.types import Clip, FloatArray
from tests.support.fake_inputs import compose_config
from tests.support.sound_changes import CHANGES, Sound

RATE_HZ = 16_000


@pytest.fixture(scope="module")
def takes(corpora_root: Path) -> list[Sound]:
    """One sentence by one speaker in six emotions: the clips that are hardest to tell apart."""
    return [audio.read(path) for path in sorted((corpora_root / "cremad" / "AudioWAV").glob("1001_WSI_*"))]


def at_8_khz(sound: Sound) -> FloatArray:
    return audio.resample(sound[0], sound[1], fingerprint.RATE_HZ)


def cosine(first: Sound, second: Sound) -> float:
    prints = np.stack([fingerprint.fingerprint_of(at_8_khz(sound)) for sound in (first, second)])
    return float(fingerprint.cosines_of(prints[:1], prints[1:])[0, 0])


def correlation(first: Sound, second: Sound, enough: float = fingerprint.CORRELATED) -> float:
    spectrograms = [fingerprint.magnitudes(at_8_khz(sound)) for sound in (first, second)]
    return fingerprint.spectral_similarity(*spectrograms, enough)


@pytest.mark.parametrize("name", CHANGES)
def test_a_recording_that_was_changed_is_known_again(takes: list[Sound], name: str) -> None:
    changed = CHANGES[name](takes[1])
    assert cosine(changed, takes[1]) >= fingerprint.THRESHOLD
    assert correlation(changed, takes[1]) >= fingerprint.CORRELATED
    assert correlation(takes[1], changed) >= fingerprint.CORRELATED


def test_takes_of_one_sentence_by_one_speaker_are_told_apart(takes: list[Sound]) -> None:
    prints = np.stack([fingerprint.fingerprint_of(at_8_khz(sound)) for sound in takes])
    assert len(takes) == 6 and not list(fingerprint.candidates(prints, 0.95))
    pairs = [(first, second) for i, first in enumerate(takes) for second in takes[:i]]
    assert max(correlation(*pair, enough=2.0) for pair in pairs) < fingerprint.CORRELATED / 1.5


def test_silence_and_noise_are_like_nothing() -> None:
    silent = fingerprint.fingerprint_of(np.zeros(3 * fingerprint.RATE_HZ, np.float32))
    assert not silent.any() and not list(fingerprint.candidates(np.stack([silent, silent])))
    rng = np.random.default_rng(0)
    first, second = ((rng.standard_normal(RATE_HZ).astype(np.float32) * 0.1, RATE_HZ) for _ in range(2))
    assert correlation(first, second, enough=2.0) < 0.3 and correlation(first, first) > 0.99
    assert correlation(first, (np.zeros(RATE_HZ, np.float32), RATE_HZ)) == 0.0
    assert fingerprint.fingerprint_of(np.zeros(0, np.float32)).shape == (fingerprint.FRAMES, fingerprint.SIZE)


def test_pairs_are_named_by_their_positions_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "BLOCK_CLIPS", 2)
    prints = np.random.default_rng(0).normal(size=(5, fingerprint.FRAMES, fingerprint.SIZE)).astype(np.float32)
    prints[4] = np.roll(prints[1], 20, axis=0)  # one second later
    prints[4, :20] = 0
    prints[3] = 0.5 * prints[0]
    assert [(i, j) for i, j, _ in fingerprint.candidates(prints)] == [(0, 3), (1, 4)]


def test_copies_of_a_corpus_are_searched_once(
    takes: list[Sound], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = []
    for name, (samples, rate) in {"a": takes[0], "b": takes[1], "c": CHANGES["speed 1.01"](takes[0])}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, rate)
        digest = audio.probe(tmp_path / f"{name}.wav", 60.0).digest
        clips.append(Clip(name, tmp_path / f"{name}.wav", "sad", "s", digest=digest))
    features = Features(compose_config(f"cache_dir={tmp_path / 'cache'}"), {clip.id: clip for clip in clips}, "en")
    assert features.copies(["a", "b", "c"], compute=False) is None
    assert [set(pair) for pair in features.copies(["a", "b", "c"]) or []] == [{"a", "c"}]
    monkeypatch.setattr(fingerprint, "same_recordings", lambda *arguments: pytest.fail("searched again"))
    again = features.copies(["c", "b", "a"], compute=False)
    assert again is not None and [set(pair) for pair in again] == [{"a", "c"}]
    assert fingerprint.copies(clips[:2], Cache(tmp_path / "cache" / "fingerprint"), compute=False) is None
