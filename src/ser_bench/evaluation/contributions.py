"""What each member adds to a fusion: the fusion against the same fusion without it, on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ser_bench.evaluation import statistics
from ser_bench.evaluation.statistics import Difference
from ser_bench.types import Predictions


@dataclass(frozen=True)
class Contribution:
    """One member.

    Attributes:
        member: its name in the fusion.
        uar: of the whole fusion, 0 to 1.
        uar_without: of the fusion without this member.
        difference: whole less without, paired, speakers resampled and swapped; above 0 the member helps.
        adjusted_p: Holm's adjustment over the members; None where so few speakers support no p.
    """

    member: str
    uar: float
    uar_without: float
    difference: Difference
    adjusted_p: float | None

    @property
    def line(self) -> str:
        """For a person."""
        found = self.difference.interval
        text = f"{self.member}: UAR {self.uar:.3f} with it, {self.uar_without:.3f} without, {found.value:+.3f}"
        if found.speakers < 2:
            return f"{text}; one speaker has no interval"
        p = "too few speakers for a p" if self.adjusted_p is None else f"p = {self.adjusted_p:.3g} (Holm)"
        return f"{text} (95 % {found.low:+.3f} to {found.high:+.3f}), {p}, {found.speakers} speakers"

    @property
    def facts(self) -> dict[str, float]:
        """`fusion/without/<member>/uar`, and `fusion/adds/<member>/uar` with `uar_low`, `uar_high`, `p`."""
        found, adds = self.difference.interval, f"fusion/adds/{self.member}"
        facts = {f"fusion/without/{self.member}/uar": self.uar_without, f"{adds}/uar": found.value}
        if found.speakers >= 2:
            facts |= {f"{adds}/uar_low": found.low, f"{adds}/uar_high": found.high}
        return facts if self.adjusted_p is None else facts | {f"{adds}/p": self.adjusted_p}


def contributions(
    whole: Predictions, without: Mapping[str, Predictions], speakers: Mapping[str, str]
) -> list[Contribution]:
    """One a member, in the order given.

    Args:
        whole: what the fusion answered.
        without: member → what it answers without that member, to the same rows in the same order.
        speakers: clip id → speaker, the independent units of interval and test (`stats.difference`).

    Raises:
        ValueError: the rows are not the same.
    """
    counts = statistics.counts_by_speaker(whole, speakers)
    tests = max(1, len(without))
    found = {}
    for member, answers in without.items():
        mcnemar_p = statistics.mcnemar(answers, whole)
        found[member] = statistics.difference(
            statistics.counts_by_speaker(answers, speakers), counts, mcnemar_p, tests=tests
        )
    raw = {member: one.p for member, one in found.items() if one.p is not None}
    adjusted = dict(zip(raw, statistics.holm(list(raw.values())), strict=True))
    uar = float(statistics.uar(counts.sum(0)))
    return [
        Contribution(member, uar, uar - one.interval.value, one, adjusted.get(member)) for member, one in found.items()
    ]
