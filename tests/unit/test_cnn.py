from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ser_bench.config import Config
from ser_bench.errors import SerBenchError
from ser_bench.predictors import predictor_class
from ser_bench.predictors.cnn import Cnn, CnnText, Mlp
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray, Row
from tests.support.fake_inputs import LABELS, TINY, FakeInputs, compose_config, rows

MORE, TRAIN, VAL, TEST = rows(0, 96), rows(0, 60), rows(100, 12), rows(200, 70)


@pytest.fixture(scope="module")
def cfg() -> Config:
    return compose_config(*TINY)


@pytest.fixture(scope="module")
def able(cfg: Config) -> Config:
    """A network that is large enough, and trained long enough, to learn the fake rows."""
    model = replace(cfg.model, channels=[8] * 5, hidden=16)
    return replace(cfg, model=model, trainer=replace(cfg.trainer, max_epochs=25, learning_rate=0.01))


def nothing(epoch: int, metrics: Mapping[str, float]) -> None:
    pass


def build(cls: type[Cnn], cfg: Config, work_dir: Path, inputs: FakeInputs | None = None) -> Cnn:
    work_dir.mkdir(parents=True, exist_ok=True)
    return cls(cfg, LABELS, inputs or FakeInputs(), work_dir, nothing)


def accuracy(predictor: Cnn) -> float:
    predictions = predictor.predict(TEST)
    return float(np.mean(np.array(predictions.truth) == np.array(predictions.predicted)))


def test_one_hidden_layer_learns_and_has_that_many_parameters(tmp_path: Path) -> None:
    predictor = build(Mlp, compose_config("model=mlp", "model.hidden=7", *TINY[:1], *TINY[3:]), tmp_path)
    facts = predictor.fit(MORE, VAL)
    assert facts["params/trainable"] == 40 * 7 + 7 + 7 * 3 + 3
    assert accuracy(predictor) > 0.8


@pytest.mark.parametrize("cls", [Cnn, CnnText])
def test_learns_and_gives_facts_and_predictions(cls: type[Cnn], able: Config, tmp_path: Path) -> None:
    predictor = build(cls, able, tmp_path)
    facts = predictor.fit(MORE, VAL)
    assert set(facts) == {"fit/seconds", "fit/epochs", "fit/best_epoch", "params/total", "params/trainable"}
    assert facts["fit/epochs"] == 25 and 1 <= facts["fit/best_epoch"] <= 25
    assert facts["params/total"] > facts["params/trainable"] > 0
    predictions = predictor.predict(TEST)
    assert predictions.rows == TEST and predictions.labels == LABELS and predictions.source == "softmax"
    assert not predictions.abstained.any() and (predictions.latency_s > 0).all() and not predictions.cost_usd.any()
    assert accuracy(predictor) > 0.8
    assert len(predictor.predict(()).rows) == 0


def test_shuffled_labels_fall_to_chance(able: Config, tmp_path: Path) -> None:
    predictor = build(Cnn, replace(able, shuffle_labels=True), tmp_path)
    predictor.fit(MORE, VAL)
    assert accuracy(predictor) < 0.6


@pytest.mark.parametrize("cls", [Cnn, CnnText])
def test_standardisation_sees_training_rows_only(cls: type[Cnn], cfg: Config, tmp_path: Path) -> None:
    predictor = build(cls, cfg, tmp_path)
    predictor.fit(TRAIN, VAL, TEST)
    expected = predictor._features(TRAIN)
    module, _ = predictor.torch_module()
    np.testing.assert_allclose(module.get_buffer("mean"), expected.mean(axis=0, dtype=np.float64), rtol=1e-5)
    np.testing.assert_allclose(module.get_buffer("std"), expected.std(axis=0, dtype=np.float64), rtol=1e-5)


def test_same_seed_same_predictions(cfg: Config, tmp_path: Path) -> None:
    def probabilities(name: str, seed: int) -> FloatArray:
        predictor = build(Cnn, replace(cfg, seed=seed), tmp_path / name)
        predictor.fit(TRAIN, VAL)
        return predictor.predict(TEST).probabilities

    first = probabilities("a", 0)
    torch.rand(3)  # the state of the global generator must not matter
    np.testing.assert_array_equal(first, probabilities("b", 0))
    assert np.abs(first - probabilities("c", 1)).max() > 1e-3


