"""Training with Lightning: reproducible, resumable, stopped by validation rows only; metrics of epochs."""

from __future__ import annotations

import logging
import math
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ser_bench.config import FixedEpochsConfig, TrainerConfig
from ser_bench.durations import format_duration
from ser_bench.errors import CacheError, ConfigError, InterruptedRunError, SerBenchError
from ser_bench.predictors.cnn.paper_network import PaperCNN
from ser_bench.training import fixed_epochs, lightning_loop
from ser_bench.training.epoch_report import PartMetrics
from ser_bench.training.recipe import PLAIN
from ser_bench.training.row_data import EpochBatches, RowData
from ser_bench.training.standardizer import CHUNK_ROWS, Standardizer

CFG = TrainerConfig(name="tiny", max_epochs=4, batch_size=8, learning_rate=1e-2, patience=None, progress=False)
OnEpoch = Callable[[int, Mapping[str, float]], None]


def network() -> PaperCNN:
    torch.manual_seed(3)
    return PaperCNN(24, 3, [4, 4], 8, [5, 3], [5, 3], 2, [1, 2], 0.3)


def part(rows: int, seed: int = 0, signal: float = 0.0) -> TensorDataset:
    """Noise around the label index times `signal`."""
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(rows) % 3
    return TensorDataset(x + signal * y[:, None], y)


def data(train: int = 33, **curves: TensorDataset) -> RowData:
    return RowData(part(train), curves, batch_size=8, seed=5)


def ignore(epoch: int, metrics: Mapping[str, float]) -> None:
    pass


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def fit(folder: Path, rows: RowData, cfg: TrainerConfig = CFG, on_epoch: OnEpoch = ignore) -> tuple[Any, Any]:
    folder.mkdir(exist_ok=True)
    net = network()
    result = lightning_loop.train(net, rows, 3, cfg, folder, on_epoch)
    return result, weights(net)


def press_ctrl_c_in(epoch: int) -> OnEpoch:
    def on_epoch(now: int, metrics: Mapping[str, float]) -> None:
        if now == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return on_epoch


def test_training_learns_and_reports_each_epoch_from_one(tmp_path: Path) -> None:
    seen: dict[int, Mapping[str, float]] = {}
    curves = {"val": part(12, 1, signal=2.0), "test_curve": part(7, 2, signal=2.0)}
    rows = RowData(part(33, signal=2.0), curves, batch_size=8, seed=5)
    result, _ = fit(tmp_path / "w", rows, replace(CFG, max_epochs=8), lambda e, m: seen.__setitem__(e, m))
    assert list(seen) == list(range(1, 9)) and result.epochs == 8
    assert seen[8]["train/loss"] < 0.7 * seen[1]["train/loss"]
    parts = {f"{name}/{key}" for name in ("val", "test_curve") for key in ("loss", "accuracy", "uar")}
    assert set(seen[1]) == {"train/loss", "train/accuracy", "train/lr", "train/seconds"} | parts
    assert result.best_epoch == min(seen, key=lambda e: seen[e]["val/loss"])
    assert 0 < sum(m["train/seconds"] for m in seen.values()) == pytest.approx(result.seconds)


def test_the_seed_determines_the_weights(tmp_path: Path) -> None:
    _, first = fit(tmp_path / "a", data())
    _, again = fit(tmp_path / "b", data())
    _, other = fit(tmp_path / "c", RowData(part(33), {}, batch_size=8, seed=6))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["layers.conv1.weight"], other["layers.conv1.weight"])


@pytest.mark.parametrize("with_val", [True, False])
@pytest.mark.parametrize("epoch", [1, 3])
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path: Path, with_val: bool, epoch: int) -> None:
    curves = {"val": part(12, 1)} if with_val else {}
    whole, expected = fit(tmp_path / "whole", data(**curves))
    with pytest.raises(InterruptedRunError, match="same command"):
        fit(tmp_path / "cut", data(**curves), on_epoch=press_ctrl_c_in(epoch + 1))
    resumed: list[int] = []
    result, resumed_weights = fit(tmp_path / "cut", data(**curves), on_epoch=lambda e, m: resumed.append(e))
    assert resumed == list(range(epoch + 1, 5))
    assert (result.epochs, result.best_epoch) == (whole.epochs, whole.best_epoch)
    assert all(torch.equal(expected[k], resumed_weights[k]) for k in expected)
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    assert result.times_read == whole.times_read == (4,) * 33, "what the optimiser has read is counted on"


