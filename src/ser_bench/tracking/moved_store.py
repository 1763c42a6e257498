"""A local store whose folder was moved or copied: its database names the old folder of the artifacts, and is corrected.

MLflow records absolute locations: of each experiment (where new runs write), run, model, version of a registered model
and trace. Without a correction a run of a moved store would create the old folder again, and its artifacts would lie
apart from the database.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlparse

from ser_bench.errors import TrackingError, one_line
from ser_bench.tracking.database_errors import LOCK_WAIT_S, meaning

log = logging.getLogger(__name__)

ARTIFACTS = "artifacts"
"""Subfolder of `tracking.dir` that holds the artifacts of a local store, and of each run's folder in it."""
RECORDS = (
    ("runs", "run_uuid", "artifact_uri"),
    ("logged_models", "model_id", "artifact_location"),
    ("model_versions", "rowid", "source"),
    ("model_versions", "rowid", "storage_location"),
    ("trace_tags", "rowid", "value"),
)
"""Tables that hold locations below that of an experiment: table, column of the id, column of the location."""

_checked: set[tuple[Path, Path]] = set()


def local_path(location: str) -> Path | None:
    """Return the path of a local location, or None if it is on a server.

    >>> local_path("file:///data/my%20runs/artifacts"), local_path("s3://bucket/artifacts")
    (PosixPath('/data/my runs/artifacts'), None)
    """
    uri = urlparse(location)
    return Path(unquote(uri.path)) if uri.scheme in ("", "file") else None


def artifacts_of(folder: Path, run_id: str) -> Path:
    """Return the folder of a run's artifacts in the local store in `folder`."""
    return folder / ARTIFACTS / run_id / ARTIFACTS


def correct_locations(database: Path, folder: Path) -> None:
    """Correct the locations of artifacts in a SQLite database, once in the life of a process.

    An experiment is corrected if its recorded folder does not exist, or if artifacts of its runs are below `folder`,
    because they were copied with the database. New runs then write below `folder`. The records of existing runs are
    changed only where their files are below `folder`. Locations that another program has chosen are left as they are.

    Args:
        database: file of the database; nothing happens if it does not exist yet.
        folder: `tracking.dir`.

    Raises:
        TrackingError: the database is locked by another process, damaged, or cannot be opened.
    """
    if (database, folder) in _checked or not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=LOCK_WAIT_S)) as connection, connection:
            _correct(connection, folder / ARTIFACTS)
    except sqlite3.Error as error:
        text = str(error)
        if "readonly" not in text and "no such table" not in text:  # these can be read, or get their tables later
            raise TrackingError(f"{database}: {meaning(text) or one_line(error)}") from error
    _checked.add((database, folder))


def _correct(connection: sqlite3.Connection, here: Path) -> None:
    for experiment, location in connection.execute("SELECT experiment_id, artifact_location FROM experiments"):
        old = local_path(location or "")
        if old is None or old.name != ARTIFACTS or old.resolve() == here.resolve():
            continue
        runs = connection.execute("SELECT run_uuid FROM runs WHERE experiment_id = ?", (experiment,)).fetchall()
        if old.exists() and not any((here / run_id).exists() for (run_id,) in runs):
            continue
        log.warning("note     this store was moved or copied: artifacts were in %s and are now in %s", old, here)
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here.as_uri(), experiment)
        )
        for table, key, column in RECORDS:
            _correct_table(connection, table, key, column, location, here)


def _correct_table(
    connection: sqlite3.Connection, table: str, key: str, column: str, location: str, here: Path
) -> None:
    """Replace the location at the beginning of a column, in the rows whose files are below `here`."""
    query = f"SELECT {key}, {column} FROM {table} WHERE substr({column}, 1, ?) = ?"
    prefix = location.rstrip("/") + "/"
    for identifier, recorded in connection.execute(query, (len(prefix), prefix)).fetchall():
        below = recorded[len(prefix) :]
        if (here / unquote(below)).exists():
            new = f"{here.as_uri()}/{below}"
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (new, identifier))