@pytest.mark.parametrize("cls", [Cnn, CnnText])
def test_what_is_saved_predicts_the_same(cls: type[Cnn], cfg: Config, tmp_path: Path) -> None:
    predictor = build(cls, cfg, tmp_path / "work")
    predictor.fit(TRAIN, VAL)
    predictor.save(tmp_path / "model")
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".safetensors", ".json"}
    other_size = replace(cfg, model=replace(cfg.model, channels=[9, 9, 9, 9, 9]))  # the stored network counts
    loaded = cls.load(tmp_path / "model", other_size, LABELS, FakeInputs())
    expected = predictor.predict(TEST).probabilities
    np.testing.assert_array_equal(loaded.predict(TEST).probabilities, expected)
    module, example = loaded.torch_module()
    assert example.shape == (2, len(loaded._features(TEST)[0])) and example.dtype == np.float32
    with torch.inference_mode():
        raw = module(torch.from_numpy(loaded._features(TEST))).numpy()
    np.testing.assert_allclose(raw, expected, atol=1e-6)


def test_text_is_appended_to_the_audio(cfg: Config, tmp_path: Path) -> None:
    predictor = build(CnnText, cfg, tmp_path)
    features, inputs = predictor._features(TEST), FakeInputs()
    np.testing.assert_array_equal(features[:, :40], inputs.spectral(TEST))
    np.testing.assert_array_equal(features[:, 40:], inputs.text(TEST))


def test_the_test_curve_is_drawn_only_where_rows_are_given(cfg: Config, tmp_path: Path) -> None:
    seen: list[Mapping[str, float]] = []
    for name, test in (("without", ()), ("with", TEST)):
        (tmp_path / name).mkdir()
        predictor = Cnn(cfg, LABELS, FakeInputs(), tmp_path / name, lambda e, m: seen.append(m))
        predictor.fit(TRAIN, (), test)
    assert [("test_curve/accuracy" in m, "val/loss" in m) for m in seen] == 4 * [(False, False)] + 4 * [(True, False)]


def test_keys_name_what_changes_a_predictor() -> None:
    assert Cnn.groups == ("model", "size", "features", "augment", "trainer")
    assert CnnText.groups == (*Cnn.groups, "asr", "text")
    assert (predictor_class("cnn"), predictor_class("cnn_text")) == (Cnn, CnnText)


def test_input_lengths_are_the_papers() -> None:
    cfg = compose_config("experiment=none")
    assert (Cnn.input_length(cfg), CnnText.input_length(cfg)) == (2376, 2760)


def test_a_folder_of_another_predictor_or_of_other_labels_is_refused(cfg: Config, tmp_path: Path) -> None:
    predictor = build(Cnn, cfg, tmp_path / "work")
    with pytest.raises(SerBenchError, match="not trained"):
        predictor.predict(TEST)
    predictor.fit(TRAIN, VAL)
    folder = tmp_path / "model"
    predictor.save(folder)
    with pytest.raises(SerBenchError, match="holds cnn"):
        CnnText.load(folder, cfg, LABELS, FakeInputs())
    with pytest.raises(SerBenchError, match="trained on these labels"):
        Cnn.load(folder, cfg, LABELS[::-1], FakeInputs())
    with pytest.raises(SerBenchError, match="41 features a clip"):
        Cnn.load(folder, cfg, LABELS, FakeInputs(dim=41)).predict(TEST[:1])
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(SerBenchError, match="format 99"):
        Cnn.load(folder, cfg, LABELS, FakeInputs())
    (folder / "model.json").write_text(json.dumps(description))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(SerBenchError, match="no readable stored model"):
        Cnn.load(folder, cfg, LABELS, FakeInputs())


def test_features_that_are_not_finite_name_their_clip(cfg: Config, tmp_path: Path) -> None:
    class Broken(FakeInputs):
        def spectral(self, rows: tuple[Row, ...]) -> FloatArray:  # type: ignore[override]
            features = super().spectral(rows)
            features[1, 3] = np.nan
            return features

    with pytest.raises(SerBenchError, match=r"clip fear-1 \(clean\)"):
        build(Cnn, cfg, tmp_path, Broken()).fit(TRAIN, VAL)


def test_an_unknown_label_is_named(cfg: Config, tmp_path: Path) -> None:
    predictor = Cnn(cfg, LABELS[:2], FakeInputs(), tmp_path, nothing)
    with pytest.raises(SerBenchError, match="sadness"):
        predictor.fit(TRAIN, VAL)


def test_standardizer_by_hand() -> None:
    features = np.array([[1, 7, 1e4], [3, 7, 1e4 + 1]], dtype=np.float32)
    scaler = Standardizer.fit(features)
    np.testing.assert_allclose(scaler(features), [[-1, 0, -1], [1, 0, 1]], atol=1e-3)
    assert scaler.std[1] == 1  # a column that does not vary is not divided by nothing


def test_standardizer_takes_rounding_for_constancy_and_many_rows() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(100, 5, size=(3000, 2)).astype(np.float32)
    features[:, 1] = 0.1
    features[::2, 1] = np.nextafter(np.float32(0.1), np.float32(1))
    scaler = Standardizer.fit(features)
    np.testing.assert_allclose(scaler.std, [features[:, 0].std(dtype=np.float64), 1], rtol=1e-5)
