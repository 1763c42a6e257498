"""The structure of the code: direction of imports, unique names, and who may import what."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "ser_bench"
ORDER = [
    *("errors", "extras", "types", "durations", "redaction", "proxies", "retry_after", "response_limit"),
    *("closed_pipes", "file_access"),
    *("config", "openai_client", "cache"),
    *("predictions", "audio_containers", "audio", "weights", "corpora", "splits", "asr", "features", "evaluation"),
    *("training", "predictors", "tracking", "audit", "comparison", "stored_predictors"),
    *("inference", "export", "new_audio", "pipeline"),
    *("launcher", "hydra_program", "api", "serving", "webpage", "cli"),
]
"""The steps of the chain; a module imports only from its own step and from earlier ones."""
AGAINST_THE_ORDER = {("config", "predictors"), ("tracking", "inference")}
"""config/compose.py asks the registry for the dataclasses of the group `model`, inside a function. MLflow runs
tracking/audio_model_script.py, which nothing imports, when it loads a model; its `load_context` loads the predictor."""

FILES = sorted(SRC.rglob("*.py"))


def step_of(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_imports_point_to_earlier_steps(path: Path) -> None:
    step = step_of(path)
    if step == "__init__":
        return
    assert step in ORDER, f"{step} is not a step of the chain: add it to ORDER"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "ser_bench" or len(parts) < 2 or parts[1] not in ORDER or parts[1] == step:
            continue
        allowed = ORDER.index(parts[1]) < ORDER.index(step) or (step, parts[1]) in AGAINST_THE_ORDER
        assert allowed, f"{path.name} ({step}) imports {name}, a later step"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_only_tracking_imports_mlflow(path: Path) -> None:
    if step_of(path) != "tracking":
        assert not [name for name in imports(path) if name.split(".")[0] == "mlflow"]


def test_no_two_modules_and_no_two_classes_share_a_name() -> None:
    modules, classes = defaultdict(list), defaultdict(list)
    for path in FILES:
        where = str(path.relative_to(SRC))
        if path.stem not in ("__init__", "__main__"):
            modules[path.stem].append(where)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(where)
    assert not {name: places for name, places in modules.items() if len(places) > 1}
    assert not {name: places for name, places in classes.items() if len(places) > 1}


def test_predictor_packages_import_no_large_library() -> None:
    """Every command imports all predictor packages to know their configuration keys."""
    large = {"torch", "pytorch_lightning", "sklearn", "transformers", "librosa", "openai", "mlflow", "scipy"}
    for package in (SRC / "predictors").iterdir():
        if not (package / "__init__.py").exists():
            continue
        todo, seen = [f"ser_bench.predictors.{package.name}"], set()
        while todo:
            name = todo.pop()
            path = SRC.parent / Path(*name.split("."))
            file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            if name in seen or not file.exists() or not name.startswith("ser_bench"):
                continue
            seen.add(name)
            for other in imported_at_the_top(file):
                assert other.split(".")[0] not in large, f"{file.relative_to(SRC)} imports {other} at the top"
                todo.append(other)


def imported_at_the_top(path: Path) -> set[str]:
    """Modules that importing this file imports, TYPE_CHECKING blocks left out."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_tests_share_code_only_through_support() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.name == "make_stored_runs.py":  # it runs with the code of an earlier commit
            continue
        shared = [n for n in imports(path) if re.match(r"tests\.(unit|contract|e2e)\b", n)]
        assert not shared, f"{path.relative_to(ROOT)} imports {shared}; move it to tests/support"
