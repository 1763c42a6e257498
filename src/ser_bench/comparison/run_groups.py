"""Which stored runs belong together: by id, the latest of each model, and the folds and seeds of one configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ser_bench import tracking
from ser_bench.config import CONTENT_GROUPS, Config, KeyRole, ModelConfig, TrackingConfig, model_schemas, roles
from ser_bench.errors import NotComparableError, RunNotFoundError
from ser_bench.tracking import StoredRun
from ser_bench.types import digest_of

MUST_EQUAL = ("corpus", "protocol", "labels", "corpus_digest", "partition")
"""Tags in which the runs of one fold agree, or were not measured on the same clips over the same labels."""


@dataclass(frozen=True)
class Series:
    """One configuration: its runs by seed and fold."""

    name: str
    runs: Mapping[int, Mapping[int, StoredRun]]

    @property
    def model(self) -> str:
        """Name of the predictor."""
        return self.all[0].tags["model"]

    @property
    def all(self) -> list[StoredRun]:
        """Every run, by seed, then fold."""
        return [self.runs[seed][fold] for seed in sorted(self.runs) for fold in sorted(self.runs[seed])]

    @property
    def folds(self) -> set[int]:
        """Folds that every seed has run."""
        return set.intersection(*(set(folds) for folds in self.runs.values()))

    def first_of(self, fold: int) -> StoredRun:
        """The run of this fold with the first seed."""
        return self.runs[min(self.runs)][fold]


def chosen(
    cfg: TrackingConfig, experiment: str, ids: Sequence[str], tags: Mapping[str, str], models: Sequence[str] = ()
) -> list[StoredRun]:
    """Runs by id; without ids the latest of each model in an MLflow experiment, among those with these tags.

    Args:
        cfg: the store.
        experiment: MLflow's name of it.
        ids: run ids, or their first letters.
        tags: name → value.
        models: names of the models that are wanted, adaptation included ("whisper_probe+speaker_stats"); (): all.

    Raises:
        RunNotFoundError: an id is not known or stands for several runs, or one of the models has no finished run.
    """
    if ids:
        return [tracking.load_run(cfg, run_id) for run_id in ids]
    stored = [run for run in tracking.search(cfg, experiment) if run.status == "FINISHED"]
    wanted = [run for run in stored if all(run.tags.get(name) == tags[name] for name in tags)]
    missing = sorted(set(models) - {run.tags["model"] for run in wanted})
    if missing:
        raise RunNotFoundError(f"no finished run of {', '.join(missing)} in the MLflow experiment {experiment}")
    return latest_comparable([run for run in wanted if not models or run.tags["model"] in models])


def latest_comparable(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """The newest configuration of each model, its folds and seeds, on the corpus and split of the newest run of all.

    Runs on shuffled labels are controls and no candidates: they are compared by id.
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


def in_series(runs: Iterable[StoredRun]) -> list[Series]:
    """Group runs by configuration, whatever their fold and seed; of two runs of one fold and seed the newer one counts.

    A series is named after its model and the keys in which it differs from the others of that model.
    """
    by_model: dict[str, dict[str, list[StoredRun]]] = {}
    for run in sorted(runs, key=lambda run: run.start_time):
        by_model.setdefault(run.tags["model"], {}).setdefault(digest_of(setting_of(run)), []).append(run)
    result = []
    for model, groups in by_model.items():
        named = [_params_of(members[0], labels=True) for members in groups.values()]
        telling = _telling(named)
        for members, setting in zip(groups.values(), named, strict=True):
            name = " ".join([model, *(f"{key.removesuffix('.name')}={setting.get(key, 'null')}" for key in telling)])
            seeds: dict[int, dict[int, StoredRun]] = {}
            for run in members:
                seeds.setdefault(int(run.tags["seed"]), {})[int(run.tags["fold"])] = run
            result.append(Series(name, seeds))
    return result


def _telling(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Keys in which configurations differ; for a group chosen by name ("head=svm") the name alone is enough.

    Unless a key of it was changed beside the name: then the key is listed too.
    """
    varying = sorted({key for one in settings for key in one if len({other.get(key) for other in settings}) > 1})
    named = [key for key in varying if key.endswith(".name")]

    def follows(key: str, name: str) -> bool:
        if key == name or key.partition(".")[0] != name.partition(".")[0]:
            return False
        return len({(one.get(name), one.get(key)) for one in settings}) == len({one.get(name) for one in settings})

    return [key for key in varying if not any(follows(key, name) for name in named)]


def setting_of(run: StoredRun) -> dict[str, str]:
    """The scientific keys of a run's configuration, of the groups that its predictor reads.

    A key with the value null counts as absent. The members of a fusion count by their own configuration, whether they
    were named by model or by id.
    """
    return _params_of(run, labels=False)


def _params_of(run: StoredRun, labels: bool) -> dict[str, str]:
    """The same, with or without the names of choices; a key that this version does not know is scientific."""
    groups = (*run.tags["key_groups"].split(), "model", *CONTENT_GROUPS)
    role_of = _roles(run.params.get("model.name", ""))
    wanted = {KeyRole.scientific, KeyRole.label} if labels else {KeyRole.scientific}
    own = {
        name: value
        for name, value in run.params.items()
        if role_of.get(name, KeyRole.scientific) in wanted
        and value != "null"
        and ("." not in name or name.partition(".")[0] in groups)
    }
    members = {"model.members": run.tags["member_settings"]} if "member_settings" in run.tags else {}
    return own | members


@lru_cache(maxsize=32)
def _roles(model: str) -> dict[str, KeyRole]:
    return roles(Config, model_schemas().get(model, ModelConfig))


def refuse_unequal(series: Sequence[Series]) -> None:
    """Raise where the same fold of two series was not measured on the same clips, or over other labels."""
    if not series:
        raise RunNotFoundError("there is no finished run to compare; start one with: python run.py")
    first: dict[int, StoredRun] = {}
    for one in series:
        for run in one.all:
            other = first.setdefault(int(run.tags["fold"]), run)
            for tag in MUST_EQUAL:
                if other.tags.get(tag) != run.tags.get(tag):
                    raise NotComparableError(
                        f"runs {other.run_id} ({other.name}) and {run.run_id} ({run.name}) differ in {tag}: "
                        f"{other.tags.get(tag)} and {run.tags.get(tag)}; compare runs of one corpus and one split"
                    )
