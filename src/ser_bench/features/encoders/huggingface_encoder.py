"""Clips → hidden states of a frozen Hugging Face speech encoder, pooled over time, cached on disk.

Any encoder that reads waveforms (wav2vec 2.0, HuBERT, WavLM, data2vec …), from a folder or from the hub, as safetensors
only: pickled weights are never loaded, and no code of a repository is run.

Of each layer mean and standard deviation over the clip's own frames are kept, so that every choice of layers and
heads afterwards is free. A clip has the same vectors whatever its batch: encoders that normalise every frame by itself
(`feat_extract_norm: layer`) get padded batches with an attention mask; those that normalise the whole clip
(`group`: most base models) would count the padding in, so they hear one clip at a time.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from ser_bench import audio
from ser_bench.cache import Cache
from ser_bench.errors import ConfigError, WeightsError
from ser_bench.types import Clip, FloatArray

if TYPE_CHECKING:
    import torch

VERSION = 1
"""Raised when the same clip and weights would give other numbers: old cache entries are then not read."""
SAMPLE_RATE_HZ = 16_000
BATCH_CLIPS = 8
CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
WANTED = ("*.json", "*.safetensors")
"""All that is ever fetched of a repository."""


def embed(clips: Sequence[Clip], encoder: str, revision: str | None, device: str, cache: Cache) -> FloatArray:
    """Pooled hidden states of one encoder.

    Args:
        clips: N clips.
        encoder: a folder, or a name on the hub.
        revision: branch, tag or commit on the hub; None is its main branch.
        device: where the encoder computes, in float32.
        cache: where the result is kept, one entry a clip.

    Returns:
        [N, layers + 1, 2, width] float32, not standardised: mean and population deviation over time of what enters the
        first transformer layer and of what leaves each of them.

    Raises:
        BadClipError: a clip cannot be read.
        ConfigError: the encoder does not read waveforms.
        WeightsError: neither a folder nor the hub has it as safetensors.
    """
    if not clips:
        return np.zeros((0, 0, 2, 0), dtype=np.float32)
    weights = identity(encoder, revision)
    keys = {
        clip.id: Cache.key(step="speech_encoder", version=VERSION, audio=clip.digest, weights=weights) for clip in clips
    }
    found = {clip_id: pooled for clip_id, key in keys.items() if (pooled := cache.read_array(key)) is not None}
    missing = [clip for clip in {clip.id: clip for clip in clips}.values() if clip.id not in found]
    if missing:
        for clip, pooled in _computed(missing, Encoder(home(encoder, revision), device)):
            cache.write_array(keys[clip.id], pooled)
            found[clip.id] = pooled
    return np.stack([found[clip.id] for clip in clips])


def home(encoder: str, revision: str | None) -> Path:
    """Folder with configuration and weights: `encoder` itself, or the hub's copy in the hub's own cache.

    Raises:
        WeightsError: neither is there, or there are no safetensors in it.
    """
    folder = Path(encoder).expanduser()
    if not (folder / CONFIG_FILE).is_file():
        folder = _fetched(encoder, revision)
    if not list(folder.glob("*.safetensors")):
        raise WeightsError(
            f"{encoder}: has no .safetensors, and pickled weights are not loaded; name a model.revision that has them, "
            "or convert them (model.save_pretrained) and give the folder"
        )
    return folder


@lru_cache(maxsize=8)
def identity(encoder: str, revision: str | None) -> str:
    """Hexadecimal sha256 of configuration and weights: part of cache keys."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in WANTED for p in home(encoder, revision).glob(pattern)):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Encoder:
    """One frozen encoder and how it wants its waveforms."""

    def __init__(self, folder: Path, device: str) -> None:
        self.model = load(folder).to(device).eval()
        self.device = device
        self._normalise = _wants_unit_variance(folder, self.model)
        self.one_by_one = getattr(self.model.config, "feat_extract_norm", "group") == "group"

    def save_settings(self, folder: Path) -> None:
        """Write how waveforms are wanted, where transformers keeps it."""
        described = {"do_normalize": self._normalise, "sampling_rate": SAMPLE_RATE_HZ}
        (folder / PREPROCESSOR_FILE).write_text(json.dumps(described) + "\n", encoding="utf-8")

    def __call__(self, waves: Sequence[FloatArray]) -> Iterator[FloatArray]:
        """[layers + 1, 2, width] of each clip, from samples [T] at 16 kHz."""
        import torch

        with torch.inference_mode():
            for i in range(0, len(waves), 1 if self.one_by_one else BATCH_CLIPS):
                part = waves[i : i + (1 if self.one_by_one else BATCH_CLIPS)]
                states, frames = self.states(*self.batch(part))
                for row, count in enumerate(frames):
                    own = torch.stack([state[row, :count] for state in states])
                    deviation, mean = torch.std_mean(own, dim=1, correction=0)
                    yield torch.stack([mean, deviation], dim=1).cpu().numpy()

    def batch(self, waves: Sequence[FloatArray]) -> tuple[torch.Tensor, list[int]]:
        """[B, T] padded with zeros, on the device, and the samples that each clip has of its own."""
        import torch

        shortest = shortest_input(self.model.config)
        own = [np.pad(wave, (0, max(0, shortest - len(wave)))) for wave in waves]
        if self._normalise:  # as transformers' feature extractor does, each clip by itself
            own = [(wave - wave.mean()) / np.sqrt(wave.var() + 1e-7) for wave in own]
        lengths = [len(wave) for wave in own]
        padded = np.stack([np.pad(wave, (0, max(lengths) - len(wave))) for wave in own]).astype(np.float32)
        return torch.from_numpy(padded).to(self.device), lengths

    def states(self, padded: torch.Tensor, lengths: Sequence[int]) -> tuple[tuple[torch.Tensor, ...], list[int]]:
        """[B, F, width] of every layer, and how many of the F frames are each clip's own."""
        import torch

        mask = None
        if len(lengths) > 1:
            mask = (torch.arange(padded.shape[1])[None] < torch.tensor(lengths)[:, None]).long().to(self.device)
        states = self.model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
        frames = self.model._get_feat_extract_output_lengths(torch.tensor(lengths)).tolist()
        return states, [int(count) for count in frames]


