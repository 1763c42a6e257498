"""Modules import only from earlier steps of the chain, only `tracking` imports mlflow, and names are unique."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "ser_bench"
ORDER = [
    *(
        "errors",
        "types",
        "redaction",
        "retry_after",
        "config",
        "openai_client",
        "cache",
        "predictions",
        "audio",
        "weights",
        "corpora",
        "speaker_lists",
    ),
    *("splits", "asr", "augment", "features", "training", "llm", "predictors", "models", "evaluation"),
    *("tracking", "audit", "series", "compare", "comparison", "report", "members", "stored_predictors", "pipeline"),
    *("sweep", "launcher", "doctor", "cli"),
]
EARLY_BY_PURPOSE = {("config", "predictors")}
"""config/compose.py asks the registry for the dataclasses of the group `model`, inside a function."""

FILES = sorted(SRC.rglob("*.py"))


def step_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_backwards(path: Path) -> None:
    step = step_of(path)
    if step == "__init__":
        return
    assert step in ORDER, f"{step} has no place in the chain: add it to ORDER"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ser_bench" or len(parts) < 2 or parts[1] not in ORDER or parts[1] == step:
            continue
        allowed = ORDER.index(parts[1]) < ORDER.index(step) or (step, parts[1]) in EARLY_BY_PURPOSE
        assert allowed, f"{path.name} ({step}) imports {name}, a later step"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_only_tracking_imports_mlflow(path: Path) -> None:
    if step_of(path) != "tracking":
        assert not [name for name in imports(path) if name.split(".")[0] == "mlflow"]
