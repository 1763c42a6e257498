"""Training of a network with Lightning: seeded, resumable, with early stopping on validation rows only.

`work_dir` holds `last.ckpt`, written after every epoch, and `best.ckpt`, the epoch with the lowest validation loss. If
`last.ckpt` exists, `train` resumes from it, and ends with exactly the weights of an uninterrupted run. A kill at any
time leaves complete checkpoints (`checkpoint_io`).
"""

from __future__ import annotations

import errno
import logging
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional

from ser_bench.config import TrainerConfig
from ser_bench.errors import CacheError, ConfigError, InterruptedRunError, SerBenchError, one_line
from ser_bench.training.checkpoint_io import AtomicCheckpointIO
from ser_bench.training.divergence import DivergenceCheck
from ser_bench.training.epoch_report import EpochReport, PartMetrics
from ser_bench.training.recipe import PLAIN, Recipe
from ser_bench.training.row_data import RowData, epoch_seed
from ser_bench.types import EpochLog

VAL, TEST_CURVE = "val", "test_curve"
MONITOR = "val/loss"
Batch = tuple[Tensor, Tensor]
"""Features, and label indices [N] or shares of the labels [N, C]; cross-entropy accepts both."""
TrainingBatch = tuple[Tensor, Tensor, Tensor]
"""The same, and the positions [N] of the rows among the training rows."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class TrainingResult:
    """The result of `train`.

    Attributes:
        epochs: number of trained epochs.
        best_epoch: the epoch whose weights the network has, counted from 1.
        seconds: time of all epochs, including those before interruptions.
    """

    epochs: int
    best_epoch: int
    seconds: float
    times_read: tuple[int, ...] = ()
    """How often the optimiser has read each training row; () if an older version trained it to its end."""


class TrainingModule(pl.LightningModule):
    """A network that is trained by a recipe.

    Args:
        network: the network, features → logits [N, C].
        classes: number of labels C.
        curves: names of the parts that are evaluated after each epoch, in the order of their loaders.
        cfg: the group `trainer`.
        seed: seed of dropout.
        recipe: loss and optimiser.
        times_read: [N] int64, which counts how often each training row was in a batch.

    Attributes:
        part_metrics: "train" and each name in `curves` → its metrics in the present epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: int,
        curves: tuple[str, ...],
        cfg: TrainerConfig,
        seed: int,
        recipe: Recipe,
        times_read: Tensor,
    ) -> None:
        super().__init__()
        self.times_read = times_read
        self.recipe = recipe
        self.network = network
        self.curves = curves
        self.cfg = cfg
        self.seed = seed
        other = "" if cfg.precision == "32-true" else "use trainer.precision=32-true"
        self._check = DivergenceCheck("trainer.learning_rate", cfg.learning_rate, other)
        self.part_metrics = {name: PartMetrics(classes) for name in ("train", *curves)}
        # Registered as submodules, to follow the device. A ModuleDict cannot have the key "train".
        self._registered_metrics = nn.ModuleList(self.part_metrics.values())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser of the recipe, and its schedule."""
        cfg = self.cfg
        optimizer: OptimizerLRScheduler = self.recipe.optimizer(
            self.network, cfg.learning_rate, cfg.adam_eps, cfg.max_epochs
        )
        return optimizer

    def on_train_epoch_start(self) -> None:
        """Seed dropout by the epoch only, so that it does not depend on resuming, and reset all metrics."""
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch))
        for metrics in self.part_metrics.values():
            metrics.reset()

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the loss of one batch.

        Raises:
            SerBenchError: the loss is not finite.
        """
        x, y, positions = batch
        self.times_read[positions.cpu()] += 1
        logits, loss = self.recipe.step(self.network, x, y)
        self.part_metrics["train"].update(logits.detach(), y, loss.detach())
        self._check.loss(float(loss.detach()), "training", self.current_epoch + 1)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Check the weights after the last step of an epoch, before the epoch is reported and stored.

        Raises:
            SerBenchError: one is not finite.
        """
        if self.trainer.is_last_batch:
            self._check.weights(self.network, self.current_epoch + 1)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add one batch of a curve to its metrics."""
        x, y = batch
        logits = self.network(x).float()
        self.part_metrics[self.curves[dataloader_idx]].update(logits, y, functional.cross_entropy(logits, y))

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss for early stopping and the choice of checkpoint; no metric of test rows is logged.

        Raises:
            SerBenchError: the loss of a part is not finite; the epoch is then neither reported nor stored.
        """
        for name in self.curves:
            self._check.loss(self.part_metrics[name].loss, name, self.current_epoch + 1)
        if VAL in self.part_metrics:
            self.log(MONITOR, self.part_metrics[VAL].loss)


def train(
    network: nn.Module,
    data: RowData,
    classes: int,
    cfg: TrainerConfig,
    work_dir: Path,
    on_epoch: EpochLog,
    recipe: Recipe = PLAIN,
) -> TrainingResult:
    """Train `network` in place, or resume the training whose checkpoints are in `work_dir`.

    With validation rows, the network gets the weights of the epoch with the lowest validation loss, and training stops
    after `cfg.patience` epochs without a lower one. Without validation rows, it gets the weights of the last epoch.

    Args:
        network: the network, features → logits [N, C].
        data: training rows, and the rows of the curves; those named `VAL` are the validation rows.
        classes: number of labels C.
        cfg: the group `trainer`.
        work_dir: existing folder of the checkpoints.
        on_epoch: function of the epoch, counted from 1, and its metrics.
        recipe: loss and optimiser.

    Raises:
        InterruptedRunError: Ctrl-C; the checkpoint of the last finished epoch stays in `work_dir`.
        ConfigError: the device is not available, or there are too few training rows.
        SerBenchError: the loss is not finite, or a checkpoint cannot be read.
        CacheError: a checkpoint cannot be written.
    """
    _check(data, cfg)
    has_val = VAL in data.curves
    last, best = work_dir / "last.ckpt", work_dir / "best.ckpt"
    stopping = EarlyStopping(MONITOR, patience=cfg.patience) if has_val and cfg.patience is not None else None
    times_read = torch.zeros(len(data.train), dtype=torch.int64)
    module = TrainingModule(network, classes, tuple(data.curves), cfg, data.seed, recipe, times_read)
    report = EpochReport(module.part_metrics, cfg.max_epochs, cfg.progress, on_epoch, times_read)
    resumes = last.exists()
    if resumes and has_val:
        _read(best)  # a damaged file is reported before an epoch is trained, not after the last one
    if not (resumes and _finished(_read(last), cfg, stopping)):
        callbacks: list[Callback] = [report, *([stopping] if stopping else [])]
        callbacks += [_checkpoint(work_dir, "best")] if has_val else []
        callbacks += [_checkpoint(work_dir, "last")]  # after "best": it stores the state of that callback
        with _settings_restored():
            _fit(_trainer(cfg, work_dir, callbacks, bool(data.curves)), module, data, last if resumes else None)
    last_stored = _read(last)
    best_stored = _read(best) if has_val else last_stored
    prefix, state = "network.", best_stored["state_dict"]
    network.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    reported = last_stored["callbacks"][report.state_key]
    return TrainingResult(
        epochs=last_stored["epoch"] + 1,
        best_epoch=best_stored["epoch"] + 1,
        seconds=float(reported["seconds"]),
        times_read=tuple(reported["times_read"].tolist()) if "times_read" in reported else (),
    )


def _fit(trainer: pl.Trainer, module: TrainingModule, data: RowData, checkpoint: Path | None) -> None:
    try:
        with _quiet():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        # Lightning turned KeyboardInterrupt into SystemExit(1).
        raise InterruptedRunError(
            f"interrupted in epoch {trainer.current_epoch + 1}; run the same command again to resume from the last "
            "finished epoch"
        ) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        folder = trainer.default_root_dir
        raise CacheError(
            f"{folder}: the checkpoint cannot be written ({one_line(error)}); free disk space, or choose another "
            "folder with tracking.dir=..."
        ) from error


def _trainer(cfg: TrainerConfig, work_dir: Path, callbacks: list[Callback], curves: bool) -> pl.Trainer:
    # On CUDA, the backward pass of max pooling has no deterministic implementation, so "warn" instead of an error.
    deterministic: Any = cfg.deterministic and (True if cfg.accelerator == "cpu" else "warn")
    try:
        with _quiet():
            return pl.Trainer(
                accelerator=cfg.accelerator,
                devices=1,
                precision=cfg.precision,  # type: ignore[arg-type]  # Lightning has a Literal here
                deterministic=deterministic,
                max_epochs=cfg.max_epochs,
                callbacks=callbacks,
                default_root_dir=work_dir,
                limit_val_batches=1.0 if curves else 0,
                num_sanity_val_steps=0,
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                use_distributed_sampler=False,
                plugins=[AtomicCheckpointIO()],
            )
    except (ValueError, MisconfigurationException) as error:
        raise ConfigError(f"trainer={cfg.name}: {str(error).strip().splitlines()[0]}") from error


def _checkpoint(work_dir: Path, name: str) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=work_dir,
        filename=name,
        monitor=MONITOR if name == "best" else None,
        save_top_k=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any exception
        raise SerBenchError(
            f"{path}: the checkpoint cannot be read ({one_line(error)}); start again from the first epoch: run the "
            f"same command with force=true, or delete the folder {path.parent}"
        ) from error
    return stored


def _finished(stored: Mapping[str, Any], cfg: TrainerConfig, stopping: EarlyStopping | None) -> bool:
    """Return whether the stored training has ended, so that no further epoch may be trained."""
    stopped = stopping is not None and stored["callbacks"][stopping.state_key]["wait_count"] >= stopping.patience
    return bool(stopped or stored["epoch"] + 1 >= cfg.max_epochs)


def _check(data: RowData, cfg: TrainerConfig) -> None:
    if cfg.devices != 1:
        raise ConfigError(
            f"trainer.devices={cfg.devices}: a network is trained on one device; to use several, run the folds in "
            "parallel with hydra/launcher=joblib"
        )
    if cfg.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(f"trainer.accelerator={cfg.accelerator}: PyTorch finds no GPU; use trainer=cpu")
    if len(data.train) < 2 or cfg.batch_size < 2:
        raise ConfigError(
            f"{len(data.train)} training rows in batches of {cfg.batch_size}: batch normalisation needs at least two "
            "rows per batch; check split and trainer.batch_size"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Lightning's messages about devices, loader workers (rows are in memory) and existing checkpoints."""
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                "does not have many workers",
                "Checkpoint directory .* exists and is not empty",
                "LeafSpec",
            ):
                warnings.filterwarnings("ignore", message=f".*{message}")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _settings_restored() -> Iterator[None]:
    """Restore what Lightning changes: deterministic algorithms and, after Ctrl-C, the handler of SIGINT."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    handler = signal.getsignal(signal.SIGINT)
    # In deterministic mode PyTorch also fills new memory with NaN. This takes time, and no code here reads such memory.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = fill
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
