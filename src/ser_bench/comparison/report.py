"""The report on a comparison: its content, and the files that hold it (HTML, Markdown, JSON)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ser_bench import __version__, tracking
from ser_bench.comparison import report_tables
from ser_bench.comparison.claims import DEFAULT_FILE, Claim, claims_on
from ser_bench.comparison.paired import Comparison, GroupResult
from ser_bench.comparison.report_html import as_html
from ser_bench.comparison.report_markdown import as_markdown, as_markdown_table, escaped
from ser_bench.comparison.verdict import heading, leakage_statements, recommended, verdict
from ser_bench.config import TrackingConfig
from ser_bench.errors import NotComparableError
from ser_bench.evaluation import metrics
from ser_bench.evaluation.statistics import Difference, Interval

FILE_NAME = "comparison"
REPORT_TITLE = "Predictors side by side"


@dataclass(frozen=True)
class Report:
    """Comparisons, one for each corpus and protocol, with refused runs and claims of other publications.

    Attributes:
        title: heading of the page.
        comparisons: nothing is tested across them.
        refused: why some runs could not be compared.
        claims: by corpus.
    """

    title: str
    comparisons: tuple[Comparison, ...]
    refused: tuple[NotComparableError, ...] = ()
    claims: Mapping[str, list[Claim]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, title: str, outcomes: Sequence[Comparison | NotComparableError], claims_file: Path = DEFAULT_FILE
    ) -> Report:
        """Return a report on comparisons and refused runs, with the claims of a file on the same corpora.

        Raises:
            ConfigError: if the file of claims is wrong.
        """
        comparisons = tuple(outcome for outcome in outcomes if isinstance(outcome, Comparison))
        refused = tuple(outcome for outcome in outcomes if isinstance(outcome, NotComparableError))
        corpora = dict.fromkeys(comparison.corpus for comparison in comparisons)
        return cls(title, comparisons, refused, {corpus: claims_on(corpus, claims_file) for corpus in corpora})

    def claims_on(self, comparison: Comparison) -> list[Claim]:
        """Return the claims on the corpus of a comparison."""
        return self.claims.get(comparison.corpus, [])

    def html(self) -> str:
        """Return the whole report as one self-contained HTML page."""
        return as_html(self)

    def markdown(self) -> str:
        """Return the whole report as Markdown."""
        parts = [f"# {escaped(self.title)}"]
        results = report_tables.across_protocols(self.comparisons)
        if results:
            table = as_markdown_table(report_tables.as_frame(*report_tables.protocol_table(results)))
            parts.append(f"Results by protocol (differences between protocols are not tested):\n\n{table}")
        parts += [as_markdown(c, self.claims_on(c)) for c in self.comparisons]
        return "\n\n".join(parts + [f"Not compared: {escaped(str(error))}" for error in self.refused]) + "\n"

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the run that holds the report, such as the parent run of a sweep, by their names.

        With one predictor they have the names that its runs have (`test/uar`, `test/uar_low`), with folds pooled and
        seeds averaged; with several, the name of the predictor follows (`uar/cnn`). `_sd` is the standard deviation
        over seeds.
        """
        logged: dict[str, float] = {}
        alone = len(self.comparisons) == 1 and len(self.comparisons[0].results) == 1
        for comparison in self.comparisons:
            for result in comparison.results:
                ends = ("", "_low", "_high", "_sd")
                names = [f"{name}{end}" for name in result.intervals for end in ends]
                figures = {name: result.figures[name] for name in names if name in result.figures}
                for name, value in figures.items():
                    key = f"test/{name}" if alone else f"{_prefix(comparison, self.comparisons)}{name}/{result.name}"
                    logged[key] = value
        return logged

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON-able values: shares from 0 to 1, seconds, US dollars; null if unknown."""
        return {
            "title": self.title,
            "version": __version__,
            "comparisons": [_comparison(c) for c in self.comparisons],
            "not_compared": [str(error) for error in self.refused],
            "claimed": {corpus: [vars(claim) for claim in claims] for corpus, claims in self.claims.items()},
        }


def _prefix(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Return the beginning of the names of a comparison's metrics: "" for the only one, else what tells it apart."""
    if len(comparisons) == 1:
        return ""
    corpora = {other.corpus for other in comparisons}
    return f"{comparison.protocol}/" if len(corpora) == 1 else f"{comparison.corpus} {comparison.protocol}/"


def write(report: Report, folder: Path) -> list[Path]:
    """Write `comparison.html`, `.md` and `.json` into a folder, which is created; return their paths, HTML first."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "html": report.html(),
        "md": report.markdown(),
        "json": json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n",
    }
    paths = []
    for suffix, content in contents.items():
        path = folder / f"{FILE_NAME}.{suffix}"
        path.write_text(content, encoding="utf-8")
        paths.append(path)
    return paths


def publish(report: Report, cfg: TrackingConfig, run_id: str, folder: Path) -> Path:
    """Write the report into a folder, log it to an MLflow run, and return the path of the HTML page."""
    paths = write(report, folder)
    tracking.describe_run(cfg, run_id, report.markdown())
    tracking.log_metrics(cfg, run_id, report.metrics())
    tracking.log_files(cfg, run_id, paths)
    return paths[0]


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "heading": heading(comparison),
        "corpus": comparison.corpus,
        "protocol": comparison.protocol,
        "folds": list(comparison.folds),
        "of_folds": comparison.of_folds,
        "synthetic": comparison.synthetic,
        "labels": list(comparison.labels),
        "clips": len(comparison.clips),
        "speakers": comparison.speakers,
        "verdict": verdict(comparison),
        "recommended": None if comparison.synthetic else recommended(comparison).name,
        "baseline": comparison.baseline.name,
        "predictors": [_result(result) for result in comparison.results],
        "pairs": [
            {"first": pair.first, "second": pair.second}
            | _difference(pair.difference, pair.adjusted_p)
            | {"detectable": pair.detectable}
            for pair in comparison.pairs
        ],
        "leakage": leakage_statements(comparison),
        "support": {
            label: score.support for label, score in metrics.per_class(comparison.baseline.predictions).items()
        },
        "per_class": {
            metric: report_tables.by_class(comparison, metric).set_index("predictor").to_dict("index")
            for metric in report_tables.CLASS_METRICS
        },
    }


def _result(result: GroupResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "model": result.group.model,
        "runs": [run.run_id for run in result.group.all],
        "uar": _interval(result.uar),
        "accuracy": _interval(result.accuracy),
        "macro_f1": _interval(result.macro_f1),
        "rank": None if result.rank is None else list(result.rank),
        "uar_by_seed": list(result.uar_by_seed),
        "sd_over_seeds": dict(result.deviations),
        "of_votes": {name: _interval(interval) for name, interval in result.of_votes.items()},
        "of_levels": {name: _interval(interval) for name, interval in result.of_levels.items()},
        "scores": dict(result.scores),
        "usd_per_1000_clips": result.usd_per_1000,
        "parameters": result.parameters,
        "training_s": result.fit_s,
    }


def _difference(difference: Difference, adjusted_p: float | None) -> dict[str, Any]:
    return {
        "uar_second_minus_first": _interval(difference.interval),
        "p": difference.p,
        "p_holm": adjusted_p,
        "p_mcnemar": difference.mcnemar_p,
    }


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        "value": interval.value,
        "low": interval.low if interval.is_informative else None,
        "high": interval.high if interval.is_informative else None,
        "speakers": interval.speakers,
    }
