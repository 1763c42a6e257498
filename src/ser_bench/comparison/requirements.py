"""Requirements on stored runs, such as `test/uar_low>=.70`, `leak=none` or `gap/sex<=.05`, and whether they are met.

A requirement is a name, an operator and a value. The names are:

- a metric of the run as MLflow has it (`test/uar`, `test/uar_low`, `time/answer_s`). Of several runs of one
  configuration, figures of test rows are those of the pooled folds, with seeds averaged; of any other metric every run
  must meet the requirement, and the worst value is shown;
- `leak`: the outcome of the audit of every run; `leak=none` or `leak=announced`;
- `gap/<group>`: the largest difference of UAR between groups of clips (`GAPS`).
"""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ser_bench.audit.finding import ANNOUNCED, LEAKS_NOTHING, TAG_OF_LEAKAGE, TAG_WITHOUT_LEAKAGE, outcome_in_words
from ser_bench.comparison.paired import Comparison, GroupResult, compare
from ser_bench.comparison.report_tables import NOT_STATED, by_clip_group
from ser_bench.comparison.run_groups import group_runs
from ser_bench.errors import ConfigError
from ser_bench.evaluation.run_scores import TEST, TEST_CLEAN
from ser_bench.tracking import StoredRun

REQUIREMENT = re.compile(r"(?P<name>[\w./ +-]+?)\s*(?P<sign>>=|<=|==|=|>|<)\s*(?P<value>[^=<>]+)")
EXAMPLES = "'test/uar_low>=.70', 'leak=none' or 'gap/sex<=.05'"
COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "=": lambda value, limit: math.isclose(value, limit, abs_tol=1e-9),
}
LEAK, GAP = "leak", "gap/"
NO_LEAK, ANNOUNCED_LEAK = "none", "announced"
"""Values of `leak`: no leakage was found; or none that the protocol does not announce."""
GAPS = ("sex",)
"""Columns of the table of clips (`fold_pooling.CLIP_COLUMNS`) that divide the clips into groups for `gap/<column>`."""
SHOWN_NAMES = 3


