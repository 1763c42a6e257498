"""Hidden states of clips from a frozen Hugging Face speech encoder, pooled over time, cached on disk.

The encoder can be any one that reads waveforms (wav2vec 2.0, HuBERT, WavLM, data2vec, …), from a folder or from the
hub. Only safetensors are read: pickled weights are never loaded, and no code of a repository is run.

The mean and the standard deviation over time of every layer are stored, so a later choice of layers and heads needs no
further computation. The vectors of a clip do not depend on its batch. Encoders that normalise every frame separately
(`feat_extract_norm: layer`) process padded batches with an attention mask. Encoders that normalise the whole clip
(`group`: most base models) would include the padding, so they process one clip at a time.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ser_bench import audio, extras
from ser_bench.cache import Cache, CachedComputation, array_format
from ser_bench.errors import ConfigError, WeightsError
from ser_bench.features.encoders.pooling import mean_and_deviation, shortest_first
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Increase it when the same clip and weights give other numbers than before: older cache entries are then not read."""
SAMPLE_RATE_HZ = 16_000
BATCH_CLIPS = 8
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
KEY = "model.encoder"
"""Key that names the encoder, in error messages; `audio_classifier` has another one."""
FILE_PATTERNS = ("*.json", "*.safetensors")
"""The files that are downloaded from a repository; all others are left out."""


def embed(clips: Sequence[Clip], encoder: str, revision: str | None, device: str, cache: Cache) -> FloatArray:
    """Return the pooled hidden states of one encoder.

    Args:
        clips: N clips.
        encoder: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub; None: its main branch.
        device: where the encoder computes, in float32.
        cache: where the states are stored, one entry per clip.

    Returns:
        [N, layers + 1, 2, width] float32, not standardised: mean and population standard deviation over time of the
        input of the first transformer layer and of the output of every layer.

    Raises:
        BadClipError: if a clip cannot be read.
        ConfigError: if the encoder does not read waveforms.
        WeightsError: if neither a folder nor the hub has the encoder as safetensors.
    """
    if not clips:
        return np.zeros((0, 0, 2, 0), dtype=np.float32)
    weights = identity(encoder, revision)

    def key(clip: Clip) -> str:
        return Cache.key(step="speech_encoder", version=VERSION, audio=audio.clip_digest(clip), weights=weights)

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, FloatArray], None, None]:
        model = _resident(home(encoder, revision), device)
        for batch in shortest_first(missing, BATCH_CLIPS):
            waves = [audio.load(missing[position].path, SAMPLE_RATE_HZ) for position in batch]
            yield from zip(batch, model(waves), strict=True)

    return np.stack(CachedComputation(cache, key, compute, array_format(), "speech encoder states").values(clips))


def home(encoder: str, revision: str | None, key: str = KEY) -> Path:
    """Return the folder of configuration and weights: `encoder` itself, or the copy in the hub's cache.

    Raises:
        WeightsError: if there is neither, or the folder has no safetensors.
    """
    folder = Path(encoder).expanduser()
    if not (folder / CONFIG_FILE).is_file():
        folder = _fetched(encoder, revision, key)
    if not list(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{encoder}: has no .safetensors, and pickled weights are not loaded; name a model.revision that has them, "
            "or convert them (model.save_pretrained) and give the folder"
        )
    return folder


