"""Training of a network with Lightning: seeded, resumable to the bit, and stopped by validation rows alone.

`work_dir` holds `last.ckpt`, written after every epoch, and `best.ckpt`, the epoch of lowest validation loss. Where
`last.ckpt` exists, `train` goes on from it and ends with the weights that an uninterrupted run would have.
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
from ser_bench.errors import CacheError, ConfigError, InterruptedRunError, SerBenchError
from ser_bench.training.epoch_report import EpochReport, Tally
from ser_bench.training.recipe import PLAIN, Recipe
from ser_bench.training.row_data import RowData, epoch_seed
from ser_bench.types import EpochLog

VAL, TEST_CURVE = "val", "test_curve"
MONITOR = "val/loss"
Batch = tuple[Tensor, Tensor]
"""Features, and places of the labels [N] or their shares [N, C]: cross-entropy takes both."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Outcome:
    """What training did: epochs trained, the epoch whose weights are kept (both from 1), seconds in all resumptions."""

    epochs: int
    best_epoch: int
    seconds: float


class Training(pl.LightningModule):
    """A network under a recipe; tallies of the epoch in `tallies`, by name of the part."""

    def __init__(
        self, network: nn.Module, classes: int, curves: tuple[str, ...], cfg: TrainerConfig, seed: int, recipe: Recipe
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = network
        self.curves = curves
        self.cfg = cfg
        self.seed = seed
        self.tallies = {name: Tally(classes) for name in ("train", *curves)}
        self._follow_device = nn.ModuleList(self.tallies.values())  # a ModuleDict takes no key called "train"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam as Keras sets it up, or what the recipe makes of it."""
        cfg = self.cfg
        chosen: OptimizerLRScheduler = self.recipe.optimizer(
            self.network, cfg.learning_rate, cfg.adam_eps, cfg.max_epochs
        )
        return chosen

    def on_train_epoch_start(self) -> None:
        """Make dropout of this epoch depend on the epoch alone, and forget the last epoch's tallies."""
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch))
        for tally in self.tallies.values():
            tally.reset()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch.

        Raises:
            SerBenchError: the loss is not finite.
        """
        x, y = batch
        logits, loss = self.recipe.step(self.network, x, y)
        self.tallies["train"].add(logits.detach(), y, loss.detach())
        if not torch.isfinite(loss):
            raise SerBenchError(
                f"the training loss became {loss.item()} in epoch {self.current_epoch + 1}; lower "
                f"trainer.learning_rate (now {self.cfg.learning_rate:g}), or use trainer.precision=32-true"
            )
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Tally one batch of a curve."""
        x, y = batch
        logits = self.network(x).float()
        self.tallies[self.curves[dataloader_idx]].add(logits, y, functional.cross_entropy(logits, y))

    def on_validation_epoch_end(self) -> None:
        """Give early stopping and the choice of checkpoint the validation loss, and nothing of the test rows."""
        if VAL in self.tallies:
            self.log(MONITOR, self.tallies[VAL].loss)


