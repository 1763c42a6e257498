"""`ser-bench require`: check whether stored runs meet requirements, for continuous integration."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ser_bench import tracking
from ser_bench.audit import audit_stored
from ser_bench.cli.command_words import OVERRIDE
from ser_bench.cli.terminal_tables import print_json, print_table
from ser_bench.comparison.requirements import EXAMPLES, LEAK, CheckedRuns, Outcome, Requirement
from ser_bench.config import Config, compose
from ser_bench.config.override_words import is_known_key, path_of
from ser_bench.config.services import only_own_services
from ser_bench.errors import ConfigError
from ser_bench.tracking import StoredRun

SIGN = re.compile(r"[<>=]")


def run(words: Sequence[str], model: str | None, audit_again: bool, as_json: bool) -> bool:
    """Print each requirement with the actual figure, and return whether all are met.

    Args:
        words: run ids, requirements and overrides, in any order.
        model: of a sweep with several predictors, the one to check; None: all runs are of one.
        audit_again: audit every run now for `leak=…`, even if it has a stored audit.
        as_json: print one object instead of a table.

    Raises:
        ConfigError: no run or no requirement is given, a requirement is malformed, or a figure is not known.
        RunNotFoundError: a run is not in the store.
    """
    overrides, run_ids, requirements = divide(words)
    if not run_ids:
        raise ConfigError(f"no run is named: ser-bench require RUN {EXAMPLES.split(',')[0]}; ser-bench runs lists all")
    if not requirements:
        raise ConfigError(f"no requirement is given: write, for example, {EXAMPLES}")
    cfg = compose(overrides)
    runs = _runs(cfg, run_ids, model)
    if any(requirement.name == LEAK for requirement in requirements):
        runs = [_audited(cfg, stored, audit_again) for stored in runs]
    checked = CheckedRuns(runs)
    outcomes = [checked.check(requirement) for requirement in requirements]
    met = all(outcome.met for outcome in outcomes)
    if as_json:
        print_json({"met": met, "predictor": checked.name, "runs": [r.run_id for r in checked.runs]}
                   | {"requirements": [_record(outcome) for outcome in outcomes]})  # fmt: skip
        return met
    print_table(("", "requirement", "actual", ""), [_row(outcome) for outcome in outcomes])
    failed = sum(not outcome.met for outcome in outcomes)
    ids = ", ".join(stored.run_id[:8] for stored in checked.runs)
    count = f"all {len(outcomes)}" if met else f"{failed} of {len(outcomes)}"
    print(f"\n{'met     ' if met else 'not met '} {count} requirements; {checked.name}, run {ids}")
    return met


def divide(words: Sequence[str]) -> tuple[list[str], list[str], list[Requirement]]:
    """Return overrides, run ids and requirements. A word with a sign is an override if its name is a key.

    >>> divide(["8b97", "test/uar_low>=.7", "tracking.dir=mlruns", "leak=none"])[:2]
    (['tracking.dir=mlruns'], ['8b97'])

    Raises:
        ConfigError: a word with a sign is no requirement.
    """
    overrides, run_ids, requirements = [], [], []
    for word in words:
        if OVERRIDE.match(word) and is_known_key(path_of(word)):
            overrides.append(word)
        elif SIGN.search(word):
            requirements.append(Requirement.parse(word))
        else:
            run_ids.append(word)
    return overrides, run_ids, requirements


def _runs(cfg: Config, run_ids: Sequence[str], model: str | None) -> list[StoredRun]:
    """Return the runs; a sweep stands for its finished runs.

    Raises:
        ConfigError: there is no finished run, or none of the model.
    """
    runs: dict[str, StoredRun] = {}
    for run_id in run_ids:
        stored = tracking.load_run(cfg.tracking, run_id)
        if stored.tags.get("kind") == "run":
            runs[stored.run_id] = stored
        else:
            children = tracking.search(cfg.tracking, parent=stored.run_id)
            runs |= {child.run_id: child for child in children if child.status == "FINISHED"}
    wanted = [stored for stored in runs.values() if model in (None, stored.tags.get("model"))]
    if not wanted:
        models = ", ".join(sorted({stored.tags.get("model", "") for stored in runs.values()}))
        which = f" of model {model}; there are {models}" if models else ", the sweep has none"
        raise ConfigError(f"there is no finished run{which}")
    return wanted


def _audited(cfg: Config, stored: StoredRun, again: bool) -> StoredRun:
    """Return a run with the tag of its audit; it is audited now if it has none, or if `again`."""
    if "audit" in stored.tags and not again:
        return stored
    with only_own_services(cfg):
        audit_stored(stored, cfg.corpus.root, cfg.cache_dir)
    return tracking.load_run(cfg.tracking, stored.run_id)


def _row(outcome: Outcome) -> list[str | float]:
    actual = outcome.actual if isinstance(outcome.actual, str) else f"{outcome.actual:.4g}"
    return ["pass" if outcome.met else "FAIL", outcome.requirement.text, actual, outcome.detail]


def _record(outcome: Outcome) -> dict[str, object]:
    requirement = outcome.requirement
    value = requirement.value if requirement.name == LEAK else requirement.limit
    return {
        "requirement": requirement.text, "name": requirement.name, "sign": requirement.sign, "value": value,
        "actual": outcome.actual, "met": outcome.met, "detail": outcome.detail,
    }  # fmt: skip
