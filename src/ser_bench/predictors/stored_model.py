"""Reading the folder of a stored predictor: one error text for whatever cannot be read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_bench.errors import SerBenchError, one_line

DAMAGE = (OSError, EOFError, ValueError, LookupError, RuntimeError, TypeError, AttributeError)
"""What readers raise on damaged files: also on JSON of another type than expected, and on arrays of other shapes."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the errors of unreadable or incomplete files into one that names the path and what to do.

    Raises:
        SerBenchError: a file is missing, damaged, or lacks an entry.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, *DAMAGE) as error:
        reason = one_line(error)
        raise SerBenchError(f"{path}: no readable stored model ({reason}); train it again with force=true") from error


def read_description(path: Path, format_version: int) -> dict[str, Any]:
    """Return the JSON description of a stored predictor.

    Raises:
        SerBenchError: it cannot be read, or was written in another format.
    """
    with reading(path.parent):
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        stored_format = description.get("format")
    if stored_format != format_version:
        raise SerBenchError(f"{path.parent}: stored in format {stored_format}, but this version reads {format_version}")
    return description


def check_description(description: Mapping[str, Any], folder: Path, predictor: str, labels: tuple[str, ...]) -> None:
    """Raise where the description is that of another predictor or of other labels.

    Raises:
        SerBenchError: the message names both.
    """
    with reading(folder):
        stored = tuple(description.get("labels", ()))
    if description.get("predictor") != predictor or stored != labels:
        raise SerBenchError(
            f"{folder}: holds {description.get('predictor')} for {', '.join(stored)}, not {predictor} for "
            f"{', '.join(labels)}; choose the run that was trained on these labels"
        )
