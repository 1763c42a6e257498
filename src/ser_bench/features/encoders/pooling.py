"""Batches of clips of similar length, and the mean and standard deviation over time of their hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch


def shortest_first(clips: Sequence[Clip], batch_size: int) -> Iterator[list[int]]:
    """Yield the positions of the clips in batches, sorted by length, so that a batch contains little padding."""
    order = sorted(range(len(clips)), key=lambda position: clips[position].duration_s)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def mean_and_deviation(states: Sequence[torch.Tensor], lengths: Sequence[int]) -> Iterator[FloatArray]:
    """Yield the statistics [layers, 2, width] of each clip: mean, then population standard deviation over time.

    Args:
        states: one tensor [B, T, width] per layer.
        lengths: B numbers of frames; the frames of a clip after its length are padding and are left out.
    """
    import torch

    for row, length in enumerate(lengths):
        frames = torch.stack([state[row, :length] for state in states])
        deviation, mean = torch.std_mean(frames, dim=1, correction=0)
        yield torch.stack([mean, deviation], dim=1).cpu().numpy()
