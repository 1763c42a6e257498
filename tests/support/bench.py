"""Whole runs in processes of their own, started by a command line, with a store of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from ser_bench import tracking
from ser_bench.config import TrackingConfig
from ser_bench.tracking import StoredRun

ROOT = Path(__file__).resolve().parents[2]
FEWER_CLIPS = "corpus.clips=216"
"""Half of the demo corpus, which halves the time of its features, transcripts and requests."""


class Bench:
    """A folder with a store: `run` starts `run.py`, `cli` starts `ser-bench`, `runs` reads the store."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.tracking = TrackingConfig(dir=str(folder / "mlruns"), experiment="demo")

    @property
    def words(self) -> list[str]:
        return [
            f"tracking.dir={self.tracking.dir}",
            f"cache_dir={self.cache}",
            f"hydra.run.dir={self.folder}/outputs/${{now:%H-%M-%S-%f}}",
            f"hydra.sweep.dir={self.folder}/multirun/${{now:%H-%M-%S-%f}}",
        ]

    def start(self, *words: str) -> subprocess.Popen[str]:
        of_demo = not any(word.startswith(("corpus=", "corpus.", "experiment=")) for word in words)
        command = [sys.executable, "run.py", *words, *([FEWER_CLIPS] if of_demo else []), *self.words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, **pipes)  # type: ignore[call-overload, no-any-return]

    def run(self, *words: str, status: int = 0) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=1500)
        assert process.returncode == status, f"exit status {process.returncode}, expected {status}:\n{output}"
        return output

    def cli(self, *words: str, status: int = 0) -> str:
        process = subprocess.run(
            [sys.executable, "-m", "ser_bench.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=900
        )
        assert process.returncode == status, process.stdout + process.stderr
        return process.stdout + (process.stderr if status else "")

    def sweeps(self) -> list[Run]:
        """Return the parent runs with all their tags."""
        mlflow = MlflowClient(tracking.open_store(self.tracking))
        ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
        return list(mlflow.search_runs(ids, "tags.kind = 'sweep'"))

    def runs(self, **tags: str) -> list[StoredRun]:
        found = tracking.search(self.tracking, experiment="demo")
        return [run for run in found if all(run.tags.get(k) == v for k, v in tags.items())]
