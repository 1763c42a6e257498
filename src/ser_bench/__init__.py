"""ser_bench: compare predictors of emotion in speech, honestly and side by side.

The names below are the Python interface (`api.py`). They are imported when they are first used, so that
`import ser_bench` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ser_bench.api import (
        ComparisonResult,
        LoadedPredictor,
        compare,
        load_corpus,
        load_predictor,
        load_run,
        load_runs,
        run,
        runs_table,
    )
    from ser_bench.errors import SerBenchError

__all__ = [
    "ComparisonResult",
    "LoadedPredictor",
    "SerBenchError",
    "__version__",
    "compare",
    "load_corpus",
    "load_predictor",
    "load_run",
    "load_runs",
    "run",
    "runs_table",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ser_bench' has no attribute {name!r}")
    return getattr(import_module("ser_bench.errors" if name == "SerBenchError" else "ser_bench.api"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