def test_a_checkpoint_of_an_older_version_has_no_counts_and_can_be_resumed(tmp_path: Path) -> None:
    fit(tmp_path, data(), replace(CFG, max_epochs=2))
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for state in stored["callbacks"].values():
        state.pop("times_read", None)
    torch.save(stored, tmp_path / "last.ckpt")
    assert fit(tmp_path, data(), replace(CFG, max_epochs=2))[0].times_read == ()
    assert fit(tmp_path, data(), replace(CFG, max_epochs=3))[0].times_read == (1,) * 33


def test_every_epoch_has_its_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []
    draw = EpochBatches.__iter__

    def spy(self: EpochBatches) -> Iterator[Tensor]:
        for batch in draw(self):
            drawn.append(tuple(batch.tolist()))
            yield batch

    monkeypatch.setattr(EpochBatches, "__iter__", spy)
    fit(tmp_path / "w", data(train=16))
    assert len(drawn) == 8 == len(set(drawn))  # two batches in each of four epochs, all different


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    _, expected = fit(tmp_path / "w", data())
    calls: list[int] = []
    result, resumed_weights = fit(tmp_path / "w", data(), on_epoch=lambda e, m: calls.append(e))
    assert calls == [] and result.epochs == 4
    assert all(torch.equal(expected[k], resumed_weights[k]) for k in expected)


def test_ctrl_c_keeps_the_last_finished_epoch_and_restores_settings(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match="epoch 3"):
        fit(tmp_path / "w", data(), on_epoch=press_ctrl_c_in(3))
    assert signal.getsignal(signal.SIGINT) is before and not torch.are_deterministic_algorithms_enabled()
    assert torch.load(tmp_path / "w" / "last.ckpt", weights_only=True)["epoch"] == 1  # the second, from 0


def test_early_stopping_needs_validation_rows(tmp_path: Path) -> None:
    cfg = replace(CFG, max_epochs=30, patience=2, learning_rate=0.05)
    stopped, best_weights = fit(tmp_path / "val", data(val=part(12, 1)), cfg)
    assert stopped.epochs < 30 and stopped.best_epoch == stopped.epochs - 2
    best = torch.load(tmp_path / "val" / "best.ckpt", weights_only=True)
    assert torch.equal(best["state_dict"]["network.layers.conv1.weight"], best_weights["layers.conv1.weight"])
    again, _ = fit(tmp_path / "val", data(val=part(12, 1)), cfg)
    assert again == stopped  # no further epoch is trained
    whole, _ = fit(tmp_path / "none", data(test_curve=part(12, 1)), replace(cfg, max_epochs=9))
    assert (whole.epochs, whole.best_epoch) == (9, 9)
    assert not (tmp_path / "none" / "best.ckpt").exists()


def test_the_test_curve_changes_nothing(tmp_path: Path) -> None:
    _, without = fit(tmp_path / "a", data(val=part(12, 1)))
    _, drawn = fit(tmp_path / "b", data(val=part(12, 1), test_curve=part(20, 2)))
    assert all(torch.equal(without[k], drawn[k]) for k in without)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    rows = data()
    rows.train.tensors[0][4] = float("inf")
    with pytest.raises(SerBenchError, match=r"epoch 1; lower trainer\.learning_rate"):
        fit(tmp_path / "w", rows)
    assert not (tmp_path / "w" / "last.ckpt").exists()


@pytest.mark.parametrize("parts", [{"val": part(12, 1)}, {"test_curve": part(12, 1)}, {}], ids=["val", "test", "none"])
def test_weights_that_are_lost_while_the_training_loss_is_finite_stop_the_run_in_that_epoch(
    tmp_path: Path, parts: dict[str, TensorDataset]
) -> None:
    calls: list[int] = []
    with pytest.raises(SerBenchError, match=r"in epoch 1; lower trainer\.learning_rate \(now 1e\+10\)$") as caught:
        fit(tmp_path / "w", data(**parts), replace(CFG, learning_rate=1e10), lambda epoch, _: calls.append(epoch))
    assert calls == [] and "\n" not in str(caught.value) and not list((tmp_path / "w").iterdir())


