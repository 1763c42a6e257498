"""A database that is locked, full, read-only or damaged: waiting, and messages of one line."""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ser_bench import tracking
from ser_bench.config import TrackingConfig
from ser_bench.errors import TrackingError
from ser_bench.tracking import database_errors, mlflow_store

AUTOFLUSH = "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> TrackingConfig:
    cfg = TrackingConfig(dir=str(tmp_path_factory.mktemp("store") / "mlruns"), experiment="x")
    tracking.open_store(cfg)
    tracking.start_parent(cfg, "x", "a run", {})
    return cfg


@pytest.fixture
def impatient_mlflow() -> Iterator[None]:
    """SQLite gives up after 10 ms instead of MLflow's 20 s."""

    def shorten(_connection, _cursor, statement, parameters, _context, _many):  # type: ignore[no-untyped-def]
        return re.sub(r"busy_timeout = \d+", "busy_timeout = 10", statement), parameters

    event.listen(Engine, "before_cursor_execute", shorten, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorten)


def lock(cfg: TrackingConfig) -> sqlite3.Connection:
    connection = sqlite3.connect(Path(cfg.dir) / "mlflow.db", check_same_thread=False)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


def test_a_locked_database_is_waited_for(
    cfg: TrackingConfig, impatient_mlflow: None, caplog: pytest.LogCaptureFixture
) -> None:
    connection = lock(cfg)
    timer = threading.Timer(1.0, connection.rollback)
    timer.start()
    started = time.monotonic()
    run_id = tracking.start_parent(cfg, "x", "another run", {})
    assert time.monotonic() - started > 0.8
    timer.join()
    assert tracking.load_run(cfg, run_id).name == "another run"
    assert len([record for record in caplog.records if "locked the store; waiting" in record.getMessage()]) <= 2
    assert all(record.exc_info is None for record in caplog.records), "MLflow's tracebacks are not shown"


def test_a_database_that_stays_locked_is_told_in_one_line(
    cfg: TrackingConfig, impatient_mlflow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_errors, "LOCK_WAIT_S", 0.3)
    connection = lock(cfg)
    try:
        with pytest.raises(
            TrackingError, match=r"mlflow\.db: another process has locked the database; end it"
        ) as caught:
            tracking.start_parent(cfg, "x", "another run", {})
    finally:
        connection.rollback()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [
    (f"{AUTOFLUSH}\n(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT]", "the disk is full; free some"),
    ("(sqlite3.OperationalError) disk I/O error", "often because it is full"),
    ("(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: UPDATE]", "is read-only; change the perm"),
    ("(sqlite3.DatabaseError) database disk image is malformed", "is damaged; restore it from a copy"),
    ("[Errno 28] No space left on device: '/x/report.txt'", "the disk is full; free some"),
])  # fmt: skip
def test_errors_of_the_store_say_what_they_mean(cfg: TrackingConfig, text: str, message: str) -> None:
    with pytest.raises(TrackingError, match=message) as caught, mlflow_store.errors(cfg):
        raise MlflowException(text)
    assert "\n" not in str(caught.value) and "autoflush" not in str(caught.value)


def test_a_database_that_cannot_be_opened_is_told_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow.db").mkdir()
    started = time.monotonic()
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(TrackingError, match="cannot be opened; check the permissions"),
    ):
        tracking.open_store(TrackingConfig(dir=str(tmp_path), experiment="x"))
    assert time.monotonic() - started < 5 and not caplog.records, "MLflow would try again for 100 s"
