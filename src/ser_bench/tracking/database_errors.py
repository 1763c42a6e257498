"""Errors of a SQLite database: what they mean in one line, and calls that wait while another process has locked it."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

log = logging.getLogger(__name__)

LOCK_WAIT_S = 180.0
"""Time to wait for another process that has locked the database. MLflow itself gives up after 20 seconds."""
PAUSE_S = 0.5
"""Longest pause between two attempts; SQLite waits too, except where two processes would wait for each other."""
LOCKED = ("database is locked", "database table is locked", "database schema is locked")
CONTINUES = "the same command then continues the run"
MEANING = {
    **dict.fromkeys(LOCKED, f"another process has locked the database; end it or wait for it: {CONTINUES}"),
    "database or disk is full": f"the disk is full; free some space: {CONTINUES}",
    "disk I/O error": f"the disk reports an error, often because it is full; free some space: {CONTINUES}",
    "readonly database": "the database is read-only; change the permissions of its file and folder, or choose another "
    "store with tracking.dir=FOLDER",
    "unable to open database file": "the database cannot be opened; check the permissions of its file and folder, or "
    "choose another store with tracking.dir=FOLDER",
    "file is not a database": "the file is not a database; restore it from a copy, or choose another store with "
    "tracking.dir=FOLDER",
    "database disk image is malformed": "the database is damaged; restore it from a copy, or choose another store with "
    "tracking.dir=FOLDER",
    "No space left on device": f"the disk is full; free some space: {CONTINUES}",
}
"""Words of SQLite or of the operating system → what they mean and what to do."""


def meaning(text: str) -> str | None:
    """Return what an error of the store means and what to do; None if its text has none of the known words."""
    return next((explained for words, explained in MEANING.items() if words in text), None)


def is_locked(error: Exception) -> bool:
    """Return whether another process has locked the database."""
    return any(words in str(error) for words in LOCKED)


class PatientClient:
    """MLflow's client, whose calls are repeated while another process has locked the database.

    A call that failed for this reason has changed nothing, because MLflow rolls its transaction back.

    Args:
        client: MLflow's client.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        return _repeated(attribute) if callable(attribute) else attribute


def _repeated(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def repeated(*arguments: Any, **named: Any) -> Any:
        end = time.monotonic() + LOCK_WAIT_S
        told = False
        while True:
            try:
                return call(*arguments, **named)
            except Exception as error:  # MlflowException or SQLAlchemyError
                if not is_locked(error) or time.monotonic() > end:
                    raise
            if not told:
                log.warning("note     another process has locked the store; waiting up to %.0f s", LOCK_WAIT_S)
                told = True
            time.sleep(random.uniform(0.1, 1.0) * PAUSE_S)

    return repeated
