"""One run from start to end: corpus → split → features → predictor → predictions → metrics → tracking → audit."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_bench import __version__, audit, corpora, predictors, splits, stored_predictors, tracking
from ser_bench.config import RUN_COMMAND, CacheMode, Config, Protocol, ScoredRows, Target, scientific_part, to_plain
from ser_bench.corpora.listener_votes import vote_counts
from ser_bench.errors import ConfigError, CorpusError, SerBenchError, one_line
from ser_bench.evaluation.calibration import CALIBRATION_FILE
from ser_bench.evaluation.classification_report import reasons_text
from ser_bench.evaluation.heard_intensity import heard_agreement
from ser_bench.evaluation.metrics import METRICS
from ser_bench.evaluation.run_scores import ANSWER_TIME, score
from ser_bench.features.feature_store import Features
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.model_logging import log_audio_model
from ser_bench.inference.response_time import median_seconds
from ser_bench.predictions import RUN_AGAIN, require_complete
from ser_bench.predictors import AnswersFromFile, HasPrompt, Need
from ser_bench.predictors.held_out_calibration import TAG as CALIBRATION_TAG
from ser_bench.predictors.held_out_calibration import calibrate
from ser_bench.predictors.target_limits import check_target
from ser_bench.tracking import StoredRun
from ser_bench.tracking.incomplete_run import log_incomplete
from ser_bench.tracking.mlflow_store import store_name
from ser_bench.types import Corpus, Predictions, Split, digest_of

log = logging.getLogger(__name__)

SKIPPED_SHOWN = 5
AGAINST = {Target.votes: " against the votes of listeners", Target.intensity: " against the requested intensity"}
"""What the answers were compared with, where it is not the intended emotion."""


@dataclass(frozen=True)
class RunResult:
    """Id and scores of a run; `skipped` if it was finished before, or was a dry run."""

    run_id: str
    scores: dict[str, float]
    skipped: bool = False


def run(cfg: Config, parent: str | None = None) -> RunResult:
    """Carry out one run and log it; return a run of the same key that is already finished, unless `force=true`."""
    check_target(cfg)
    tracking.open_store(cfg.tracking)
    corpus = corpora.load(cfg)
    split = splits.make(corpus, cfg.split, cfg.augment.variants)
    announce(cfg, corpus, split)
    groups = predictors.predictor_class(cfg.model.name).groups
    if cfg.llm.dry_run and "llm" in groups:
        return rehearse(cfg, corpus, split)
    combined = stored_predictors.resolve(cfg, corpus, split)
    origin = _check_answers(cfg, corpus, split)
    key = run_key(cfg, corpus, split, [member.run_id for member in combined])
    done = None if cfg.force else tracking.find_finished(cfg, key)
    if done is not None and (reason := audit.outdated_features(done)):
        log.info("again    run %s finished before, but %s", done.run_id, reason)
        done = None
    if done is not None:
        commit = done.tags.get("commit", "?")
        log.info("done     run %s finished before (commit %s); force=true runs it again", done.run_id, commit)
        tracking.adopt(cfg.tracking, done.run_id, parent)
        return RunResult(done.run_id, done.metrics, skipped=True)

    with tracking.start(cfg, corpus, split, key, groups, parent) as active:
        features = Features(cfg, corpus.by_id, corpus.language, combined)
        active.log_tags(stored_predictors.tags_of(combined) | origin)
        predictor = predictors.build(cfg, corpus.labels, features, active.work_dir, active.log_epoch)
        started = time.perf_counter()
        curve_rows = split.test if cfg.split.protocol is Protocol.paper else ()
        facts = dict(predictor.fit(split.train, split.val, curve_rows))
        fitted = time.perf_counter()
        tracking.log_fit_rows(cfg.tracking, active.run_id, features.labels_read)
        with tracking.traced(cfg.tracking, active.run_id) if "llm" in groups else contextlib.nullcontext():
            predictions = replace(predictor.predict(split.test), ordinal=corpus.is_ordinal)
        predicted = time.perf_counter()
        predictions = replace(predictions, votes=_listeners_votes(corpus, features, predictions))
        if predictors.has_capability(predictor.name, HasPrompt):
            active.log_tags(predictors.require_capability(predictor, HasPrompt).prediction_tags())
        if predictions.failed.any():
            log_incomplete(cfg.tracking, active.run_id, predictions, corpus.by_id, predictor.facts())
            require_complete(predictions, _remedy(cfg))
        speakers = {clip.id: clip.speaker for clip in corpus.clips}
        facts |= {**predictor.facts(), **_word_errors(features)}
        facts |= stored_predictors.what_each_adds(predictor, predictions, speakers)
        facts |= _heard_intensity(cfg, corpus, predictions)
        calibration, calibrated = calibrate(cfg, predictor, split.val, speakers)
        active.log_tags({CALIBRATION_TAG: calibrated})
        if calibration is not None:
            facts |= {"calibration/temperature": calibration.temperature}
            tracking.log_text(cfg.tracking, active.run_id, calibration.as_json(), CALIBRATION_FILE)
        scores = score(predictions, cfg.split.protocol, speakers, calibration)
        timing = _timing(predictions, fitted - started, predicted - fitted)
        active.log_metrics(facts | scores | (_stated(timing, predictions) if origin else timing))
        active.log_split(split)
        active.log_predictions(predictions, corpus.by_id)
        active.log_predictor(predictor)
        tracking.log_clips(cfg.tracking, active.run_id, corpus.clips)
        tracking.log_manifest(cfg.tracking, active.run_id)
        active.log_epoch.flush()
        stored = tracking.load_run(cfg.tracking, active.run_id)
        active.log_metrics(_answer_time(cfg, stored, corpus, split))
        verdict = audit.audit_and_log(stored, corpus.by_id, features).verdict
        log.info("audit    %s", verdict)
        card = tracking.model_card_text(cfg, corpus, split, predictions, verdict, active.run_id, combined, calibrated)
        tracking.log_model_card(cfg.tracking, active.run_id, card)
        tracking.log_manifest(cfg.tracking, active.run_id)  # again, because the card states the result of the audit
        if cfg.tracking.log_model:
            log_audio_model(tracking.load_run(cfg.tracking, active.run_id), card)
    summarise(cfg, active.run_id, predictions, scores)
    log.info("scaling  of the probabilities: %s", calibrated)
    return RunResult(active.run_id, scores)


def rehearse(cfg: Config, corpus: Corpus, split: Split) -> RunResult:
    """Log what a run would ask of a language model and what it would cost; send no request and log no run."""
    with tempfile.TemporaryDirectory() as scratch:
        features = Features(cfg, corpus.by_id, corpus.language)
        predictor = predictors.build(cfg, corpus.labels, features, Path(scratch), lambda epoch, values: None)
        predictor.fit(split.train, split.val)
        for line in predictors.require_capability(predictor, HasPrompt).estimate_lines(split.test):
            log.info("%s", line)
    return RunResult("", {}, skipped=True)


def run_key(cfg: Config, corpus: Corpus, split: Split, member_ids: Sequence[str] = ()) -> str:
    """Return the digest of what decides a result.

    It covers the scientific configuration (`config/keys.py`), the content of the corpus, the rows of the split, and the
    package version. The members of a fusion count by their run ids, however they were named.
    """
    plain = to_plain(cfg)
    if member_ids:
        plain["model"] |= {"members": list(member_ids)}
    names = ("model", *predictors.predictor_class(cfg.model.name).groups)
    groups = {name: scientific_part(plain[name], type(getattr(cfg, name))) for name in names}
    parts: list[object] = [corpus.digest, corpus.labels, split.protocol, split.fold, split.partition, split.rows]
    parts += [] if corpus.target == "intended" else [corpus.target]
    return digest_of([groups, cfg.seed, cfg.shuffle_labels, parts, __version__])


def announce(cfg: Config, corpus: Corpus, split: Split) -> None:
    """Log what is about to run, before any long computation."""
    kind = " (SYNTHETIC speech, generated)" if corpus.synthetic else ""
    speakers = len({clip.speaker for clip in corpus.clips})
    groups = predictors.predictor_class(cfg.model.name).groups
    settings = [
        *([f"size {cfg.size.name}"] if "size" in groups else []),
        *([f"{cfg.trainer.max_epochs} epochs"] if "trainer" in groups else []),
        *([f"language model {cfg.llm.name}"] if "llm" in groups else []),
    ]
    log.info("model    %s", ", ".join([cfg.model.shown_name, *settings]))
    log.info("store    %s", store_name(cfg.tracking))
    log.info("corpus   %s%s: %d clips, %d speakers, labels %s", corpus.measured, kind, len(corpus.clips), speakers,
             " ".join(corpus.labels))  # fmt: skip
    rows = f"{len(split.train)} training, {len(split.val)} validation, {len(split.test)} test rows"
    leaks = splits.LEAKS[cfg.split.protocol]
    log.info("split    %s, fold %d of %d: %s; %s", split.protocol, split.fold, split.folds, rows, leaks)
    if cfg.split.scored is ScoredRows.validation:
        log.info("note     split.scored=validation: validation rows are scored, test rows are left out; use these "
                 "figures to choose an option, not as a result")  # fmt: skip
    for warning in corpus.warnings:
        log.warning("warning  %s", warning)
    for reason in list(corpus.skipped.values())[:SKIPPED_SHOWN]:
        log.warning("skipped  %s", reason)
    if len(corpus.skipped) > SKIPPED_SHOWN:
        log.warning("skipped  %d files in all; the run's corpus.json lists them", len(corpus.skipped))
    if cfg.experiment_name == "demo" and corpus.synthetic:
        log.info("note     experiment=demo: few epochs and small networks. The paper's size and protocol, which leaks: "
                 "%s experiment=paper corpus.root=CREMA-D/AudioWAV model=%s", RUN_COMMAND, cfg.model.name)  # fmt: skip
    elif cfg.experiment_name == "demo":
        log.info("note     experiment=demo is the default: few epochs and small networks. For a corpus of real speech "
                 "add experiment=none, and for networks choose trainer= and size=")  # fmt: skip


def summarise(cfg: Config, run_id: str, predictions: Predictions, scores: dict[str, float]) -> None:
    """Log the result and where to find it."""
    abstained = int(predictions.abstained.sum())
    against = AGAINST.get(cfg.corpus.target, "")
    log.info("result   UAR %.3f, accuracy %.3f, macro-F1 %.3f on %d test rows%s%s", scores["test/uar"],
             scores["test/accuracy"], scores["test/macro_f1"], len(predictions.rows), against,
             f", {abstained} abstentions counted as wrong{reasons_text(predictions)}" if abstained else "")  # fmt: skip
    of_levels = [
        f"{entry.title} {scores[f'test/{name}']:.3f}"
        for name, entry in METRICS.items()
        if entry.of_levels and f"test/{name}" in scores
    ]
    if of_levels:
        log.info("         %s", ", ".join(of_levels))
    if "test_clean/uar" in scores:
        log.info("         on the clean rows alone: UAR %.3f, accuracy %.3f; %s", scores["test_clean/uar"],
                 scores["test_clean/accuracy"], splits.LEAKS[cfg.split.protocol])  # fmt: skip
    log.info("run      %s in MLflow experiment %s", run_id, cfg.tracking.experiment)
    log.info("browse   %s", tracking.how_to_browse(cfg.tracking))


def _check_answers(cfg: Config, corpus: Corpus, split: Split) -> dict[str, str]:
    """Check imported predictions against the split before a run is created; return tags of the run."""
    if not predictors.has_capability(cfg.model.name, AnswersFromFile):
        return {}
    checked: dict[str, str] = predictors.predictor_class(cfg.model.name).check_answers(cfg, corpus, split)
    return checked


def _remedy(cfg: Config) -> str:
    """Return what to do after some requests to a language model failed."""
    if cfg.llm.cache is CacheMode.readwrite:
        return RUN_AGAIN
    return f"llm.cache={cfg.llm.cache.value} keeps no answer: run the command again with llm.cache=readwrite"


def _word_errors(features: Features) -> dict[str, float]:
    error_rate = features.word_error_rate()
    return {} if error_rate is None else {"asr/wer": error_rate}


def _listeners_votes(corpus: Corpus, features: Features, predictions: Predictions) -> npt.NDArray[np.int64] | None:
    """Return the votes of listeners [N, C] for the soft-label metrics; None if there are none, or labels are levels."""
    if corpus.is_ordinal:
        return None
    try:
        ballots = features.votes(predictions.rows)
    except ConfigError:
        return None  # a corpus without listeners
    except CorpusError as error:
        log.info("votes    soft-label metrics are n/a: %s", one_line(error))
        return None
    return vote_counts(ballots, corpus.labels)


def _heard_intensity(cfg: Config, corpus: Corpus, predictions: Predictions) -> dict[str, float]:
    """Return the agreement with listeners' ratings of intensity; {} for emotions, or if this copy has no ratings."""
    if not corpus.is_ordinal:
        return {}
    heard = corpora.heard_intensity_of(corpora.sheet_of(cfg.corpus.name, cfg.corpus.root), corpora.root_of(cfg))
    return heard_agreement(predictions, heard, {clip.id: clip.speaker for clip in corpus.clips})


