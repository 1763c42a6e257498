"""Fine-tuning of a speech encoder with one linear layer over the mean of its last layer; for a GPU.

The convolutions are frozen, as is usual. The transformer and the linear layer are trained for a fixed number of epochs
without early stopping, so validation rows choose nothing. Encoders that normalise the whole clip process one clip at a
time; the gradients of the clips of a batch are summed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ser_bench import audio
from ser_bench.features.encoders import huggingface_encoder
from ser_bench.features.encoders.huggingface_encoder import SAMPLE_RATE_HZ, SpeechEncoder
from ser_bench.predictors.probabilities import validation_uar
from ser_bench.predictors.stored_model import reading
from ser_bench.types import Clip

if TYPE_CHECKING:
    import torch

    from ser_bench.predictors.embeddings.ssl_probe import SslProbeConfig

ENCODER_FOLDER = "encoder"
LINEAR_FILE = "linear.safetensors"

Labels = npt.NDArray[np.int64]


class FinetunedEncoder:
    """Encoder → mean over the frames of a clip → linear layer.

    Args:
        cfg: encoder, device and training.
        classes: number of labels.
        folder: folder of the encoder; None: that of `cfg`.
    """

    def __init__(self, cfg: SslProbeConfig, classes: int, folder: Path | None = None) -> None:
        import torch

        self._cfg = cfg
        self._encoder = SpeechEncoder(folder or huggingface_encoder.home(cfg.encoder, cfg.revision), cfg.device)
        width = int(self._encoder.model.config.hidden_size)
        self._linear = torch.nn.Linear(width, classes).to(cfg.device)

    def fit(
        self, clips: Sequence[Clip], targets: Labels, val: Sequence[Clip], val_targets: Labels, seed: int
    ) -> dict[str, float]:
        """Train on `clips`; evaluate on `val` once, at the end.

        Returns:
            `fit/seconds`, `fit/epochs`, `fit/train_loss` (of the last epoch), `fit/val_uar` with validation
            rows, `params/total` and `params/trainable`.
        """
        import torch

        from ser_bench.training.divergence import DivergenceCheck

        started = time.perf_counter()
        torch.manual_seed(seed)
        torch.nn.init.zeros_(self._linear.weight)  # starts from equal probabilities, whatever the random state
        torch.nn.init.zeros_(self._linear.bias)
        model, optimiser = self._encoder.model, self._optimiser()
        steps = self._cfg.epochs * -(-len(clips) // self._cfg.batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, steps))
        model.train()
        loss = 0.0
        check = DivergenceCheck("model.learning_rate", self._cfg.learning_rate, "model.head_learning_rate")
        for epoch in range(1, self._cfg.epochs + 1):
            order = torch.randperm(len(clips)).tolist()
            losses = []
            for start in range(0, len(order), self._cfg.batch_size):
                batch = order[start : start + self._cfg.batch_size]
                losses.append(self._step([clips[i] for i in batch], targets[batch], optimiser))
                schedule.step()
                check.loss(losses[-1], "training", epoch)
            check.weights(model, epoch)
            loss = float(np.mean(losses))
        model.eval()
        parameters = [*model.parameters(), *self._linear.parameters()]
        facts = {
            "fit/seconds": time.perf_counter() - started,
            "fit/epochs": float(self._cfg.epochs),
            "fit/train_loss": loss,
            "params/total": float(sum(p.numel() for p in parameters)),
            "params/trainable": float(sum(p.numel() for p in parameters if p.requires_grad)),
        }
        if val:
            facts["fit/val_uar"] = validation_uar(self.predict_proba(val), val_targets)
        return facts

    def _optimiser(self) -> torch.optim.Optimizer:
        """Freeze the convolutions, switch off random layer drop and masking, and return AdamW over the rest."""
        import torch

        model = self._encoder.model
        model.freeze_feature_encoder()
        model.config.layerdrop = 0.0  # a dropped layer changes the graph from step to step
        model.config.apply_spec_augment = False  # draws from NumPy's global state, and refuses short clips
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(
            [
                {"params": trained, "lr": self._cfg.learning_rate},
                {"params": list(self._linear.parameters()), "lr": self._cfg.head_learning_rate},
            ]
        )

    def predict_proba(self, clips: Sequence[Clip]) -> npt.NDArray[np.float64]:
        """Return probabilities [N, C]; rows sum to 1."""
        import torch

        size = 1 if self._encoder.one_by_one else self._cfg.batch_size
        self._encoder.model.eval()
        with torch.inference_mode():
            parts = [self._logits(clips[i : i + size]).softmax(1).cpu() for i in range(0, len(clips), size)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write the encoder in transformers' format (safetensors and JSON), and the linear layer as safetensors."""
        from safetensors.torch import save_file

        self._encoder.model.save_pretrained(folder / ENCODER_FOLDER)
        self._encoder.save_settings(folder / ENCODER_FOLDER)
        save_file({name: t.detach().cpu() for name, t in self._linear.state_dict().items()}, folder / LINEAR_FILE)

    @classmethod
    def load(cls, folder: Path, cfg: SslProbeConfig) -> Self:
        """Restore what `save` wrote; on the CPU if there is no GPU.

        Raises:
            SerBenchError: it cannot be read.
        """
        import torch
        from safetensors.torch import load_file

        device = cfg.device if torch.cuda.is_available() else "cpu"
        with reading(folder):
            arrays = load_file(folder / LINEAR_FILE)
            here = replace(cfg, device=device)
            tuned = cls(here, len(arrays["bias"]), folder / ENCODER_FOLDER)
            tuned._linear.load_state_dict(arrays)
        return tuned

    def _step(self, clips: Sequence[Clip], targets: Labels, optimiser: torch.optim.Optimizer) -> float:
        """Make one step on one batch; return its mean loss."""
        import torch

        size = 1 if self._encoder.one_by_one else len(clips)
        labels = torch.from_numpy(targets).to(self._cfg.device)
        optimiser.zero_grad()
        total = 0.0
        for start in range(0, len(clips), size):
            part = slice(start, start + size)
            loss = torch.nn.functional.cross_entropy(self._logits(clips[part]), labels[part], reduction="sum")
            (loss / len(clips)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        optimiser.step()
        return total / len(clips)

    def _logits(self, clips: Sequence[Clip]) -> torch.Tensor:
        """Return logits [B, C]."""
        import torch

        waves: list[Any] = [audio.load(clip.path, SAMPLE_RATE_HZ) for clip in clips]
        states, frames = self._encoder.states(*self._encoder.batch(waves))
        pooled = torch.stack([states[-1][i, :count].mean(0) for i, count in enumerate(frames)])
        logits: torch.Tensor = self._linear(pooled)
        return logits
