"""The contribution of each member to a fusion: the fusion compared with the same fusion without the member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ser_bench.evaluation import metrics, statistics
from ser_bench.evaluation.statistics import Difference
from ser_bench.types import Predictions


@dataclass(frozen=True)
class Contribution:
    """The contribution of one member.

    Attributes:
        member: its name in the fusion.
        uar: of the whole fusion, 0 to 1.
        uar_without: of the fusion without this member.
        difference: UAR of the whole fusion minus that without the member, paired by speaker; positive if the member
            helps.
        adjusted_p: adjusted over the members by Holm's method; None if there are too few speakers for a test.
    """

    member: str
    uar: float
    uar_without: float
    difference: Difference
    adjusted_p: float | None

    @property
    def line(self) -> str:
        """The contribution as one line of text."""
        interval = self.difference.interval
        text = f"{self.member}: UAR {self.uar:.3f} with it, {self.uar_without:.3f} without, {interval.value:+.3f}"
        if not interval.is_informative:
            count = "one speaker" if interval.speakers == 1 else f"{interval.speakers} speakers, which are too few"
            return f"{text}; no interval for {count}"
        p = "too few speakers for a test" if self.adjusted_p is None else f"p = {self.adjusted_p:.3g} (Holm)"
        return f"{text} (95 % {interval.low:+.3f} to {interval.high:+.3f}), {p}, {interval.speakers} speakers"

    @property
    def facts(self) -> dict[str, float]:
        """Metrics to log: `fusion/without/<member>/uar`, `fusion/adds/<member>/uar`, `…/uar_low`, `…/uar_high`, `…/p`.

        Bounds and p are left out if there are too few speakers for them.
        """
        interval, prefix = self.difference.interval, f"fusion/adds/{self.member}"
        facts = {f"fusion/without/{self.member}/uar": self.uar_without, f"{prefix}/uar": interval.value}
        if interval.is_informative:
            facts |= {f"{prefix}/uar_low": interval.low, f"{prefix}/uar_high": interval.high}
        return facts if self.adjusted_p is None else facts | {f"{prefix}/p": self.adjusted_p}


def contributions(
    whole: Predictions, without: Mapping[str, Predictions], speakers: Mapping[str, str]
) -> list[Contribution]:
    """Return the contribution of every member, in the order of `without`.

    Args:
        whole: predictions of the fusion.
        without: member → predictions of the fusion without that member, for the same rows in the same order.
        speakers: clip id → speaker, the independent units of interval and test (`statistics.difference`).

    Raises:
        ValueError: if the rows differ.
    """
    counts = statistics.counts_by_speaker(whole, speakers)
    tests = max(1, len(without))
    differences = {
        member: statistics.difference(
            statistics.counts_by_speaker(reduced, speakers), counts, statistics.mcnemar(reduced, whole), tests=tests
        )
        for member, reduced in without.items()
    }
    p_values = {member: difference.p for member, difference in differences.items() if difference.p is not None}
    adjusted = dict(zip(p_values, statistics.holm(list(p_values.values())), strict=True))
    uar = float(metrics.uar(counts.sum(0)))
    return [
        Contribution(member, uar, uar - difference.interval.value, difference, adjusted.get(member))
        for member, difference in differences.items()
    ]
