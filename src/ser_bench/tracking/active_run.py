"""A run in progress: created or resumed, logged to, and closed with its status."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ser_bench import predictions as tables
from ser_bench.config import Config
from ser_bench.errors import InterruptedRunError, TrackingError
from ser_bench.evaluation import run_figures
from ser_bench.evaluation.classification_report import report_dict, report_text
from ser_bench.evaluation.metrics import confusion, score
from ser_bench.predictors import HasNetwork, HasPrompt, has_capability, require_capability
from ser_bench.redaction import redact_message
from ser_bench.tracking import peak_memory, run_description
from ser_bench.tracking.epoch_metrics import EpochMetricLog
from ser_bench.tracking.mlflow_store import client, errors, experiment_id, tracking_dir
from ser_bench.tracking.prompt_registry import register_prompt
from ser_bench.tracking.run_writer import (
    NOTE_TAG,
    describe_run,
    log_metrics,
    log_tags,
    log_text,
    log_written_file,
    log_written_folder,
)
from ser_bench.tracking.sweep_run import PARENT_TAG, is_unfinished
from ser_bench.tracking.torch_model import log_torch_model
from ser_bench.types import Clip, Corpus, Predictions, Predictor, Split

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

RUN_FILE = "run_id"
ERROR_CHARACTERS = 500
SYNTHETIC_NOTE = "SYNTHETIC speech, generated: these figures show that the software works, and nothing about people."
AGAIN = "run the same command again to continue it"
PARAMS_PER_BATCH = 100
"""MLflow's limit."""


class ActiveRun:
    """A run in progress, and what is logged to it.

    Attributes:
        run_id: MLflow's id.
        work_dir: folder for checkpoints; removed when the run is finished, kept when it fails or is interrupted.
        resumed: whether an interrupted run with the same key continues.
        log_epoch: logs the metrics of one epoch.
    """

    def __init__(self, cfg: Config, run_id: str, work_dir: Path, resumed: bool, title: str) -> None:
        self.run_id, self.work_dir, self.resumed = run_id, work_dir, resumed
        self._cfg, self._title = cfg.tracking, title
        self.log_epoch = EpochMetricLog(cfg.tracking, run_id, work_dir / "epochs.jsonl")

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Log metrics that have one value per run."""
        log_metrics(self._cfg, self.run_id, metrics)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags whose values are known only after the run has started."""
        log_tags(self._cfg, self.run_id, tags)

    def log_split(self, split: Split) -> None:
        """Log every row of the split as `split.json`."""
        content = {
            "protocol": split.protocol,
            "fold": split.fold,
            "folds": split.folds,
            "partition": split.partition,
            "rows": split.rows,
            "train": split.train,
            "val": split.val,
            "test": split.test,
        }
        self._log_text(json.dumps(content, ensure_ascii=False), "split.json")

    def log_predictions(self, predictions: Predictions, clips: Mapping[str, Clip]) -> None:
        """Log the predictions, and the figures and reports that are computed from them.

        Artifacts: `predictions.parquet`, `confusion.png` and `.json`, `report.txt` and `.json`, and
        `learning_curves.png` if the predictor was trained by epochs. The report is also the run's description.
        """
        report = report_text(predictions)
        log_written_file(
            self._cfg, self.run_id, "predictions.parquet", lambda path: tables.save(predictions, clips, path)
        )
        self._log_text(report, "report.txt")
        self._log_text(json.dumps(report_dict(predictions), indent=1, ensure_ascii=False), "report.json")
        self._log_text(json.dumps(_confusion_json(predictions), indent=1, ensure_ascii=False), "confusion.json")
        self._log_figure(run_figures.confusion_figure(predictions, self._title), "confusion.png")
        curves = run_figures.learning_curves(self.log_epoch.curves, self._title)
        if curves is not None:
            self._log_figure(curves, "learning_curves.png")
        headline = run_description.headline(score(predictions, prefix=""))
        describe_run(self._cfg, self.run_id, f"**{self._title}**  \n{headline}\n\n```\n{report}```\n")

    def log_predictor(self, predictor: Predictor) -> None:
        """Log the files of the predictor under `predictor/`, its network as an MLflow model, and its prompt."""
        log_written_folder(self._cfg, self.run_id, "predictor", predictor.save)
        if has_capability(predictor.name, HasNetwork) and self._cfg.log_model:
            module, example = require_capability(predictor, HasNetwork).torch_module()
            log_torch_model(self._cfg, self.run_id, module, example)
        if has_capability(predictor.name, HasPrompt):
            register_prompt(self._cfg, self.run_id, **require_capability(predictor, HasPrompt).prompt_templates())

    def _log_text(self, text: str, name: str) -> None:
        log_text(self._cfg, self.run_id, text, name)

    def _log_figure(self, figure: Figure, name: str) -> None:
        with errors(self._cfg):
            client(self._cfg).log_figure(self.run_id, figure, name)


