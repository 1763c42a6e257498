"""The MLflow store: SQLite in `tracking.dir`, or any tracking server; opened and checked before a run starts."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

from filelock import FileLock, Timeout

from ser_bench.config import INSTALLED, PROJECT_ROOT, TrackingConfig
from ser_bench.errors import TrackingError
from ser_bench.redaction import without_credentials
from ser_bench.tracking import moved_store
from ser_bench.tracking.database_errors import PatientClient, meaning

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow reads these when it is imported, so it is imported in functions only.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

# MLflow logs every error of its database with a traceback, in addition to raising it. Here it becomes one line.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

SQLITE = "sqlite:///"
DATABASE = "mlflow.db"
"""File of a local store, in `tracking.dir`."""
NOT_IN_SQLITE_PATHS = re.compile(r"\?|%[0-9A-Fa-f]{2}")
"""What SQLAlchemy reads as something else in a URI: with it, the database would be created in another folder."""
UI_ADDRESS = "http://127.0.0.1:5000"
"""Address of `make ui`."""
RESULTS_VIEW = {
    "searchFilter": "tags.kind = 'run'",
    # Sorted by protocol, because figures of different protocols are not comparable. Runs in a sorted list are not
    # folded into their sweeps.
    "orderByKey": "tags.`protocol`",
    "orderByAsc": True,
    "selectedColumns": [
        *(f"metrics.`test/{name}`" for name in ("uar", "accuracy", "macro_f1", "log_loss")),
        *(f"tags.`{name}`" for name in ("protocol", "fold", "size")),
    ],
}
EXPERIMENT_TAGS = {
    # Without this tag MLflow shows every experiment in its view for chat applications.
    "mlflow.experimentKind": "custom_model_development",
    # A saved view of the list of runs with columns of metrics; see `results_page`.
    "mlflow.sharedViewState.results": json.dumps(RESULTS_VIEW),
}
MIGRATION_TIMEOUT_S = 300.0
"""Time to wait for another process to create the schema of a new store, which takes about ten seconds."""


def tracking_dir(cfg: TrackingConfig) -> Path:
    """Return the absolute folder of the local store, the artifacts, and the files of unfinished runs."""
    return Path(cfg.dir).expanduser().absolute()


def store_name(cfg: TrackingConfig) -> str:
    """Return the folder of a local store, or the address of another one without its password."""
    return str(tracking_dir(cfg)) if cfg.uri is None else without_credentials(cfg.uri)


def tracking_uri(cfg: TrackingConfig) -> str:
    """Return the absolute URI of the store.

    A relative SQLite path is resolved here, against the working directory of this process. MLflow would resolve it
    against the working directory of each process that uses it.

    Raises:
        TrackingError: the URI names MLflow's retired file store, or SQLite cannot be given this path.
    """
    if cfg.uri is None:
        if NOT_IN_SQLITE_PATHS.search(str(tracking_dir(cfg))):
            raise TrackingError(
                f"{tracking_dir(cfg)}: a path with ? or with % and two digits has another meaning in the address of a "
                "database; choose another folder with tracking.dir=..."
            )
        return f"{SQLITE}{tracking_dir(cfg) / DATABASE}"
    if cfg.uri.startswith(SQLITE):
        return f"{SQLITE}{Path(cfg.uri.removeprefix(SQLITE)).expanduser().absolute()}"
    if cfg.uri.startswith("file:") or "://" not in cfg.uri:
        raise TrackingError(
            f"tracking.uri={cfg.uri}: MLflow retired its file store; use SQLite (tracking.uri=null "
            "tracking.dir=FOLDER) or a server (tracking.uri=http://127.0.0.1:5000)"
        )
    return cfg.uri


def client(cfg: TrackingConfig) -> MlflowClient:
    """Return a client of the store; it does not connect yet.

    Raises:
        TrackingError: the database of a local store is locked, damaged, or cannot be opened.
    """
    from mlflow import MlflowClient

    uri = tracking_uri(cfg)
    if uri.startswith(SQLITE):
        moved_store.correct_locations(Path(uri.removeprefix(SQLITE)), tracking_dir(cfg))
        return cast("MlflowClient", PatientClient(MlflowClient(tracking_uri=uri)))
    return MlflowClient(tracking_uri=uri)


def open_store(cfg: TrackingConfig) -> str:
    """Prepare the store and return its URI. Call this before anything that takes long.

    A new SQLite store gets its schema here. A lock makes parallel processes wait, because they would all fail if they
    created the schema at the same time. A server is sent one request.

    Raises:
        TrackingError: the folder cannot be written, the store is damaged or was written by another version of MLflow,
            or the server does not answer within `cfg.timeout_s`.
    """
    uri = tracking_uri(cfg)
    folder = tracking_dir(cfg)
    _check_writable(folder)
    if uri.startswith(SQLITE):
        _check_writable(Path(uri.removeprefix(SQLITE)).parent)
        try:
            with FileLock(folder / ".migration.lock", timeout=MIGRATION_TIMEOUT_S), errors(cfg):
                client(cfg).search_experiments(max_results=1)
        except Timeout as timeout:
            raise TrackingError(
                f"{uri}: another process has been creating this store for {MIGRATION_TIMEOUT_S:.0f} s; "
                f"end it, or remove {folder / '.migration.lock'}"
            ) from timeout
    else:
        with _short_timeout(cfg.timeout_s), errors(cfg):
            client(cfg).search_experiments(max_results=1)
    return uri


def experiment_id(cfg: TrackingConfig, name: str) -> str:
    """Return the id of an experiment, which is created if it does not exist.

    The artifacts of a SQLite store are written to an absolute folder, because MLflow's default is the working
    directory. A server chooses the location itself.

    Raises:
        TrackingError: the experiment was deleted, or the store cannot be written.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client(cfg)
    local = tracking_uri(cfg).startswith(SQLITE)
    location = (tracking_dir(cfg) / moved_store.ARTIFACTS).as_uri() if local else None
    with errors(cfg):
        found = mlflow.get_experiment_by_name(name)
        if found is None:
            try:
                return str(mlflow.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException:
                found = mlflow.get_experiment_by_name(name)  # a parallel run has created it
                if found is None:
                    raise
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"the MLflow experiment {name!r} was deleted; restore it with "
            f"`MLFLOW_TRACKING_URI={shlex.quote(without_credentials(tracking_uri(cfg)))} "
            f"mlflow experiments restore -x {found.experiment_id}`, or choose another: tracking.experiment=..."
        )
    return str(found.experiment_id)


