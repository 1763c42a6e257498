"""`ser-bench runs`, `show` and `rerun`: list stored runs, print one, and repeat one."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ser_bench import tracking
from ser_bench.api import printed_log
from ser_bench.cli.compare_command import parse_tag
from ser_bench.cli.terminal_tables import Cell, print_json, print_table
from ser_bench.config import RUN_COMMAND, compose, run_here
from ser_bench.config.repetition import repeating_overrides
from ser_bench.config.services import only_own_services
from ser_bench.durations import format_duration
from ser_bench.errors import ConfigError
from ser_bench.tracking import StoredRun

COLUMNS = ("run", "model", "corpus", "protocol", "fold", "seed", "UAR", "audit", "status", "age")
ID_LETTERS = 8
"""Length of the shortened run ids in the table; commands take ids by their first letters."""
SHOWN_METRICS = ("test/", "leak/", "time/", "llm/")
"""Beginnings of the names of metrics that `show` prints, without those of single classes (which have two slashes)."""


def list_runs(
    overrides: Sequence[str], experiment: str | None, models: Sequence[str], tags: Sequence[str], as_json: bool
) -> None:
    """Print the stored runs, newest first.

    Args:
        overrides: Hydra overrides; `tracking` decides the store.
        experiment: MLflow experiment; None: all of them.
        models: names of predictors; (): all.
        tags: "NAME=VALUE", which each run must have.
        as_json: print a list with one object per run.

    Raises:
        ConfigError: a tag is not of the form NAME=VALUE.
        TrackingError: the store cannot be read.
    """
    wanted = dict(map(parse_tag, tags))
    runs = [
        run
        for run in tracking.search(compose(list(overrides)).tracking, experiment)
        if (not models or run.tags.get("model") in models)
        and all(run.tags.get(name) == value for name, value in wanted.items())
    ]
    if as_json:
        print_json([_record(run) for run in runs])
    elif runs:
        print_table(COLUMNS, [_row(run) for run in runs])
    else:
        print(f"no stored run; start one with: {RUN_COMMAND}")


def show_run(overrides: Sequence[str], run_id: str, as_json: bool) -> None:
    """Print one run: what it is, its results, its audit, its files, and the command that repeats it.

    Raises:
        RunNotFoundError: no run, or more than one, has this id.
    """
    run = tracking.load_run(compose(list(overrides)).tracking, run_id)
    command = shlex.join([*RUN_COMMAND.split(), *repeating_overrides(run.config())])
    files = run.artifact_names()
    metrics = {
        name: value
        for name, value in sorted(run.metrics.items())
        if name.startswith(SHOWN_METRICS) and name.count("/") == 1
    }
    if as_json:
        about = {"params": run.params, "metrics": run.metrics, "tags": run.tags, "files": files, "repeat": command}
        print_json(_record(run) | about)
        return
    print(f"run      {run.run_id}  {run.name}, {run.status}, {_age(run)} ago")
    tags = ("corpus", "corpus_digest", "protocol", "fold", "folds", "labels", "seed", "experiment", "commit", "version",
            "imported_file", "imported_sha256", "training")  # fmt: skip
    _print_pairs({name: run.tags[name] for name in tags if name in run.tags})
    print("\nmetrics")
    _print_pairs({name: f"{value:.4g}" for name, value in metrics.items()})
    print(f"\naudit    {run.tags.get('audit', f'none; ser-bench audit {run.run_id[:ID_LETTERS]}')}")
    print(f"files    {', '.join(files)}")
    print(f"repeat   {command}")


def rerun(overrides: Sequence[str], run_id: str) -> bool:
    """Make a stored run again, compare the predictions, print the result, and return whether they are equal.

    The new run is stored beside the old one. Keys of role `machine` (folders, threads) are those of this machine.

    Raises:
        RunNotFoundError: there is no such run.
        ConfigError: the run has no predictions.
        SerBenchError: the run fails.
    """
    from ser_bench import pipeline

    here = compose(list(overrides))
    before = tracking.load_run(here.tracking, run_id)
    cfg = run_here(before.config(), here)
    cfg.force, cfg.tracking.experiment = True, before.config().tracking.experiment
    cfg.corpus.root = here.corpus.root or before.config().corpus.root
    cfg.split.test_root = here.split.test_root or before.config().split.test_root
    with only_own_services(here), printed_log():
        result = pipeline.run(cfg, None)
    after = tracking.load_run(here.tracking, result.run_id)
    lines, equal = differences(before, after)
    print("\n".join(lines))
    return equal


def differences(before: StoredRun, after: StoredRun) -> tuple[list[str], bool]:
    """Return lines that compare two runs of one configuration, and whether their predictions are equal in every bit.

    Raises:
        ConfigError: the runs predicted other rows or other labels, so that they cannot be compared.
    """
    first, second = before.predictions(), after.predictions()
    if first.rows != second.rows or first.labels != second.labels:
        raise ConfigError(f"run {after.run_id} predicted other rows than {before.run_id}: corpus or split have changed")
    changed = sum(a != b for a, b in zip(first.predicted, second.predicted, strict=True))
    largest = float(np.abs(first.probabilities - second.probabilities).max())
    equal = not changed and first.probabilities.tobytes() == second.probabilities.tobytes()
    versions = [
        f"version {run.tags.get('version', '?')}, commit {run.tags.get('commit', '?')[:8]}" for run in (before, after)
    ]
    uar = [run.metrics.get("test/uar", float("nan")) for run in (before, after)]
    lines = [
        f"before   {before.run_id}  UAR {uar[0]:.4f}  ({versions[0]})",
        f"now      {after.run_id}  UAR {uar[1]:.4f}  ({versions[1]})",
        "equal    every label and every probability is equal"
        if equal
        else f"differs  {changed:,} of {len(first.rows):,} labels; largest difference of a probability {largest:.2g}",
    ]
    return lines, equal


def _row(run: StoredRun) -> list[Cell]:
    tags = run.tags
    uar = run.metrics.get("test/uar")
    fold = f"{tags.get('fold', '?')} of {tags.get('folds', '?')}"
    outcome = tags.get("audit", "")
    return [
        run.run_id[:ID_LETTERS], tags.get("model", ""), tags.get("corpus", ""), tags.get("protocol", ""), fold,
        tags.get("seed", "0"), "" if uar is None else f"{uar:.3f}", outcome, run.status, _age(run),
    ]  # fmt: skip


def _record(run: StoredRun) -> dict[str, Any]:
    names = ("model", "corpus", "protocol", "fold", "folds", "seed", "audit")
    return {"run": run.run_id, "name": run.name, "status": run.status, "started_ms": run.start_time} | {
        **{name: run.tags.get(name, "") for name in names},
        "uar": run.metrics.get("test/uar"),
    }


def _age(run: StoredRun) -> str:
    return format_duration(max(0.0, time.time() - run.start_time / 1000))


def _print_pairs(pairs: Mapping[str, str]) -> None:
    width = max((len(name) for name in pairs), default=0)
    for name, value in pairs.items():
        print(f"  {name.ljust(width)}  {value}")
