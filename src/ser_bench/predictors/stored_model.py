"""Reading the folder of a stored predictor: one error text for whatever cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_bench.errors import SerBenchError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of unreadable or incomplete files into one that names the folder and what to do.

    Raises:
        SerBenchError: a file is missing, damaged, or lacks an entry.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SerBenchError(f"{path}: no readable stored model ({error}); train it again with force=true") from error


def read_description(path: Path, format_version: int) -> dict[str, Any]:
    """Return the JSON description of a stored predictor.

    Raises:
        SerBenchError: it cannot be read, or was written in another format.
    """
    with reading(path.parent):
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if description.get("format") != format_version:
        raise SerBenchError(
            f"{path.parent}: stored in format {description.get('format')}, but this version reads {format_version}"
        )
    return description


def check_description(
    description: Mapping[str, Any], folder: Path, predictor: str, labels: tuple[str, ...]
) -> None:
    """Raise where the description is that of another predictor or of other labels.

    Raises:
        SerBenchError: the message names both.
    """
    stored = tuple(description.get("labels", ()))
    if description.get("predictor") != predictor or stored != labels:
        raise SerBenchError(
            f"{folder}: holds {description.get('predictor')} for {', '.join(stored)}, not {predictor} for "
            f"{', '.join(labels)}; choose the run that was trained on these labels"
        )
