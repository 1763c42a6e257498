from __future__ import annotations

from dataclasses import replace

import pytest

from ser_bench.config import LlmConfig
from ser_bench.errors import ConfigError
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.parsing.repeated_answers import check_samples, merge_answers

LABELS = ("angry", "happy", "sad")


def draw(label: str, reason: str = "") -> ModelAnswer:
    return ModelAnswer(f"text {label}", label, reason, None, 100, 10, 0.5, 2, 1)


def test_probabilities_computed_by_hand():
    merged = merge_answers([draw("sad"), draw("happy"), draw("sad"), draw("sad")], LABELS)
    assert merged.probabilities == pytest.approx((1 / 15, 4 / 15, 10 / 15), abs=1e-5)
    assert sum(merged.probabilities or ()) == pytest.approx(1.0)
    assert (merged.label, merged.text, merged.reason) == ("sad", "text sad", "")
    assert (merged.tokens_in, merged.tokens_out, merged.latency_s, merged.requests, merged.retries) == (
        400, 40, 2.0, 8, 4,
    )  # fmt: skip


def test_tie_goes_to_the_label_that_came_first():
    for order in (("sad", "angry"), ("angry", "sad")):
        merged = merge_answers([draw(label) for label in order], LABELS)
        probabilities = dict(zip(LABELS, merged.probabilities or (), strict=True))
        assert merged.label == order[0] == max(probabilities, key=probabilities.__getitem__)


def test_draws_without_a_label_do_not_count():
    merged = merge_answers([draw("", "refusal"), draw("sad"), draw("", "bad_json")], LABELS)
    assert merged.label == "sad" and merged.probabilities == pytest.approx((1 / 6, 1 / 6, 4 / 6), abs=1e-5)
    none = merge_answers([draw("", "refusal"), draw("", "bad_json")], LABELS)
    assert (none.label, none.reason, none.probabilities, none.requests) == ("", "refusal", None, 4)


def test_an_estimated_cost_of_one_draw_makes_the_sum_an_estimate():
    assert merge_answers([draw("sad"), replace(draw("sad"), usage_estimated=True)], LABELS).usage_estimated
    assert not merge_answers([draw("sad"), draw("sad")], LABELS).usage_estimated


def test_a_failed_draw_is_not_absorbed_by_the_others():
    merged = merge_answers([draw("sad"), draw("", "failed"), draw("sad")], LABELS)
    assert merged.failed and not merged.label and merged.probabilities is None and merged.requests == 6


@pytest.mark.parametrize(("count", "temperature"), [(0, 1.0), (5, 0.0)])
def test_samples_that_cannot_differ_are_refused(count, temperature):
    with pytest.raises(ConfigError, match=r"llm\.samples"):
        check_samples(LlmConfig(name="x", model="m", samples=count, temperature=temperature))
    check_samples(LlmConfig(name="x", model="m", samples=5, temperature=0.7))
