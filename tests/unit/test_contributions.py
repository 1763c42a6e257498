"""The contribution of a member is the paired difference that the comparison would give."""

from __future__ import annotations

import pytest

from ser_bench.evaluation import metrics, statistics
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
    assert cnn.uar_without == pytest.approx(float(metrics.uar(less.sum(0))))
    assert cnn.uar - cnn.uar_without == pytest.approx(cnn.difference.interval.value) and cnn.uar > cnn.uar_without + 0.2
    assert expected.p is not None and cnn.adjusted_p == pytest.approx(2 * expected.p) and cnn.adjusted_p < 0.05
    assert (text.difference.interval.value, text.adjusted_p) == (0.0, 1.0), "a member that changes nothing adds nothing"


def test_a_contribution_is_given_as_text_and_as_metrics() -> None:
    cnn, _ = contributions(WHOLE, WITHOUT, SPEAKERS)
    interval = cnn.difference.interval
    for figure in (f"{cnn.uar:.3f}", f"{cnn.uar_without:.3f}", f"{interval.low:+.3f}", f"{interval.high:+.3f}", "p = "):
        assert figure in cnn.line
    assert cnn.line.startswith("cnn: ") and cnn.line.endswith("10 speakers")
    assert cnn.facts == {
        "fusion/without/cnn/uar": cnn.uar_without,
        "fusion/adds/cnn/uar": interval.value,
        "fusion/adds/cnn/uar_low": interval.low,
        "fusion/adds/cnn/uar_high": interval.high,
        "fusion/adds/cnn/p": cnn.adjusted_p,
    }


@pytest.mark.parametrize(("speakers", "has_interval"), [(1, False), (6, True)])
def test_too_few_speakers_give_no_p_and_one_gives_no_interval(speakers: int, has_interval: bool) -> None:
    clips = make_clips(speakers)
    without = {"cnn": predict(clips, 0.4, 1), "text_only": predict(clips, 0.4, 2)}
    members = contributions(predict(clips, 0.8, 0), without, {clip.id: clip.speaker for clip in clips.values()})
    for member in members:
        assert "p =" not in member.line and f"fusion/adds/{member.member}/p" not in member.facts
        assert (f"fusion/adds/{member.member}/uar_low" in member.facts) is has_interval
        assert ("95 %" in member.line) is has_interval
