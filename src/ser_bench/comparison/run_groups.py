"""Run groups: which stored runs are compared, and which of them belong to one configuration.

`select_runs` selects runs by id, or the latest run of each model. `group_runs` collects the folds and seeds of one
configuration in a `RunGroup`; `fold_pooling` then pools its folds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ser_bench import tracking
from ser_bench.config import (
    CONTENT_GROUPS,
    RUN_COMMAND,
    Config,
    KeyRole,
    ModelConfig,
    TrackingConfig,
    leaves,
    model_schemas,
    plain_default,
    roles,
)
from ser_bench.errors import NotComparableError, RunNotFoundError
from ser_bench.tracking import StoredRun
from ser_bench.types import digest_of

MUST_EQUAL = ("corpus", "protocol", "labels", "corpus_digest", "partition")
"""Tags that runs of one fold must have in common. Otherwise they were measured on other clips or over other labels."""

CHANGED_KEY, CHANGED_TAG = "llm.changed", "llm_changed_parameters"


@dataclass(frozen=True)
class RunGroup:
    """The runs of one configuration.

    Attributes:
        name: of the model, with the keys in which the group differs from other groups of that model.
        runs: seed → fold → run.
    """

    name: str
    runs: Mapping[int, Mapping[int, StoredRun]]

    @property
    def model(self) -> str:
        """Name of the predictor."""
        return self.all[0].tags["model"]

    @property
    def is_imported(self) -> bool:
        """Whether the predictions were imported, so that training and cost are not known."""
        return any(run.tags.get("imported") == "true" for run in self.all)

    @property
    def all(self) -> list[StoredRun]:
        """Every run, ordered by seed, then by fold."""
        return [self.runs[seed][fold] for seed in sorted(self.runs) for fold in sorted(self.runs[seed])]

    @property
    def folds(self) -> set[int]:
        """Folds of which every seed has a run."""
        return set.intersection(*(set(folds) for folds in self.runs.values()))

    def first_of(self, fold: int) -> StoredRun:
        """The run of a fold with the smallest seed."""
        return self.runs[min(self.runs)][fold]


def select_runs(
    cfg: TrackingConfig, experiment: str, ids: Sequence[str], tags: Mapping[str, str], models: Sequence[str] = ()
) -> list[StoredRun]:
    """Return runs by id, or the latest run of each model of an MLflow experiment.

    Args:
        cfg: the store.
        experiment: name of the MLflow experiment.
        ids: run ids, or their first letters. If empty, the latest runs are returned.
        tags: name → value that the latest runs must have.
        models: names of the models, with adaptation ("whisper_probe+speaker_stats"); (): all models.

    Raises:
        RunNotFoundError: if an id is unknown or ambiguous, or one of the models has no finished run.
    """
    if ids:
        return [tracking.load_run(cfg, run_id) for run_id in ids]
    stored = [run for run in tracking.search(cfg, experiment) if run.status == "FINISHED"]
    wanted = [run for run in stored if all(run.tags.get(name) == tags[name] for name in tags)]
    missing = sorted(set(models) - {run.tags["model"] for run in wanted})
    if missing:
        raise RunNotFoundError(
            f"no finished run of {', '.join(missing)} in the MLflow experiment {experiment}; "
            f"start one with: {RUN_COMMAND} model={missing[0].partition('+')[0]}"
        )
    return latest_comparable([run for run in wanted if not models or run.tags["model"] in models])


def latest_comparable(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Return the latest configuration of each model, with its folds and seeds.

    Corpus and split are those of the latest run. Runs on shuffled labels are left out; they can be compared by id.
    """
    candidates = sorted(
        (run for run in runs if run.tags.get("shuffle_labels") != "true"), key=lambda run: -run.start_time
    )
    if not candidates:
        return []
    tags = ("corpus_digest", "protocol", "folds", "labels")
    same = [run for run in candidates if all(run.tags.get(tag) == candidates[0].tags.get(tag) for tag in tags)]
    partition: dict[str, str] = {}
    for run in same:
        partition.setdefault(run.tags["fold"], run.tags["partition"])
    same = [run for run in same if run.tags["partition"] == partition[run.tags["fold"]]]
    newest: dict[str, dict[str, str]] = {}
    for run in same:
        newest.setdefault(run.tags["model"], setting_of(run))
    return [run for run in same if setting_of(run) == newest[run.tags["model"]]]


