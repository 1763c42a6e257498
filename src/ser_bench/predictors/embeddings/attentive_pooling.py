"""Attention over time that is fitted to training rows: which moments of a clip its vector is made of.

A frame's score is query · tanh(W z + b), z the frame standardised by all training frames; the softmax of the scores
over a clip's own frames weighs their mean and deviation (attentive statistics pooling, Okabe, Koshinaka & Shinoda 2018,
doi:10.21437/Interspeech.2018-993). It is learnt below one linear layer that tells the labels apart, for a fixed number
of epochs; then that layer is thrown away, and what was pooled goes to the head like any other vector.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ser_bench.config import AttentivePoolingConfig
from ser_bench.errors import SerBenchError
from ser_bench.predictors.crnn.crnn_network import AttentivePooling
from ser_bench.predictors.heads.classifier import Labels
from ser_bench.training import fixed_epochs
from ser_bench.types import FloatArray

SMALLEST = 1e-6


class Attention:
    """Frames [T, D] of a clip to its vector [2 · D · seeds].

    Args:
        mean: [D] of all training frames.
        std: [D] likewise.
        pools: one a seed, in evaluation mode.
    """

    def __init__(self, mean: FloatArray, std: FloatArray, pools: Sequence[AttentivePooling]) -> None:
        self._mean = mean
        self._std = std
        self._pools = pools

    @classmethod
    def learnt(
        cls, clips: Iterable[FloatArray], targets: Labels, classes: int, cfg: AttentivePoolingConfig, seed: int
    ) -> Self:
        """From the frames [T, D] of training clips and the places [N] of their labels."""
        kept = [torch.from_numpy(clip) for clip in clips]
        everything = torch.cat(kept).float()
        std, mean = torch.std_mean(everything, dim=0, correction=0)
        del everything
        std = std.clamp(min=SMALLEST)
        pools = [_trained(kept, mean, std, torch.from_numpy(targets), classes, cfg, seed + i) for i in range(cfg.seeds)]
        return cls(mean.numpy(), std.numpy(), pools)

    def __call__(self, frames: FloatArray) -> FloatArray:
        """One clip by itself, so that no clip's numbers depend on its company."""
        with torch.inference_mode():
            own = torch.from_numpy((frames.astype(np.float32) - self._mean) / self._std)[None]
            pooled: FloatArray = torch.cat([pool(own)[0] for pool in self._pools]).numpy()
        return pooled

    def save(self, path: Path) -> None:
        """Numbers only."""
        from safetensors.numpy import save_file

        arrays = {"frame_mean": self._mean, "frame_std": self._std}
        for i, pool in enumerate(self._pools):
            arrays |= {f"{i}.{name}": value.detach().numpy() for name, value in pool.state_dict().items()}
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From what `save` wrote; nothing is executed.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(path)
            mean, std = arrays.pop("frame_mean"), arrays.pop("frame_std")
            pools = []
            for i in sorted({int(name.partition(".")[0]) for name in arrays}):
                state = {n.partition(".")[2]: torch.from_numpy(a) for n, a in arrays.items() if n.startswith(f"{i}.")}
                pool = AttentivePooling(*reversed(state["score.0.weight"].shape))
                pool.load_state_dict(state)
                pools.append(pool.eval())
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise SerBenchError(f"{path}: no readable stored attention ({error}); run again with force=true") from error
        return cls(mean, std, pools)


def _trained(
    clips: Sequence[Tensor],
    mean: Tensor,
    std: Tensor,
    targets: Tensor,
    classes: int,
    cfg: AttentivePoolingConfig,
    seed: int,
) -> AttentivePooling:
    """One attention; whoever draws random numbers after it draws what they would have drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = AttentivePooling(len(mean), cfg.hidden)
        network = nn.ModuleDict(
            {"pool": pool, "drop": nn.Dropout(cfg.dropout), "out": nn.Linear(2 * len(mean), classes)}
        ).train()

        def loss_of(batch: Tensor) -> Tensor:
            own = [clips[i] for i in batch.tolist()]
            padded = (nn.utils.rnn.pad_sequence(own, batch_first=True).float() - mean) / std
            lengths = torch.tensor([len(one) for one in own])
            inside = torch.arange(padded.shape[1]) < lengths[:, None]
            pooled = pool(padded, inside)
            logits = network["out"](network["drop"](pooled))
            return nn.functional.cross_entropy(logits, targets[batch], label_smoothing=cfg.label_smoothing)

        fixed_epochs.train(network, len(clips), cfg, loss_of)
    return pool.eval()
