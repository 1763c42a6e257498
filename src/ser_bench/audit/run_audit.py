"""The audit of a run in the store: right after it ended, or years later with whatever is left of its corpus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from cachetools import LRUCache

from ser_bench import corpora, predictors, tracking
from ser_bench.audit.checkpoint import check_checkpoint
from ser_bench.audit.combiner import check_combiner
from ser_bench.audit.finding import ADAPTATION, Audit, Finding
from ser_bench.audit.inherited import inherited
from ser_bench.audit.overlap import near_identical, overlaps, predictions_match
from ser_bench.audit.scaler import Read, Scaler, check_scaler, stored_scaler
from ser_bench.config import Config, run_here
from ser_bench.errors import CorpusError
from ser_bench.features import fingerprint
from ser_bench.features.feature_store import Features
from ser_bench.predictors import CombinesRuns, GivesVectors, ScalesFeatures
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Corpus, FloatArray, Split, clean_rows

CURVES = ("loss", "accuracy", "uar")
MEMORY_BYTES = 2**28
_recent: LRUCache[str, FloatArray] = LRUCache(MEMORY_BYTES, getsizeof=lambda one: one.nbytes)
"""Digest of a clip → its fingerprint: every fold of a sweep asks for those of all clips."""


def audit_and_log(stored: StoredRun, clips: Mapping[str, Clip], features: Features) -> Audit:
    """Audit a run whose corpus is at hand, and keep the result with it; what is not cached is not computed."""
    found = audit_run(stored, stored.config(), clips, features)
    log(stored, found)
    return found


def audit_stored(stored: StoredRun, root: str | None, cache: str | None) -> Audit:
    """Audit a run as `ser-bench audit` does: find its corpus, compute features that are missing, keep the result.

    Args:
        stored: the run; it must be finished.
        root: folder of the corpus; None: that of the run's own configuration.
        cache: folder of cached features; None: the user's.

    Raises:
        CorpusError: the corpus is not at hand, or is not the run's, and the run keeps no table of its clips.
        TrackingError: an artifact is missing.
    """
    cfg = stored.config()
    cfg.cache_dir = cache
    if root is not None:
        cfg.corpus.root = root
    corpus, why = _corpus_of(stored, cfg)
    if corpus is not None:
        found = audit_run(stored, cfg, corpus.by_id, Features(cfg, corpus.by_id, corpus.language), compute=True)
    else:
        found = audit_run(stored, cfg, _kept_clips(stored, why), None, notes=(f"without the audio: {why}",))
    log(stored, found)
    return found


def audit_run(
    stored: StoredRun,
    cfg: Config,
    clips: Mapping[str, Clip],
    features: Features | None,
    compute: bool = False,
    notes: Sequence[str] = (),
) -> Audit:
    """All questions, asked of the stored artifacts of one run, and of those of its members where it is a fusion.

    Args:
        stored: the run.
        cfg: its configuration.
        clips: of its corpus, by id.
        features: of the same; None where the audio is not at hand.
        compute: whether spectral features that are not cached are computed for the fingerprints.
        notes: put into the result.

    Raises:
        CorpusError: the split names clips that the corpus has not.
        TrackingError: an artifact, or a member, is missing.
    """
    split, predictions = stored.split(), stored.predictions()
    strange = sorted({row.clip_id for row in (*split.train, *split.val, *split.test)} - set(clips))
    if strange:
        raise CorpusError(
            f"run {stored.run_id}: its split.json names {len(strange)} clips that its corpus has not ({strange[0]}); "
            "it was changed, or is of another corpus: train again with force=true"
        )
    scaler = stored_scaler(stored.artifact("predictor"))
    kept = stored.metrics.get("fit/best_epoch")
    curves = {name: stored.history(f"test_curve/{name}") for name in CURVES}
    shares = overlaps(split, clips)
    findings = [
        *_adaptation(cfg),
        *shares[:3],
        _near_identical(cfg, split, clips, features, compute),
        *shares[3:],
        predictions_match(split, predictions, clips, _limit(cfg)),
        check_scaler(scaler, split, _reader(stored, cfg, scaler, features)),
        check_checkpoint(
            None if kept is None else round(kept),
            cfg.trainer.max_epochs,
            stored.history("val/loss"),
            curves,
            predictions,
        ),
    ]
    combiner = check_combiner(stored.artifact("predictor"), cfg, split, clips)
    findings += [] if combiner is None else [combiner]
    findings = inherited(findings, _of_members(stored, cfg, clips, features, compute))
    return Audit(split.protocol, len(split.test), tuple(findings), tuple(notes))


def _of_members(
    stored: StoredRun, here: Config, clips: Mapping[str, Clip], features: Features | None, compute: bool
) -> dict[str, tuple[Finding, ...]]:
    """Model and id of each member of a fusion → its findings, over features as its own configuration reads them."""
    found = {}
    for member in stored.members():
        cfg = run_here(member.config(), here)
        own = None if features is None else features.under(cfg)
        found[f"{member.tags['model']} {member.run_id[:8]}"] = audit_run(member, cfg, clips, own, compute).findings
    return found


def log(stored: StoredRun, found: Audit) -> None:
    """Keep the result with the run: tags `audit` and `audit_verdict`, metrics `leak/…`, artifact `audit.json`."""
    tags = {"audit": found.tag, "audit_verdict": found.verdict}
    tracking.log_audit(stored.tracking, stored.run_id, tags, found.metrics, found.as_json())


def _near_identical(
    cfg: Config, split: Split, clips: Mapping[str, Clip], features: Features | None, compute: bool
) -> Finding:
    name = "near_identical_audio"
    if not fingerprint.applies_to(cfg.features):
        return Finding(
            name, "not checked: fingerprints are made of the paper's spectral features, and these are others"
        )
    test, train = (sorted({row.clip_id for row in rows}) for rows in (split.test, split.train))
    known = None if features is None else _fingerprints(features, clips, sorted({*test, *train}), compute)
    if known is None:
        return Finding(name, "not checked: the clips' spectral features are not cached; ser-bench audit computes them")
    of_test, of_train = (np.stack([known[clip_id] for clip_id in part]) for part in (test, train))
    alike = [(test[i], train[j]) for i, j, _ in fingerprint.similar(of_test, of_train) if test[i] != train[j]]
    same = [(one, two) for one, two in alike if fingerprint.same_recording(clips[one].path, clips[two].path)]
    return near_identical(split, clips, same)


def _fingerprints(
    features: Features, clips: Mapping[str, Clip], clip_ids: Sequence[str], compute: bool
) -> dict[str, FloatArray] | None:
    """Clip id → fingerprint; None where spectral features are missing and are not to be computed."""
    new = [clip_id for clip_id in clip_ids if clips[clip_id].digest not in _recent]
    found: dict[str, FloatArray] = {}
    if new:
        vectors = features.spectral(clean_rows(new)) if compute else features.cached_spectral(clean_rows(new))
        if vectors is None:
            return None
        found = dict(zip(new, fingerprint.fingerprints(vectors), strict=True))
    found |= {clip_id: _recent[clips[clip_id].digest] for clip_id in clip_ids if clip_id not in found}
    _recent.update({clips[clip_id].digest: one for clip_id, one in found.items()})
    return found


def _adaptation(cfg: Config) -> tuple[Finding, ...]:
    """What a predictor that adapts to its speakers was told of them; nothing for others."""
    if "adapt" not in predictors.predictor_class(cfg.model.name).groups or cfg.adapt.name == "none":
        return ()
    number, emotion = cfg.adapt.enrol, cfg.adapt.enrol_emotion
    clips = f"{emotion} clips" if emotion else "clips"
    used = f"all {clips} of each tested speaker, scored ones too," if number is None else (
        f"{number} {clips} of each tested speaker, which are not scored,"
    )  # fmt: skip
    return (Finding(ADAPTATION, f"adapt={cfg.adapt.name}: {used} were used without their labels"),)


def _limit(cfg: Config) -> str:
    """The key that lets this predictor answer for some of the test rows only, or ""."""
    groups = predictors.predictor_class(cfg.model.name).groups
    if "llm" in groups and cfg.llm.limit is not None:
        return "llm.limit"
    return "adapt.enrol" if "adapt" in groups and cfg.adapt.name != "none" and cfg.adapt.enrol else ""


def _reader(stored: StoredRun, cfg: Config, scaler: Scaler | None, features: Features | None) -> Read | None:
    """Return the function that gives the features of which a scaler holds the statistics; None if there is none.

    The restored predictor returns them itself (`ScalesFeatures`). The scaler of a fusion's attention holds the
    statistics of the concatenated vectors of its members.
    """
    if scaler is None or features is None:
        return None
    name, labels = cfg.model.name, stored.predictions().labels
    if predictors.has_capability(name, CombinesRuns):
        return _concatenated(stored, cfg, features)
    if not predictors.has_capability(name, ScalesFeatures):
        return None
    predictor = predictors.load(stored.artifact("predictor"), cfg, labels, features)
    return predictors.require_capability(predictor, ScalesFeatures).scaler_inputs


def _concatenated(stored: StoredRun, here: Config, features: Features) -> Read:
    """Return the function that gives the vectors of a fusion's members, concatenated."""
    reads: list[Read] = []
    for member in stored.members():
        cfg = run_here(member.config(), here)
        predictor = predictors.load(member.artifact("predictor"), cfg, stored.predictions().labels, features.under(cfg))
        reads.append(predictors.require_capability(predictor, GivesVectors).vectors)
    return lambda rows: np.concatenate([read(rows) for read in reads], axis=1)


def _corpus_of(stored: StoredRun, cfg: Config) -> tuple[Corpus | None, str]:
    """The run's corpus, or None and why it is not at hand."""
    try:
        corpus = corpora.load(cfg)
    except CorpusError as error:
        return None, str(error)
    if corpus.digest != stored.tags.get("corpus_digest"):
        return None, f"{corpora.root_of(cfg)}: not the copy of {corpus.name} that was measured (its content differs)"
    return corpus, ""


def _kept_clips(stored: StoredRun, why: str) -> dict[str, Clip]:
    """The run's own table of clips, checked against the digest of its corpus."""
    clips = tracking.stored_clips(stored)
    if clips is None:
        raise CorpusError(
            f"run {stored.run_id} keeps no clips.parquet, and its corpus is needed: {why}. "
            "Say where it is: corpus.root=FOLDER"
        )
    digest = Corpus(stored.tags["corpus"], tuple(clips.values()), (), "").digest
    if digest != stored.tags.get("corpus_digest"):
        raise CorpusError(
            f"run {stored.run_id}: its clips.parquet is not of its corpus ({digest}); give corpus.root=FOLDER"
        )
    return clips
