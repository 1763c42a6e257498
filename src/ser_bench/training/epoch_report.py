"""What is measured and shown while a network is trained: one tally a part, one line or one bar step an epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from tqdm import tqdm

from ser_bench.types import EpochLog

log = logging.getLogger(__name__)


class Tally(nn.Module):
    """Loss and confusion counts of the rows seen since the last reset; a module, to follow the network's device.

    Its buffers are not persistent: a checkpoint holds no counts.
    """

    loss_sum: Tensor
    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("loss_sum", torch.zeros((), dtype=torch.float64), persistent=False)
        self.register_buffer("counts", torch.zeros(classes, classes, dtype=torch.int64), persistent=False)

    def reset(self) -> None:
        """Forget all rows."""
        self.loss_sum.zero_()
        self.counts.zero_()

    def add(self, logits: Tensor, truth: Tensor, loss: Tensor) -> None:
        """Count one batch: logits [N, C], truth [N] or shares of it [N, C], and the batch's mean loss."""
        classes = len(self.counts)
        truth = truth.argmax(dim=1) if truth.ndim > 1 else truth
        cells = truth * classes + logits.argmax(dim=1)
        self.counts += torch.bincount(cells, minlength=classes * classes).view(classes, classes)
        self.loss_sum += loss.double() * len(truth)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats."""
        return float(self.loss_sum / self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of rows whose most probable label is the true one, in [0, 1]."""
        return int(self.counts.trace()) / int(self.counts.sum())

    @property
    def uar(self) -> float:
        """Mean over the classes that occur of the share of their rows found, in [0, 1]: for curves, not for results."""
        support = self.counts.sum(dim=1).double()
        return float((self.counts.diagonal()[support > 0] / support[support > 0]).mean())


class EpochReport(Callback):
    """Hands each epoch's metrics to `on_epoch`, and shows a bar on a terminal, else one log line an epoch.

    Metrics: `train/loss`, `train/accuracy` (in training mode, over the epoch, as Keras gives them), `train/lr`,
    `train/seconds`, and `<part>/loss`, `<part>/accuracy`, `<part>/uar` of each other part.
    """

    def __init__(self, tallies: Mapping[str, Tally], max_epochs: int, progress: bool, on_epoch: EpochLog) -> None:
        self.tallies = tallies
        self.max_epochs = max_epochs
        self.show_bar = progress and sys.stderr.isatty()
        self.on_epoch = on_epoch
        self.seconds = 0.0
        """Spent on finished epochs, those of earlier, interrupted runs included."""
        self._started = 0.0
        self._bar: tqdm[Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the count of seconds."""
        self.seconds = float(state_dict["seconds"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar where an interrupted run stopped."""
        steps = int(trainer.num_training_batches)
        self._bar = tqdm(
            total=self.max_epochs * steps,
            initial=trainer.current_epoch * steps,
            desc="training",
            unit="step",
            disable=not self.show_bar,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; validation is over by now, and no checkpoint of this epoch is written yet."""
        seconds = time.perf_counter() - self._started
        self.seconds += seconds
        epoch = trainer.current_epoch + 1
        metrics = {"train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]), "train/seconds": seconds}
        for name, tally in self.tallies.items():
            metrics |= {f"{name}/loss": tally.loss, f"{name}/accuracy": tally.accuracy}
            if name != "train":
                metrics[f"{name}/uar"] = tally.uar
        self._show(epoch, metrics)
        self.on_epoch(epoch, metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error stands on its own line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, epoch: int, metrics: Mapping[str, float]) -> None:
        seen = {"train loss": metrics["train/loss"]}
        if "val/uar" in metrics:
            seen |= {"val loss": metrics["val/loss"], "val UAR": metrics["val/uar"]}
        if self.show_bar and self._bar is not None:
            shown = {"epoch": f"{epoch}/{self.max_epochs}"} | {k: f"{v:.3f}" for k, v in seen.items()}
            self._bar.set_postfix(shown)
            return
        figures = "  ".join(f"{name} {value:.3f}" for name, value in seen.items())
        took, left = spell(metrics["train/seconds"]), spell((self.max_epochs - epoch) * self.seconds / epoch)
        log.info("epoch %d/%d  %s  %s, %s left", epoch, self.max_epochs, figures, took, left)


def spell(seconds: float) -> str:
    """A length of time to be read, not computed with: "14 s", "2 min", "3.1 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
