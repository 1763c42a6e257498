"""Attentive statistics pooling of a clip's frames, with weights learnt from training rows.

The score of a frame is query · tanh(W z + b), where z is the frame standardised by all training frames. The softmax of
the scores over the frames of a clip weights their mean and standard deviation (Okabe, Koshinaka & Shinoda 2018,
doi:10.21437/Interspeech.2018-993). The weights are learnt together with one linear layer that classifies the labels,
for a fixed number of epochs. That layer is then discarded, and the pooled vector goes to the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from ser_bench.predictors.crnn.crnn_network import AttentivePooling
from ser_bench.predictors.probabilities import Labels
from ser_bench.predictors.stored_model import reading
from ser_bench.training import fixed_epochs
from ser_bench.training.standardizer import Standardizer
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    from ser_bench.predictors.embeddings.whisper_probe import AttentivePoolingConfig


class TrainedPooling:
    """Frames [T, D] of a clip → its vector [2 · D · seeds].

    Args:
        standardizer: statistics [D] of all training frames.
        pools: one module per seed, in evaluation mode.
    """

    def __init__(self, standardizer: Standardizer, pools: Sequence[AttentivePooling]) -> None:
        self._standardizer = standardizer
        self._pools = pools

    @classmethod
    def fit(
        cls, clips: Iterable[FloatArray], targets: Labels, classes: int, cfg: AttentivePoolingConfig, seed: int
    ) -> Self:
        """Learn the weights from the frames [T, D] of training clips and their label indices [N]."""
        frames = list(clips)
        standardizer = Standardizer.fit(np.concatenate(frames))
        tensors, labels = [torch.from_numpy(clip) for clip in frames], torch.from_numpy(targets)
        pools = [_trained(tensors, standardizer, labels, classes, cfg, seed + i) for i in range(cfg.seeds)]
        return cls(standardizer, pools)

    def __call__(self, frames: FloatArray) -> FloatArray:
        """Pool one clip alone, so that its vector does not depend on other clips."""
        with torch.inference_mode():
            standardised = torch.from_numpy(self._standardizer(frames.astype(np.float32)))[None]
            pooled: FloatArray = torch.cat([pool(standardised)[0] for pool in self._pools]).numpy()
        return pooled

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        from safetensors.numpy import save_file

        arrays = {"frame_mean": self._standardizer.mean, "frame_std": self._standardizer.std}
        for i, pool in enumerate(self._pools):
            arrays |= {f"{i}.{name}": value.detach().numpy() for name, value in pool.state_dict().items()}
        save_file(arrays, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Restore what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors.numpy import load_file

        with reading(path):
            arrays = load_file(path)
            standardizer = Standardizer(arrays.pop("frame_mean"), arrays.pop("frame_std"))
            pools = []
            for i in sorted({int(name.partition(".")[0]) for name in arrays}):
                state = {n.partition(".")[2]: torch.from_numpy(a) for n, a in arrays.items() if n.startswith(f"{i}.")}
                pool = AttentivePooling(*reversed(state["score.0.weight"].shape))
                pool.load_state_dict(state)
                pools.append(pool.eval())
        return cls(standardizer, pools)


def _trained(
    clips: Sequence[Tensor],
    standardizer: Standardizer,
    targets: Tensor,
    classes: int,
    cfg: AttentivePoolingConfig,
    seed: int,
) -> AttentivePooling:
    """Train one pooling; the global random state is left as it was."""
    mean, std = torch.from_numpy(standardizer.mean), torch.from_numpy(standardizer.std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pool = AttentivePooling(len(mean), cfg.hidden)
        network = nn.ModuleDict(
            {"pool": pool, "drop": nn.Dropout(cfg.dropout), "out": nn.Linear(2 * len(mean), classes)}
        ).train()

        def loss_of(batch: Tensor) -> Tensor:
            frames = [clips[i] for i in batch.tolist()]
            padded = (nn.utils.rnn.pad_sequence(frames, batch_first=True).float() - mean) / std
            lengths = torch.tensor([len(clip) for clip in frames])
            inside = torch.arange(padded.shape[1]) < lengths[:, None]
            pooled = pool(padded, inside)
            logits = network["out"](network["drop"](pooled))
            return nn.functional.cross_entropy(logits, targets[batch], label_smoothing=cfg.label_smoothing)

        fixed_epochs.train(network, len(clips), cfg, loss_of, "model.attention.learning_rate")
    return pool.eval()
