"""Fixtures that every test may use: no network, a cache of its own, the real corpora where they are."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig

from ser_bench.features import numba_cache
from tests.support import store_template

ROOT = Path(__file__).resolve().parents[1]
CORPORA = ROOT.parent / "shared" / "corpora"

# Some containers set this. Every process of a test would then compile all modules again, which takes ten seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# A test runner that was started in the background ignores Ctrl-C, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Each parallel worker, and the runs that it starts, keeps to its share of the cores.

    Two runs whose threads wait for each other on the same cores take far longer than twice as long.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        numba_cache.fill()  # before the workers start
        os.environ[store_template.FOLDER_VARIABLE] = tempfile.mkdtemp(prefix="ser_bench_templates_")
    store_template.install()
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if worker and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        own = cores[int(worker.removeprefix("gw")) % workers :: workers]
        os.sched_setaffinity(0, own or cores)


ALLOWED = {"mlruns", "outputs", "multirun", "build", "dist", "site", "__pycache__"}
"""Names of files and folders that tests may create in the project's folder, beside hidden ones."""


def created_files(before: set[str]) -> list[str]:
    """Return the names that were added to the project's folder since `before`."""
    new = {path.name for path in ROOT.iterdir()} - before - ALLOWED
    return sorted(name for name in new if not name.startswith(".") and not name.endswith(".egg-info"))


def pytest_sessionstart(session: pytest.Session) -> None:
    """Note what the project's folder holds."""
    session.config.stash[BEFORE] = {path.name for path in ROOT.iterdir()}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail where a test has written into the project's folder, for instance a database of MLflow's default store."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ[store_template.FOLDER_VARIABLE], ignore_errors=True)
    new = created_files(session.config.stash[BEFORE])
    if new:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        print(f"\nERROR: tests created {', '.join(new)} in {ROOT}; they may only write to temporary folders")


BEFORE = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def corpora_root() -> Path:
    """Folder of the real corpora beside the checkout."""
    if not CORPORA.is_dir():
        pytest.skip(f"real corpora are not at {CORPORA}: this test needs recorded speech")
    return CORPORA


@pytest.fixture(autouse=True)
def own_hydra_state() -> Iterator[None]:
    """Forget the configuration of a run that a test started in this process; messages of later tests would quote it."""
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before
