"""A comparison in words: the verdict, what leaks, and how figures are written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ser_bench.audit.finding import ANNOUNCED
from ser_bench.comparison.paired import Comparison, Line, Pair
from ser_bench.evaluation.statistics import ALPHA, Difference, Interval, testable
from ser_bench.splits import LEAKS
from ser_bench.tracking import StoredRun

POINTS = 100.0
"""UAR differences are told in points, hundredths."""
ADAPTED = "+"
"""In the name of a model that was adapted to the speaker ("whisper_probe+speaker_stats")."""
ALIKE, UNTESTED = "not distinguishable", "too few speakers to test"
TOLD_ONE_BY_ONE = 4
"""Predictors beside the baseline up to which each gets a clause of its own."""
REFERENCES = ("listeners",)
"""Models that show what can be reached, and that nobody can use."""


def heading(comparison: Comparison) -> str:
    """Corpus, protocol, folds, and on how much was measured."""
    kind = " (SYNTHETIC speech)" if comparison.synthetic else ""
    folds = f"fold{'s' if len(comparison.folds) > 1 else ''} {', '.join(map(str, comparison.folds))}"
    speakers = f"{comparison.speakers} speaker{'s' if comparison.speakers != 1 else ''}"
    everyone = "" if len(comparison.lines) == 1 else " that every predictor answered for"
    return (
        f"{comparison.corpus}{kind}, split={comparison.protocol}, {folds} of {comparison.of_folds}: "
        f"{len(comparison.clips):,} clips of {speakers}{everyone}"
    )


def verdict(comparison: Comparison) -> list[str]:
    """Three sentences: which is best, whether the differences mean anything, which to use and what to believe."""
    return [_best(comparison), _differences(comparison), _advice(comparison)]


def best_of(comparison: Comparison) -> Line:
    """The highest UAR; of equals the first."""
    return max(comparison.lines, key=lambda line: line.uar.value)


def to_use(comparison: Comparison) -> Line:
    """The cheapest of the predictors that the best one is not measurably better than.

    Cheapest in money first; of equal price those that answer at least half as fast as the fastest, because seconds
    depend on what else a machine does; of these the one with the fewest parameters. Where so few speakers were tested
    that nothing can be told, the best one itself. `REFERENCES` are no candidates, unless there is nothing else.
    """
    usable = _usable(comparison)
    best = max(usable, key=lambda line: line.uar.value)
    if not _testable(comparison):
        return best
    rivals = [line for line in usable if line is best or not _beats(comparison, best, line)]
    lowest = min(line.usd_per_1000 for line in rivals)
    rivals = [line for line in rivals if line.usd_per_1000 == lowest]
    fastest = max(line.clips_per_second or 0.0 for line in rivals)
    rivals = [line for line in rivals if line.clips_per_second is None or 2 * line.clips_per_second >= fastest]
    return min(rivals, key=lambda line: (math.inf if line.parameters is None else line.parameters, line is not best))


def chance(comparison: Comparison) -> float:
    """UAR of guessing: one over the number of emotions that were tested."""
    return 1 / comparison.clips["truth"].nunique()


def difference_in_words(name: str, baseline: str, difference: Difference, adjusted_p: float | None) -> str:
    """One clause, such as "cnn_text is not distinguishable from cnn: +0.4 points UAR, 95 % interval …"."""
    found = difference.interval
    figures = f"{points(found.value)} points UAR"
    if not math.isnan(found.low):
        figures += f", 95 % interval {points(found.low)} to {points(found.high)}"
    speakers = f"{found.speakers} speaker{'s' if found.speakers != 1 else ''}"
    if adjusted_p is None:
        return f"{name} against {baseline}: {figures}; {speakers} are too few for a test"
    figures += f", {p_value(adjusted_p)}, {speakers}"
    if adjusted_p >= ALPHA:
        return f"{name} is not distinguishable from {baseline}: {figures}"
    return f"{name} is {'better' if found.value > 0 else 'worse'} than {baseline}: {figures}"


def leak_statement(run: StoredRun) -> str:
    """What the audit of one run found, or that there was none."""
    protocol = run.tags["protocol"]
    shares = [
        f"{100 * run.metrics[metric]:.1f} % share {noun}"
        for metric, noun in LEAK_METRICS.items()
        if run.metrics.get(metric, 0.0) > 0
    ]
    if "audit" not in run.tags:
        said = f"not audited (ser-bench audit {run.run_id[:8]}); by its protocol: {LEAKS_BY_NAME[protocol]}"
    else:
        said = f"audited: {run.tags['audit']}" + (
            f"; of the test rows {', '.join(shares)} with training" if shares else ""
        )
    seed = f", seed {run.tags['seed']}" if run.tags.get("seed", "0") != "0" else ""
    return f"{run.tags['model']}, fold {run.tags['fold']}{seed} (run {run.run_id[:8]}): {said}."


LEAKS_BY_NAME = {protocol.name: text for protocol, text in LEAKS.items()}
LEAK_METRICS = {
    "leak/clip": "a clip",
    "leak/sibling": "an augmented sibling",
    "leak/near_identical_audio": "nearly identical audio",
    "leak/speaker": "a speaker",
    "leak/sentence": "a sentence",
}
"""Metrics that an audit leaves, and what the share is of."""


def points(value: float) -> str:
    """A difference of shares in points, signed: "+0.4"."""
    return f"{POINTS * value:+.1f}".replace("-", "−")


def p_value(p: float) -> str:
    """ "p = 0.061", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def share(value: float) -> str:
    """Three decimals: "0.458"."""
    return f"{value:.3f}"


