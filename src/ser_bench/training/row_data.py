"""Rows in memory, cut into whole batches whose order depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of one epoch's order and dropout: a resumed epoch draws what an uninterrupted one would have drawn."""
    return seed * 1_000_003 + epoch


class EpochBatches(Sampler[Tensor]):
    """Indices of whole batches, in a new order every epoch, or in the given order where `seed` is None.

    Batches are sliced from one tensor; collating them row by row costs more than a small network's step. A last batch
    of one row joins the batch before it in training: BatchNorm has no variance over a single row, and dropping the row
    would leave the epoch short of it.
    """

    def __init__(self, rows: int, batch_size: int, seed: int | None) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.rows, self.batch_size)
        alone = self.seed is not None and rest == 1 and full > 0
        return full + (rest > 0) - alone

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.rows)
        else:
            order = torch.randperm(self.rows, generator=_generator(epoch_seed(self.seed, self.epoch)))
        starts = [i * self.batch_size for i in range(len(self))]
        yield from torch.tensor_split(order, starts[1:])


class RowData(pl.LightningDataModule):
    """Training rows, and rows that are only looked at (`curves`), each held in memory as two tensors."""

    def __init__(self, train: TensorDataset, curves: Mapping[str, TensorDataset], batch_size: int, seed: int) -> None:
        super().__init__()
        self.train = train
        self.curves = curves
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Shuffled batches."""
        return self._loader(self.train, self.seed)

    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, ...]]]:
        """One loader a curve."""
        return [self._loader(rows, None) for rows in self.curves.values()]

    def _loader(self, rows: TensorDataset, seed: int | None) -> DataLoader[tuple[Tensor, ...]]:
        # A generator of its own: a DataLoader without one draws from the global state that dropout reads.
        batches = EpochBatches(len(rows), self.batch_size, seed)
        return DataLoader(rows, sampler=batches, batch_size=None, generator=_generator(0))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