@lru_cache(maxsize=8)
def identity(encoder: str, revision: str | None, key: str = KEY) -> str:
    """Return the hexadecimal sha256 of configuration and weights, which is part of the cache keys."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in FILE_PATTERNS for p in home(encoder, revision, key).glob(pattern)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class SpeechEncoder:
    """A frozen encoder and the preprocessing of its waveforms.

    Args:
        folder: configuration and weights, as `home` returns them.
        device: where the encoder computes, in float32.

    Raises:
        ConfigError, WeightsError: as in `load`.
    """

    def __init__(self, folder: Path, device: str) -> None:
        self.model = load(folder).to(device).eval()
        self.device = device
        self._normalise = _wants_unit_variance(folder, self.model)
        self.one_by_one = getattr(self.model.config, "feat_extract_norm", "group") == "group"

    def save_settings(self, folder: Path) -> None:
        """Write the preprocessing of the waveforms to the file from which transformers reads it."""
        settings = {"do_normalize": self._normalise, "sampling_rate": SAMPLE_RATE_HZ}
        (folder / PREPROCESSOR_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")

    def __call__(self, waves: Sequence[FloatArray]) -> Iterator[FloatArray]:
        """Yield the pooled states [layers + 1, 2, width] of each clip, from samples [T] at 16 kHz."""
        import torch

        with torch.inference_mode():
            size = 1 if self.one_by_one else BATCH_CLIPS
            for start in range(0, len(waves), size):
                yield from mean_and_deviation(*self.states(*self.batch(waves[start : start + size])))

    def batch(self, waves: Sequence[FloatArray]) -> tuple[torch.Tensor, list[int]]:
        """Return the samples [B, T], padded with zeros, on the device, and the number of samples of each clip."""
        import torch

        shortest = shortest_input(self.model.config)
        clips = [np.pad(wave, (0, max(0, shortest - len(wave)))) for wave in waves]
        if self._normalise:  # each clip separately, as in the feature extractor of transformers
            clips = [(wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) for wave in clips]
        lengths = [len(wave) for wave in clips]
        padded = np.stack([np.pad(wave, (0, max(lengths) - len(wave))) for wave in clips]).astype(np.float32)
        return torch.from_numpy(padded).to(self.device), lengths

    def states(self, padded: torch.Tensor, lengths: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """Return the states [B, F, width] of every layer, and the number of frames of each clip before padding."""
        import torch

        mask = None
        if len(lengths) > 1:
            mask = (torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]).long().to(self.device)
        states = self.model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        frames = self.model._get_feat_extract_output_lengths(torch.tensor(lengths)).tolist()
        return states, [int(count) for count in frames]


@lru_cache(maxsize=1)
def _resident(folder: Path, device: str) -> SpeechEncoder:
    """The encoder in a folder. It stays in memory, because reading it takes longer than encoding a clip."""
    return SpeechEncoder(folder, device)


def load(folder: Path) -> Any:
    """Return the encoder in a folder, in float32.

    Raises:
        ConfigError: if the encoder does not read waveforms.
        WeightsError: if the folder cannot be read, or its weights do not match its configuration.
    """
    # transformers imports torchaudio, which can be imported with a CPU-only torch only after this module.
    from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

    extras.require("transformers", "model=ssl_probe")
    import torch  # isort: skip
    from safetensors import SafetensorError  # isort: skip
    from transformers import AutoModel  # isort: skip
    from transformers.utils import logging  # isort: skip

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # `CachedComputation` shows one
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # caused by WavLM itself
    try:
        model = AutoModel.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, weights_only=True,
            dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WeightsError(
            f"{folder}: no speech encoder that transformers can load as safetensors ({_first_line(error)})"
        ) from error
    if not hasattr(model, "_get_feat_extract_output_lengths") or model.main_input_name != "input_values":
        raise ConfigError(
            f"model.encoder={folder}: {type(model).__name__} does not read waveforms; choose an encoder such as "
            "wav2vec 2.0, HuBERT or WavLM (for Whisper, use model=whisper_probe)"
        )
    return model


def shortest_input(config: Any) -> int:
    """Return the number of samples of one frame: the receptive field of the convolutions, 400 (25 ms) in wav2vec 2.0.

    >>> from types import SimpleNamespace
    >>> shortest_input(SimpleNamespace(conv_kernel=(10, 3, 3, 3, 3, 2, 2), conv_stride=(5, 2, 2, 2, 2, 2, 2)))
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return int(samples)


def _wants_unit_variance(folder: Path, model: Any) -> bool:
    """The setting in preprocessor_config.json; without that file, the usual one for this kind of normalisation."""
    try:
        settings = json.loads((folder / PREPROCESSOR_FILE).read_text(encoding="utf-8"))
        return bool(settings["do_normalize"])
    except (OSError, ValueError, KeyError):
        return getattr(model.config, "feat_extract_norm", "group") == "layer"


def _fetched(encoder: str, revision: str | None, key: str = KEY) -> Path:
    """Folder of the hub's copy; if the hub cannot be reached, of the copy in its cache."""
    if not extras.is_installed("transformers"):  # before the download
        extras.require("transformers", "model=ssl_probe")
    from huggingface_hub import snapshot_download

    failure: Exception | None = None
    for local in (False, True):
        try:
            return Path(
                snapshot_download(
                    encoder, revision=revision, allow_patterns=list(FILE_PATTERNS), local_files_only=local
                )
            )
        except Exception as error:  # huggingface_hub's and its HTTP client's errors have no common base class
            failure = failure or error
    raise WeightsError(
        f"{key}={encoder}: no folder with a {CONFIG_FILE}, and not available from the hub "
        f"({_first_line(failure)[:160]}); "
        "check the name, or give a folder that save_pretrained wrote"
    ) from failure


def _first_line(error: Exception | None) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
