"""Names, types and units of the keys under `model:` of `model=ssl_probe`."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from ser_bench.choices import Mix


@dataclass
class SslProbeConfig:
    """A self-supervised speech encoder, frozen below a light head (group `head`), or fine-tuned on a GPU."""

    name: str = "ssl_probe"
    encoder: str = MISSING
    """A folder that save_pretrained wrote, or a name on the Hugging Face hub; safetensors only."""
    revision: str | None = None
    """Branch, tag or commit on the hub; null: its main branch."""
    layers: str = "last"
    """last, all, or the number of one layer: 0 is what enters the first transformer layer, 1 what leaves it, …"""
    mix: Mix = Mix.mean
    """Only layers=all. mean: all alike; learnt: weights fitted to the training rows, positive, sum 1."""
    device: str = "cpu"
    """Where the encoder computes: cpu, cuda, cuda:1 …"""
    finetune: bool = False
    """Train the transformer layers too, below one linear layer; the group `head` is then not used."""
    epochs: int = 10
    """finetune: passes over the training rows; always all of them, and the last is kept."""
    batch_size: int = 8
    """finetune: clips in a step."""
    learning_rate: float = 1e-5
    """finetune: of the encoder, at the start; it falls to 0 along a line."""
    head_learning_rate: float = 1e-3
    """finetune: of the linear layer, likewise."""
