"""The Python interface: what `import ser_bench as sb` offers to notebooks and scripts.

The functions take the same overrides as the command line, read the same store, and raise the same errors
(`ser_bench.SerBenchError`, one line each). `docs/api.md` shows them in use.
"""

from __future__ import annotations

import contextlib
import html
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_bench import comparison as reports
from ser_bench import corpora, tracking
from ser_bench.comparison import paired, report_tables, run_groups
from ser_bench.comparison import verdict as sentences
from ser_bench.config import Config, compose, register
from ser_bench.config.override_words import quoted_for_hydra
from ser_bench.config.services import only_own_services
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference.answer import FAILED, Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording
from ser_bench.new_audio import audio_files
from ser_bench.tracking import StoredRun
from ser_bench.types import Corpus

if TYPE_CHECKING:
    from ser_bench.comparison.paired import Comparison, GroupResult

RUNS_PREFIX = "runs:/"
"""How MLflow writes the address of a run."""

AudioInput = str | Path | bytes | npt.NDArray[Any] | Recording
"""A file or a folder of files, the bytes of a file, samples [T] (float of full scale ±1, int16 or int32), or a
`Recording`."""


def run(overrides: Sequence[str] = (), verbose: bool = True) -> StoredRun:
    """Train and test one predictor in this process and return its stored run, as `ser-bench run` does.

    A run that is finished already is found in the store and returned without training.

    Args:
        overrides: as on the command line, for example `["model=cnn_text", "corpus=demo"]`.
        verbose: print the lines that the command prints.

    Raises:
        SerBenchError: the configuration is wrong, the corpus cannot be read, or the run fails.
    """
    from ser_bench import pipeline

    cfg = compose(list(overrides))
    if cfg.llm.dry_run:
        raise ConfigError("llm.dry_run=true makes no run; ser-bench run prints the estimate")
    with only_own_services(cfg), printed_log() if verbose else contextlib.nullcontext():  # a fusion restores runs
        result = pipeline.run(cfg, None)
    return tracking.load_run(cfg.tracking, result.run_id)


def load_run(run_id: str, store: str | Path | None = None) -> StoredRun:
    """Return one stored run.

    Args:
        run_id: the id, its first letters, or `runs:/<id>`.
        store: folder of the store, or URI of a tracking server; None: `mlruns` in the working directory.

    Raises:
        RunNotFoundError: no run, or more than one, has this id.
    """
    return tracking.load_run(_configuration(store).tracking, run_id.removeprefix(RUNS_PREFIX))


def load_runs(
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    models: Sequence[str] = (),
    store: str | Path | None = None,
    latest: bool = True,
) -> list[StoredRun]:
    """Return finished runs of an MLflow experiment, newest first.

    Args:
        experiment: its name; runs on a corpus are in the experiment with the name of the corpus. None: the experiment
            of the latest run.
        tags: name → value that every run must have, for example `{"protocol": "speaker"}`.
        models: only runs of these predictors; (): of all.
        store: as in `load_run`.
        latest: True: what `ser-bench compare` compares, the latest configuration of each model with its folds, seeds
            and repetitions, on one corpus and split; False: every finished run.

    Raises:
        RunNotFoundError: a predictor in `models` has no finished run.
    """
    cfg = _configuration(store).tracking
    experiment = experiment or tracking.latest_experiment(cfg) or cfg.experiment
    if latest:
        runs = run_groups.select_runs(cfg, experiment, (), dict(tags or {}), tuple(models))
    else:
        runs = [
            stored
            for stored in tracking.search(cfg, experiment)
            if stored.status == "FINISHED"
            and all(stored.tags.get(name) == value for name, value in (tags or {}).items())
            and (not models or stored.tags["model"] in models)
        ]
    return sorted(runs, key=lambda stored: -stored.start_time)


