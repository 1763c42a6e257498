"""A speech encoder fine-tuned with one linear layer over the mean of its last layer; for a GPU, tested on the CPU.

The convolutions stay as they are, as is usual; transformer and linear layer are trained for a fixed number of epochs,
the last one is kept, and so validation rows choose nothing. Clips that must be heard alone (`speech_encoder`) are, and
their gradients are added up to a batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from ser_bench import audio
from ser_bench.config import SslProbeConfig
from ser_bench.errors import SerBenchError
from ser_bench.features.encoders import huggingface_encoder
from ser_bench.features.encoders.huggingface_encoder import SAMPLE_RATE_HZ, Encoder
from ser_bench.types import Clip

if TYPE_CHECKING:
    import torch

ENCODER_FOLDER = "encoder"
LINEAR_FILE = "linear.safetensors"

Labels = npt.NDArray[np.int64]


class Tuned:
    """Encoder → mean over a clip's own frames → linear layer.

    Args:
        cfg: encoder, device and how it is trained.
        classes: how many labels.
        folder: of the encoder; None: where `cfg` says.
    """

    def __init__(self, cfg: SslProbeConfig, classes: int, folder: Path | None = None) -> None:
        import torch

        self._cfg = cfg
        self._encoder = Encoder(folder or huggingface_encoder.home(cfg.encoder, cfg.revision), cfg.device)
        width = int(self._encoder.model.config.hidden_size)
        self._linear = torch.nn.Linear(width, classes).to(cfg.device)

    def fit(
        self, clips: Sequence[Clip], targets: Labels, val: Sequence[Clip], val_targets: Labels, seed: int
    ) -> dict[str, float]:
        """Train on `clips`; `val` is looked at once, at the end.

        Returns `fit/seconds`, `fit/epochs`, `fit/train_loss` (of the last epoch), `fit/val_uar` where there are
        validation rows, `params/total` and `params/trainable`.
        """
        import torch

        started = time.perf_counter()
        torch.manual_seed(seed)
        torch.nn.init.zeros_(self._linear.weight)  # begins at "all labels alike", whatever was drawn before
        torch.nn.init.zeros_(self._linear.bias)
        model, optimiser = self._encoder.model, self._optimiser()
        steps = self._cfg.epochs * -(-len(clips) // self._cfg.batch_size)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / max(1, steps))
        model.train()
        loss = 0.0
        for _ in range(self._cfg.epochs):
            order = torch.randperm(len(clips)).tolist()
            losses = []
            for start in range(0, len(order), self._cfg.batch_size):
                batch = order[start : start + self._cfg.batch_size]
                losses.append(self._step([clips[i] for i in batch], targets[batch], optimiser))
                schedule.step()
            loss = float(np.mean(losses))
        model.eval()
        every = [*model.parameters(), *self._linear.parameters()]
        facts = {
            "fit/seconds": time.perf_counter() - started,
            "fit/epochs": float(self._cfg.epochs),
            "fit/train_loss": loss,
            "params/total": float(sum(p.numel() for p in every)),
            "params/trainable": float(sum(p.numel() for p in every if p.requires_grad)),
        }
        if val:
            right = self.predict_proba(val).argmax(axis=1) == val_targets
            facts["fit/val_uar"] = float(np.mean([right[val_targets == c].mean() for c in np.unique(val_targets)]))
        return facts

    def _optimiser(self) -> torch.optim.Optimizer:
        """AdamW over what is trained, after the rest was frozen and what is drawn at random was switched off."""
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
        """[N, C], rows sum to 1."""
        import torch

        size = 1 if self._encoder.one_by_one else self._cfg.batch_size
        self._encoder.model.eval()
        with torch.inference_mode():
            parts = [self._logits(clips[i : i + size]).softmax(1).cpu() for i in range(0, len(clips), size)]
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float64)

    def save(self, folder: Path) -> None:
        """Write the encoder as transformers does, safetensors and JSON, and the linear layer as safetensors."""
        from safetensors.torch import save_file

        self._encoder.model.save_pretrained(folder / ENCODER_FOLDER)
        self._encoder.save_settings(folder / ENCODER_FOLDER)
        save_file({name: t.detach().cpu() for name, t in self._linear.state_dict().items()}, folder / LINEAR_FILE)

    @classmethod
    def load(cls, folder: Path, cfg: SslProbeConfig) -> Self:
        """What `save` wrote; on the CPU where the GPU of its training is not here.

        Raises:
            SerBenchError: it cannot be read.
        """
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        device = cfg.device if torch.cuda.is_available() else "cpu"
        try:
            arrays = load_file(folder / LINEAR_FILE)
            here = SslProbeConfig(**(vars(cfg) | {"device": device}))
            tuned = cls(here, len(arrays["bias"]), folder / ENCODER_FOLDER)
            tuned._linear.load_state_dict(arrays)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error
        return tuned

    def _step(self, clips: Sequence[Clip], targets: Labels, optimiser: torch.optim.Optimizer) -> float:
        """One step on one batch; returns its mean loss."""
        import torch

        size = 1 if self._encoder.one_by_one else len(clips)
        wanted = torch.from_numpy(targets).to(self._cfg.device)
        optimiser.zero_grad()
        total = 0.0
        for start in range(0, len(clips), size):
            part = slice(start, start + size)
            loss = torch.nn.functional.cross_entropy(self._logits(clips[part]), wanted[part], reduction="sum")
            (loss / len(clips)).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        optimiser.step()
        return total / len(clips)

    def _logits(self, clips: Sequence[Clip]) -> torch.Tensor:
        """[B, C]."""
        import torch

        waves: list[Any] = [audio.load(clip.path, SAMPLE_RATE_HZ) for clip in clips]
        states, frames = self._encoder.states(*self._encoder.batch(waves))
        pooled = torch.stack([states[-1][i, :count].mean(0) for i, count in enumerate(frames)])
        logits: torch.Tensor = self._linear(pooled)
        return logits
