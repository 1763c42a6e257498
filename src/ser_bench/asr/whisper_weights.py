"""Where Whisper's weights in CTranslate2's format lie, for the recogniser and for whoever listens to its encoder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from ser_bench import weights
from ser_bench.errors import ConfigError

MODEL_FILE = "model.bin"


def is_folder(model: str) -> bool:
    """Whether `model` is a folder with weights rather than a name."""
    return (Path(model) / MODEL_FILE).is_file()


def home(model: str, key: str = "asr.model") -> Path:
    """Folder of the weights: `model` itself, or the line of the table that it stands for, fetched where needed.

    Args:
        model: "tiny.en", "base", or a folder.
        key: configuration key that holds it, for the message.

    Raises:
        ConfigError: neither a name of the table nor a folder.
        WeightsError: they cannot be had.
    """
    return Path(model) if is_folder(model) else weights.fetch(_table_name(model, key))


@lru_cache(maxsize=4)
def sha256(model: str, key: str = "asr.model") -> str:
    """Hexadecimal sha256 of the weights, from the table or of the file.

    Raises:
        ConfigError: as `home`.
    """
    if not is_folder(model):
        return weights.TABLE[_table_name(model, key)].sha256
    with (Path(model) / MODEL_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _table_name(model: str, key: str) -> str:
    name = f"whisper-{model}"
    if name not in weights.TABLE:
        known = ", ".join(n.removeprefix("whisper-") for n in weights.TABLE if n.startswith("whisper-"))
        raise ConfigError(
            f"{key}={model!r} is neither one of {known} nor a folder with a CTranslate2 model.bin; convert others "
            "with ct2-transformers-converter"
        )
    return name