def results_page(cfg: TrackingConfig) -> str:
    """Return the address of the list of runs with their metrics: on the server, or of `make ui` for a local store."""
    base = UI_ADDRESS if tracking_uri(cfg).startswith(SQLITE) else without_credentials(tracking_uri(cfg)).rstrip("/")
    experiment = experiment_id(cfg, cfg.experiment)
    return f"{base}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=results"


def how_to_browse(cfg: TrackingConfig) -> str:
    """Return the command that shows a local store, if there is one, and the address of the list of runs."""
    uri, page = tracking_uri(cfg), results_page(cfg)
    if not uri.startswith(SQLITE):
        return page
    database = Path(uri.removeprefix(SQLITE))
    if database == PROJECT_ROOT / "mlruns" / DATABASE and not INSTALLED:
        return f"make ui, then {page}"
    if database.name == DATABASE and not INSTALLED:
        return f"{shlex.join(['make', 'ui', f'RUNS={database.parent}'])}, then {page}"
    return f"{shlex.join(['mlflow', 'ui', '--backend-store-uri', uri])}, then {page}"


@contextlib.contextmanager
def errors(cfg: TrackingConfig) -> Iterator[None]:
    """Convert errors of the store to a `TrackingError` of one line that names the store."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError  # MLflow does not convert the errors of a damaged database

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        where = without_credentials(tracking_uri(cfg))
        raise TrackingError(f"{where}: {_explain(error, where)}") from error


def _explain(error: Exception, where: str) -> str:
    known = meaning(str(error))
    if known is not None:
        return known
    lines = [line.strip() for line in without_credentials(str(error)).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if "out-of-date database schema" in text:
        upgrade = f"mlflow db upgrade {shlex.quote(where)}"
        return f"the store was written by another version of MLflow; back it up, then `{upgrade}`"
    if "Max retries" in text or "API request to" in text or "timed out" in text:
        return "the tracking server does not answer; start it, or log to SQLite with tracking.uri=null"
    if "error code 401" in text or "error code 403" in text:
        return (
            "the tracking server denies access; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or a token"
        )
    return f"{text[:300]} (choose another store with tracking.dir=FOLDER or tracking.uri=...)"


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrackingError(
            f"{folder}: cannot write here ({error.strerror}); choose another folder with tracking.dir=..."
        ) from error


@contextlib.contextmanager
def _short_timeout(timeout_s: float) -> Iterator[None]:
    """Make MLflow send each request once, with this timeout; its default is seven retries of two minutes.

    MLflow reads both settings from environment variables only. They are restored afterwards, because during a run
    retries are wanted.
    """
    settings = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, round(timeout_s))),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    urllib3 = logging.getLogger("urllib3.connectionpool")
    level = urllib3.level
    urllib3.setLevel(logging.ERROR)
    os.environ.update(settings)
    try:
        yield
    finally:
        urllib3.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
