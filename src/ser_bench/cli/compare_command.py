"""`ser-bench compare`: choose stored runs, compare them, write and log the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ser_bench import comparison, tracking
from ser_bench.cli.terminal_tables import print_json
from ser_bench.comparison import fold_pooling, paired, run_groups
from ser_bench.comparison.claims import DEFAULT_FILE
from ser_bench.config import TrackingConfig, compose
from ser_bench.corpora.names import nfc
from ser_bench.errors import ConfigError, NotComparableError


@dataclass(frozen=True)
class Selection:
    """Which stored runs are compared.

    Attributes:
        overrides: Hydra overrides; they decide the store and the default experiment.
        run_ids: ids or their first letters; none: the latest run of each model.
        parent: id of a sweep, whose runs are compared instead.
        models: without ids, only these models.
        experiment: MLflow experiment; None: that of `corpus=` in the overrides, or else of the latest run.
        tags: "NAME=VALUE", which each run must have.
    """

    overrides: Sequence[str]
    run_ids: Sequence[str]
    parent: str | None = None
    models: Sequence[str] = ()
    experiment: str | None = None
    tags: Sequence[str] = ()


def run(
    selection: Selection, baseline: str | None, claimed: Path | None, out: Path | None, as_json: bool = False
) -> bool:
    """Print the comparison, write its report, and log it to MLflow; return False if there was nothing to compare.

    Args:
        selection: the runs.
        baseline: model that the others are compared with; None: the first.
        claimed: YAML file of published figures; None: the one that comes with the package.
        out: folder of the report; None: outputs/compare/<time>.
        as_json: print the content of `comparison.json`, with the path of the page and the run that has the report.

    Raises:
        ConfigError: a tag is not of the form NAME=VALUE.
        RunNotFoundError: a run is not in the store.
        ArtifactError: a run that was named has damaged predictions; one that was not named is left out with a message.
        NotComparableError: the runs were not measured on the same clips.
    """
    tags = dict(parse_tag(text) for text in selection.tags)
    models = [nfc(name) for name in selection.models]
    baseline = None if baseline is None else nfc(baseline)
    cfg = compose(list(selection.overrides)).tracking
    experiment = selection.experiment or _experiment(cfg, selection.overrides)
    parent = tracking.load_run(cfg, selection.parent).run_id if selection.parent else None
    if parent:
        comparisons = paired.comparisons_of_sweep(cfg, parent, baseline, tags)
    else:
        runs = run_groups.select_runs(cfg, experiment, list(selection.run_ids), tags, models)
        refused: list[NotComparableError] = []
        if not selection.run_ids:  # runs that are named must be readable; of the latest, others are compared
            runs, refused = fold_pooling.readable_runs(runs)
        comparisons = [*([paired.compare(runs, baseline)] if runs or not refused else []), *refused]
    document = comparison.Report.of(comparison.REPORT_TITLE, comparisons, claimed or DEFAULT_FILE)
    if not as_json:
        print(comparison.all_as_text(comparisons))
    if not document.comparisons:
        if as_json:
            print_json(document.to_json())
        return False
    about = {"kind": "comparison", "corpus": document.comparisons[0].corpus}
    run_id = parent or tracking.start_parent(cfg, experiment, "comparison", about)
    folder = out or Path("outputs", "compare", time.strftime("%Y-%m-%d_%H-%M-%S"))
    status = "FAILED"
    try:
        page = comparison.publish(document, cfg, run_id, folder)
        status = "FINISHED"
    finally:  # a report that cannot be written must not leave a run in progress
        if parent is None:
            tracking.end_parent(cfg, run_id, status)
    if as_json:
        print_json(document.to_json() | {"report": str(page), "run": run_id})
        return True
    print(f"\nreport   {page}\nrun      {run_id} in MLflow has the same report")
    return True


def _experiment(cfg: TrackingConfig, overrides: Sequence[str]) -> str:
    """Return the MLflow experiment that the overrides choose, or else that of the latest finished run."""
    chosen = any(word.startswith(("corpus=", "experiment=", "tracking.experiment=")) for word in overrides)
    return cfg.experiment if chosen else tracking.latest_experiment(cfg) or cfg.experiment


def parse_tag(text: str) -> tuple[str, str]:
    """Name and value of a `--tag`, the value in NFC, as names are stored.

    >>> parse_tag("size=eighth")
    ('size', 'eighth')

    Raises:
        ConfigError: there is no equals sign.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--tag {text!r}: write NAME=VALUE, as in --tag size=eighth")
    return name, nfc(value)
