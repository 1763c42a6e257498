from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ser_bench.config import TrainerConfig
from ser_bench.errors import CacheError, ConfigError, InterruptedRunError, SerBenchError
from ser_bench.predictors.cnn.paper_network import PaperCNN
from ser_bench.training import lightning_loop
from ser_bench.training.epoch_report import Tally, spell
from ser_bench.training.row_data import EpochBatches, RowData

CFG = TrainerConfig(name="tiny", max_epochs=4, batch_size=8, learning_rate=1e-2, patience=None, progress=False)
OnEpoch = Callable[[int, Mapping[str, float]], None]


def network() -> PaperCNN:
    torch.manual_seed(3)
    return PaperCNN(24, 3, [4, 4], 8, [5, 3], [5, 3], 2, [1, 2], 0.3)


def part(rows: int, seed: int = 0, signal: float = 0.0) -> TensorDataset:
    """Noise, with each class's level `signal` above the one before."""
    x = torch.randn(rows, 24, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(rows) % 3
    return TensorDataset(x + signal * y[:, None], y)


def data(train: int = 33, **curves: TensorDataset) -> RowData:
    return RowData(part(train), curves, batch_size=8, seed=5)


def nothing(epoch: int, metrics: Mapping[str, float]) -> None:
    pass


def weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def fit(folder: Path, rows: RowData, cfg: TrainerConfig = CFG, on_epoch: OnEpoch = nothing) -> tuple[Any, Any]:
    folder.mkdir(exist_ok=True)
    net = network()
    outcome = lightning_loop.train(net, rows, 3, cfg, folder, on_epoch)
    return outcome, weights(net)


def press_ctrl_c_in(epoch: int) -> OnEpoch:
    def on_epoch(now: int, metrics: Mapping[str, float]) -> None:
        if now == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return on_epoch


def test_training_learns_and_reports_each_epoch_from_one(tmp_path: Path) -> None:
    seen: dict[int, Mapping[str, float]] = {}
    curves = {"val": part(12, 1, signal=2.0), "test_curve": part(7, 2, signal=2.0)}
    rows = RowData(part(33, signal=2.0), curves, batch_size=8, seed=5)
    outcome, _ = fit(tmp_path / "w", rows, replace(CFG, max_epochs=8), lambda e, m: seen.__setitem__(e, m))
    assert list(seen) == list(range(1, 9)) and outcome.epochs == 8
    assert seen[8]["train/loss"] < 0.7 * seen[1]["train/loss"]
    parts = {f"{name}/{key}" for name in ("val", "test_curve") for key in ("loss", "accuracy", "uar")}
    assert set(seen[1]) == {"train/loss", "train/accuracy", "train/lr", "train/seconds"} | parts
    assert outcome.best_epoch == min(seen, key=lambda e: seen[e]["val/loss"])
    assert 0 < sum(m["train/seconds"] for m in seen.values()) == pytest.approx(outcome.seconds)


def test_same_seed_same_weights_other_seed_others(tmp_path: Path) -> None:
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
    with pytest.raises(InterruptedRunError, match="goes on"):
        fit(tmp_path / "cut", data(**curves), on_epoch=press_ctrl_c_in(epoch + 1))
    resumed: list[int] = []
    outcome, found = fit(tmp_path / "cut", data(**curves), on_epoch=lambda e, m: resumed.append(e))
    assert resumed == list(range(epoch + 1, 5))
    assert (outcome.epochs, outcome.best_epoch) == (whole.epochs, whole.best_epoch)
    assert all(torch.equal(expected[k], found[k]) for k in expected)
    ends = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_every_epoch_has_its_own_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, ...]] = []
    draw = EpochBatches.__iter__

    def spy(self: EpochBatches) -> Iterator[Tensor]:
        for batch in draw(self):
            drawn.append(tuple(batch.tolist()))
            yield batch

    monkeypatch.setattr(EpochBatches, "__iter__", spy)
    fit(tmp_path / "w", data(train=16))
    assert len(drawn) == 8 == len(set(drawn))  # two batches in each of four epochs, no two alike


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    _, expected = fit(tmp_path / "w", data())
    calls: list[int] = []
    outcome, found = fit(tmp_path / "w", data(), on_epoch=lambda e, m: calls.append(e))
    assert calls == [] and outcome.epochs == 4
    assert all(torch.equal(expected[k], found[k]) for k in expected)


def test_ctrl_c_keeps_the_last_finished_epoch_and_gives_settings_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match="epoch 3"):
        fit(tmp_path / "w", data(), on_epoch=press_ctrl_c_in(3))
    assert signal.getsignal(signal.SIGINT) is before and not torch.are_deterministic_algorithms_enabled()
    assert torch.load(tmp_path / "w" / "last.ckpt", weights_only=True)["epoch"] == 1  # the second, from 0


def test_early_stopping_needs_validation_rows(tmp_path: Path) -> None:
    cfg = replace(CFG, max_epochs=30, patience=2, learning_rate=0.05)
    stopped, kept = fit(tmp_path / "val", data(val=part(12, 1)), cfg)
    assert stopped.epochs < 30 and stopped.best_epoch == stopped.epochs - 2
    best = torch.load(tmp_path / "val" / "best.ckpt", weights_only=True)
    assert torch.equal(best["state_dict"]["network.layers.conv1.weight"], kept["layers.conv1.weight"])
    again, _ = fit(tmp_path / "val", data(val=part(12, 1)), cfg)
    assert again == stopped  # not one epoch more
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


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"half a checkp")
    with pytest.raises(SerBenchError, match=r"last\.ckpt.*delete it"):
        fit(tmp_path, data())


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"epoch": 0, "state_dict": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(SerBenchError, match=r"last\.ckpt"):
        fit(tmp_path, data())
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning_fabric.plugins.io.torch_io._atomic_save", full)
    with pytest.raises(CacheError, match="No space left"):
        fit(tmp_path / "w", data())


@pytest.mark.parametrize(("change", "message"), [
    ({"devices": 2}, "one device"),
    ({"batch_size": 1}, "at least two rows"),
    ({"precision": "12-bit"}, "trainer=tiny: .*12-bit"),
    ({"accelerator": "abacus"}, "trainer=tiny: .*abacus"),
    pytest.param({"accelerator": "gpu"}, "use trainer=cpu",
                 marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")),
])  # fmt: skip
def test_what_cannot_be_trained_is_said_before(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path / "w", data(), replace(CFG, **change))


def test_one_log_line_an_epoch_and_none_of_lightnings(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
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
        found: list[int] = torch.cat(list(sampler)).tolist()
        return found

    assert order(0, 2) == order(0, 2)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4
    assert order(None, 3) == list(range(50))
    assert len(EpochBatches(17, 8, None)) == 3  # a lone row is no trouble where nothing is trained


def test_tally_by_hand() -> None:
    tally = Tally(3)
    logits = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0]])
    tally.add(logits, torch.tensor([0, 0, 0, 1]), torch.tensor(0.5))  # class 2 never occurs
    tally.add(logits[:1], torch.tensor([1]), torch.tensor(3.0))
    assert tally.accuracy == pytest.approx(3 / 5)
    assert tally.uar == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert tally.loss == pytest.approx((4 * 0.5 + 3.0) / 5)


def test_times_are_readable() -> None:
    assert [spell(s) for s in (14.2, 150, 11_160)] == ["14 s", "2 min", "3.1 h"]
