"""Write tags, metrics and artifacts to a run: texts are redacted and figures are rounded here only."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ser_bench.config import TrackingConfig
from ser_bench.file_access import access_errors
from ser_bench.redaction import redact, redact_files, redact_yaml
from ser_bench.tracking.mlflow_store import client, errors

if TYPE_CHECKING:
    from mlflow.entities import Metric

NOTE_TAG = "mlflow.note.content"
"""Tag that MLflow shows as the description at the top of a run's page."""
NOTE_CHARACTERS = 8_000
"""MLflow's limit for the value of a tag; it cuts longer ones without regard to lines."""
CUT_NOTICE = "\n… the rest is in the artifacts of this run.\n"
METRICS_PER_BATCH = 1000
"""MLflow's limit."""
NOT_IN_METRIC_NAMES = re.compile(r"[^\w.\- :/]")
"""Characters that MLflow rejects in the name of a metric; the labels of a user's own corpus may contain them."""
MEASURED = ("time/", "memory/")
"""Beginnings of the names of metrics that are measured and differ each time."""
SMALL = 1e-2
"""Values below this are rounded to significant digits instead of decimals."""


def log_tags(cfg: TrackingConfig, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags, redacted.

    Raises:
        TrackingError: the store cannot be written.
    """
    from mlflow.entities import RunTag

    with errors(cfg):
        client(cfg).log_batch(run_id, tags=[RunTag(name, redact(value)) for name, value in tags.items()])


def log_metrics(cfg: TrackingConfig, run_id: str, values: Mapping[str, float]) -> None:
    """Log metrics that have one value per run, rounded as `rounded` says.

    MLflow keeps every value that is logged. A run that was killed and is resumed, or is audited again, therefore logs
    only values that differ from its last ones, and no second measurement of time or memory: the first is that of the
    process that did the work.

    Raises:
        TrackingError: the store cannot be written.
    """
    from mlflow.entities import Metric

    with errors(cfg):
        logged = client(cfg).get_run(run_id).data.metrics
    now_ms = time.time_ns() // 1_000_000
    new = {name: value for name, value in storable(values).items() if not _is_logged(name, value, logged)}
    send_metrics(cfg, run_id, [Metric(name, value, now_ms, 0) for name, value in new.items()])


def _is_logged(name: str, value: float, logged: Mapping[str, float]) -> bool:
    if name not in logged:
        return False
    same = logged[name] == value or (math.isnan(logged[name]) and math.isnan(value))
    return same or name.startswith(MEASURED)


def send_metrics(cfg: TrackingConfig, run_id: str, metrics: Sequence[Metric]) -> None:
    """Send MLflow's metric objects in as few requests as MLflow allows."""
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        with errors(cfg):
            client(cfg).log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])


def log_text(cfg: TrackingConfig, run_id: str, text: str, name: str) -> None:
    """Log a text, redacted, as the artifact `name`."""
    with errors(cfg):
        client(cfg).log_text(run_id, redact_yaml(text) if name.endswith(".yaml") else redact(text), name)


def log_files(cfg: TrackingConfig, run_id: str, paths: Sequence[Path], folder: str | None = None) -> None:
    """Log files as artifacts, in `folder` if it is given."""
    with errors(cfg):
        for path in paths:
            client(cfg).log_artifact(run_id, str(path), folder)


def log_written_file(cfg: TrackingConfig, run_id: str, name: str, write: Callable[[Path], None]) -> None:
    """Log the artifact `name`, whose content `write` writes to the temporary path that it is given.

    A text file is redacted; a table or an array is not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / name
        with access_errors(path):
            write(path)
        redact_files(path.parent)
        log_files(cfg, run_id, [path])


def log_written_folder(cfg: TrackingConfig, run_id: str, name: str, write: Callable[[Path], None]) -> None:
    """Log the folder of artifacts `name`, whose files `write` writes to the temporary folder that it is given.

    Its text files are redacted; tables and arrays are not.
    """
    with tempfile.TemporaryDirectory() as scratch:
        with access_errors(Path(scratch)):
            write(Path(scratch))
        redact_files(Path(scratch))
        with errors(cfg):
            client(cfg).log_artifacts(run_id, scratch, name)


def describe_run(cfg: TrackingConfig, run_id: str, markdown: str) -> None:
    """Set the description at the top of a run's page; one that is too long for MLflow is cut after a line."""
    text = redact(markdown)
    if len(text) > NOTE_CHARACTERS:
        text = text[: NOTE_CHARACTERS - len(CUT_NOTICE)]
        text = text[: text.rfind("\n") + 1] + CUT_NOTICE
    with errors(cfg):
        client(cfg).set_tag(run_id, NOTE_TAG, text)


def storable(values: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics with names that MLflow accepts and with rounded values."""
    return {NOT_IN_METRIC_NAMES.sub("_", name): rounded(float(value)) for name, value in values.items()}


def rounded(value: float) -> float:
    """Round to six decimals, or to four significant digits below 0.01, because MLflow's pages show every digit.

    Exact figures are computed from the stored predictions, never from logged metrics.

    >>> rounded(1 / 3), rounded(7192710.0), rounded(0.00001234567)
    (0.333333, 7192710.0, 1.235e-05)
    """
    return round(value, 6) if abs(value) >= SMALL else float(f"{value:.4g}")
