"""Modules import only from earlier steps of the chain; only tracking imports mlflow; modules stay small."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "ser_bench"
ORDER = [
    *(
        "types",
        "errors",
        "choices",
        "schema_llm",
        "schema_heads",
        "schema_ssl",
        "schema",
        "schema_networks",
        "config",
        "cache",
        "predictions",
        "speaker_lists",
        "audio",
        "weights",
        "corpora",
    ),
    *(
        "splits",
        "augment",
        "asr",
        "features",
        "llm",
        "models",
        "evaluation",
        "tracking",
        "audit",
        "series",
        "members",
        "compare",
        "report",
        "pipeline",
    ),
    *("sweep", "doctor", "cli"),
]
EARLY_BY_PURPOSE = {("config", "errors"), ("features", "llm"), ("types", "errors")}
"""features/text.py asks an embedding service through the one client, inside the function that needs it."""

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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_modules_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 300, f"{path.name} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = (node.end_lineno or 0) - body[0].lineno + 1
            assert lines <= 40, f"{path.name}: {node.name} has {lines} lines"
