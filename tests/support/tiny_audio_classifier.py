"""An audio-classification checkpoint with tiny random weights, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401  # before transformers


def write(folder: Path, labels: Sequence[str], kind: str = "Wav2Vec2", seed: int = 0) -> Path:
    """Save one with these labels; 50 frames a second, as the real ones."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(8,),
        conv_kernel=(400,), conv_stride=(320,), num_feat_extract_layers=1, num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2, feat_extract_norm="layer", classifier_proj_size=8,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    torch.manual_seed(seed)
    getattr(transformers, f"{kind}ForSequenceClassification")(config).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
