"""Rows in memory as batches, whose order depends on the seed and the epoch only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset


def epoch_seed(seed: int, epoch: int) -> int:
    """Return the seed of row order and dropout in one epoch, which is the same in a resumed run."""
    return seed * 1_000_003 + epoch


class EpochBatches(Sampler[Tensor]):
    """Row indices of whole batches, in a new random order in every epoch, or in order if `seed` is None.

    Whole batches are sliced from one tensor: collating single rows takes longer than a training step of a small
    network. In training, a last batch of one row is joined to the batch before it, because batch normalisation has no
    variance over a single row, and every row is used once per epoch.
    """

    def __init__(self, rows: int, batch_size: int, seed: int | None) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, counted from 0; Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.rows, self.batch_size)
        joined = self.seed is not None and rest == 1 and full > 0
        return full + (rest > 0) - joined

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.rows)
        else:
            order = torch.randperm(self.rows, generator=_generator(epoch_seed(self.seed, self.epoch)))
        starts = [i * self.batch_size for i in range(len(self))]
        yield from torch.tensor_split(order, starts[1:])


class RowData(pl.LightningDataModule):
    """Training rows and rows that are only evaluated (`curves`), each held in memory as two tensors.

    Args:
        train: features and targets of the training rows.
        curves: name → features and targets of rows whose metrics are computed after each epoch.
        batch_size: rows per batch.
        seed: seed of the order of the training rows.
    """

    def __init__(self, train: TensorDataset, curves: Mapping[str, TensorDataset], batch_size: int, seed: int) -> None:
        super().__init__()
        self.train = train
        self.curves = curves
        self.batch_size = batch_size
        self.seed = seed

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return a loader of shuffled batches; the last tensor of a batch is the positions of its rows in `train`."""
        return self._loader(TensorDataset(*self.train.tensors, torch.arange(len(self.train))), self.seed)

    def val_dataloader(self) -> list[DataLoader[tuple[Tensor, ...]]]:
        """Return one loader per curve."""
        return [self._loader(rows, None) for rows in self.curves.values()]

    def _loader(self, rows: TensorDataset, seed: int | None) -> DataLoader[tuple[Tensor, ...]]:
        # A DataLoader without a generator draws from the global random state, and would change dropout.
        batches = EpochBatches(len(rows), self.batch_size, seed)
        return DataLoader(rows, sampler=batches, batch_size=None, generator=_generator(0))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