@contextlib.contextmanager
def start(
    cfg: Config, corpus: Corpus, split: Split, key: str, groups: Sequence[str], parent: str | None
) -> Iterator[ActiveRun]:
    """Start or resume a run for the length of a `with` block.

    A run with the same key that was interrupted, failed or was killed is resumed under its id, if its files are still
    in `tracking.dir`/work. With `force=true`, a new run starts, without these files. At the end the status is FINISHED;
    KILLED after Ctrl-C, also if Lightning caught it (`InterruptedRunError`); FAILED with the tag `error` after any
    other exception. Exceptions are raised again.

    Args:
        cfg: the composed configuration.
        corpus: the corpus.
        split: the rows.
        key: the run key (`pipeline.run_key`).
        groups: the configuration groups that the predictor uses.
        parent: id of the sweep's parent run, or None.

    Raises:
        TrackingError: the store cannot be written, or another process is carrying out the same run.
    """
    work_dir = tracking_dir(cfg.tracking) / "work" / key
    with _alone(work_dir):
        started = time.perf_counter()
        peak_memory.forget_peak()
        name = run_description.model_name(cfg, groups)
        run_id, resumed = _create_or_resume(cfg, run_description.run_name(name, cfg, split), key, work_dir, parent)
        try:
            _describe(cfg, corpus, split, key, groups, run_id)
            title = run_description.title(
                name, corpus.measured, corpus.synthetic, split.protocol, split.fold, split.folds
            )
            active = ActiveRun(cfg, run_id, work_dir, resumed, title)
            try:
                yield active
            finally:
                active.log_epoch.flush()
            active.log_metrics(
                {"time/total_s": time.perf_counter() - started, "memory/peak_mib": peak_memory.peak_mib()}
            )
        except BaseException as error:
            _close_broken(cfg, run_id, error)
            raise
        with errors(cfg.tracking):
            client(cfg.tracking).set_terminated(run_id, status="FINISHED")
        shutil.rmtree(work_dir, ignore_errors=True)  # what remains is removed when a run of this key starts


def _create_or_resume(cfg: Config, name: str, key: str, work_dir: Path, parent: str | None) -> tuple[str, bool]:
    """Return the id of the run, and whether it is the interrupted run of this key.

    A new run starts with an empty work folder: under `force=true`, and if the folder is that of a run which is finished
    or no longer in the store. Checkpoints without their run may be incomplete.
    """
    mlflow = client(cfg.tracking)
    experiment = experiment_id(cfg.tracking, cfg.tracking.experiment)
    above = {PARENT_TAG: parent} if parent else {}
    note = work_dir / RUN_FILE
    old = note.read_text(encoding="utf-8", errors="replace") if note.exists() else ""
    with errors(cfg.tracking):
        resumable = is_unfinished(cfg.tracking, old, key=key)
        if resumable and not cfg.force:
            mlflow.update_run(old, status="RUNNING")
            for tag, value in above.items():
                mlflow.set_tag(old, tag, value)
            if "error" in mlflow.get_run(old).data.tags:
                mlflow.delete_tag(old, "error")
            return old, True
        if resumable and mlflow.get_run(old).info.status == "RUNNING":
            mlflow.set_terminated(old, status="KILLED")  # its process is dead, because we hold its lock
        shutil.rmtree(work_dir)
        work_dir.mkdir()
        run = mlflow.create_run(experiment, run_name=name, tags={"key": key} | above)
        note.write_text(run.info.run_id)
    return str(run.info.run_id), False