def bounds(interval: Interval) -> str:
    """ "0.415 to 0.501", kept within what a share can be; says so where one speaker gives no interval."""
    if math.isnan(interval.low):
        return "one speaker"
    return f"{max(0.0, interval.low):.3f} to {min(1.0, interval.high):.3f}"


def _best(comparison: Comparison) -> str:
    best = best_of(comparison)
    kind = " on SYNTHETIC speech" if comparison.synthetic else ""
    name, count = best.series.name, len(comparison.lines)
    who = f"{name} reaches" if count == 1 else f"Of {count} predictors {name} is highest, with"
    seeds = f", the mean of {len(best.by_seed)} seeds" if len(best.by_seed) > 1 else ""
    return (
        f"{who} UAR {share(best.uar.value)} "
        f"(95 % interval {bounds(best.uar)}{seeds}){kind}; guessing reaches {share(chance(comparison))}."
    )


def _differences(comparison: Comparison) -> str:
    baseline = comparison.lines[0].series.name
    others = [
        (line.series.name, line.difference, line.adjusted_p) for line in comparison.lines if line.difference is not None
    ]
    if not others:
        return "There is nothing to set it against yet: run another model on the same split."
    if len(others) > TOLD_ONE_BY_ONE:
        return _sorted_by_difference(baseline, others)
    return "; ".join(difference_in_words(name, baseline, found, p) for name, found, p in others) + "."


def _sorted_by_difference(baseline: str, others: Sequence[tuple[str, Difference, float | None]]) -> str:
    """Who is better, alike and worse, the largest difference first; intervals and p stay in the table."""
    groups: dict[str, list[str]] = {name: [] for name in ("better", ALIKE, "worse", UNTESTED)}
    for name, difference, p in sorted(others, key=lambda one: -one[1].interval.value):
        value = difference.interval.value
        told = UNTESTED if p is None else ALIKE if p >= ALPHA else "better" if value > 0 else "worse"
        groups[told].append(f"{name} {points(value)}")
    said = "; ".join(f"{told}: {', '.join(names)}" for told, names in groups.items() if names)
    tested = "" if groups[UNTESTED] else f" ({100 * ALPHA:.0f} % level, Holm over all pairs)"
    return f"Against {baseline}, in points UAR, {said}{tested}."


def _advice(comparison: Comparison) -> str:
    chosen, best = to_use(comparison), max(_usable(comparison), key=lambda line: line.uar.value)
    if not math.isnan(best.uar.low) and best.uar.low <= chance(comparison):
        use = "Use none of them: none is measurably better than guessing"
        if len(comparison.lines) == 1:
            use = "It is not measurably better than guessing"
    elif len(comparison.lines) == 1:
        use = "One predictor alone shows nothing about the others"
    elif not _testable(comparison):
        use = f"{best.series.name} is ahead, but {comparison.speakers} speakers are too few to be certain"
    elif chosen is best:
        use = f"Use {best.series.name}: none that is cheaper, faster or smaller is as good"
    else:
        one, other = chosen.series.name, best.series.name
        use = f"Use {one}: {other} is not measurably better, and {one} is {_why(chosen, best)}"
    return f"{use}.{_other_question(comparison)} {_belief(comparison)}"


def _usable(comparison: Comparison) -> list[Line]:
    """Neither references nor, beside predictors that know nothing of the speaker, one that heard clips of him."""
    own = [line for line in comparison.lines if line.series.model not in REFERENCES] or list(comparison.lines)
    return [line for line in own if ADAPTED not in line.series.model] or own


def _other_question(comparison: Comparison) -> str:
    """What is to be known of rows whose predictor heard the tested speakers before; "" where there is none."""
    adapted = [line.series.name for line in comparison.lines if ADAPTED in line.series.model]
    if not adapted:
        return ""
    heard = adapted[0] if len(adapted) == 1 else f"{len(adapted)} of the rows ({adapted[0]} …)"
    return f" {heard} heard clips of the tested speakers, without labels: that answers another question."


def _why(chosen: Line, best: Line) -> str:
    if chosen.usd_per_1000 < best.usd_per_1000:
        return "cheaper"
    slow = (best.clips_per_second or math.inf) * 2 < (chosen.clips_per_second or 0.0)
    return "more than twice as fast" if slow else "smaller"


def _belief(comparison: Comparison) -> str:
    split, leak = f"split={comparison.protocol}", LEAKS_BY_NAME[comparison.protocol]
    if comparison.protocol in ANNOUNCED:
        return f"Do not expect these figures on new people: under {split} {leak}."
    convicted = [run for run in comparison.runs if run.tags.get("audit", "clean") != "clean"]
    if convicted:
        return f"Do not believe these figures: the audit convicted {len(convicted)} of the runs, see what leaked."
    if comparison.synthetic:
        return "Nobody spoke: these figures say that the chain works, and nothing about people."
    if any("audit" not in run.tags for run in comparison.runs):
        return f"By its protocol, {split}, {leak}; not all runs are audited, see what leaked."
    return f"The protocol deserves belief: under {split} {leak}, and the audit found the runs clean."


def _testable(comparison: Comparison) -> bool:
    return testable(comparison.speakers, max(1, len(comparison.pairs)))


def _beats(comparison: Comparison, best: Line, other: Line) -> bool:
    """Whether the best is measurably better than this one."""
    pair = _pair(comparison, best.series.name, other.series.name)
    return pair.adjusted_p is not None and pair.adjusted_p < ALPHA


def _pair(comparison: Comparison, one: str, two: str) -> Pair:
    return next(pair for pair in comparison.pairs if {pair.first, pair.second} == {one, two})