@pytest.mark.parametrize("learning_rate", [1e10, 1e37])
def test_a_training_with_a_fixed_number_of_epochs_stops_in_the_epoch_in_which_it_diverges(learning_rate: float) -> None:
    torch.manual_seed(0)
    x, y = part(40).tensors
    net = nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3))
    cfg = FixedEpochsConfig(epochs=30, learning_rate=learning_rate, weight_decay=0.5)
    epochs: list[int] = []

    def loss_of(batch: Tensor) -> Tensor:
        epochs.append(len(epochs) + 1)
        return nn.functional.cross_entropy(net(x[batch]), y[batch])

    with pytest.raises(SerBenchError, match=r"in epoch \d+; lower head\.learning_rate \(now 1e"):
        fixed_epochs.train(net, len(x), cfg, loss_of, "head.learning_rate")
    assert len(epochs) < 30


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
@pytest.mark.parametrize("epochs", [2, 4], ids=["interrupted", "finished"])
def test_a_damaged_checkpoint_is_named_before_an_epoch_is_trained(tmp_path: Path, name: str, epochs: int) -> None:
    rows = data(val=part(12, 1))
    fit(tmp_path / "w", rows, replace(CFG, max_epochs=epochs))
    checkpoint = tmp_path / "w" / name
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    calls: list[int] = []
    with pytest.raises(SerBenchError, match=rf"{name}: .*force=true.*delete the folder {tmp_path / 'w'}") as caught:
        fit(tmp_path / "w", rows, on_epoch=lambda epoch, _: calls.append(epoch))
    assert calls == [] and "\n" not in str(caught.value)


def test_checkpoints_are_written_into_their_folder_and_not_moved_from_another_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))  # every temporary file outside would fail
    fit(tmp_path / "w", data(val=part(12, 1)))
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"last.ckpt", "best.ckpt"}


def test_an_interrupted_write_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = fit(tmp_path / "whole", data())
    flushed = iter([False, False, True, True])  # file and folder of the first epoch, file of the second

    def killed(handle: int) -> None:
        if next(flushed):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CacheError, match=r"No space left.*tracking\.dir"):
        patch.setattr(os, "fsync", killed)
        fit(tmp_path / "w", data())
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"last.ckpt"}, "no half file fills the disk"
    assert torch.load(tmp_path / "w" / "last.ckpt", weights_only=True)["epoch"] == 0
    _, resumed = fit(tmp_path / "w", data())
    assert all(torch.equal(expected[k], resumed[k]) for k in expected)
    assert {path.name for path in (tmp_path / "w").iterdir()} == {"last.ckpt"}


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"epoch": 0, "state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(SerBenchError, match=r"last\.ckpt"):
        fit(tmp_path, data())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("change", "message"), [
    ({"devices": 2}, "one device"),
    ({"batch_size": 1}, "at least two rows"),
    ({"precision": "12-bit"}, "trainer=tiny: .*12-bit"),
    ({"accelerator": "abacus"}, "trainer=tiny: .*abacus"),
    pytest.param({"accelerator": "gpu"}, "use trainer=cpu",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")),
])  # fmt: skip
def test_configurations_that_cannot_be_trained_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "w", data(), replace(CFG, **change))


def test_one_log_line_per_epoch_and_none_of_lightning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        fit(tmp_path / "w", data(val=part(12, 1)), replace(CFG, max_epochs=2))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert lines[0].startswith("epoch 1/2  train loss ") and "val UAR" in lines[0] and lines[1].endswith("0 s left")


@pytest.mark.parametrize(("rows", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (3, [3]), (2, [2])])
def test_no_training_batch_has_one_row_and_no_row_is_lost(rows: int, sizes: list[int]) -> None:
    sampler = EpochBatches(rows, 8, seed=0)
    batches = list(sampler)
    assert [len(batch) for batch in batches] == sizes and len(sampler) == len(sizes)
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int | None, epoch: int) -> list[int]:
        sampler = EpochBatches(50, 8, seed)
        sampler.set_epoch(epoch)
        indices: list[int] = torch.cat(list(sampler)).tolist()
        return indices

    assert order(0, 2) == order(0, 2)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(None, 3) == list(range(50))
    assert len(EpochBatches(17, 8, None)) == 3  # without training, a batch of one row is allowed


