"""Metrics and progress of a training, reported after every epoch."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix
from tqdm import tqdm

from ser_bench.durations import format_duration
from ser_bench.types import EpochLog

log = logging.getLogger(__name__)


class PartMetrics(MulticlassConfusionMatrix):
    """Loss, accuracy and UAR of the rows of one part since the last `reset`.

    It is torchmetrics' confusion matrix with a sum of losses. Like every metric of torchmetrics, it follows the device
    of the module that holds it, and is not part of a checkpoint.

    Args:
        classes: number of labels C.
    """

    loss_sum: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__(classes, validate_args=False)
        # Not MeanMetric or SumMetric: torchmetrics 1.9 casts their values to float32 when they are moved to a device,
        # and either drops a loss that is not a number or (`nan_strategy="disable"`) ignores the weights of a mean.
        self.add_state("loss_sum", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor, loss: Tensor) -> None:  # type: ignore[override]
        """Add one batch.

        Args:
            logits: [N, C].
            targets: label indices [N], or shares of the labels [N, C], of which the largest counts as the label.
            loss: mean loss of the batch.
        """
        labels = targets.argmax(dim=1) if targets.ndim > 1 else targets
        super().update(logits, labels)
        self.loss_sum += loss.double() * len(labels)

    @property
    def counts(self) -> Tensor:
        """Confusion counts [C, C], int64: the true label by row, the predicted label by column."""
        counts: Tensor = self.compute()
        return counts

    @property
    def loss(self) -> float:
        """Mean loss per row, in nats for cross-entropy."""
        return float(self.loss_sum / self.counts.sum())

    @property
    def accuracy(self) -> float:
        """Share of rows whose most probable label is the true label, in [0, 1]."""
        counts = self.counts
        return int(counts.trace()) / int(counts.sum())

    @property
    def uar(self) -> float:
        """Mean recall of the labels that occur, in [0, 1]; for the curves of a training, not for results.

        `MulticlassRecall(average="macro")` would count a recall of 0 for a label that is predicted but does not occur.
        """
        counts = self.counts
        support = counts.sum(dim=1).double()
        return float((counts.diagonal()[support > 0] / support[support > 0]).mean())


class EpochReport(Callback):
    """Passes the metrics of each epoch to `on_epoch`, and shows a progress bar, or one log line per epoch.

    Metrics: `train/loss` and `train/accuracy` (in training mode, averaged over the epoch, as in Keras), `train/lr`,
    `train/seconds`, and `<part>/loss`, `<part>/accuracy` and `<part>/uar` of each other part.

    Args:
        metrics: name of each part → its metrics, which the training module updates.
        max_epochs: epochs at most.
        progress: whether to show a progress bar, if the standard error stream is a terminal.
        on_epoch: function of the epoch, counted from 1, and its metrics.
        times_read: [N] int64, how often the optimiser has read each training row; kept in checkpoints.
    """

    def __init__(
        self,
        metrics: Mapping[str, PartMetrics],
        max_epochs: int,
        progress: bool,
        on_epoch: EpochLog,
        times_read: Tensor,
    ) -> None:
        self.times_read = times_read
        self.metrics = metrics
        self.max_epochs = max_epochs
        self.show_bar = progress and sys.stderr.isatty()
        self.on_epoch = on_epoch
        self.seconds = 0.0
        """Time of all finished epochs, including those of earlier, interrupted runs."""
        self._started = 0.0
        self._bar: tqdm[Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what is stored in a checkpoint."""
        return {"seconds": self.seconds, "times_read": self.times_read.clone()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the time of finished epochs, and the counts of rows, from a checkpoint; older ones have no counts."""
        self.seconds = float(state_dict["seconds"])
        self.times_read.copy_(state_dict.get("times_read", torch.zeros_like(self.times_read)))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the progress bar, at the step where an interrupted run stopped."""
        steps = int(trainer.num_training_batches)
        self._bar = tqdm(
            total=self.max_epochs * steps,
            initial=trainer.current_epoch * steps,
            desc="training",
            unit="step",
            disable=not self.show_bar,
        )

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to measure the time of the epoch."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the progress bar."""
        if self._bar is not None:
            self._bar.update()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch: after validation, and before the checkpoint of this epoch is written."""
        seconds = time.perf_counter() - self._started
        self.seconds += seconds
        epoch = trainer.current_epoch + 1
        metrics = {"train/lr": float(trainer.optimizers[0].param_groups[0]["lr"]), "train/seconds": seconds}
        for name, part in self.metrics.items():
            metrics |= {f"{name}/loss": part.loss, f"{name}/accuracy": part.accuracy}
            if name != "train":
                metrics[f"{name}/uar"] = part.uar
        self._show(epoch, metrics)
        self.on_epoch(epoch, metrics)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the progress bar."""
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Close the progress bar, so that the error message begins on a new line."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _show(self, epoch: int, metrics: Mapping[str, float]) -> None:
        figures = {"train loss": metrics["train/loss"]}
        if "val/uar" in metrics:
            figures |= {"val loss": metrics["val/loss"], "val UAR": metrics["val/uar"]}
        if self.show_bar and self._bar is not None:
            values = {name: f"{value:.3f}" for name, value in figures.items()}
            self._bar.set_postfix({"epoch": f"{epoch}/{self.max_epochs}"} | values)
            return
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        duration = format_duration(metrics["train/seconds"])
        remaining = format_duration((self.max_epochs - epoch) * self.seconds / epoch)
        log.info("epoch %d/%d  %s  %s, %s left", epoch, self.max_epochs, text, duration, remaining)
