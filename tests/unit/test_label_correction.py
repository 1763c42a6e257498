"""The arithmetic of the correction of probabilities, and which settings are refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ser_bench.config import LabelCorrection, LlmConfig
from ser_bench.errors import ConfigError, LLMError
from ser_bench.predictors.llm.label_correction import (
    check_correction,
    chosen_clips,
    context_of,
    corrected,
    mean_prior,
)
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.prompting import prompt_template
from ser_bench.predictors.llm.prompting.question import Question

CFG = LlmConfig(name="x", model="m", calibration=LabelCorrection.label_bias)


def answer(*probabilities: float) -> ModelAnswer:
    return ModelAnswer("text", "happy", probabilities=probabilities or None)


def test_correction_computed_by_hand():
    # .6/.8 : .3/.1 : .1/.1 = .75 : 3 : 1
    assert corrected(answer(0.6, 0.3, 0.1), (0.8, 0.1, 0.1)).probabilities == pytest.approx(
        (0.75 / 4.75, 3 / 4.75, 1 / 4.75)
    )
    assert corrected(answer(0.6, 0.3, 0.1), (1 / 3, 1 / 3, 1 / 3)).probabilities == pytest.approx((0.6, 0.3, 0.1))


def test_correction_is_that_of_the_paper():
    # Zhao et al. 2021: softmax(W p) with W = diag(p_cf)^-1 and no bias, where the paper's code normalises W p.
    draw = np.random.default_rng(0)
    for _ in range(20):
        p, prior = draw.dirichlet(np.ones(6)), draw.dirichlet(np.ones(6))
        weighted = np.linalg.inv(np.diag(prior)) @ p
        got = corrected(answer(*map(float, p)), tuple(map(float, prior))).probabilities
        np.testing.assert_allclose(got, weighted / weighted.sum(), rtol=1e-9)


def test_a_label_with_no_prior_does_not_divide_by_zero():
    got = corrected(answer(0.5, 0.5, 0.0), (0.5, 0.5, 0.0)).probabilities
    assert got == pytest.approx((0.5, 0.5, 0.0))


def test_the_written_label_stays_and_an_abstention_stays_as_it_is():
    assert corrected(answer(0.6, 0.3, 0.1), (0.8, 0.1, 0.1)).label == "happy"
    abstained = ModelAnswer("?", reason="refusal")
    assert corrected(abstained, (0.8, 0.1, 0.1)) == abstained


def test_the_prior_is_the_mean_of_the_answers_with_a_label():
    answers = [answer(0.6, 0.3, 0.1), answer(0.2, 0.3, 0.5), ModelAnswer("?", reason="refusal")]
    assert mean_prior(answers, CFG) == pytest.approx((0.4, 0.3, 0.3))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([answer(0.6, 0.3, 0.1), answer()], "1 of 2 answers of this endpoint have none: set llm.calibration=none"),
        ([ModelAnswer("?", reason="refusal")], "needs the probabilities"),
        ([answer(1.0), ModelAnswer("HTTP 500", reason="failed")], "1 of 2 requests failed .HTTP 500.. Run the same"),
    ],
)
def test_answers_that_give_no_prior_are_refused_in_one_line(answers, words):
    with pytest.raises(LLMError, match=words) as caught:
        mean_prior(answers, CFG)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("prompt", "changes", "words"),
    [
        ("paper", {"top_logprobs": 0}, "llm.top_logprobs=0 requests none"),
        ("audio", {"calibration": LabelCorrection.contextual}, "llm.prompt=audio sends a recording"),
        ("paper", {"calibration_clips": 0}, "llm.calibration_clips=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_be_corrected_are_refused(prompt, changes, words):
    with pytest.raises(ConfigError, match=words):
        check_correction(prompt_template.load(prompt), replace(CFG, **changes))
    check_correction(prompt_template.load(prompt), replace(CFG, **(changes | {"calibration": LabelCorrection.none})))


def test_the_clips_are_seeded_and_the_order_of_the_rows_does_not_matter():
    ids = [f"c{i:03}" for i in range(100)]
    chosen = chosen_clips(ids, replace(CFG, calibration_clips=10))
    assert len(set(chosen)) == 10 and chosen == chosen_clips([*ids[::-1], *ids], replace(CFG, calibration_clips=10))
    assert chosen != chosen_clips(ids, replace(CFG, calibration_clips=10, seed=1))
    assert chosen_clips(ids[:3], CFG) == ids[:3]


def test_a_context_is_everything_but_the_clip():
    def asked(system: str, user: str, order: tuple[str, ...] = ()) -> str:
        return context_of(Question(({"role": "system", "content": system}, {"role": "user", "content": user}), order))

    assert asked("a", "b") == asked("a", "c")
    assert len({asked("a", "b"), asked("x", "b"), asked("a", "b", ("sad", "happy"))}) == 3
