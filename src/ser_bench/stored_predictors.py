"""Restored runs as members of a fusion: how they are chosen and checked, and how they predict again."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hydra.core.hydra_config import HydraConfig

from ser_bench import predictors, tracking
from ser_bench.comparison import run_groups
from ser_bench.config import RUN_COMMAND, Config, run_here
from ser_bench.config.services import own_service
from ser_bench.errors import ConfigError, NotComparableError, RunNotFoundError
from ser_bench.evaluation.contributions import contributions
from ser_bench.features.feature_store import Features
from ser_bench.predictions import concatenate
from ser_bench.predictors import CombinesRuns, GivesVectors
from ser_bench.predictors.fusion import Combine, Fusion, FusionConfig
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Corpus, FloatArray, Predictions, Predictor, Row, Split, digest_of

log = logging.getLogger(__name__)

SHORT_ID = 8
RESTORED = ("config.yaml", "predictor", "predictions.parquet")
"""Artifacts by which a run predicts again; they must not have changed since it ended."""
MUST_EQUAL = (*run_groups.MUST_EQUAL, "shuffle_labels")
"""Tags that a member shares with the fusion; a run on shuffled labels has members on shuffled labels."""


@dataclass(frozen=True)
class RestoredMember:
    """A finished run that predicts: from its stored predictions, else with its predictor, loaded on first use.

    Attributes:
        name: see `types.FusionMember`.
        stored: the stored run.
        labels: labels of the fusion, and of the member.
        features: features of the fusion's clips under the member's configuration.
        cfg: configuration of the member, with files and devices of this machine.
        answers: stored predictions of the test rows.
    """

    name: str
    stored: StoredRun
    labels: tuple[str, ...]
    features: Features = field(repr=False)
    cfg: Config = field(repr=False)
    answers: Predictions = field(repr=False)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.stored.run_id

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return predictions in the given order; stored ones keep their cost and latency."""
        index = {row: i for i, row in enumerate(self.answers.rows)}
        known = [row for row in rows if row in index]
        if len(known) == len(rows):
            return self.answers.take([index[row] for row in rows])
        if not known:
            return self._predictor.predict(rows)
        new = self._predictor.predict([row for row in rows if row not in index])
        both = concatenate(self.answers.take([index[row] for row in known]), new)
        order = {row: i for i, row in enumerate(both.rows)}
        return both.take([order[row] for row in rows])

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return the vectors [N, D] of the run's classifier, from its restored predictor.

        Raises:
            ConfigError: it has none, or leaves out clips.
        """
        _refuse_without_vectors(self)
        return predictors.require_capability(self._predictor, GivesVectors).vectors(rows)

    @cached_property
    def _predictor(self) -> Predictor:
        check_services(self.cfg)
        return predictors.load(self.stored.artifact("predictor"), self.cfg, self.labels, self.features)


def check_services(cfg: Config) -> None:
    """Check that a restored run asks only services that may be asked, before anything is transcribed or sent.

    Raises:
        LLMError: inside `only_own_services`, the user's own configuration names another address or another variable.
    """
    groups = predictors.predictor_class(cfg.model.name).groups
    if "llm" in groups and not (cfg.llm.local and cfg.llm.base_url is None):
        own_service(cfg.llm.base_url, cfg.llm.api_key_env)
    if "text" in groups and cfg.text.name == "openai":
        own_service(cfg.text.base_url, cfg.text.api_key_env or None, "text")


def resolve(cfg: Config, corpus: Corpus, split: Split) -> tuple[RestoredMember, ...]:
    """Return the members of the fusion that `cfg` describes, and log one line for each; () for any other model.

    Raises:
        ConfigError: a word is neither a model nor a run id; a run is named twice; with `stack`, a run was trained on
            the validation rows; or with `attention`, a run has no vectors.
        RunNotFoundError: there is no such run; for a model, the message gives the command that makes one.
        NotComparableError: a run is not finished, was measured on other data, or predicted some rows only.
    """
    if not isinstance(cfg.model, FusionConfig):
        return ()
    tags = {
        "corpus": corpus.measured,
        "protocol": split.protocol,
        "labels": " ".join(corpus.labels),
        "corpus_digest": corpus.digest,
        "partition": split.partition,
        "shuffle_labels": str(cfg.shuffle_labels).lower(),
    }
    runs = [_run_of(cfg, word, tags) for word in cfg.model.members]
    for i, run in enumerate(runs):
        _refuse_unequal(run, tags)
        if run.run_id in {other.run_id for other in runs[:i]}:
            raise ConfigError(f"model.members names run {run.run_id} ({run.name}) twice; a run is combined with others")
    found = restore(runs, cfg, corpus.by_id, corpus.language, corpus.labels)
    for member in found:
        if cfg.model.combine is Combine.stack:
            _refuse_fitted_to_validation(member)
        if cfg.model.combine is Combine.attention:
            _refuse_without_vectors(member)
        score = f", UAR {member.stored.metrics['test/uar']:.3f}" if "test/uar" in member.stored.metrics else ""
        log.info("member   %s: run %s (%s)%s", member.name, member.run_id, member.stored.name, score)
    return found


def restore(
    runs: Sequence[StoredRun],
    here: Config,
    clips: Mapping[str, Clip],
    language: str,
    labels: tuple[str, ...],
) -> tuple[RestoredMember, ...]:
    """Return these runs as members that can predict; a fusion among them has members of its own.

    Args:
        runs: finished runs over `labels`.
        here: configuration with the files and devices of this machine (`config.run_here`).
        clips: clips by id.
        language: language of the clips.
        labels: labels of the fusion.

    Raises:
        NotComparableError: a run was limited to some of the rows (`llm.limit`).
        TrackingError: files of a run were changed after it had ended.
    """
    found = []
    for name, run in zip(member_names(runs), runs, strict=True):
        tracking.refuse_changed(run, *RESTORED)
        cfg = run_here(run.config(), here)
        if cfg.llm.limit is not None and "llm" in predictors.predictor_class(cfg.model.name).groups:
            raise NotComparableError(
                f"run {run.run_id} ({run.name}) predicts at most {cfg.llm.limit} clips (llm.limit), and a fusion all; "
                f"make one without a limit: {RUN_COMMAND} model={cfg.model.name} llm.limit=null"
            )
        members = restore(run.members(), here, clips, language, labels)
        features = Features(cfg, clips, language, members)
        found.append(RestoredMember(name, run, labels, features, cfg, run.predictions()))
    return tuple(found)


def member_names(runs: Sequence[StoredRun]) -> list[str]:
    """Return the name of each run within a fusion: its model, with the first digits of the run id if several have it.

    MLflow does not allow "+" in the name of a metric ("whisper_probe+speaker_stats").
    """
    models = [run.tags["model"].replace("+", "_") for run in runs]
    return [
        model if models.count(model) == 1 else f"{model}_{run.run_id[:SHORT_ID]}"
        for model, run in zip(models, runs, strict=True)
    ]


def tags_of(members: Sequence[RestoredMember]) -> dict[str, str]:
    """Return the tags of a fusion: `members` (run ids) and `member_settings` (model and configuration digest of each).

    Folds and seeds of one fusion have the same `member_settings`, by which run groups pool them. If a member was
    adapted to its speakers, the tag `model` of the fusion says so too. {} without members.
    """
    if not members:
        return {}
    digests = [digest_of(run_groups.setting_of(member.stored))[:SHORT_ID] for member in members]
    settings = [f"{m.stored.tags['model']}-{digest}" for m, digest in zip(members, digests, strict=True)]
    tags = {"members": " ".join(member.run_id for member in members), "member_settings": " ".join(settings)}
    adapted = sorted({word for m in members for word in m.stored.tags["model"].split("+")[1:]})
    return tags | ({"model": "+".join(["fusion", *adapted])} if adapted else {})


def what_each_adds(predictor: Predictor, answers: Predictions, speakers: Mapping[str, str]) -> dict[str, float]:
    """Return the contribution of each member as metrics, and log one line for each; {} if it is no fusion."""
    if not predictors.has_capability(predictor.name, CombinesRuns):
        return {}
    fusion = predictors.require_capability(predictor, CombinesRuns)
    facts: dict[str, float] = {}
    for contribution in contributions(answers, fusion.without_each(answers.rows), speakers):
        log.info("adds     %s", contribution.line)
        facts |= contribution.facts
    return facts


def _run_of(cfg: Config, word: str, tags: Mapping[str, str]) -> StoredRun:
    """Return the run that a word of `model.members` refers to."""
    if word not in predictors.names():
        if not set(word) <= set("0123456789abcdef"):
            known = ", ".join(name for name in predictors.names() if name != Fusion.name)
            raise ConfigError(f"model.members: {word!r} is neither a run id nor a model ({known})")
        return tracking.load_run(cfg.tracking, word)
    if word == Fusion.name:
        raise ConfigError("model.members: name a fusion within a fusion by its run id; its newest run may be this one")
    same = {name: tags[name] for name in ("corpus_digest", "partition", "shuffle_labels")}
    found = tracking.newest(cfg.tracking, model=word, seed=str(cfg.seed), **same)
    fitting = [run for run in found if all(run.tags.get(name) == tags[name] for name in MUST_EQUAL)]
    if not fitting:
        raise RunNotFoundError(
            f"no finished run of {word} on this corpus, labels, split and seed; make one: {_command(cfg, word)}"
        )
    return fitting[0]


def _refuse_unequal(run: StoredRun, tags: Mapping[str, str]) -> None:
    if run.status != "FINISHED":
        raise NotComparableError(f"run {run.run_id} ({run.name}) is {run.status}; a fusion combines finished runs")
    for name in MUST_EQUAL:
        if run.tags.get(name) != tags[name]:
            raise NotComparableError(
                f"run {run.run_id} ({run.name}) and this fusion differ in {name}: {run.tags.get(name)} and "
                f"{tags[name]}; combine runs of one corpus and one split"
            )


def _refuse_fitted_to_validation(member: RestoredMember) -> None:
    """Raise where the head of a member was fitted on training and validation rows."""
    if "head" in predictors.predictor_class(member.cfg.model.name).groups and member.cfg.head.refit:
        raise ConfigError(
            f"run {member.run_id} ({member.name}) was fitted on the validation rows too, so its predictions of them "
            "are overconfident: run it with head.refit=false, or combine with model.combine=mean"
        )


def _refuse_without_vectors(member: RestoredMember) -> None:
    """Raise where a member of an attention has no fixed vector of every clip."""
    name = member.cfg.model.name
    if predictors.has_capability(name, GivesVectors):
        reason = predictors.predictor_class(name).reason_without_vectors(member.cfg)
    else:
        reason = f"model={name} has no fixed vectors"
    if not reason:
        return
    possible = ", ".join(name for name in predictors.names() if predictors.has_capability(name, GivesVectors))
    raise ConfigError(
        f"run {member.run_id} ({member.name}) cannot be a member with model.combine=attention: {reason}. Members can "
        f"be runs of {possible}; model.combine=stack and model.combine=mean take any model"
    )


def _command(cfg: Config, model: str) -> str:
    """Return the command line of this run with another model; it makes the same split."""
    if HydraConfig.initialized():
        words = [
            w for w in HydraConfig.get().overrides.task if not w.startswith(("model=", "model.", "+model", "force="))
        ]
    else:
        words = [f"corpus={cfg.corpus.name}", f"split={cfg.split.protocol.value}", f"split.fold={cfg.split.fold}"]
    return f"{RUN_COMMAND} " + shlex.join([f"model={model}", *words])