@dataclass(frozen=True)
class Requirement:
    """A requirement as it was typed.

    Attributes:
        text: as typed.
        name: of the figure.
        sign: one of `COMPARE`.
        value: what the figure is compared with, as text.
    """

    text: str
    name: str
    sign: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Return the requirement in a word.

        Raises:
            ConfigError: the word is none.

        >>> Requirement.parse("test/uar_low>=.70")
        Requirement(text='test/uar_low>=.70', name='test/uar_low', sign='>=', value='.70')
        """
        match = REQUIREMENT.fullmatch(text.strip())
        if match is None:
            raise ConfigError(f"{text!r} is no requirement: write a name, a sign and a value, as in {EXAMPLES}")
        sign = "=" if match["sign"] == "==" else match["sign"]
        requirement = cls(text, match["name"].strip(), sign, match["value"].strip())
        if requirement.name == LEAK:
            if sign != "=" or requirement.value not in (NO_LEAK, ANNOUNCED_LEAK):
                raise ConfigError(f"{text!r}: write leak={NO_LEAK} or leak={ANNOUNCED_LEAK}")
        else:
            requirement.limit  # noqa: B018 - raises for a value that is no number
        return requirement

    @property
    def limit(self) -> float:
        """The value as a number.

        Raises:
            ConfigError: it is none.
        """
        try:
            number = float(self.value)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise ConfigError(f"{self.text!r}: {self.value!r} is not a number; write, for example, {self.name}>=.70")
        return number


@dataclass(frozen=True)
class Outcome:
    """Whether a requirement is met.

    Attributes:
        requirement: as typed.
        actual: the figure, or the outcome of the audit in words.
        met: whether the requirement is met.
        detail: what the figure is made of; may be "".
    """

    requirement: Requirement
    actual: float | str
    met: bool
    detail: str = ""


class CheckedRuns:
    """Stored runs of one configuration, and their figures.

    Args:
        runs: at least one; folds and seeds of one configuration.

    Raises:
        ConfigError: a run is not finished, or the runs are of several configurations.
        NotComparableError: the runs have no fold or no clip in common, or other labels.
    """

    def __init__(self, runs: Sequence[StoredRun]) -> None:
        unfinished = [run for run in runs if run.status != "FINISHED"]
        if unfinished:
            first = unfinished[0]
            raise ConfigError(f"run {first.run_id} ({first.name}) is {first.status}, not finished")
        groups = group_runs(runs)
        if len(groups) != 1:
            names = ", ".join(group.name for group in groups)
            raise ConfigError(f"requirements are for one configuration, and these runs are of {names}; use --model")
        self.runs = groups[0].all
        self.name = groups[0].name

    @cached_property
    def comparison(self) -> Comparison:
        """The runs, pooled; there is one result."""
        return compare(self.runs)

    @property
    def result(self) -> GroupResult:
        """The result of the pooled runs."""
        return self.comparison.results[0]

    @cached_property
    def pooled(self) -> dict[str, float]:
        """The figures of test rows over all runs, by their names in MLflow; {} for a single run, which has its own.

        Under `paper` they are those of clean rows.
        """
        if len(self.runs) == 1:
            return {}
        prefix = TEST_CLEAN if self.comparison.protocol == "paper" else TEST
        return {f"{prefix}{name}": value for name, value in self.result.figures.items()}

    @cached_property
    def of_every_run(self) -> dict[str, list[float]]:
        """Metric → one value per run, of metrics that every run has; figures of test rows only of a single run."""
        names = set.intersection(*(set(run.metrics) for run in self.runs))
        alone = len(self.runs) == 1
        return {
            name: [run.metrics[name] for run in self.runs]
            for name in sorted(names)
            if alone or not name.startswith((TEST, TEST_CLEAN))
        }

    def check(self, requirement: Requirement) -> Outcome:
        """Return whether a requirement is met.

        Raises:
            ConfigError: the runs do not have the figure; the message names similar ones.
        """
        if requirement.name == LEAK:
            return self._check_leaks(requirement)
        if requirement.name.startswith(GAP):
            return self._check_gap(requirement)
        meets = COMPARE[requirement.sign]
        if requirement.name in self.pooled:
            value = self.pooled[requirement.name]
            return Outcome(requirement, value, meets(value, requirement.limit), self._pooled_in_words())
        if requirement.name not in self.of_every_run:
            raise ConfigError(self._unknown(requirement))
        values = self.of_every_run[requirement.name]
        failing = [value for value in values if not meets(value, requirement.limit)]
        worst = (min if requirement.sign in (">=", ">") else max)(failing or values)
        detail = f"the worst of {len(values)} runs" if len(values) > 1 else ""
        return Outcome(requirement, worst, not failing, detail)

    def _check_leaks(self, requirement: Requirement) -> Outcome:
        failing = [run for run in self.runs if not _leaks_allowed(run, requirement.value)]
        tags = [run.tags["audit"] for run in failing or self.runs]
        detail = f"{len(failing)} of {len(self.runs)} runs" if failing and len(self.runs) > 1 else ""
        return Outcome(requirement, outcome_in_words(tags[0]), not failing, detail)

    def _check_gap(self, requirement: Requirement) -> Outcome:
        column = requirement.name.removeprefix(GAP)
        if column not in GAPS:
            known = ", ".join(map(_gap, GAPS))
            raise ConfigError(f"{requirement.text!r}: there is no {GAP}{column}; known are {known}")
        of_groups = uar_by_group(self.comparison, self.result, column)
        if len(of_groups) < 2:
            raise ConfigError(
                f"{requirement.text!r}: {column} is not known for this corpus ({self.comparison.corpus}), or all test "
                "clips are of one group"
            )
        value = max(of_groups.values()) - min(of_groups.values())
        detail = ", ".join(f"{name} {uar:.3f}" for name, uar in of_groups.items())
        return Outcome(requirement, value, COMPARE[requirement.sign](value, requirement.limit), f"UAR: {detail}")

    def _pooled_in_words(self) -> str:
        folds, seeds = len(self.comparison.folds), len(self.result.by_seed)
        parts = [f"{folds} folds pooled"] if folds > 1 else []
        parts += [f"{seeds} seeds averaged"] if seeds > 1 else []
        return ", ".join(parts)

    def _unknown(self, requirement: Requirement) -> str:
        known = [*self.pooled, *self.of_every_run, LEAK, *map(_gap, GAPS)]
        near = difflib.get_close_matches(requirement.name, known, SHOWN_NAMES, cutoff=0.5)
        near = near or difflib.get_close_matches(f"{TEST}{requirement.name}", known, SHOWN_NAMES, cutoff=0.5)
        listing = f"ser-bench show {self.runs[0].run_id[:8]} lists them"
        advice = f"similar names are {', '.join(near)}" if near else listing
        return f"{requirement.text!r}: {self.name} has no figure {requirement.name!r}; {advice}"


def uar_by_group(comparison: Comparison, result: GroupResult, column: str) -> dict[str, float]:
    """Return group → UAR of its clips, the mean over seeds, of the groups that are known; sorted by name.

    The UAR of a group is over the emotions that the group has.
    """
    frame = by_clip_group(comparison, column)
    if frame is None:
        return {}
    of_groups = zip(frame[column], frame[result.name], strict=True)
    return {str(group): float(value) for group, value in of_groups if group != NOT_STATED}


def _leaks_allowed(run: StoredRun, allowed: str) -> bool:
    tag = run.tags["audit"]
    if tag == TAG_WITHOUT_LEAKAGE:
        return True
    if allowed == NO_LEAK or not tag.startswith(TAG_OF_LEAKAGE):
        return False
    return set(tag.removeprefix(TAG_OF_LEAKAGE).split(", ")) <= ANNOUNCED.get(run.tags["protocol"], LEAKS_NOTHING)


def _gap(column: str) -> str:
    return f"{GAP}{column}"
