"""The encoder agrees with CTranslate2, pooled states with NumPy; states are cached."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import weights
from ser_bench.audio import load, probe
from ser_bench.cache import Cache
from ser_bench.errors import ConfigError, WeightsError
from ser_bench.features.encoders import whisper_states
from ser_bench.features.encoders.whisper_encoder import WhisperEncoder, read_variables
from ser_bench.types import Clip, FloatArray
from tests.support.tiny_whisper import BLOCKS, WIDTH, write_tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Noise of several lengths, one of them shorter than a window of the spectrogram."""
    home, made = tmp_path_factory.mktemp("clips"), []
    for i, seconds in enumerate((1.0, 0.5, 1.23, 0.01, 1.0)):
        path = home / f"c{i}.wav"
        wave = np.random.default_rng(i).normal(scale=0.1, size=int(16_000 * seconds))
        soundfile.write(path, wave, 16_000)
        info = probe(path)
        made.append(Clip(f"c{i}", path, "sad", "s", duration_s=info.duration_s, digest=info.digest))
    return made


def pooled(clips: Sequence[Clip], folder: str, cache: Path) -> FloatArray:
    return whisper_states.embed(clips, folder, (), "cpu", Cache(cache))


def test_a_clip_is_the_mean_and_deviation_of_its_own_frames(clips: list[Clip], folder: str, tmp_path: Path) -> None:
    states = pooled(clips, folder, tmp_path)
    assert states.shape == (5, BLOCKS + 1, 2, WIDTH) and states.dtype == np.float32
    encoder = WhisperEncoder(Path(folder) / "model.bin")
    for clip, row in zip(clips, states, strict=True):
        wave = np.pad(load(clip.path, 16_000), (0, max(0, 400 - round(16_000 * clip.duration_s))))
        mel = whisper_states._spectrogram(80)(wave)
        states = np.stack([state[0].numpy() for state in encoder(mel[None], [mel.shape[1]])])
        np.testing.assert_allclose(row[:, 0], states.mean(axis=1), atol=2e-5)
        np.testing.assert_allclose(row[:, 1], states.std(axis=1), atol=2e-5)


def test_states_do_not_depend_on_the_batch_or_the_order(clips: list[Clip], folder: str, tmp_path: Path) -> None:
    together = pooled(clips, folder, tmp_path / "a")
    alone = np.concatenate([pooled([clip], folder, tmp_path / "b") for clip in clips])
    np.testing.assert_allclose(alone, together, atol=2e-5)
    np.testing.assert_array_equal(pooled(clips[::-1], folder, tmp_path / "a"), together[::-1])
    np.testing.assert_array_equal(pooled([clips[2], clips[2]], folder, tmp_path / "a"), together[[2, 2]])


def test_cached_states_are_not_computed_again(
    clips: list[Clip], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pooled(clips, folder, tmp_path)

    def never(*args: Any) -> FloatArray:
        raise AssertionError("decoded or read again")

    monkeypatch.setattr(whisper_states.audio, "load", never)
    whisper_states._recent.clear()
    np.testing.assert_array_equal(pooled(clips, folder, tmp_path), first)
    monkeypatch.setattr(Cache, "read", never)  # the folds of a sweep ask again
    np.testing.assert_array_equal(pooled(clips, folder, tmp_path), first)
    with pytest.raises(AssertionError, match="again"):
        pooled(clips, folder, tmp_path / "elsewhere")


def test_encoders_that_are_requested_together_share_one_decoding(
    clips: list[Clip], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, decoded = str(write_tiny(tmp_path / "other", seed=1)), []
    true_load = whisper_states.audio.load
    monkeypatch.setattr(
        whisper_states.audio, "load", lambda path, rate: (decoded.append(path), true_load(path, rate))[1]
    )
    cache = Cache(tmp_path / "cache")
    first = whisper_states.embed(clips, folder, [folder, other], "cpu", cache)
    second = whisper_states.embed(clips, other, [folder, other], "cpu", cache)
    assert sorted(decoded) == sorted(clip.path for clip in clips)
    assert np.abs(first - second).max() > 0.01, "other weights give other numbers"
    np.testing.assert_array_equal(second, pooled(clips, other, tmp_path / "fresh"))


def test_frames_are_those_whose_statistics_are_pooled_each_clips_own_and_cached(
    clips: list[Clip], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statistics, cache = pooled(clips, folder, tmp_path), Cache(tmp_path / "frames")
    for layer in range(BLOCKS + 1):
        states = list(whisper_states.frames(clips, folder, layer, "cpu", cache))
        assert [s.dtype for s in states] == [np.float16] * len(clips) and len({len(s) for s in states}) > 1
        for frames, expected in zip(states, statistics, strict=True):
            np.testing.assert_allclose(frames.astype(np.float64).mean(axis=0), expected[layer, 0], atol=5e-3)
            np.testing.assert_allclose(frames.astype(np.float64).std(axis=0), expected[layer, 1], atol=5e-3)

    def never(*args: Any) -> FloatArray:
        raise AssertionError("decoded again")

    monkeypatch.setattr(whisper_states.audio, "load", never)
    again = list(whisper_states.frames([clips[2], clips[0]], folder, 0, "cpu", cache))
    assert [len(s) for s in again] == [len(s) for s in whisper_states.frames(clips, folder, 0, "cpu", cache)][2::-2]


def test_no_clips_no_numbers(folder: str, tmp_path: Path) -> None:
    assert len(pooled([], folder, tmp_path)) == 0


def test_an_unknown_encoder_is_an_error_with_the_known_names(clips: list[Clip], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.encoders='large'.*tiny\.en, base"):
        whisper_states.embed(clips, "large", (), "cpu", Cache(tmp_path))


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda content: content[:200], "not a readable"),
        (lambda content: struct.pack("<I", 5) + content[4:], "format 5"),
        (lambda content: content.replace(b"num_heads", b"num_tails"), "num_heads"),
    ],
)
def test_damaged_weights_are_refused(damage: Any, text: str, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(damage((Path(folder) / "model.bin").read_bytes()))
    with pytest.raises(WeightsError, match=text):
        WhisperEncoder(path)


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="float16"):
        WhisperEncoder(write_tiny(tmp_path, quantised=True) / "model.bin")


@pytest.fixture(params=["tiny.en", "base"])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[str, Path]]:
    name = f"whisper-{request.param}"
    if (home := weights.find(name)) is None:
        pytest.skip(f"{name} is not on this machine: ser-bench weights fetch")
    yield request.param, home


def test_the_last_layer_is_ctranslate2s(real: tuple[str, Path]) -> None:
    import ctranslate2

    name, home = real
    mel = whisper_states._spectrogram(80)(np.random.default_rng(0).normal(scale=0.1, size=24_000).astype(np.float32))[
        None
    ]
    oracle = ctranslate2.models.Whisper(str(home), device="cpu", compute_type="float32")
    expected = np.asarray(oracle.encode(ctranslate2.StorageView.from_array(np.ascontiguousarray(mel))))
    states = WhisperEncoder(home / "model.bin")(mel, [mel.shape[2]])[-1].numpy()
    assert np.linalg.norm(states - expected) < 2e-5 * np.linalg.norm(expected)
    assert len(read_variables(home / "model.bin")) > 100, name
