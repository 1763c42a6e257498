"""Speech encoders with tiny random weights, made on the spot, and clips of noise for them to hear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401  # before transformers
from ser_bench.types import Clip

KINDS = ("Wav2Vec2", "Hubert", "WavLM")
LAYERS, WIDTH = 2, 16


def make(folder: Path, kind: str = "Wav2Vec2", norm: str = "layer", seed: int = 0, **changes: Any) -> Path:
    """Save one; 50 frames a second, as the real ones."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=2, intermediate_size=32, conv_dim=(8,),
        conv_kernel=(400,), conv_stride=(320,), num_feat_extract_layers=1, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, feat_extract_norm=norm, **changes,
    )  # fmt: skip
    torch.manual_seed(seed)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=norm == "layer").save_pretrained(folder)
    return folder


def clips(folder: Path, *seconds: float) -> list[Clip]:
    """One clip a duration, 16 kHz."""
    made = []
    for i, duration in enumerate(seconds):
        wave = 0.1 * np.random.default_rng(i).standard_normal(round(16_000 * duration)) + 0.02
        path = folder / f"clip{i}.wav"
        soundfile.write(path, wave, 16_000, subtype="FLOAT")
        made.append(Clip(f"clip{i}", path, "angry", "s0", duration_s=duration, digest=f"{i:032x}"))
    return made
