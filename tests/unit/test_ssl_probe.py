"""Choosing and mixing layers, fine-tuning a tiny encoder on the CPU, and whole runs over real files of noise."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ser_bench import predictors
from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError, WeightsError
from ser_bench.features.feature_store import Features
from ser_bench.predictors.embeddings import layer_weights, ssl_probe
from ser_bench.predictors.embeddings.finetuning import FinetunedEncoder
from ser_bench.predictors.embeddings.ssl_probe import Mix, SslProbeConfig
from ser_bench.types import Clip, clean_rows
from tests.support import tiny_speech_encoder as tiny
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows

TRAIN, VAL, TEST = rows(0, 60), rows(100, 12), rows(200, 30)


@cache
def _composed() -> Config:
    return compose_config("experiment=none", "model=ssl_probe", "head=logistic")


def composed(**model: object) -> Config:
    cfg = deepcopy(_composed())
    return replace(cfg, model=replace(cfg.model, **model))


def fitted(inputs: FakeInputs | None = None, **model: object):
    probe = predictors.build(composed(**model), LABELS, inputs or FakeInputs(), Path(), lambda epoch, values: None)
    return probe, probe.fit(TRAIN, VAL)


# ---- layers


@pytest.mark.parametrize(("layers", "number"), [("last", 2), ("0", 0), ("1", 1)])
def test_a_layer_is_taken_as_it_is(layers, number):
    probe, facts = fitted(layers=layers)
    pooled = FakeInputs().speech_encoder(TEST, "", None, "cpu")
    np.testing.assert_allclose(probe._raw(TEST), pooled[:, number].reshape(len(TEST), -1), rtol=1e-6)
    assert [facts[f"ssl/layer/{i}"] for i in range(3)] == [float(i == number) for i in range(3)]


def test_all_layers_alike_are_their_mean():
    probe, _ = fitted(layers="all")
    pooled = FakeInputs().speech_encoder(TEST, "", None, "cpu")
    np.testing.assert_allclose(probe._raw(TEST), pooled.mean(axis=1).reshape(len(TEST), -1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layers", ["3", "-1", "first", "", "1.5"])
def test_a_layer_that_is_not_there_is_refused(layers):
    with pytest.raises(ConfigError, match=r"last, all, or a number from 0 to 2"):
        layer_weights.fixed(SslProbeConfig(layers=layers), 3)


def test_learnt_weights_leave_noise_out_however_loud_and_know_training_rows_only():
    _, facts = fitted(layers="all", mix=Mix.learnt)
    shares = [facts[f"ssl/layer/{i}"] for i in range(3)]
    assert shares[0] < 0.05 and sum(shares) == pytest.approx(1.0)
    pooled = FakeInputs().speech_encoder(TRAIN, "", None, "cpu").reshape(60, 3, -1)
    targets = np.array([LABELS.index(label) for label in FakeInputs().truth(TRAIN)])
    weights = layer_weights.learnt(pooled, targets, 3)
    loud = pooled * np.array([1.0, 1000.0, 1.0], np.float32)[None, :, None]
    ratio = layer_weights.learnt(loud, targets, 3) / weights
    np.testing.assert_allclose(ratio, [1.0, 1e-3, 1.0], rtol=1e-3)  # loudness is divided out

    class Asked(FakeInputs):
        def speech_encoder(self, rows: Sequence, *rest):
            self.asked.append(tuple(rows))
            return super().speech_encoder(rows, *rest)

    inputs = Asked()
    fitted(inputs, layers="all", mix=Mix.learnt)
    assert not {row for asked in inputs.asked for row in asked} & set(TEST)


def test_a_stored_probe_keeps_its_layers(tmp_path):
    probe, _ = fitted(layers="all", mix=Mix.learnt)
    probe.save(tmp_path)
    loaded = predictors.load(tmp_path, composed(layers="0"), LABELS, FakeInputs())
    np.testing.assert_array_equal(loaded.predict(TEST).probabilities, probe.predict(TEST).probabilities)
    (tmp_path / ssl_probe.LAYER_WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(SerBenchError, match="no readable stored model"):
        predictors.load(tmp_path, composed(), LABELS, FakeInputs())


# ---- from files


def voices(folder: Path, count: int) -> list[Clip]:
    """Clips of three labels that differ in their spectrum; four speakers."""
    made = []
    for i in range(count):
        rng, label = np.random.default_rng(i), LABELS[i % 3]
        tone = np.sin(2 * np.pi * (200, 900, 2500)[i % 3] * np.arange(6400) / 16_000)
        path = folder / f"{label}-{i}.wav"
        soundfile.write(path, 0.3 * tone + 0.02 * rng.standard_normal(6400), 16_000, subtype="FLOAT")
        made.append(Clip(f"{label}-{i}", path, label, f"s{i % 4}", duration_s=0.4, digest=f"{i:032x}"))
    return made


def test_a_probe_over_files_and_a_tiny_encoder(tmp_path):
    clips = voices(tmp_path, 36)
    cfg = replace(composed(encoder=str(tiny.make(tmp_path / "encoder"))), cache_dir=str(tmp_path / "cache"))
    inputs = Features(cfg, {clip.id: clip for clip in clips}, "en")
    probe = predictors.build(cfg, LABELS, inputs, tmp_path, lambda epoch, values: None)
    probe.fit(clean_rows(c.id for c in clips[:18]), clean_rows(c.id for c in clips[18:24]))
    found = probe.predict(clean_rows(c.id for c in clips[24:]))
    assert np.mean([said == truth for said, truth in zip(found.predicted, found.truth, strict=True)]) > 0.8


def test_an_encoder_that_is_nowhere_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clips = voices(tmp_path, 6)
    cfg = replace(composed(encoder="nobody/nothing"), cache_dir=str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("away")))
    probe = predictors.build(
        cfg, LABELS, Features(cfg, {c.id: c for c in clips}, "en"), tmp_path, lambda epoch, values: None
    )
    with pytest.raises(WeightsError, match=r"model\.encoder=nobody/nothing"):
        probe.fit(clean_rows(c.id for c in clips), ())


# ---- fine-tuning


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_a_gpu_nothing_is_fine_finetuned(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"on a GPU: set model\.device=cuda \(it is .* sees no GPU\)") as error:
        fitted(finetune=True, device=device)
    assert "\n" not in str(error.value)


def test_a_gpu_that_is_not_asked_for_and_adaptation_are_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="sees a GPU"):
        ssl_probe.check_finetune("cpu", "none")
    with pytest.raises(ConfigError, match="adapt=speaker_stats"):
        ssl_probe.check_finetune("cuda", "speaker_stats")
    ssl_probe.check_finetune("cuda:0", "none")


# Group normalisation takes away most of what a frozen random convolution tells of a steady tone.
@pytest.mark.parametrize(("norm", "loss", "uar"), [("layer", 0.9, 0.5), ("group", 1.09, 0.0)])
def test_a_tiny_encoder_is_fine_tuned_stored_and_read_back(tmp_path, norm, loss, uar):
    clips, targets = voices(tmp_path, 24), np.arange(24) % 3
    folder = tiny.make(tmp_path / "encoder", norm=norm)
    cfg = SslProbeConfig(
        encoder=str(folder), finetune=True, epochs=12, batch_size=6, learning_rate=2e-3, head_learning_rate=2e-2
    )
    tuned = FinetunedEncoder(cfg, 3)
    before = {name: value.clone() for name, value in tuned._encoder.model.state_dict().items()}
    facts = tuned.fit(clips[:18], targets[:18], clips[18:], targets[18:], seed=0)
    assert facts["fit/train_loss"] < loss < np.log(3) and facts["fit/val_uar"] >= uar
    after = tuned._encoder.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not [name for name in changed if name.startswith("feature_extractor")]
    assert facts["params/trainable"] < facts["params/total"]

    probe = predictors.build(composed(encoder=str(folder)), LABELS, FakeInputs(), tmp_path, lambda epoch, values: None)
    probe._finetuned = tuned
    probe.save(tmp_path / "stored")
    assert {path.suffix for path in (tmp_path / "stored").rglob("*") if path.is_file()} == {".json", ".safetensors"}
    folder.rename(tmp_path / "gone")  # a stored run needs its encoder no longer
    loaded = predictors.load(tmp_path / "stored", composed(encoder=str(folder)), LABELS, FakeInputs())
    alone = np.concatenate([loaded._finetuned.predict_proba([clip]) for clip in clips[18:]])
    np.testing.assert_allclose(alone, tuned.predict_proba(clips[18:]), atol=1e-5)


def test_fine_tuning_is_the_same_twice(tmp_path):
    clips, targets = voices(tmp_path, 9), np.arange(9) % 3
    cfg = SslProbeConfig(encoder=str(tiny.make(tmp_path / "encoder")), epochs=2, batch_size=4, learning_rate=1e-3)
    first, second = FinetunedEncoder(cfg, 3), FinetunedEncoder(cfg, 3)
    for one in (first, second):
        one.fit(clips, targets, [], targets[:0], seed=3)
    np.testing.assert_array_equal(first.predict_proba(clips), second.predict_proba(clips))
