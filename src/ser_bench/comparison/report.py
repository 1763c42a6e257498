"""What one report holds, and the same as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ser_bench import __version__
from ser_bench.comparison import across_protocols, report_tables
from ser_bench.comparison.claims import DEFAULT_FILE, Claim, claims_on
from ser_bench.comparison.markdown import as_markdown, as_markdown_table, leak_statements
from ser_bench.comparison.paired import Comparison, Line
from ser_bench.comparison.verdict import heading, to_use, verdict
from ser_bench.errors import NotComparableError
from ser_bench.evaluation.statistics import Difference, Interval


@dataclass(frozen=True)
class Report:
    """Comparisons, one for each corpus and protocol, with what was refused and what is claimed elsewhere.

    Attributes:
        title: heading of the page.
        comparisons: figures of different protocols stand side by side; nothing is tested across them.
        refused: why some runs could not be compared.
        claims: by corpus.
    """

    title: str
    comparisons: tuple[Comparison, ...]
    refused: tuple[NotComparableError, ...] = ()
    claims: Mapping[str, list[Claim]] = field(default_factory=dict)

    @classmethod
    def of(cls, title: str, found: Sequence[Comparison | NotComparableError], claimed: Path = DEFAULT_FILE) -> Report:
        """A report on what was compared and refused, with the claims of a file about the same corpora.

        Raises:
            ConfigError: the file of claims is wrong.
        """
        comparisons = tuple(one for one in found if isinstance(one, Comparison))
        refused = tuple(one for one in found if isinstance(one, NotComparableError))
        corpora = dict.fromkeys(comparison.corpus for comparison in comparisons)
        return cls(title, comparisons, refused, {corpus: claims_on(corpus, claimed) for corpus in corpora})

    def claims_on(self, comparison: Comparison) -> list[Claim]:
        """Those about the corpus of a comparison."""
        return self.claims.get(comparison.corpus, [])

    def markdown(self) -> str:
        """The whole as Markdown."""
        parts = [f"# {self.title}"]
        steps = across_protocols.steps(self.comparisons)
        if steps:
            parts.append(
                "Side by side, not tested across protocols:\n\n" + as_markdown_table(across_protocols.as_frame(steps))
            )
        parts += [as_markdown(c, self.claims_on(c)) for c in self.comparisons]
        return "\n\n".join(parts + [f"Not compared: {error}" for error in self.refused]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The whole as JSON-able values; shares from 0 to 1, seconds, US dollars; null where not known."""
        return {
            "title": self.title,
            "version": __version__,
            "comparisons": [_comparison(c) for c in self.comparisons],
            "not_compared": [str(error) for error in self.refused],
            "claimed": {corpus: [vars(claim) for claim in claims] for corpus, claims in self.claims.items()},
        }


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
        "use": to_use(comparison).series.name,
        "baseline": comparison.lines[0].series.name,
        "predictors": [_line(line) for line in comparison.lines],
        "pairs": [
            {"first": pair.first, "second": pair.second} | _difference(pair.difference, pair.adjusted_p)
            for pair in comparison.pairs
        ],
        "leakage": leak_statements(comparison),
        "per_class": report_tables.by_class(comparison).to_dict("records"),
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "name": line.series.name,
        "model": line.series.model,
        "runs": [run.run_id for run in line.series.all],
        "uar": _interval(line.uar),
        "accuracy": _interval(line.accuracy),
        "macro_f1": _interval(line.macro_f1),
        "uar_by_seed": list(line.uar_by_seed),
        "scores": dict(line.scores),
        "usd_per_1000_clips": line.usd_per_1000,
        "parameters": line.parameters,
        "training_s": line.fit_s,
    }


def _difference(difference: Difference, adjusted_p: float | None) -> dict[str, Any]:
    return {
        "uar_second_less_first": _interval(difference.interval),
        "p": difference.p,
        "p_holm": adjusted_p,
        "p_mcnemar": difference.mcnemar_p,
    }


def _interval(found: Interval) -> dict[str, Any]:
    known = not math.isnan(found.low)
    return {
        "value": found.value,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "speakers": found.speakers,
    }
