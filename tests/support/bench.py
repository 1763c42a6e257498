"""Whole runs in processes of their own, started by a command line, with a store of their own."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from ser_bench import tracking
from ser_bench.config import TrackingConfig
from ser_bench.tracking import StoredRun
from tests.support.forked_process import ForkedProcess

ROOT = Path(__file__).resolve().parents[2]
FEWER_CLIPS = "corpus.clips=144"
"""Half of the demo corpus, which halves the time of its features, transcripts and requests."""


class Bench:
    """A folder with a store: `run` starts `run.py`, `cli` starts `ser-bench`, `runs` reads the store."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.cache = cache
        self.tracking = TrackingConfig(dir=str(folder / "mlruns"), experiment="demo")
        self._numbers = count()

    @property
    def words(self) -> list[str]:
        return [
            f"tracking.dir={self.tracking.dir}",
            f"cache_dir={self.cache}",
            "tracking.timed_clips=1",
            "tracking.log_model=false",  # `test_api` and `test_audio_model` look at the models
            f"hydra.run.dir={self.folder}/outputs/${{now:%H-%M-%S-%f}}",
            f"hydra.sweep.dir={self.folder}/multirun/${{now:%H-%M-%S-%f}}",
        ]

    def start(self, *words: str) -> ForkedProcess:
        of_demo = not any(word.startswith(("corpus=", "corpus.", "experiment=")) for word in words)
        program = [str(ROOT / "run.py"), *words, *([FEWER_CLIPS] if of_demo else []), *self.words]
        return ForkedProcess(program, ROOT, self._new_file("out"))

    def run(self, *words: str, status: int = 0) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=1500)
        assert process.returncode == status, f"exit status {process.returncode}, expected {status}:\n{output}"
        return output

    def cli(self, *words: str, status: int = 0) -> str:
        process = ForkedProcess(["-m", "ser_bench.cli", *words], ROOT, self._new_file("out"), self._new_file("err"))
        output, error = process.communicate(timeout=900)
        assert process.returncode == status, output + error
        return output + (error if status else "")

    def _new_file(self, suffix: str) -> Path:
        folder = self.folder / "printed"
        folder.mkdir(exist_ok=True)
        return folder / f"{next(self._numbers)}.{suffix}"

    def sweeps(self) -> list[Run]:
        """Return the parent runs with all their tags."""
        mlflow = MlflowClient(tracking.open_store(self.tracking))
        ids = [experiment.experiment_id for experiment in mlflow.search_experiments()]
        return list(mlflow.search_runs(ids, "tags.kind = 'sweep'"))

    def runs(self, **tags: str) -> list[StoredRun]:
        found = tracking.search(self.tracking, experiment="demo")
        return [run for run in found if all(run.tags.get(k) == v for k, v in tags.items())]