def runs_table(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return one row per run, indexed by id: model, corpus, protocol, fold, seed, UAR, audit, status, start (UTC)."""
    return pd.DataFrame(
        {
            "model": [stored.tags.get("model", "") for stored in runs],
            "corpus": [stored.tags.get("corpus", "") for stored in runs],
            "protocol": [stored.tags.get("protocol", "") for stored in runs],
            "fold": [int(stored.tags.get("fold", -1)) for stored in runs],
            "seed": [int(stored.tags.get("seed", 0)) for stored in runs],
            "uar": [stored.metrics.get("test/uar", float("nan")) for stored in runs],
            "audit": [stored.tags.get("audit", "") for stored in runs],
            "status": [stored.status for stored in runs],
            "started": pd.to_datetime([stored.start_time for stored in runs], unit="ms", utc=True),
        },
        index=pd.Index([stored.run_id for stored in runs], name="run_id"),
    )


def compare(runs: Sequence[StoredRun], baseline: str | None = None) -> ComparisonResult:
    """Compare stored runs with paired tests on the clips that all of them predicted.

    Args:
        runs: of at least one predictor, on one corpus and split.
        baseline: predictor that the others are compared with; None: the first by name.

    Raises:
        NotComparableError: the runs were not measured on the same clips or over the same labels.
        RunNotFoundError: there are no runs, or none of the baseline.
    """
    return ComparisonResult(paired.compare(list(runs), baseline))


@dataclass(frozen=True, repr=False)
class ComparisonResult:
    """The result of a comparison; a notebook shows verdict and table.

    Attributes:
        comparison: the object that the report is made of: pooled predictions, results, and every pair.
    """

    comparison: Comparison

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per predictor, in the order of the report, indexed by its name.

        `rank`, such as "1–2" ("" without tests); shares from 0 to 1 with 95 % intervals (`_low`, `_high`);
        `difference` to the baseline in UAR points with its interval and p-value (Holm), NaN for the baseline; log-loss
        and ECE where there are probabilities; and cost.
        """
        return pd.DataFrame([_figures(result) for result in self.comparison.results]).set_index("predictor")

    @property
    def verdict(self) -> str:
        """The outcome in three sentences: highest UAR, differences to the baseline, recommendation and leakage."""
        return " ".join(sentences.verdict(self.comparison))

    @property
    def report(self) -> reports.Report:
        """The whole report, as `ser-bench compare` writes it."""
        return reports.Report.of(reports.REPORT_TITLE, [self.comparison])

    def to_html(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML page and return its path."""
        file = Path(path)
        file.write_text(self.report.html(), encoding="utf-8")
        return file

    def to_markdown(self) -> str:
        """Return the report as Markdown."""
        return self.report.markdown()

    def __repr__(self) -> str:
        return reports.as_text(self.comparison)

    def _repr_html_(self) -> str:
        headings, rows = report_tables.main_table(self.comparison)
        table = report_tables.as_frame(headings, rows).to_html(index=False, border=0)
        heading = html.escape(sentences.heading(self.comparison))
        return f"<h4>{heading}</h4><p>{html.escape(self.verdict)}</p>{table}"


def load_predictor(
    run: str | StoredRun, store: str | Path | None = None, overrides: Sequence[str] = ()
) -> LoadedPredictor:
    """Return the predictor of a stored run, for new audio.

    Args:
        run: the run, its id or first letters, `runs:/<id>`, or a registered model, `models:/NAME@ALIAS`.
        store: as in `load_run`, if `run` is an id.

        overrides: further overrides, such as the service that a language model may be asked at:
            `["llm.base_url=http://127.0.0.1:8000/v1", "llm.api_key_env=null"]`.

    Raises:
        RunNotFoundError: there is no such run.
        ConfigError: the predictor cannot predict new audio (`model=listeners` needs votes).
        LLMError: the run asks a service that neither `overrides` nor the defaults name.
        TrackingError: files of the run were changed after it had ended.
    """
    stored = load_run(run, store) if isinstance(run, str) else run
    return LoadedPredictor(AudioPredictor.from_run(stored, _configuration(store, overrides)), stored)


class LoadedPredictor:
    """A trained predictor that takes files, bytes or samples, and computes transcript, F0 and other features itself.

    Nothing of the audio is written to the disk.
    """

    def __init__(self, predictor: AudioPredictor, stored: StoredRun) -> None:
        self._predictor = predictor
        self._stored = stored

    @property
    def run(self) -> StoredRun:
        """The run that trained it."""
        return self._stored

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of the columns of probabilities."""
        return self._predictor.labels

    def answers(self, items: AudioInput | Sequence[AudioInput], sample_rate_hz: int = 16_000) -> list[Answer]:
        """Return one answer per recording: label, probabilities, flags of unsure input, transcript, seconds per stage.

        A recording that cannot be used is an answer with the status "failed" and the reason.

        Args:
            items: files, folders of audio files, the bytes of files, arrays of mono samples [T], or recordings.
            sample_rate_hz: sampling rate of the arrays, Hz; files state their own.

        Raises:
            ConfigError: a path does not exist, or an array is not one-dimensional.
            SerBenchError: nothing can be predicted, for example because weights are missing.
        """
        given = [items] if isinstance(items, str | Path | bytes | np.ndarray | Recording) else list(items)
        recordings: list[Recording | Answer] = []
        for i, item in enumerate(given):
            recordings += self._recordings(i, item, sample_rate_hz)
        usable = [recording for recording in recordings if isinstance(recording, Recording)]
        answers = iter(self._predictor.predict(usable))
        return [next(answers) if isinstance(recording, Recording) else recording for recording in recordings]

    def predict(self, items: AudioInput | Sequence[AudioInput], sample_rate_hz: int = 16_000) -> pd.DataFrame:
        """Return one row per recording, in the order given.

        Args:
            items: as in `answers`.
            sample_rate_hz: as in `answers`.

        Returns:
            Columns: `file` (the path, or "samples 1" for the item at position 1), `label` (empty if the predictor
            abstained), one column of probabilities per label, `flags` (why the answer is unsure: codes with spaces
            between) and `seconds` (all of the prediction; `answers` has each stage).

        Raises:
            BadClipError: a recording cannot be used.
            SerBenchError: as in `answers`, or a request to a language model failed.
        """
        answers = self.answers(items, sample_rate_hz)
        for answer in answers:
            if answer.status == FAILED:
                raise BadClipError(answer.reason)
        return pd.DataFrame(
            {
                "file": [answer.name for answer in answers],
                "label": [answer.label for answer in answers],
                **{label: [answer.probabilities[label] for answer in answers] for label in self.labels},
                "flags": [" ".join(flag.code for flag in answer.flags) for answer in answers],
                "seconds": [answer.seconds["total"] for answer in answers],
            }
        )

    def enrol(self, items: AudioInput | Sequence[AudioInput], speaker: str, sample_rate_hz: int = 16_000) -> None:
        """Adapt to a speaker by clips without labels, for runs with `adapt=speaker_stats`.

        A `Recording` with this `speaker` is then predicted with the statistics of these clips.

        Raises:
            ConfigError: the run does not adapt to speakers.
            BadClipError: a recording cannot be used.
        """
        given = [items] if isinstance(items, str | Path | bytes | np.ndarray | Recording) else list(items)
        recordings = []
        for i, item in enumerate(given):
            for recording in self._recordings(i, item, sample_rate_hz):
                if isinstance(recording, Answer):
                    raise BadClipError(recording.reason)
                recordings.append(recording)
        self._predictor.enrol(recordings, speaker)

    def _recordings(self, position: int, item: AudioInput, sample_rate_hz: int) -> list[Recording | Answer]:
        """Return the recordings of one item, and for each that cannot be used an answer with the reason."""
        limit_s = self._predictor.max_duration_s
        name = f"samples {position}"
        try:
            if isinstance(item, Recording):
                return [item]
            if isinstance(item, bytes):
                return [Recording.from_bytes(item, name, limit_s)]
            if isinstance(item, np.ndarray):
                return [Recording.from_samples(item, sample_rate_hz, name)]
        except BadClipError as error:
            return [Answer(name, "", {}, FAILED, str(error))]
        recordings: list[Recording | Answer] = []
        for path in audio_files([Path(item)]):
            try:
                recordings.append(Recording.from_file(path, limit_s))
            except BadClipError as error:
                recordings.append(Answer(str(path), "", {}, FAILED, str(error)))
        return recordings

    def __repr__(self) -> str:
        return repr(self._predictor)


def load_corpus(name: str, root: str | Path | None = None, overrides: Sequence[str] = ()) -> Corpus:
    """Return a corpus: clips with label, speaker and sentence; `corpus.table` is a DataFrame.

    Args:
        name: as `corpus=` takes it; "table" for a CSV file of your own clips.
        root: folder (or CSV file) of the corpus; None: where `ser-bench corpora prepare` puts it.
        overrides: further overrides, for example `["corpus.labels=basic6", "on_bad_clip=skip"]`.

    Raises:
        CorpusError: the corpus is not there, or is damaged.
        BadClipError: a file cannot be used, unless `on_bad_clip=skip`.
    """
    words = [] if root is None else [f"corpus.root={quoted_for_hydra(str(root))}"]
    return corpora.load(compose(["experiment=none", f"corpus={name}", *words, *overrides]))


def _configuration(store: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Return the default configuration with this store and these overrides."""
    register()
    if store is None:
        return compose(list(overrides))
    key = "tracking.uri" if "://" in str(store) else "tracking.dir"
    return compose([f"{key}={quoted_for_hydra(str(store))}", *overrides])


@contextlib.contextmanager
def printed_log() -> Iterator[None]:
    """Print the lines that a run logs, inside a `with` block."""
    logger, handler = logging.getLogger("ser_bench"), logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _figures(result: GroupResult) -> dict[str, Any]:
    figures: dict[str, Any] = {"predictor": result.name}
    figures["rank"] = "" if result.rank is None else report_tables.rank_text(result.rank)
    for name, interval in (("uar", result.uar), ("accuracy", result.accuracy), ("macro_f1", result.macro_f1)):
        figures |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    difference = None if result.difference is None else result.difference.interval
    nan = float("nan")
    figures["difference"] = nan if difference is None else sentences.POINTS * difference.value
    figures["difference_low"] = nan if difference is None else sentences.POINTS * difference.low
    figures["difference_high"] = nan if difference is None else sentences.POINTS * difference.high
    figures["p_holm"] = nan if result.adjusted_p is None else result.adjusted_p
    for name in ("log_loss", "ece"):
        figures[name] = result.scores.get(name, nan)
    figures["clips_per_second"] = nan if result.clips_per_second is None else result.clips_per_second
    figures["usd_per_1000"] = result.usd_per_1000
    return figures
