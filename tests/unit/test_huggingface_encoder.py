"""Hugging Face speech encoders with tiny random weights: pooling beside transformers, company, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.errors import ConfigError, WeightsError
from ser_bench.features.encoders import huggingface_encoder
from ser_bench.types import Clip, FloatArray
from tests.support import tiny_speech_encoder as tiny


def embed(clips: list[Clip], folder: Path, cache: Path) -> FloatArray:
    return huggingface_encoder.embed(clips, str(folder), None, "cpu", Cache(cache))


@pytest.mark.parametrize("norm", ["layer", "group"])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_pooled_states_are_those_of_transformers_on_the_clip_alone(tmp_path, kind, norm):
    import transformers

    folder, clips = tiny.make(tmp_path / "encoder", kind, norm), tiny.clips(tmp_path, 0.5, 0.9, 0.31)
    pooled = embed(clips, folder, tmp_path / "cache")
    assert pooled.shape == (3, tiny.LAYERS + 1, 2, tiny.WIDTH) and pooled.dtype == np.float32
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    for clip, statistics in zip(clips, pooled, strict=True):
        values = extractor(audio.load(clip.path, 16_000), sampling_rate=16_000, return_tensors="pt").input_values
        with torch.inference_mode():
            states = model(values, output_hidden_states=True).hidden_states
        expected = [[state[0].mean(0).numpy(), state[0].std(0, correction=0).numpy()] for state in states]
        np.testing.assert_allclose(statistics, np.array(expected), atol=2e-5)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_clip_has_the_same_vectors_in_whatever_company(tmp_path, norm):
    folder, clips = tiny.make(tmp_path / "encoder", norm=norm), tiny.clips(tmp_path, 1.2, 0.4, 0.7)
    together = embed(clips, folder, tmp_path / "a")
    alone = np.concatenate([embed([clip], folder, tmp_path / "b") for clip in clips])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-2


def test_what_was_computed_once_is_read_back(tmp_path, monkeypatch):
    folder, clips = tiny.make(tmp_path / "encoder"), tiny.clips(tmp_path, 0.4, 0.5)
    first = embed(clips, folder, tmp_path / "cache")
    monkeypatch.setattr(huggingface_encoder, "load", lambda _: pytest.fail("computed again"))
    np.testing.assert_array_equal(embed(clips[::-1], folder, tmp_path / "cache"), first[::-1])
    other = tiny.make(tmp_path / "other", seed=1)
    monkeypatch.undo()
    assert np.abs(embed(clips, other, tmp_path / "cache") - first).max() > 1e-2


def test_a_clip_shorter_than_a_frame_is_padded(tmp_path):
    pooled = embed(tiny.clips(tmp_path, 0.01), tiny.make(tmp_path / "encoder"), tmp_path / "cache")
    assert np.isfinite(pooled).all()
    np.testing.assert_array_equal(pooled[:, :, 1], 0.0)  # one frame does not vary


def test_no_clips(tmp_path):
    assert embed([], tmp_path / "nowhere", tmp_path / "cache").shape[0] == 0


def test_pickled_weights_are_refused(tmp_path):
    folder = tiny.make(tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"no \.safetensors, and pickled weights are not loaded"):
        embed(tiny.clips(tmp_path, 0.4), folder, tmp_path / "cache")


def test_neither_a_folder_nor_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def away(name: str, **settings: object) -> str:
        asked.append(settings["local_files_only"])
        raise OSError("no route to the hub")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)
    with pytest.raises(WeightsError, match=r"nobody/nothing: no folder .* \(no route to the hub\)") as error:
        huggingface_encoder.embed(tiny.clips(tmp_path, 0.4), "nobody/nothing", None, "cpu", Cache(tmp_path))
    assert "\n" not in str(error.value) and asked == [False, True]


def test_the_hubs_own_cache_serves_without_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    folder = tiny.make(tmp_path / "encoder")

    def away(name: str, *, revision: str, allow_patterns: list[str], local_files_only: bool) -> str:
        assert revision == "v1" and "*.bin" not in allow_patterns
        if not local_files_only:
            raise OSError("no route to the hub")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", away)
    assert huggingface_encoder.home("some/encoder", "v1") == folder


def test_damaged_weights_and_other_models_are_refused_in_one_line(tmp_path):
    import transformers

    folder, clips = tiny.make(tmp_path / "encoder"), tiny.clips(tmp_path, 0.4)
    (folder / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(WeightsError, match="no speech encoder that transformers can load") as error:
        embed(clips, folder, tmp_path / "cache")
    assert "\n" not in str(error.value)
    words = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
    )
    transformers.BertModel(words).save_pretrained(tmp_path / "bert")
    with pytest.raises(ConfigError, match="BertModel does not read waveforms"):
        embed(clips, tmp_path / "bert", tmp_path / "cache")


def test_no_code_of_a_repository_is_run(tmp_path):
    folder = tiny.make(tmp_path / "encoder")
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\nclass M: pass\n"
    (folder / "mine.py").write_text(code)
    path = folder / "config.json"
    path.write_text(path.read_text().replace("{", '{"auto_map": {"AutoModel": "mine.M"},', 1))
    embed(tiny.clips(tmp_path, 0.4), folder, tmp_path / "cache")
    assert not list(tmp_path.rglob("ran"))
    shutil.rmtree(folder)