def load(folder: Path) -> Any:
    """The encoder of a folder, in float32.

    Raises:
        ConfigError: it does not read waveforms.
        WeightsError: the folder cannot be read, or its weights are not those of its configuration.
    """
    # transformers imports torchaudio, which only this module makes importable beside a CPU-only torch.
    from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

    import torch  # isort: skip
    from safetensors import SafetensorError  # isort: skip
    from transformers import AutoModel  # isort: skip
    from transformers.utils import logging  # isort: skip

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # ours counts clips
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # WavLM's own affair
    try:
        model = AutoModel.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, trust_remote_code=False, weights_only=True,
            dtype=torch.float32,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"{folder}: no speech encoder that transformers can load as safetensors ({said})") from error
    if not hasattr(model, "_get_feat_extract_output_lengths") or model.main_input_name != "input_values":
        raise ConfigError(
            f"model.encoder={folder}: {type(model).__name__} does not read waveforms; choose one of the kind of "
            "wav2vec 2.0, HuBERT or WavLM (for Whisper there is model=whisper_probe)"
        )
    return model


def shortest_input(config: Any) -> int:
    """Samples that give one frame: the receptive field of the convolutions; 400 (25 ms) for wav2vec 2.0.

    >>> from types import SimpleNamespace
    >>> shortest_input(SimpleNamespace(conv_kernel=(10, 3, 3, 3, 3, 2, 2), conv_stride=(5, 2, 2, 2, 2, 2, 2)))
    400
    """
    samples = 1
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        samples = (samples - 1) * stride + kernel
    return int(samples)


def _computed(clips: Sequence[Clip], encoder: Encoder) -> Iterator[tuple[Clip, FloatArray]]:
    """Shortest clips first, so that a batch holds little padding."""
    ordered = sorted(clips, key=lambda clip: clip.duration_s)
    with tqdm(total=len(clips), desc="speech encoder", unit="clip", disable=None, leave=False) as bar:
        for start in range(0, len(ordered), BATCH_CLIPS):
            part = ordered[start : start + BATCH_CLIPS]
            yield from zip(part, encoder([audio.load(clip.path, SAMPLE_RATE_HZ) for clip in part]), strict=True)
            bar.update(len(part))


def _wants_unit_variance(folder: Path, model: Any) -> bool:
    """What the folder's preprocessor_config.json says; without it, what its authors did with this normalisation."""
    try:
        said = json.loads((folder / PREPROCESSOR_FILE).read_text(encoding="utf-8"))
        return bool(said["do_normalize"])
    except (OSError, ValueError, KeyError):
        return getattr(model.config, "feat_extract_norm", "group") == "layer"


def _fetched(encoder: str, revision: str | None) -> Path:
    """The hub's copy; where the hub cannot be reached, what its cache holds."""
    from huggingface_hub import snapshot_download

    last: Exception | None = None
    for local in (False, True):
        try:
            return Path(
                snapshot_download(encoder, revision=revision, allow_patterns=list(WANTED), local_files_only=local)
            )
        except Exception as error:  # huggingface_hub's and its HTTP client's errors have no common base
            last = last or error
    reason = str(last).strip().splitlines()[0] if str(last).strip() else type(last).__name__
    raise WeightsError(
        f"model.encoder={encoder}: no folder with a {CONFIG_FILE}, and the hub does not give it ({reason[:160]}); "
        "check the name, or give a folder that save_pretrained wrote"
    ) from last