def _describe(cfg: Config, corpus: Corpus, split: Split, key: str, groups: Sequence[str], run_id: str) -> None:
    """Log what is known before the run computes anything. A resumed run keeps its first parameters."""
    from mlflow.entities import Param

    mlflow = client(cfg.tracking)
    with errors(cfg.tracking):
        logged = mlflow.get_run(run_id).data.params
        new = [Param(name, value) for name, value in run_description.params(cfg).items() if name not in logged]
        for first in range(0, len(new), PARAMS_PER_BATCH):
            mlflow.log_batch(run_id, params=new[first : first + PARAMS_PER_BATCH])
        mlflow.log_inputs(run_id, datasets=run_description.inputs(corpus, split))
    log_tags(cfg.tracking, run_id, run_description.tags(cfg, corpus, split, key, groups))
    log_text(cfg.tracking, run_id, run_description.config_yaml(cfg), "config.yaml")
    log_text(cfg.tracking, run_id, run_description.corpus_json(corpus), "corpus.json")
    with errors(cfg.tracking):
        if corpus.synthetic:
            _mark_synthetic(mlflow, mlflow.get_run(run_id).info.experiment_id)
        if corpus.skipped:
            log_metrics(cfg.tracking, run_id, {"corpus/skipped_files": float(len(corpus.skipped))})
            mlflow.set_tag(run_id, NOTE_TAG, f"{len(corpus.skipped)} unusable files were skipped: see corpus.json")


def _mark_synthetic(mlflow: MlflowClient, experiment: str) -> None:
    """Set the description of the experiment to a note on its generated speech, unless it has a description."""
    if NOTE_TAG not in mlflow.get_experiment(experiment).tags:
        mlflow.set_experiment_tag(experiment, NOTE_TAG, SYNTHETIC_NOTE)


def _close_broken(cfg: Config, run_id: str, error: BaseException) -> None:
    """Close the run as KILLED or FAILED; if the store fails too, a note is added to the first error."""
    stopped = isinstance(error, (KeyboardInterrupt, InterruptedRunError, SystemExit, GeneratorExit))
    first_line = next(iter(redact_message(str(error)).splitlines()), "")
    text = f"{type(error).__name__}: {first_line}"[:ERROR_CHARACTERS]
    try:
        with errors(cfg.tracking):
            if not stopped:
                client(cfg.tracking).set_tag(run_id, "error", text)
            client(cfg.tracking).set_terminated(run_id, status="KILLED" if stopped else "FAILED")
    except TrackingError as second:
        log.warning("note     run %s stays RUNNING, because its status cannot be stored; %s", run_id, AGAIN)
        error.add_note(f"run {run_id} could not be closed either: {second}")


@contextlib.contextmanager
def _alone(work_dir: Path) -> Iterator[None]:
    """Create the folder of a key and hold its lock, which the system releases when the process ends."""
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work_dir.with_suffix(".lock"))
        lock.acquire(timeout=0)
    except Timeout as timeout:
        raise TrackingError(
            f"{work_dir}: another process is carrying out the same run; wait for it, or change a setting (seed=1)"
        ) from timeout
    except OSError as error:
        raise TrackingError(f"{work_dir}: cannot write here ({error.strerror}); choose another tracking.dir") from error
    try:
        yield
    finally:
        if not work_dir.exists():  # the run is finished
            Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _confusion_json(predictions: Predictions) -> dict[str, object]:
    table = confusion(predictions)
    support = table.sum(axis=1, keepdims=True)
    shares = (table / support.clip(min=1)).round(6)
    return {
        "truth_by_row": list(predictions.labels),
        "predicted_by_column": [*predictions.labels, run_figures.ABSTAINED],
        "counts": table.tolist(),
        "share_of_truth": shares.tolist(),
    }
