"""Metrics per epoch: sent in batches, also written to disk, and not logged twice when a run is resumed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ser_bench.config import TrackingConfig
from ser_bench.file_access import access_errors
from ser_bench.tracking.mlflow_store import client, errors
from ser_bench.tracking.run_writer import send_metrics, storable

if TYPE_CHECKING:
    from mlflow.entities import Metric

FLUSH_AFTER_S = 5.0
"""Time between requests. Parallel runs that send every metric at once wait for each other's database locks."""


class EpochMetricLog:
    """Callable that logs the metrics of one epoch to an MLflow run (a `types.EpochLog`).

    Each epoch is written to the file `journal` first. If the process is killed, the metrics that were not sent yet are
    read from there when the run is resumed, and the learning curves are complete.

    Attributes:
        curves: name of the metric → epoch → value.
    """

    def __init__(self, cfg: TrackingConfig, run_id: str, journal: Path) -> None:
        self.curves: dict[str, dict[int, float]] = {}
        self._cfg, self._run_id, self._journal = cfg, run_id, journal
        self._waiting: list[Metric] = []
        self._flushed = time.monotonic()
        self._resume()

    def __call__(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one epoch; values that were logged for this epoch before are not replaced."""
        time_ms = time.time_ns() // 1_000_000
        new = {name: value for name, value in storable(metrics).items() if epoch not in self.curves.get(name, {})}
        if not new:
            return
        with access_errors(self._journal), self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, "time_ms": time_ms, "metrics": new}) + "\n")
        self._add(epoch, time_ms, new)
        if time.monotonic() - self._flushed > FLUSH_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Send the metrics that are waiting.

        Raises:
            TrackingError: the store cannot be written.
        """
        waiting, self._waiting = self._waiting, []
        send_metrics(self._cfg, self._run_id, waiting)
        self._flushed = time.monotonic()

    def _add(self, epoch: int, time_ms: int, metrics: Mapping[str, float], sent: set[str] | None = None) -> None:
        """Add values to the curves, and those that were not `sent` to the waiting ones."""
        from mlflow.entities import Metric

        for name, value in metrics.items():
            self.curves.setdefault(name, {})[epoch] = value
            if sent is None or name not in sent:
                self._waiting.append(Metric(name, value, time_ms, epoch))

    def _resume(self) -> None:
        """Read the journal of an interrupted run; values that MLflow does not have are sent with the next flush."""
        if not self._journal.exists():
            return
        entries = []
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line of a killed process may be incomplete
                entries.append(json.loads(line))
        names = {name for entry in entries for name in entry["metrics"]}
        with errors(self._cfg):
            steps_of = {n: {m.step for m in client(self._cfg).get_metric_history(self._run_id, n)} for n in names}
        for entry in entries:
            sent = {name for name, steps in steps_of.items() if entry["epoch"] in steps}
            self._add(entry["epoch"], entry["time_ms"], entry["metrics"], sent)
