"""New SQLite stores of MLflow as copies of one whose schema exists, because MLflow takes two seconds for each schema.

Programs that tests start from scratch create the schema themselves, as those of
`test_two_processes_may_open_a_cold_store_at_once`.
"""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from filelock import FileLock

FOLDER_VARIABLE = "SER_BENCH_TEST_TEMPLATES"
"""Name of the variable with the folder of the template, which all workers of a session share."""
MODULE = "mlflow.store.db.utils"


class _Finder(MetaPathFinder):
    """Changes MLflow's module when it is imported; most tests never import it."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        execute = spec.loader.exec_module

        def execute_and_change(module: ModuleType) -> None:
            execute(module)
            module._initialize_tables = _copying(module._initialize_tables)  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Let MLflow copy the template in this process whenever it would create the schema of an empty SQLite file."""
    assert MODULE not in sys.modules, "install the template before MLflow is imported"
    sys.meta_path.insert(0, _Finder())


def _copying(create: Callable[[Any], None]) -> Callable[[Any], None]:
    def copy_or_create(engine: Any) -> None:
        path = engine.url.database if engine.dialect.name == "sqlite" else None
        if FOLDER_VARIABLE not in os.environ or not path or not Path(path).is_file() or Path(path).stat().st_size:
            return create(engine)
        engine.dispose()
        with closing(sqlite3.connect(_template(create))) as source, closing(sqlite3.connect(path)) as target:
            source.backup(target)

    return copy_or_create


def _template(create: Callable[[Any], None]) -> Path:
    """Return the path of a database with MLflow's schema and no rows, which the first caller creates."""
    import sqlalchemy

    path = Path(os.environ[FOLDER_VARIABLE]) / "mlflow.db"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            new = path.with_suffix(".new")
            engine = sqlalchemy.create_engine(f"sqlite:///{new}")
            create(engine)
            engine.dispose()
            new.rename(path)
    return path
