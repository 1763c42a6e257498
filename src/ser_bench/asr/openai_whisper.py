"""`asr=whisper`: OpenAI's own package in PyTorch, with greedy decoding; its encoder needs every clip padded to 30 s.

The package is an extra (`pip install 'ser-bench[whisper]'`): see docs/decisions/0001-faster-whisper.md.
"""

from __future__ import annotations

import hashlib
import urllib.error
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import audio, extras
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, WeightsError
from ser_bench.types import Clip
from ser_bench.weights import folder

SAMPLE_RATE_HZ = 16_000
ENGLISH_TOKENS = 51_864
"""Vocabulary size of Whisper's English-only models; multilingual models have one or two tokens more."""


def english_only(cfg: AsrConfig) -> bool:
    """Return True for models whose name ends with `.en`, and for checkpoint files with their vocabulary."""
    if not Path(cfg.model).is_file():
        return cfg.model.endswith(".en")
    return int(_checkpoint(cfg.model)["dims"]["n_vocab"]) <= ENGLISH_TOKENS


def identity(cfg: AsrConfig) -> dict[str, Any]:
    """Return what decides the words: model (the sha256 of a checkpoint file), device and precision."""
    if cfg.max_frames is not None:
        raise ConfigError("asr=whisper always pads to 30 s: leave asr.max_frames=null, or use asr=faster_whisper")
    path = Path(cfg.model)
    model = cfg.model
    if path.is_file():
        with path.open("rb") as file:
            model = hashlib.file_digest(file, "sha256").hexdigest()
    return {"name": cfg.name, "model": model, "device": cfg.device, "compute_type": cfg.compute_type}


def recognise(clips: Sequence[Clip], cfg: AsrConfig, language: str) -> Iterator[tuple[int, str]]:
    """Yield (position, transcript) of every clip, in batches of `cfg.batch_size`.

    Raises:
        ConfigError: if openai-whisper is not installed, or has no model of this name.
        WeightsError: if the checkpoint cannot be downloaded.
        BadClipError: if a clip cannot be read.
    """
    whisper = _package()
    import torch

    model = _load(whisper, cfg)
    options = whisper.DecodingOptions(language=language, without_timestamps=True, fp16=cfg.compute_type == "float16")
    for start in range(0, len(clips), cfg.batch_size):
        batch = clips[start : start + cfg.batch_size]
        waves = [whisper.pad_or_trim(audio.load(clip.path, SAMPLE_RATE_HZ)) for clip in batch]
        mel = whisper.log_mel_spectrogram(torch.from_numpy(np.stack(waves)), model.dims.n_mels).to(model.device)
        for i, result in enumerate(whisper.decode(model, mel, options)):
            yield start + i, result.text.strip()


def _package() -> Any:
    extras.require("whisper", "asr=whisper")
    import whisper

    return whisper


def _load(whisper: Any, cfg: AsrConfig) -> Any:
    if not Path(cfg.model).is_file() and cfg.model not in whisper.available_models():
        raise ConfigError(
            f"asr.model={cfg.model!r} is neither a checkpoint file nor one of {', '.join(whisper.available_models())}"
        )
    try:
        return whisper.load_model(cfg.model, device=cfg.device, download_root=str(folder() / "openai-whisper"))
    except (urllib.error.URLError, TimeoutError, RuntimeError) as error:
        raise WeightsError(
            f"asr=whisper: the checkpoint {cfg.model} cannot be loaded or downloaded ({error}); set "
            f"asr.model=/path/to/{cfg.model}.pt, or use asr=faster_whisper, whose weights come from the package index"
        ) from error


def _checkpoint(path: str) -> dict[str, Any]:
    import torch

    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return checkpoint
