"""Per-epoch metrics: sent in batches, kept on disk too, and never twice when a run is resumed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser_bench.config import TrackingConfig
from ser_bench.tracking.mlflow_store import client, errors
from ser_bench.tracking.run_description import metric_name, readable

if TYPE_CHECKING:
    from mlflow.entities import Metric

FLUSH_AFTER_S = 5.0
"""One request every few seconds: unbuffered metrics of parallel runs wait for each other's locks."""
METRICS_PER_BATCH = 1000
"""MLflow's limit."""


def log_metrics(cfg: TrackingConfig, run_id: str, metrics: list[Metric]) -> None:
    """Send metrics in as few requests as MLflow allows."""
    for start in range(0, len(metrics), METRICS_PER_BATCH):
        with errors(cfg):
            client(cfg).log_batch(run_id, metrics=metrics[start : start + METRICS_PER_BATCH])


class EpochLog:
    """An `types.EpochLog` into one MLflow run.

    Every epoch is first written to `journal`: what a killed process had buffered is sent when its run is resumed, and
    curves drawn at the end are whole.
    """

    def __init__(self, cfg: TrackingConfig, run_id: str, journal: Path) -> None:
        self.curves: dict[str, dict[int, float]] = {}
        self._cfg, self._run_id, self._journal = cfg, run_id, journal
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()
        self._resume()

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics of one epoch; an epoch that is known already is left as it is."""
        moment = time.time_ns() // 1_000_000
        new = {metric_name(name): readable(float(value)) for name, value in metrics.items()}
        new = {name: value for name, value in new.items() if epoch not in self.curves.get(name, {})}
        if not new:
            return
        with self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "time_ms": moment, "metrics": new}) + "\n")
        self._take(epoch, moment, new)
        if time.monotonic() - self._flushed > FLUSH_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Send what is waiting."""
        waiting, self._waiting = self._waiting, []
        log_metrics(self._cfg, self._run_id, waiting)
        self._flushed = time.monotonic()

    def _take(self, epoch: int, moment_ms: int, metrics: Mapping[str, float], sent: set[str] | None = None) -> None:
        from mlflow.entities import Metric

        for name, value in metrics.items():
            self.curves.setdefault(name, {})[epoch] = value
            if sent is None or name not in sent:
                self._waiting.append(Metric(name, value, moment_ms, epoch))

    def _resume(self) -> None:
        """Read the journal of an interrupted run and queue what MLflow has not got."""
        if not self._journal.exists():
            return
        entries = []
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # a killed process may leave half a last line
                entries.append(json.loads(line))
        names = {name for entry in entries for name in entry["metrics"]}
        with errors(self._cfg):
            known = {n: {m.step for m in client(self._cfg).get_metric_history(self._run_id, n)} for n in names}
        for entry in entries:
            sent = {name for name, steps in known.items() if entry["epoch"] in steps}
            self._take(entry["epoch"], entry["time_ms"], entry["metrics"], sent)
