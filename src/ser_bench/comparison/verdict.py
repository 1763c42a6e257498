"""The verdict: what a comparison shows, in three sentences, and what is known about leakage.

Sentence 1 names the predictor with the highest UAR, sentence 2 gives the differences to the baseline, sentence 3
recommends a predictor and states the known leakage. The number formats of all reports are at the end of this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ser_bench.audit.finding import (
    ANNOUNCED,
    TAG_UNKNOWN,
    TAG_WITHOUT_LEAKAGE,
    not_checked_in_words,
    outcome_in_words,
)
from ser_bench.comparison.paired import Comparison, GroupResult, PairResult
from ser_bench.evaluation.statistics import ALPHA, Difference, Interval, testable
from ser_bench.splits import LEAKS
from ser_bench.tracking import StoredRun

POINTS = 100.0
"""UAR points per unit: differences of UAR are given in hundredths."""
ADAPTED = "+"
"""Part of the name of every model that is adapted to the tested speakers ("whisper_probe+speaker_stats")."""
TOO_FEW = "too few speakers"
"""Stands in place of an interval or of a p-value."""
NOT_DISTINGUISHABLE, UNTESTED = "not distinguishable", "too few speakers for a test"
MAX_CLAUSES = 4
"""With more predictors beside the baseline, sentence 2 lists names and differences only."""
REFERENCES = ("listeners",)
"""Models that serve as a reference and are never recommended."""

LEAKS_BY_NAME = {protocol.name: text for protocol, text in LEAKS.items()}
LEAK_METRICS = {
    "leak/clip": "a clip",
    "leak/sibling": "an augmented sibling",
    "leak/near_identical_audio": "nearly identical audio",
    "leak/speaker": "a speaker",
    "leak/sentence": "a sentence",
}
"""Metric of an audit → what this share of the test rows has in common with training."""


def heading(comparison: Comparison) -> str:
    """Return corpus, protocol and folds, with the number of clips and speakers."""
    synthetic = " (SYNTHETIC speech)" if comparison.synthetic else ""
    folds = f"fold{'s' if len(comparison.folds) > 1 else ''} {', '.join(map(str, comparison.folds))}"
    common = "" if len(comparison.results) == 1 else ", predicted by all predictors"
    return (
        f"{comparison.corpus}{synthetic}, split={comparison.protocol}, {folds} of {comparison.of_folds}: "
        f"{len(comparison.clips):,} clips of {_speakers(comparison.speakers)}{common}"
    )


def verdict(comparison: Comparison) -> list[str]:
    """Return three sentences: the highest UAR, the differences to the baseline, recommendation and known leakage."""
    return [_highest(comparison), _differences(comparison), _recommendation(comparison)]


def highest(results: Sequence[GroupResult]) -> GroupResult:
    """Return the result with the highest UAR; of equal results the first."""
    return max(results, key=lambda result: result.uar.value)


def recommended(comparison: Comparison) -> GroupResult:
    """Return the cheapest predictor among those that the best one is not measurably better than.

    The price comes first. Of equal price, only predictors at least half as fast as the fastest are considered, because
    speed depends on the load of the machine. Of these, the one with the fewest parameters is returned. If too few
    speakers were tested for any test, the best one is returned. `REFERENCES` are considered only if there is nothing
    else, and so are models that are adapted to the tested speakers.
    """
    candidates = _candidates(comparison)
    best = highest(candidates)
    if not _testable(comparison):
        return best
    candidates = [c for c in candidates if c is best or not _is_better(comparison, best, c)]
    lowest = min(c.usd_per_1000 for c in candidates)
    candidates = [c for c in candidates if c.usd_per_1000 == lowest]
    fastest = max(c.clips_per_second or 0.0 for c in candidates)
    candidates = [c for c in candidates if c.clips_per_second is None or 2 * c.clips_per_second >= fastest]
    return min(candidates, key=lambda c: (math.inf if c.parameters is None else c.parameters, c is not best))


def chance_level(comparison: Comparison) -> float:
    """Return the chance level of UAR: one over the number of emotions that were tested."""
    return 1 / comparison.clips["truth"].nunique()


def difference_in_words(name: str, baseline: str, difference: Difference, adjusted_p: float | None) -> str:
    """Return one clause, such as "cnn_text is not distinguishable from cnn (+0.4 UAR points, 95 % interval …)"."""
    interval = difference.interval
    figures = f"{points(interval.value)} UAR points"
    if interval.is_informative:
        figures += f", 95 % interval {points(interval.low)} to {points(interval.high)}"
    if adjusted_p is None:
        purpose = "a test" if interval.is_informative else "an interval and a test"
        return f"{name} differs from {baseline} by {figures}, and {_too_few(interval.speakers)} for {purpose}"
    figures += f", {p_value(adjusted_p)}, {_speakers(interval.speakers)}"
    if adjusted_p >= ALPHA:
        return f"{name} is {NOT_DISTINGUISHABLE} from {baseline} ({figures})"
    return f"{name} is {'better' if interval.value > 0 else 'worse'} than {baseline} ({figures})"


def leakage_statements(comparison: Comparison) -> list[str]:
    """Return one statement per compared run."""
    return [leakage_statement(run) for run in comparison.runs]


def leakage_statement(run: StoredRun) -> str:
    """Return what the audit of a run found and did not check; of a run without audit, what its protocol leaks."""
    protocol = run.tags["protocol"]
    shares = [
        f"{100 * run.metrics[metric]:.1f} % of the test rows share {noun} with training"
        for metric, noun in LEAK_METRICS.items()
        if run.metrics.get(metric, 0.0) > 0
    ]
    if "audit" in run.tags:
        unchecked = not_checked_in_words(run.tags)
        open_questions = [f"not checked: {unchecked}"] if unchecked else []
        statement = "; ".join([outcome_in_words(run.tags["audit"]), *shares, *open_questions])
    else:
        statement = (
            f"not audited (to audit: ser-bench audit {run.run_id[:8]}); split={protocol}: {LEAKS_BY_NAME[protocol]}"
        )
    seed = f", seed {run.tags['seed']}" if run.tags.get("seed", "0") != "0" else ""
    return f"{run.tags['model']}, fold {run.tags['fold']}{seed} (run {run.run_id[:8]}): {statement}."


def _highest(comparison: Comparison) -> str:
    best, count = highest(comparison.results), len(comparison.results)
    subject = f"{best.name} has" if count == 1 else f"Of {count} predictors, {best.name} has the highest"
    synthetic = ", on SYNTHETIC speech" if comparison.synthetic else ""
    seeds = f", mean of {len(best.by_seed)} seeds" if len(best.by_seed) > 1 else ""
    interval = f"95 % interval {bounds(best.uar)}"
    if not best.uar.is_informative:
        interval = f"no 95 % interval, because {_too_few(best.uar.speakers)}"
    return (
        f"{subject} UAR: {share(best.uar.value)} ({interval}{seeds}){synthetic}; "
        f"chance level is {share(chance_level(comparison))}."
    )


def _differences(comparison: Comparison) -> str:
    baseline = comparison.baseline.name
    others = [(r.name, r.difference, r.adjusted_p) for r in comparison.results if r.difference is not None]
    if not others:
        return "There is no second predictor to compare with: run another model on the same split."
    if len(others) > MAX_CLAUSES:
        return _differences_by_outcome(baseline, others)
    return "; ".join(difference_in_words(name, baseline, difference, p) for name, difference, p in others) + "."


def _differences_by_outcome(baseline: str, others: Sequence[tuple[str, Difference, float | None]]) -> str:
    """Return names and differences, grouped by outcome, largest difference first; the table has intervals and p."""
    outcomes: dict[str, list[str]] = {name: [] for name in ("better", NOT_DISTINGUISHABLE, "worse", UNTESTED)}
    for name, difference, p in sorted(others, key=lambda other: -other[1].interval.value):
        value = difference.interval.value
        outcome = UNTESTED if p is None else NOT_DISTINGUISHABLE if p >= ALPHA else "better" if value > 0 else "worse"
        outcomes[outcome].append(f"{name} {points(value)}")
    listed = "; ".join(f"{outcome}: {', '.join(names)}" for outcome, names in outcomes.items() if names)
    level = "" if outcomes[UNTESTED] else f" ({100 * ALPHA:.0f} % level, Holm-adjusted over all pairs)"
    return f"Compared with {baseline}, in UAR points, {listed}{level}."


def _recommendation(comparison: Comparison) -> str:
    best, choice = highest(_candidates(comparison)), recommended(comparison)
    alone = len(comparison.results) == 1
    if not math.isnan(best.uar.low) and best.uar.low <= chance_level(comparison):
        if comparison.synthetic:
            advice = f"{best.name} is not" if alone else "No predictor is"
        else:
            advice = f"Do not use {best.name}: it is not" if alone else "Use none of them: no predictor is"
        advice += " measurably above chance level"
    elif alone:
        advice = "No recommendation is possible with one predictor"
    elif not _testable(comparison):
        advice = f"{best.name} leads, but {_too_few(comparison.speakers)} for a recommendation"
    elif comparison.synthetic:
        advice = f"{best.name} leads, but synthetic speech does not choose a predictor"
    elif choice is best:
        advice = f"Use {best.name}: no cheaper, faster or smaller predictor is as good"
    else:
        advice = f"Use {choice.name}: {best.name} is not measurably better, and {choice.name} is {_why(choice, best)}"
    return f"{advice}{_adaptation(comparison)}; {_leakage(comparison)}."


def _candidates(comparison: Comparison) -> list[GroupResult]:
    """Return the predictors that can be recommended.

    References are left out, and imported predictions, of which neither training nor cost is known. Models adapted to
    the tested speakers are left out beside models that are not adapted.
    """
    known = [r for r in comparison.results if r.group.model not in REFERENCES and not r.group.is_imported]
    usable = known or list(comparison.results)
    return [r for r in usable if ADAPTED not in r.group.model] or usable


def _adaptation(comparison: Comparison) -> str:
    """Return a remark on predictors that are adapted to the tested speakers; "" if there is none."""
    adapted = [result.name for result in comparison.results if ADAPTED in result.group.model]
    if not adapted:
        return ""
    subject = f"{adapted[0]} uses" if len(adapted) == 1 else f"{len(adapted)} predictors, such as {adapted[0]}, use"
    return f" ({subject} unlabelled clips of the tested speakers, which is a different task)"


def _why(choice: GroupResult, best: GroupResult) -> str:
    if choice.usd_per_1000 < best.usd_per_1000:
        return "cheaper"
    faster = (best.clips_per_second or math.inf) * 2 < (choice.clips_per_second or 0.0)
    return "more than twice as fast" if faster else "smaller"


def _leakage(comparison: Comparison) -> str:
    """Return one clause on what leaks by the protocol, and what the audits found."""
    split, by_protocol = f"split={comparison.protocol}", LEAKS_BY_NAME[comparison.protocol]
    outcomes = [run.tags.get("audit", TAG_WITHOUT_LEAKAGE) for run in comparison.runs]
    with_leakage = [outcome for outcome in outcomes if outcome not in (TAG_WITHOUT_LEAKAGE, TAG_UNKNOWN)]
    if comparison.protocol in ANNOUNCED:
        return f"known leakage under {split} ({by_protocol}), so do not expect these figures on new speakers"
    if with_leakage:
        count = f"{len(with_leakage)} of {len(comparison.runs)} run{'s' if len(comparison.runs) > 1 else ''}"
        return f"leakage or contradictions found by the audits of {count}, so these figures are not valid"
    if comparison.synthetic:
        return "these figures show that the pipeline works, and nothing about human speech"
    imported = len({run.tags["model"] for run in comparison.runs if run.tags.get("audit") == TAG_UNKNOWN})
    if imported:
        return (
            f"{by_protocol} ({split}), if the {imported} model{'s' if imported > 1 else ''} of imported predictions "
            "kept to it, which nothing here can check"
        )
    if any("audit" not in run.tags for run in comparison.runs):
        return f"{by_protocol} ({split}), but not all runs are audited"
    if any(not_checked_in_words(run.tags) for run in comparison.runs):
        found = "the audits found none in what they checked, which is not everything (see leakage by run)"
    else:
        found = "the audits found none in what they check"
    return f"{by_protocol} ({split}), and {found}"


def _testable(comparison: Comparison) -> bool:
    return testable(comparison.speakers, max(1, len(comparison.pairs)))


def _is_better(comparison: Comparison, best: GroupResult, other: GroupResult) -> bool:
    """Whether the best result is significantly better than another."""
    pair = _pair(comparison, best.name, other.name)
    return pair.adjusted_p is not None and pair.adjusted_p < ALPHA


def _pair(comparison: Comparison, first: str, second: str) -> PairResult:
    return next(pair for pair in comparison.pairs if {pair.first, pair.second} == {first, second})


def _speakers(count: int) -> str:
    return f"{count} speaker{'s' if count != 1 else ''}"


def _too_few(count: int) -> str:
    return f"{_speakers(count)} {'is' if count == 1 else 'are'} too few"


# Number formats of all reports.


def points(value: float) -> str:
    """Format a difference of shares in points, with sign.

    >>> points(0.0042), points(-0.1)
    ('+0.4', '−10.0')
    """
    return f"{POINTS * value:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """Format a p-value.

    >>> p_value(0.0614), p_value(0.0002)
    ('p = 0.061', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def share(value: float) -> str:
    """Format a share with three decimals.

    >>> share(0.4583)
    '0.458'
    """
    return f"{value:.3f}"


def bounds(interval: Interval) -> str:
    """Format the bounds of an interval of shares; "one speaker" or "too few speakers" if it says nothing.

    >>> bounds(Interval(0.9, 0.8412, 1.0, speakers=9)), bounds(Interval(0.5, 0.0, 1.0, speakers=2))
    ('0.841 to 1.000', 'too few speakers')
    """
    if not interval.is_informative:
        return "one speaker" if interval.speakers == 1 else TOO_FEW
    return f"{interval.low:.3f} to {interval.high:.3f}"
