"""The CRNN's parts against values worked out otherwise, and the whole of it on rows that can be learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ser_bench.config import Config
from ser_bench.errors import ConfigError
from ser_bench.predictors.crnn.crnn import Crnn
from ser_bench.predictors.crnn.crnn_network import AttentivePooling, CrnnNetwork, SpecAugment
from ser_bench.training.recipe import PLAIN, Recipe
from ser_bench.types import CLEAN, FloatArray, Row
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows

TRAIN, VAL, TEST = rows(0, 60), rows(100, 12), rows(200, 30)


@pytest.fixture(scope="module")
def cfg() -> Config:
    words = ["model.channels=[4,8]", "model.recurrent=8", "model.attention=8", "model.log_mel.duration_s=0.3"]
    trainer = ["trainer.max_epochs=12", "trainer.batch_size=12", "trainer.learning_rate=0.01", "trainer.progress=false"]
    return compose_config("experiment=none", "model=crnn", *words, *trainer)


class Spectrograms(FakeInputs):
    """Remembers which rows' spectrograms were asked for."""

    def log_mel(self, rows: object, cfg: object) -> FloatArray:
        self.asked.append(tuple(rows))  # type: ignore[arg-type]
        return super().log_mel(rows, cfg)  # type: ignore[arg-type]


def fitted(cfg: Config, folder: Path, inputs: FakeInputs, train: tuple[Row, ...] = TRAIN) -> Crnn:
    folder.mkdir(exist_ok=True)
    predictor = Crnn(cfg, LABELS, inputs, folder, lambda epoch, metrics: None)
    predictor.fit(train, VAL)
    return predictor


def test_it_learns_from_clean_rows_alone(cfg: Config, tmp_path: Path) -> None:
    inputs = Spectrograms()
    noisy = tuple(Row(row.clip_id, "noise") for row in TRAIN)
    predictor = fitted(cfg, tmp_path, inputs, TRAIN + noisy)
    assert inputs.asked[0] == TRAIN and all(row.variant == CLEAN for row in inputs.asked[0])
    predictions = predictor.predict(TEST)
    right = np.mean([t == p for t, p in zip(predictions.truth, predictions.predicted, strict=True)])
    assert right > 0.8
    with pytest.raises(ConfigError, match="clean rows"):
        predictor.fit(noisy, VAL)


def test_shuffled_labels_fall_to_chance(cfg: Config, tmp_path: Path) -> None:
    predictor = fitted(replace(cfg, shuffle_labels=True), tmp_path, FakeInputs())
    predictions = predictor.predict(TEST)
    assert np.mean([t == p for t, p in zip(predictions.truth, predictions.predicted, strict=True)]) < 0.7


def test_each_band_is_standardised_by_training_clips_alone(cfg: Config, tmp_path: Path) -> None:
    predictor = fitted(cfg, tmp_path, FakeInputs())
    frames = FakeInputs().log_mel(TRAIN, cfg.model.log_mel).reshape(-1, 64)
    module, example = predictor.torch_module()
    np.testing.assert_allclose(module.mean.numpy(), frames.mean(0), atol=1e-3)
    np.testing.assert_allclose(module.std.numpy(), frames.std(0), rtol=1e-4)
    assert example.shape == (2, 19, 64)


def test_spec_augment_blanks_stretches_in_training_only() -> None:
    torch.manual_seed(0)
    augment, x = SpecAugment(times=1, time_frames=10, bands=1, band_width=4), torch.ones(64, 50, 20)
    blanked = augment.train()(x) == 0
    assert torch.equal(augment.eval()(x), x)
    whole_frames, whole_bands = blanked.all(dim=2), blanked.all(dim=1)
    assert whole_frames.sum(1).max() <= 10 and whole_bands.sum(1).max() <= 4
    assert torch.equal(blanked, whole_frames[:, :, None] | whole_bands[:, None, :])
    assert whole_frames.any() and whole_bands.any() and len({tuple(row.tolist()) for row in whole_frames}) > 20
    runs = (whole_frames[:, 1:] & ~whole_frames[:, :-1]).sum(1) + whole_frames[:, 0]
    assert runs.max() == 1, "a stretch is in one piece"


def test_attentive_pooling_with_equal_weights_is_mean_and_deviation() -> None:
    pool, x = AttentivePooling(3, 2), torch.randn(4, 7, 3)
    torch.nn.init.zeros_(pool.score[2].weight)
    expected = torch.cat([x.mean(1), x.std(1, unbiased=False)], dim=1)
    torch.testing.assert_close(pool(x), expected)


def test_attentive_pooling_takes_no_notice_of_what_lies_beyond_a_clips_end() -> None:
    pool, x = AttentivePooling(3, 2), torch.randn(2, 7, 3)
    inside = torch.arange(7) < torch.tensor([[7], [4]])
    found = pool(x, inside)
    torch.testing.assert_close(found[0], pool(x)[0])
    torch.testing.assert_close(found[1], pool(x[1:, :4])[0])


def test_too_many_blocks_are_refused(cfg: Config) -> None:
    with pytest.raises(ConfigError, match="halved"):
        CrnnNetwork(replace(cfg.model, channels=[2] * 7), 64, 3)


def test_a_mixed_batch_costs_what_it_should() -> None:
    network, x, y = torch.nn.Linear(5, 3), torch.randn(8, 5), torch.randint(0, 3, (8,))
    torch.manual_seed(3)
    logits, loss = Recipe(mixup=0.4, label_smoothing=0.1).step(network, x, y)
    torch.manual_seed(3)
    share = float(torch.distributions.Beta(0.4, 0.4).sample())
    share, other = max(share, 1 - share), torch.randperm(8)
    mixed = network(share * x + (1 - share) * x[other])
    target = share * functional.one_hot(y, 3) + (1 - share) * functional.one_hot(y[other], 3)
    target = 0.9 * target + 0.1 / 3
    torch.testing.assert_close(loss, -(target * mixed.log_softmax(1)).sum(1).mean())
    torch.testing.assert_close(logits, mixed)


def test_the_plain_recipe_is_cross_entropy_and_adam() -> None:
    network, x, y = torch.nn.Linear(5, 3), torch.randn(8, 5), torch.randint(0, 3, (8,))
    torch.testing.assert_close(PLAIN.step(network, x, y)[1], functional.cross_entropy(network(x), y))
    assert type(PLAIN.optimizer(network, 1e-3, 1e-7, 4)) is torch.optim.Adam


def test_the_learning_rate_falls_to_nothing() -> None:
    made = Recipe(weight_decay=0.1, cosine=True).optimizer(torch.nn.Linear(2, 2), 1e-3, 1e-8, 4)
    assert type(made["optimizer"]) is torch.optim.AdamW
    rates = []
    for _ in range(5):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"].step()
    np.testing.assert_allclose(rates, 1e-3 * (1 + np.cos(np.pi * np.arange(5) / 4)) / 2, atol=1e-12)
