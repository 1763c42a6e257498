"""Scores of clips from a Hugging Face audio-classification checkpoint, as it is, cached on disk.

Any architecture of `AutoModelForAudioClassification` can be read (wav2vec 2.0, HuBERT, WavLM, Whisper, AST …), with the
preprocessing that is stored beside it. Only safetensors are read: pickled weights are never loaded, and no code of a
repository is run. Clips are computed one by one, so the scores of a clip do not depend on its batch.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import audio, extras
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.errors import ConfigError, WeightsError, one_line
from ser_bench.features.encoders import huggingface_encoder
from ser_bench.types import Clip, FloatArray

VERSION = 1
"""Increase it when the same clip and weights give other numbers than before: older cache entries are then not read."""
KEY = "model.id"
SHORTEST_S = 0.1
"""Shorter clips are padded with zeros: the convolutions of wav2vec 2.0 need 25 ms."""


def class_scores(clips: Sequence[Clip], checkpoint: str, revision: str | None, device: str, cache: Cache) -> FloatArray:
    """Return the scores (logits) of a checkpoint's own labels.

    Args:
        clips: N clips.
        checkpoint: a folder, or a name on the hub.
        revision: commit, tag or branch on the hub.
        device: where the checkpoint computes, in float32.
        cache: where the scores are stored, one entry per clip.

    Returns:
        [N, K] float32, in the order of `own_labels`.

    Raises:
        BadClipError: if a clip cannot be read.
        ConfigError: if the checkpoint classifies no audio.
        WeightsError: if neither a folder nor the hub has the checkpoint as safetensors.
    """
    if not clips:
        return np.zeros((0, len(own_labels(checkpoint, revision))), dtype=np.float32)
    weights = identity(checkpoint, revision)

    def key(clip: Clip) -> str:
        return Cache.key(step="audio_classifier", version=VERSION, audio=audio.clip_digest(clip), weights=weights)

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, FloatArray], None, None]:
        model = _resident(_home(checkpoint, revision), device)
        for position, clip in enumerate(missing):
            yield position, model(audio.load(clip.path, model.sample_rate_hz))

    return np.stack(CachedComputation(cache, key, compute, array_format(), "scores of the checkpoint").values(clips))


def own_labels(checkpoint: str, revision: str | None) -> tuple[str, ...]:
    """Return the labels of the checkpoint in the order of its scores, as its configuration names them.

    Raises:
        ConfigError: if the configuration names none.
        WeightsError: if there is no configuration.
    """
    folder = _home(checkpoint, revision)
    try:
        settings = json.loads((folder / huggingface_encoder.CONFIG_FILE).read_text(encoding="utf-8"))
        if "id2label" not in settings:  # transformers leaves out names that are LABEL_0, LABEL_1 …
            return tuple(f"LABEL_{index}" for index in range(int(settings.get("num_labels", 2))))
        names = {int(index): str(name) for index, name in settings["id2label"].items()}
        return tuple(names[index] for index in range(len(names)))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{KEY}={checkpoint}: {huggingface_encoder.CONFIG_FILE} has no readable id2label with a name for each "
            "score; choose a checkpoint for audio classification"
        ) from error


def identity(checkpoint: str, revision: str | None) -> str:
    """Return the hexadecimal sha256 of configuration and weights."""
    return huggingface_encoder.identity(checkpoint, revision, KEY)


def commit(checkpoint: str, revision: str | None) -> str:
    """Return the commit of a checkpoint from the hub; "" for a folder."""
    folder = _home(checkpoint, revision)
    return folder.name if folder.parent.name == "snapshots" else ""


class AudioClassifier:
    """A checkpoint and its preprocessing.

    Args:
        folder: configuration, preprocessing and weights.
        device: where the checkpoint computes, in float32.

    Raises:
        WeightsError: if the folder cannot be read.
    """

    def __init__(self, folder: Path, device: str) -> None:
        # transformers imports torchaudio, which can be imported with a CPU-only torch only after this module.
        from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

        extras.require("transformers", "model=hf_classifier")
        import torch  # isort: skip
        from safetensors import SafetensorError  # isort: skip
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification  # isort: skip
        from transformers.utils import logging  # isort: skip

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # `CachedComputation` shows one
        try:
            self._extractor: Any = AutoFeatureExtractor.from_pretrained(  # type: ignore[no-untyped-call]
                str(folder), local_files_only=True, trust_remote_code=False
            )
            model: Any = AutoModelForAudioClassification.from_pretrained(
                str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, weights_only=True,
                dtype=torch.float32,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise WeightsError(
                f"{folder}: no audio classifier that transformers can load as safetensors ({one_line(error)[:200]})"
            ) from error
        self._model, self._device = model.to(device).eval(), device
        self.sample_rate_hz = int(self._extractor.sampling_rate)

    def __call__(self, wave: FloatArray) -> FloatArray:
        """Return the scores [K] of one clip, from samples [T] at `sample_rate_hz`."""
        import torch

        wave = np.pad(wave, (0, max(0, round(SHORTEST_S * self.sample_rate_hz) - len(wave))))
        inputs = self._extractor(wave, sampling_rate=self.sample_rate_hz, return_tensors="pt")
        with torch.inference_mode():
            scores = self._model(**{name: values.to(self._device) for name, values in inputs.items()}).logits[0]
        result: FloatArray = scores.float().cpu().numpy()
        return result


@lru_cache(maxsize=1)
def _resident(folder: Path, device: str) -> AudioClassifier:
    """The checkpoint in a folder. It stays in memory, because reading it takes longer than classifying a clip."""
    return AudioClassifier(folder, device)


def _home(checkpoint: str, revision: str | None) -> Path:
    return huggingface_encoder.home(checkpoint, revision, KEY)