def train(
    network: nn.Module,
    data: RowData,
    classes: int,
    cfg: TrainerConfig,
    work_dir: Path,
    on_epoch: EpochLog,
    recipe: Recipe = PLAIN,
) -> Outcome:
    """Train `network` in place, or finish what `work_dir` holds the start of.

    With validation rows, the weights of the epoch of lowest validation loss are kept, and training stops after
    `cfg.patience` epochs without a lower one; without, every epoch is trained and the last one kept. `on_epoch` gets
    epochs counted from 1.

    Raises:
        InterruptedRunError: Ctrl-C; the last finished epoch stays in `work_dir`.
        ConfigError: a device that is not there, or a training part that cannot be trained on.
        SerBenchError: the loss is not finite, or a checkpoint cannot be read.
    """
    _check(data, cfg)
    has_val = VAL in data.curves
    last, best = work_dir / "last.ckpt", work_dir / "best.ckpt"
    stopping = EarlyStopping(MONITOR, patience=cfg.patience) if has_val and cfg.patience is not None else None
    module = Training(network, classes, tuple(data.curves), cfg, data.seed, recipe)
    report = EpochReport(module.tallies, cfg.max_epochs, cfg.progress, on_epoch)
    if not (last.exists() and _finished(_read(last), cfg, stopping)):
        callbacks: list[Callback] = [report, *([stopping] if stopping else [])]
        callbacks += [_checkpoint(work_dir, "best")] if has_val else []
        callbacks += [_checkpoint(work_dir, "last")]  # after "best": it stores what that one knows
        with _settings_given_back():
            _fit(_trainer(cfg, work_dir, callbacks, bool(data.curves)), module, data, last if last.exists() else None)
    end = _read(last)
    kept = _read(best) if has_val else end
    prefix = "network."
    network.load_state_dict({k.removeprefix(prefix): v for k, v in kept["state_dict"].items() if k.startswith(prefix)})
    seconds = float(end["callbacks"][report.state_key]["seconds"])
    return Outcome(epochs=end["epoch"] + 1, best_epoch=kept["epoch"] + 1, seconds=seconds)


def _fit(trainer: pl.Trainer, module: Training, data: RowData, checkpoint: Path | None) -> None:
    try:
        with _quiet():
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as error:
        if not trainer.interrupted:
            raise
        # Lightning turned KeyboardInterrupt into SystemExit(1).
        raise InterruptedRunError(
            f"interrupted in epoch {trainer.current_epoch + 1}; the same command goes on from the last finished epoch"
        ) from error
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        folder = trainer.default_root_dir
        raise CacheError(f"{folder}: no checkpoint can be written ({error}); free space there") from error


def _trainer(cfg: TrainerConfig, work_dir: Path, callbacks: list[Callback], curves: bool) -> pl.Trainer:
    # On CUDA, max pooling's backward pass has no deterministic form: there the setting is a wish, not a condition.
    deterministic: Any = cfg.deterministic and (True if cfg.accelerator == "cpu" else "warn")
    try:
        with _quiet():
            return pl.Trainer(
                accelerator=cfg.accelerator,
                devices=1,
                precision=cfg.precision,  # type: ignore[arg-type]  # a Literal there, any string in a configuration
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
    except Exception as error:  # a damaged file can break the reader anywhere
        raise SerBenchError(f"{path}: not a readable checkpoint; delete it, or run again with force=true") from error
    return stored


def _finished(stored: Mapping[str, Any], cfg: TrainerConfig, stopping: EarlyStopping | None) -> bool:
    """Whether the run was cut after its training had ended: one more epoch would change what is kept."""
    patient = stopping is None or stored["callbacks"][stopping.state_key]["wait_count"] < stopping.patience
    return not patient or stored["epoch"] + 1 >= cfg.max_epochs


def _check(data: RowData, cfg: TrainerConfig) -> None:
    if cfg.devices != 1:
        raise ConfigError(
            f"trainer.devices={cfg.devices}: a network is trained on one device; to use more, run folds side by side "
            "with hydra/launcher=joblib"
        )
    if cfg.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(f"trainer.accelerator={cfg.accelerator}: PyTorch sees no GPU here; use trainer=cpu")
    if len(data.train) < 2 or cfg.batch_size < 2:
        raise ConfigError(
            f"{len(data.train)} training rows in batches of {cfg.batch_size}: batch normalisation needs at least two "
            "rows a batch; check split and trainer.batch_size"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's remarks on devices, on loader workers (rows are in memory), on a folder it resumes in."""
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
def _settings_given_back() -> Iterator[None]:
    """Undo what Lightning leaves behind: deterministic algorithms, and a Ctrl-C that is ignored once it was pressed."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    handler = signal.getsignal(signal.SIGINT)
    # When deterministic, PyTorch also fills all new memory with NaN, which takes time; nothing here reads memory unset.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        memory.fill_uninitialized_memory = fill
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
