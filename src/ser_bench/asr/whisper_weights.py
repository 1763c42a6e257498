"""Location and digest of Whisper's weights in CTranslate2's format, for the recogniser and for the encoder."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from ser_bench import weights
from ser_bench.errors import ConfigError

MODEL_FILE = "model.bin"


def is_folder(model: str) -> bool:
    """Return whether `model` is a folder with weights rather than a name."""
    return (Path(model) / MODEL_FILE).is_file()


def home(model: str, key: str = "asr.model") -> Path:
    """Return the folder of the weights: `model` itself, or the one of the table of weights, downloaded if needed.

    Args:
        model: "tiny.en", "base", or a folder.
        key: configuration key of the model, for error messages.

    Raises:
        ConfigError: if `model` is neither a name in the table nor a folder.
        WeightsError: if the weights are not available.
    """
    return Path(model) if is_folder(model) else weights.fetch(_table_name(model, key))


@lru_cache(maxsize=4)
def sha256(model: str, key: str = "asr.model") -> str:
    """Return the hexadecimal sha256 of the weights, from the table or computed from the file.

    Raises:
        ConfigError: as in `home`.
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