def _answer_time(cfg: Config, stored: StoredRun, corpus: Corpus, split: Split) -> dict[str, float]:
    """Return the time from the audio of a clip to its answer as a metric; {} where it cannot be measured."""
    clips = list(dict.fromkeys(row.clip_id for row in split.test))[: cfg.tracking.timed_clips]
    has_no_model = predictors.has_capability(cfg.model.name, AnswersFromFile)
    if not clips or has_no_model or predictors.predictor_class(cfg.model.name).needs & {Need.votes}:
        return {}
    try:
        predictor = AudioPredictor.from_run(stored, cfg)
        return {ANSWER_TIME: median_seconds(predictor, [corpus.by_id[i].path for i in clips])}
    except SerBenchError as error:  # a run is complete without it
        log.info("time     from audio to answer: not measured, %s", one_line(error))
        return {}


def _stated(timing: dict[str, float], predictions: Predictions) -> dict[str, float]:
    """Return what an imported file itself states of time and cost; its training and computation were elsewhere."""
    names = ["cost/usd", *(["time/clips_per_second"] if predictions.latency_s.any() else [])]
    return {name: timing[name] for name in names}


def _timing(predictions: Predictions, fit_s: float, predict_s: float) -> dict[str, float]:
    rows = max(1, len(predictions.rows))
    latency_s = float(predictions.latency_s.sum())
    return {
        "time/fit_s": fit_s,
        "time/predict_s": predict_s,
        "time/clips_per_second": rows / latency_s if latency_s > 0 else rows / max(predict_s, 1e-9),
        "cost/usd": float(predictions.cost_usd.sum()),
    }
