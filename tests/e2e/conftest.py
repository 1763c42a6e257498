"""Whole runs: a store that several tests share, and a cold one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.bench import Bench


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of features and transcripts for all whole runs of all workers; weights come from the user's own."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Bench:
    """A store that the tests of this folder share."""
    return Bench(tmp_path_factory.mktemp("bench"), cache)


@pytest.fixture
def fresh(tmp_path: Path, cache: Path) -> Bench:
    """A cold store, for one test."""
    return Bench(tmp_path, cache)


@pytest.fixture(scope="session")
def sweep(bench: Bench) -> tuple[Bench, str]:
    """The demo, all three predictors; run once and looked at by several tests."""
    return bench, bench.run("-m", "model=cnn,cnn_text,llm", "trainer.max_epochs=6")
