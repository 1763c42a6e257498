"""What a member adds is the paired difference that the comparison would give."""

from __future__ import annotations

import pytest

from ser_bench.evaluation import statistics
from ser_bench.evaluation.contributions import contributions
from tests.support.stored_runs import make_clips, predict

CLIPS = make_clips(10)
SPEAKERS = {clip.id: clip.speaker for clip in CLIPS.values()}
WHOLE = predict(CLIPS, 0.8, 0)
WITHOUT = {"cnn": predict(CLIPS, 0.4, 1), "text_only": WHOLE}


def test_each_member_is_tested_by_speaker_and_adjusted_for_their_number() -> None:
    cnn, text = contributions(WHOLE, WITHOUT, SPEAKERS)
    whole, less = (statistics.counts_by_speaker(one, SPEAKERS) for one in (WHOLE, WITHOUT["cnn"]))
    expected = statistics.difference(less, whole, None, tests=2)
    assert cnn.difference.interval == expected.interval and cnn.difference.p == expected.p
    assert cnn.uar_without == pytest.approx(float(statistics.uar(less.sum(0))))
    assert cnn.uar - cnn.uar_without == pytest.approx(cnn.difference.interval.value) and cnn.uar > cnn.uar_without + 0.2
    assert expected.p is not None and cnn.adjusted_p == pytest.approx(2 * expected.p) and cnn.adjusted_p < 0.05
    assert (text.difference.interval.value, text.adjusted_p) == (0.0, 1.0), "a member that changes nothing adds nothing"


def test_it_is_said_in_a_line_and_in_facts() -> None:
    cnn, _ = contributions(WHOLE, WITHOUT, SPEAKERS)
    found = cnn.difference.interval
    assert cnn.line.startswith(
        f"cnn: UAR {cnn.uar:.3f} with it, {cnn.uar_without:.3f} without, {found.value:+.3f} (95 %"
    )
    assert "p = " in cnn.line and cnn.line.endswith("10 speakers")
    assert cnn.facts == {
        "fusion/without/cnn/uar": cnn.uar_without,
        "fusion/adds/cnn/uar": found.value,
        "fusion/adds/cnn/uar_low": found.low,
        "fusion/adds/cnn/uar_high": found.high,
        "fusion/adds/cnn/p": cnn.adjusted_p,
    }


@pytest.mark.parametrize(("speakers", "said"), [(1, "one speaker has no interval"), (6, "too few speakers for a p")])
def test_so_few_speakers_support_no_p(speakers: int, said: str) -> None:
    clips = make_clips(speakers)
    without = {"cnn": predict(clips, 0.4, 1), "text_only": predict(clips, 0.4, 2)}
    found = contributions(predict(clips, 0.8, 0), without, {clip.id: clip.speaker for clip in clips.values()})
    assert all(said in one.line and "fusion/adds/cnn/p" not in one.facts for one in found)
    assert ("fusion/adds/cnn/uar_low" in found[0].facts) is (speakers > 1)
