"""Audit of a stored run, at its end or at any later time, with or without its corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ser_bench import corpora, predictors, tracking
from ser_bench.audit.checkpoint import check_checkpoint
from ser_bench.audit.combiner import check_combiner
from ser_bench.audit.finding import ADAPTATION, Audit, Finding
from ser_bench.audit.inherited import inherited
from ser_bench.audit.outdated_features import outdated_features
from ser_bench.audit.overlap import near_identical, overlaps, predictions_match
from ser_bench.audit.pretraining import check_pretraining
from ser_bench.audit.repeated_predictions import check_repetition
from ser_bench.audit.scaler import Read, check_scaler, stored_scaler
from ser_bench.audit.scores import check_scores
from ser_bench.audit.stored_member import AuditedMember
from ser_bench.audit.training_rows import check_training_rows
from ser_bench.audit.unknown_training import with_unknown_training
from ser_bench.audit.validation import check_val_loss, remarks
from ser_bench.config import Config, run_here
from ser_bench.errors import BadClipError, CorpusError, SerBenchError, one_line
from ser_bench.features.feature_store import Features
from ser_bench.predictors import AnswersFromFile, CombinesRuns, ScalesFeatures, StatesTrainingData
from ser_bench.predictors.network_predictor import rows_read
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Corpus, Predictor, Split

CURVES = ("loss", "accuracy", "uar")
OF_FEATURES = ("repeated_predictions", "scaler", "val_loss")
"""Findings that compare the run with features that are computed again."""
CLIPS_AT_THE_END = 10_000
"""The audit at the end of a run compares the recordings of no more clips than this; the time grows with its square."""


def audit_and_log(stored: StoredRun, clips: Mapping[str, Clip], features: Features) -> Audit:
    """Audit a run at its end and log the result; features that are not cached are not computed."""
    audit = audit_run(stored, stored.config(), clips, features)
    _log(stored, audit)
    return audit


def audit_stored(stored: StoredRun, root: str | None, cache: str | None) -> Audit:
    """Audit a run as `ser-bench audit` does: find its corpus, compute missing features, log the result.

    Args:
        stored: the run; it must be finished.
        root: folder of the corpus; None: that of the run's own configuration.
        cache: folder of cached features; None: the user's.

    Raises:
        CorpusError: the corpus is not available, or not that of the run, and the run has no table of its clips.
        TrackingError: an artifact is missing.
    """
    cfg = stored.config()
    cfg.cache_dir = cache
    if root is not None:
        cfg.corpus.root = root
    corpus, why = _corpus_of(stored, cfg)
    if corpus is not None:
        audit = audit_run(stored, cfg, corpus.by_id, Features(cfg, corpus.by_id, corpus.language), compute=True)
    else:
        audit = audit_run(stored, cfg, _table_of_clips(stored, why), None, notes=(f"without the audio: {why}",))
    _log(stored, audit)
    return audit


def audit_run(
    stored: StoredRun,
    cfg: Config,
    clips: Mapping[str, Clip],
    features: Features | None,
    compute: bool = False,
    notes: Sequence[str] = (),
) -> Audit:
    """Return all findings for a run from its stored artifacts; for a fusion, those of its members are included.

    Args:
        stored: the run.
        cfg: its configuration.
        clips: of its corpus, by id.
        features: of the same clips; None if the audio is not available.
        compute: whether recordings are compared however many clips there are.
        notes: limits of this audit, which are put into the result.

    Raises:
        CorpusError: the split names clips that are not in the corpus.
        TrackingError: an artifact, or a member, is missing.
    """
    split, predictions = stored.split(), stored.predictions()
    unknown = sorted({row.clip_id for row in (*split.train, *split.val, *split.test)} - set(clips))
    if unknown:
        raise CorpusError(
            f"run {stored.run_id}: its split.json names {len(unknown)} clips missing from its corpus ({unknown[0]}); "
            "the file was changed or is of another corpus: run again with force=true"
        )
    scaler = stored_scaler(stored.artifact("predictor"))
    inputs = _with_members(stored, cfg, features)
    predictor, why = _restored(stored, cfg, predictions.labels, inputs)
    val_loss = stored.history("val/loss")
    kept_epoch = stored.metrics.get("fit/best_epoch")
    curves = {name: stored.history(f"test_curve/{name}") for name in CURVES}
    shares = overlaps(split, clips)
    imported = predictors.has_capability(cfg.model.name, AnswersFromFile)
    speakers = {clip.id: clip.speaker for clip in clips.values()}
    findings = [
        *_adaptation(cfg),
        *shares[:3],
        _near_identical(split, clips, None if imported else features, compute),
        *shares[3:],
        predictions_match(split, predictions, clips, _limit(cfg), {str(n): c for n, c in stored.frame().items()}),
        check_scores(predictions, split.protocol, speakers, stored.metrics, stored.calibration()),
        check_repetition(predictor, why, split, predictions, seed=int(stored.run_id[:8], 16)),
        check_training_rows(rows_read(stored.artifact("predictor")), tracking.stored_fit_rows(stored), split),
        check_scaler(scaler, split, _reader(predictor, inputs)),
        check_checkpoint(
            None if kept_epoch is None else round(kept_epoch),
            cfg.trainer.max_epochs,
            val_loss,
            curves,
            predictions,
        ),
        check_val_loss(predictor, why, cfg, split, inputs, predictions, val_loss, stored.metrics),
    ]
    findings.append(_artifacts(stored))
    combiner = check_combiner(stored.artifact("predictor"), cfg, split, clips)
    findings += [] if combiner is None else [combiner]
    findings += _pretraining(cfg, split, clips)
    if imported:
        findings = with_unknown_training(findings, predictors.predictor_class(cfg.model.name).origin(cfg))
    findings = inherited(findings, _of_members(stored, cfg, clips, features, compute))
    return Audit(
        split.protocol, len(split.test), tuple(findings), (*notes, *remarks(findings), *_doubts(stored, findings))
    )


def _doubts(stored: StoredRun, findings: Sequence[Finding]) -> tuple[str, ...]:
    """Return a note if findings may come from features that this version computes otherwise, and not from a leak."""
    doubtful = [finding.name for finding in findings if finding.leak and finding.name in OF_FEATURES]
    reason = outdated_features(stored) if doubtful else ""
    return (f"{reason}; this alone may be the cause of: {', '.join(doubtful)}",) if reason else ()


def _artifacts(stored: StoredRun) -> Finding:
    """Return a leak if a file of the run was changed, removed or added after the run had ended."""
    check = tracking.check_artifacts(stored)
    if not check.recorded:
        return Finding("artifacts", "not checked: the run is older than the list of its files' SHA-256")
    if not check.faults:
        return Finding("artifacts", f"{check.files} files have the SHA-256 that the run logged at its end", 0.0)
    more = f", and {len(check.faults) - 1} more" if len(check.faults) > 1 else ""
    return Finding("artifacts", f"since the run has ended, {check.faults[0]}{more}", 1.0, leak=True)


def _of_members(
    stored: StoredRun, here: Config, clips: Mapping[str, Clip], features: Features | None, compute: bool
) -> dict[str, tuple[Finding, ...]]:
    """Return model and id of each member of a fusion → its findings, with the features of its own configuration."""
    findings = {}
    for member in stored.members():
        cfg = run_here(member.config(), here)
        of_member = None if features is None else features.under(cfg)
        findings[f"{member.tags['model']} {member.run_id[:8]}"] = audit_run(
            member, cfg, clips, of_member, compute
        ).findings
    return findings


def _log(stored: StoredRun, audit: Audit) -> None:
    """Log the result to the run: tags (`Audit.tags`), metrics `leak/…`, artifact `audit.json`."""
    tracking.log_audit(stored.tracking, stored.run_id, audit.tags, audit.metrics, audit.as_json())


def _near_identical(split: Split, clips: Mapping[str, Clip], features: Features | None, compute: bool) -> Finding:
    name = "near_identical_audio"
    if features is None:
        return Finding(name, "not checked: the audio is not available")
    test, train = ({row.clip_id for row in rows} for rows in (split.test, split.train))
    ids = sorted(test | train | {row.clip_id for row in split.val})
    try:
        pairs = features.copies(ids, compute or len(ids) <= CLIPS_AT_THE_END)
    except BadClipError as error:
        return Finding(name, f"not checked: {one_line(error)}")
    if pairs is None:
        return Finding(name, f"not checked: {len(ids):,} clips take long to compare; ser-bench audit does it")
    both = [*pairs, *((second, first) for first, second in pairs)]
    return near_identical(split, clips, [(a, b) for a, b in both if a in test and b in train])


def _adaptation(cfg: Config) -> tuple[Finding, ...]:
    """Return the finding that names the clips used for adaptation to the speakers; () without adaptation."""
    if "adapt" not in predictors.predictor_class(cfg.model.name).groups or cfg.adapt.name == "none":
        return ()
    number, emotion = cfg.adapt.enrol, cfg.adapt.enrol_emotion
    clips = f"{emotion} clips" if emotion else "clips"
    used = f"all {clips} of each tested speaker, including scored ones," if number is None else (
        f"{number} {clips} of each tested speaker, which are not scored,"
    )  # fmt: skip
    return (Finding(ADAPTATION, f"adapt={cfg.adapt.name}: {used} were used without their labels"),)


def _pretraining(cfg: Config, split: Split, clips: Mapping[str, Clip]) -> tuple[Finding, ...]:
    """Return the finding about the training data of a checkpoint; () if the predictor states none."""
    if not predictors.has_capability(cfg.model.name, StatesTrainingData):
        return ()
    tested = {clips[row.clip_id].corpus or cfg.corpus.name for row in split.test}
    return (check_pretraining(predictors.predictor_class(cfg.model.name).training_data(cfg), tested),)


def _limit(cfg: Config) -> str:
    """Return the configuration key that allows the predictor to leave out test rows; "" if there is none."""
    groups = predictors.predictor_class(cfg.model.name).groups
    if "llm" in groups and cfg.llm.limit is not None:
        return "llm.limit"
    return "adapt.enrol" if "adapt" in groups and cfg.adapt.name != "none" and cfg.adapt.enrol else ""


def _reader(predictor: Predictor | None, features: Features | None) -> Read | None:
    """Return the function that gives the features of which a scaler holds the statistics; None if there is none.

    The restored predictor returns them itself (`ScalesFeatures`). The scaler of a fusion's attention holds the
    statistics of the concatenated vectors of its members.
    """
    if predictor is None or features is None:
        return None
    if predictors.has_capability(predictor.name, CombinesRuns):
        members = features.members()
        return lambda rows: np.concatenate([member.vectors(rows) for member in members], axis=1)
    if not predictors.has_capability(predictor.name, ScalesFeatures):
        return None
    return predictors.require_capability(predictor, ScalesFeatures).scaler_inputs


def _with_members(stored: StoredRun, cfg: Config, features: Features | None) -> Features | None:
    """Return features that give a fusion its members; of any other run, the features as they are."""
    members = [] if features is None else stored.members()
    if features is None or not members:
        return features

    def restore(member: StoredRun) -> Predictor:
        here = run_here(member.config(), cfg)
        own = _with_members(member, here, features.under(here))
        assert own is not None
        return predictors.load(member.artifact("predictor"), here, member.predictions().labels, own)

    return features.under(cfg, [AuditedMember(member, partial(restore, member)) for member in members])


def _restored(
    stored: StoredRun, cfg: Config, labels: tuple[str, ...], features: Features | None
) -> tuple[Predictor | None, str]:
    """Return the stored predictor and "", or None and the reason why it cannot predict here."""
    if features is None:
        return None, "the audio is not available"
    try:
        return predictors.load(stored.artifact("predictor"), cfg, labels, features), ""
    except SerBenchError as error:
        return None, one_line(error)


def _corpus_of(stored: StoredRun, cfg: Config) -> tuple[Corpus | None, str]:
    """Return the run's corpus and "", or None and the reason why it is not available."""
    try:
        corpus = corpora.load(cfg)
    except CorpusError as error:
        return None, str(error)
    if corpus.digest != stored.tags.get("corpus_digest"):
        return None, f"{corpora.root_of(cfg)}: not the copy of {corpus.name} that the run used (its content differs)"
    return corpus, ""


def _table_of_clips(stored: StoredRun, why: str) -> dict[str, Clip]:
    """Return the clips of the run's own table, which must have the digest of its corpus."""
    clips = tracking.stored_clips(stored)
    if clips is None:
        raise CorpusError(
            f"run {stored.run_id} has no clips.parquet, so its corpus is needed: {why}. "
            "Name its folder with corpus.root=FOLDER"
        )
    digest = Corpus(stored.tags["corpus"], tuple(clips.values()), (), "").digest
    if digest != stored.tags.get("corpus_digest"):
        raise CorpusError(
            f"run {stored.run_id}: its clips.parquet is not of its corpus ({digest}); give corpus.root=FOLDER"
        )
    return clips
