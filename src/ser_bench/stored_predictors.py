"""The members of a fusion: which stored runs they are, that they fit the run being made, and how they answer again."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from hydra.core.hydra_config import HydraConfig

from ser_bench import predictors, tracking
from ser_bench.comparison import run_groups
from ser_bench.config import Config, run_here
from ser_bench.errors import ConfigError, NotComparableError, RunNotFoundError
from ser_bench.evaluation.contributions import contributions
from ser_bench.features.feature_store import Features
from ser_bench.predictions import joined
from ser_bench.predictors import CombinesRuns, GivesVectors
from ser_bench.predictors.fusion import Combine, Fusion, FusionConfig
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Corpus, FloatArray, Predictions, Predictor, Row, Split, digest_of

log = logging.getLogger(__name__)

SHORT_ID = 8
MUST_EQUAL = (*run_groups.MUST_EQUAL, "shuffle_labels")
"""Tags that a member has in common with the fusion: a control on shuffled labels has members on shuffled labels."""


@dataclass(frozen=True)
class RestoredMember:
    """A finished run that answers: from its stored predictions, else with its predictor, loaded when first needed.

    Attributes:
        name: as `types.Member` says.
        stored: the run.
        labels: of the fusion, which are the member's too.
        features: the fusion's clips, read as the member's own configuration reads them.
        cfg: the member's configuration, on this machine.
        answers: what the run stored of its test rows; None: every row is predicted anew (new audio).
    """

    name: str
    stored: StoredRun
    labels: tuple[str, ...]
    features: Features = field(repr=False)
    cfg: Config = field(repr=False)
    answers: Predictions | None = field(default=None, repr=False)

    @property
    def run_id(self) -> str:
        """Id of the run."""
        return self.stored.run_id

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Every row, in the order asked; stored answers are given back as they are, cost and latency included."""
        place = {} if self.answers is None else {row: i for i, row in enumerate(self.answers.rows)}
        known = [row for row in rows if row in place]
        if self.answers is not None and len(known) == len(rows):
            return self.answers.take([place[row] for row in rows])
        if not known or self.answers is None:
            return self._predictor.predict(rows)
        anew = self._predictor.predict([row for row in rows if row not in place])
        both = joined(self.answers.take([place[row] for row in known]), anew)
        order = {row: i for i, row in enumerate(both.rows)}
        return both.take([order[row] for row in rows])

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] vectors that the run's own classifier stands on, from its restored predictor.

        Raises:
            ConfigError: it has none, or leaves out clips.
        """
        _refuse_without_vectors(self)
        return predictors.require_capability(self._predictor, GivesVectors).vectors(rows)

    @cached_property
    def _predictor(self) -> Predictor:
        return predictors.load(self.stored.artifact("predictor"), self.cfg, self.labels, self.features)


def resolve(cfg: Config, corpus: Corpus, split: Split) -> tuple[RestoredMember, ...]:
    """The members of the fusion that `cfg` asks for, each said in one line; () for any other model.

    Raises:
        ConfigError: a word that is neither a model nor a run id, a run named twice, or one whose answers for validation
            rows are memory, where a regression is to be fitted to them, or that has no vectors for an attention.
        RunNotFoundError: no such run; of a model, the message gives the command that makes one.
        NotComparableError: a run that is not finished, was measured on something else, or answered some rows only.
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
    new_audio: bool = False,
) -> tuple[RestoredMember, ...]:
    """These runs as members that can answer; a fusion among them with members of its own.

    Args:
        runs: finished runs over `labels`.
        here: where files are on this machine (`config.run_here`).
        clips: by id, what can be asked about.
        language: of the clips.
        labels: of the fusion.
        new_audio: True where the clips are not those of the runs, so that nothing stored is about them.

    Raises:
        NotComparableError: a run that was limited to some of the rows (`llm.limit`).
    """
    # "whisper_probe+speaker_stats" is no name that MLflow takes in a metric's.
    of_model = [run.tags["model"].replace("+", "_") for run in runs]
    found = []
    for run, model in zip(runs, of_model, strict=True):
        cfg = run_here(run.config(), here)
        if cfg.llm.limit is not None and "llm" in predictors.predictor_class(cfg.model.name).groups:
            raise NotComparableError(
                f"run {run.run_id} ({run.name}) answers {cfg.llm.limit} clips at most (llm.limit), a fusion needs all; "
                f"make one without a limit: python run.py model={cfg.model.name} llm.limit=null"
            )
        own = restore(run.members(), here, clips, language, labels, new_audio)
        name = model if of_model.count(model) == 1 else f"{model}_{run.run_id[:SHORT_ID]}"
        features = Features(cfg, clips, language, own)
        found.append(RestoredMember(name, run, labels, features, cfg, None if new_audio else run.predictions()))
    return tuple(found)


def tags_of(members: Sequence[RestoredMember]) -> dict[str, str]:
    """Tags of a fusion: `members`, the run ids; `member_settings`, model and digest of the configuration of each.

    Folds and seeds of one fusion have the same `member_settings`, by which `series` pools them; {} without members.
    Where a member was adapted to its speakers the fusion answers that member's question, and `model` says so.
    """
    if not members:
        return {}
    digests = [digest_of(run_groups.setting_of(member.stored))[:SHORT_ID] for member in members]
    settings = [f"{m.stored.tags['model']}-{digest}" for m, digest in zip(members, digests, strict=True)]
    tags = {"members": " ".join(member.run_id for member in members), "member_settings": " ".join(settings)}
    adapted = sorted({word for m in members for word in m.stored.tags["model"].split("+")[1:]})
    return tags | ({"model": "+".join(["fusion", *adapted])} if adapted else {})


def what_each_adds(predictor: Predictor, answers: Predictions, speakers: Mapping[str, str]) -> dict[str, float]:
    """The facts of `evaluation.contributions`, each member's also said in one line; {} where it is no fusion."""
    if not predictors.has_capability(predictor.name, CombinesRuns):
        return {}
    fusion = predictors.require_capability(predictor, CombinesRuns)
    facts: dict[str, float] = {}
    for one in contributions(answers, fusion.without_each(answers.rows), speakers):
        log.info("adds     %s", one.line)
        facts |= one.facts
    return facts


def _run_of(cfg: Config, word: str, tags: Mapping[str, str]) -> StoredRun:
    """The run that a word of `model.members` stands for."""
    if word not in predictors.names():
        if not set(word) <= set("0123456789abcdef"):
            known = ", ".join(name for name in predictors.names() if name != Fusion.name)
            raise ConfigError(f"model.members: {word!r} is no run id, and no model ({known})")
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
    """A head that was fitted again on training and validation rows knows the latter by heart."""
    if "head" in predictors.predictor_class(member.cfg.model.name).groups and member.cfg.head.refit:
        raise ConfigError(
            f"run {member.run_id} ({member.name}) was fitted to the validation rows too, so what it says of them is "
            "memory: run it with head.refit=false, or combine with model.combine=mean"
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
    """The command line of this run with another model: it makes the same split."""
    if HydraConfig.initialized():
        words = [
            w for w in HydraConfig.get().overrides.task if not w.startswith(("model=", "model.", "+model", "force="))
        ]
    else:
        words = [f"corpus={cfg.corpus.name}", f"split={cfg.split.protocol.value}", f"split.fold={cfg.split.fold}"]
    return shlex.join(["python", "run.py", f"model={model}", *words])
