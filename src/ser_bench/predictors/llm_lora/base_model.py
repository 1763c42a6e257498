"""The language model under LoRA and its tokenizer: a GGUF file, dequantised, or a folder with safetensors.

Nothing is executed: pickled weights are refused, and no code of a repository runs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_bench import extras, weights
from ser_bench.errors import ConfigError, WeightsError, one_line

NEEDED_FOR = "model=llm_lora"
PACKAGES = ("peft", "transformers", "gguf")
GGUF = ".gguf"
DECODER_PARTS = ("embed_tokens", "layers", "norm")
"""What a decoder must have, as those of Llama, SmolLM2, Qwen2 and Mistral do."""


@dataclass(frozen=True)
class BaseModel:
    """A language model with its tokenizer.

    Attributes:
        model: a causal language model of transformers, float32, on the CPU.
        tokenizer: its tokenizer.
        digest: hexadecimal sha256 of the weights.
    """

    model: Any
    tokenizer: Any
    digest: str

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text, without special ones."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def answer_tokens(self, labels: tuple[str, ...]) -> tuple[list[str], list[int]]:
        """Return the answer of each label and its token: the first token of " label", or of a letter.

        Letters stand for the labels where two labels begin with the same token.

        Raises:
            ConfigError: there are more labels than letters.
        """
        answers = [f" {label}" for label in labels]
        first = [self.token_ids(answer)[0] for answer in answers]
        if len(set(first)) == len(labels):
            return answers, first
        answers = [f" {chr(ord('A') + position)}" for position in range(len(labels))]
        first = [self.token_ids(answer)[-1] for answer in answers]
        if len(labels) > 26 or len(set(first)) < len(labels):
            raise ConfigError(f"{NEEDED_FOR}: the tokenizer has no distinct tokens for {len(labels)} labels")
        return answers, first


def check_installed() -> None:
    """Check that the packages can be imported.

    Raises:
        ConfigError: one is missing; the message holds the command that installs it.
    """
    # transformers imports torchaudio, which can be imported with a CPU-only torch only after this module.
    from ser_bench.features.torchaudio_cpu import torchaudio  # noqa: F401

    for package in PACKAGES:
        extras.require(package, NEEDED_FOR, extra="lora")


def path_of(base: str) -> Path:
    """Return the GGUF file or the folder; weights of the table are downloaded if necessary.

    Raises:
        ConfigError: there is neither.
        WeightsError: the weights of this name cannot be downloaded.
    """
    if base in weights.language_models():
        return weights.fetch(base)
    path = Path(base).expanduser()
    if path.suffix == GGUF and path.is_file():
        return path
    if not (path / "config.json").is_file():
        known = ", ".join(weights.language_models())
        raise ConfigError(f"model.base={base}: choose one of {known}, a GGUF file, or a folder with config.json")
    if not list(path.glob("*.safetensors")):
        raise WeightsError(f"model.base={base}: has no .safetensors, and pickled weights are not loaded")
    return path


def load_tokenizer(base: str) -> Any:
    """Return the tokenizer of a language model; its weights are not read.

    Raises:
        ConfigError, WeightsError: as in `load`.
    """
    check_installed()
    folder, where = _source(path_of(base))
    from transformers import AutoTokenizer

    with _reading(base):
        return AutoTokenizer.from_pretrained(folder, **where)


def load(base: str) -> BaseModel:
    """Load a language model.

    Raises:
        ConfigError: packages or the model are missing, or its structure is not supported.
        WeightsError: the files cannot be read.
    """
    tokenizer = load_tokenizer(base)
    path = path_of(base)
    folder, where = _source(path)
    import torch
    from transformers import AutoModelForCausalLM
    safe = {} if "gguf_file" in where else {"use_safetensors": True, "weights_only": True}
    with _reading(base), _no_bars():
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **safe, **where)
    _check_structure(model, base)
    return BaseModel(model.eval(), tokenizer, _digest(base, path))


def _source(path: Path) -> tuple[str, dict[str, Any]]:
    """Return the folder and the arguments with which transformers reads from the disk only and runs no code of it."""
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.suffix == GGUF:
        return str(path.parent), where | {"gguf_file": path.name}
    return str(path), where


@contextmanager
def _no_bars() -> Iterator[None]:
    """Hide the progress bars of transformers, two for one model; that of GGUF files has no setting of its own."""
    from functools import partial

    from tqdm.auto import tqdm
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    gguf_reader: Any = modeling_gguf_pytorch_utils

    shown = getattr(gguf_reader, "tqdm", None)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if shown is not None:
        gguf_reader.tqdm = partial(tqdm, disable=True)
    try:
        yield
    finally:
        if shown is not None:
            gguf_reader.tqdm = shown


@contextmanager
def _reading(base: str) -> Iterator[None]:
    """Turn what transformers raises on files that it cannot read into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError, struct.error) as error:
        raise WeightsError(f"model.base={base}: transformers cannot load this model ({one_line(error)})") from error


def _check_structure(model: Any, base: str) -> None:
    """Raise unless the model is a stack of equal blocks, which can be cut into a lower and an upper part."""
    decoder = getattr(model, "model", None)
    kinds = set(getattr(model.config, "layer_types", None) or [])
    if not all(hasattr(decoder, part) for part in DECODER_PARTS) or len(kinds) > 1:
        raise ConfigError(
            f"model.base={base}: {type(model).__name__} is not a stack of equal blocks; choose a model with the "
            "structure of Llama, SmolLM2, Qwen2 or Mistral"
        )


def _digest(base: str, path: Path) -> str:
    if base in weights.TABLE:
        return weights.TABLE[base].sha256
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), path / "config.json"])
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