def group_runs(runs: Iterable[StoredRun]) -> list[RunGroup]:
    """Group runs by configuration, whatever their fold and seed.

    Of two runs of one fold and seed the newer one is used. A group is named after its model and the keys in which it
    differs from other groups of that model.
    """
    by_model: dict[str, dict[str, list[StoredRun]]] = {}
    for run in sorted(runs, key=lambda run: run.start_time):
        by_model.setdefault(run.tags["model"], {}).setdefault(digest_of(setting_of(run)), []).append(run)
    groups = []
    for model, by_setting in by_model.items():
        settings = [_params_of(members[0], labels=True) for members in by_setting.values()]
        keys = _distinguishing_keys(settings)
        for members, setting in zip(by_setting.values(), settings, strict=True):
            name = " ".join([model, *(f"{key.removesuffix('.name')}={setting.get(key, 'null')}" for key in keys)])
            seeds: dict[int, dict[int, StoredRun]] = {}
            for run in members:
                seeds.setdefault(int(run.tags["seed"]), {})[int(run.tags["fold"])] = run
            groups.append(RunGroup(name, seeds))
    return groups


def _distinguishing_keys(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the keys in which configurations differ.

    Keys that follow from the name of a configuration group ("head=svm"), or of a choice of prompting
    ("llm.option=similar"), are left out, unless one of them was changed beside the name.
    """
    varying = sorted({key for setting in settings for key in setting if len({s.get(key) for s in settings}) > 1})
    group_names = [key for key in varying if key.endswith((".name", ".option"))]

    def follows(key: str, name: str) -> bool:
        if key == name or key.partition(".")[0] != name.partition(".")[0]:
            return False
        return len({(s.get(name), s.get(key)) for s in settings}) == len({s.get(name) for s in settings})

    return [key for key in varying if not any(follows(key, name) for name in group_names)]


def setting_of(run: StoredRun) -> dict[str, str]:
    """Return the scientific keys of a run's configuration, of the groups that its predictor reads.

    What the endpoint of a language model refused, and was therefore sent differently, is a key of its own
    (`llm.changed`): folds that were asked differently are not one configuration. A key with the value null, and an
    added key (`config/keys.py`) with its default, count as absent. The members of a fusion count by their own
    configuration, whether they were given by model or by run id.
    """
    return _params_of(run, labels=False)


def _params_of(run: StoredRun, labels: bool) -> dict[str, str]:
    """Return the keys of `setting_of`, with or without label keys. A key unknown to this version is scientific."""
    groups = (*run.tags["key_groups"].split(), "model", *CONTENT_GROUPS)
    role_of = _roles(run.params.get("model.name", ""))
    wanted = {KeyRole.scientific, KeyRole.label} if labels else {KeyRole.scientific}
    setting = {
        name: value
        for name, value in run.params.items()
        if role_of.get(name, KeyRole.scientific) in wanted
        and value != "null"
        and value != _added_defaults().get(name)
        and ("." not in name or name.partition(".")[0] in groups)
    }
    members = {"model.members": run.tags["member_settings"]} if "member_settings" in run.tags else {}
    changed = {CHANGED_KEY: run.tags[CHANGED_TAG]} if CHANGED_TAG in run.tags else {}
    return setting | members | changed


@lru_cache(maxsize=1)
def _added_defaults() -> dict[str, str]:
    """Return path → default, as a parameter of a run, of the shared keys that came after the first runs."""
    return {leaf.path: str(plain_default(leaf.default)) for leaf in leaves(Config) if leaf.added}


@lru_cache(maxsize=32)
def _roles(model: str) -> dict[str, KeyRole]:
    return roles(Config, model_schemas().get(model, ModelConfig))


def refuse_unequal(groups: Sequence[RunGroup]) -> None:
    """Check that the runs of each fold were measured on the same clips and over the same labels.

    Raises:
        RunNotFoundError: if there is no group.
        NotComparableError: if two runs of one fold differ in a tag of `MUST_EQUAL`.
    """
    if not groups:
        raise RunNotFoundError(f"there is no finished run to compare; start one with: {RUN_COMMAND}")
    first: dict[int, StoredRun] = {}
    for run in (run for group in groups for run in group.all):
        other = first.setdefault(int(run.tags["fold"]), run)
        for tag in MUST_EQUAL:
            if other.tags.get(tag) != run.tags.get(tag):
                raise NotComparableError(
                    f"runs {other.run_id} ({other.name}) and {run.run_id} ({run.name}) differ in {tag}: "
                    f"{other.tags.get(tag)} and {run.tags.get(tag)}; compare runs of one corpus and one split"
                )
