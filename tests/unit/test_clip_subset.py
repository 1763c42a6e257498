"""The subset of clips that `llm.limit` selects."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.clip_subset import subset
from ser_bench.types import Clip


def clip(label: str, number: int, speakers: int = 4) -> Clip:
    return Clip(f"{label}-{number}", Path(f"{label}-{number}.wav"), label, f"s{number % speakers}")


CLIPS = {c.id: c for c in (clip(label, n) for label in ("angry", "happy", "sad") for n in range(8))}


def test_subset_is_stratified_by_label_and_speaker():
    clips = [clip(label, n, speakers=6) for label, count in (("happy", 60), ("sad", 30)) for n in range(count)]
    chosen = subset(clips, 30, seed=0)
    assert Counter(c.emotion for c in chosen.values()) == {"happy": 20, "sad": 10}
    assert set(Counter(c.speaker for c in chosen.values()).values()) == {5}
    assert list(chosen) == [c.id for c in clips if c.id in chosen]


def test_subset_depends_on_the_seed_and_not_on_the_order():
    clips = list(CLIPS.values())
    assert set(subset(clips, 9, 0)) == set(subset(clips[::-1], 9, 0))
    assert set(subset(clips, 9, 0)) != set(subset(clips, 9, 1))
    assert set(subset(clips, 5, 3)) != set(subset(clips, 5, 4))


@pytest.mark.parametrize("limit", [1, 2, 7, 23, 24, 1_000])
def test_subset_has_the_requested_size(limit):
    assert len(subset(list(CLIPS.values()), limit, 0)) == min(limit, 24)


def test_limit_below_one_is_refused():
    with pytest.raises(ConfigError, match=r"llm\.limit=0"):
        subset(list(CLIPS.values()), 0, 0)