def test_part_metrics_by_hand() -> None:
    metrics = PartMetrics(3)
    logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0]])
    metrics.update(logits, torch.tensor([0, 0, 0, 1]), torch.tensor(0.5))  # label 2 does not occur
    metrics.update(logits[:1], torch.tensor([1]), torch.tensor(3.0))
    assert metrics.accuracy == pytest.approx(3 / 5)
    assert metrics.uar == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert metrics.loss == pytest.approx((4 * 0.5 + 3.0) / 5)


@pytest.mark.parametrize("occurring", [[0, 1, 2, 3, 4], [0, 2, 4]])
def test_part_metrics_equal_counts_in_python_to_the_last_bit(occurring: list[int]) -> None:
    """Labels that do not occur are predicted all the same; they must not lower the UAR."""
    generator = torch.Generator().manual_seed(0)
    metrics = PartMetrics(5)
    for repetition in range(2):
        metrics.reset()  # the second time, so that nothing of the first remains
        loss_sum = torch.zeros((), dtype=torch.float64)
        confusion = torch.zeros(5, 5, dtype=torch.int64)
        for rows in (32, 32, 7):
            logits = torch.randn(rows, 5, generator=generator)
            labels = torch.tensor(occurring)[torch.randint(len(occurring), (rows,), generator=generator)]
            shares = 0.6 * nn.functional.one_hot(labels, 5) + 0.08
            loss = torch.rand((), generator=generator)
            metrics.update(logits, shares if repetition else labels, loss)
            loss_sum += loss.double() * rows
            for label, predicted in zip(labels.tolist(), logits.argmax(dim=1).tolist(), strict=True):
                confusion[label, predicted] += 1
        recalls = torch.stack([confusion[label, label] / confusion[label].sum().double() for label in occurring])
        assert confusion[:, 1].sum() > 0, "label 1 is predicted, whether it occurs or not"
        assert metrics.loss == float(loss_sum / 71)
        assert metrics.accuracy == int(confusion.trace()) / 71
        assert metrics.uar == float(recalls.mean())


def test_a_loss_that_is_not_a_number_is_not_dropped() -> None:
    metrics = PartMetrics(2)
    metrics.update(torch.zeros(2, 2), torch.tensor([0, 1]), torch.tensor(float("nan")))
    assert math.isnan(metrics.loss)


def test_metrics_follow_the_device_and_are_not_in_checkpoints() -> None:
    module = lightning_loop.TrainingModule(network(), 3, ("val",), CFG, 0, PLAIN, torch.zeros(9, dtype=torch.int64))
    assert all(name.startswith("network.") for name in module.state_dict())
    module.to("meta")  # a device that every machine has
    for metrics in module.part_metrics.values():
        assert metrics.confmat.device.type == metrics.loss_sum.device.type == "meta"
        assert metrics.loss_sum.dtype == torch.float64


def test_durations_are_readable() -> None:
    assert [format_duration(s) for s in (14.2, 150, 11_160)] == ["14 s", "2 min", "3.1 h"]


@pytest.mark.parametrize("rows", [1, 10, 2 * CHUNK_ROWS + 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_are_those_of_numpy_to_the_last_bit(rows: int, dtype: Any) -> None:
    features = (100 + 3 * np.random.default_rng(0).normal(size=(rows, 7))).astype(np.float32)
    features[:, -1] = 7.0
    standardizer = Standardizer.fit(features, dtype)
    std = features.std(axis=0, dtype=np.float64)
    np.testing.assert_array_equal(standardizer.mean, features.mean(axis=0, dtype=np.float64).astype(dtype))
    np.testing.assert_array_equal(standardizer.std, np.where(std == 0, 1, std).astype(dtype))
    assert standardizer.std[-1] == 1 and (standardizer(features)[:, -1] == 0).all()
    for precision in (np.float32, np.float64):
        assert standardizer(features.astype(precision)).dtype == precision
