"""The choices of `prompting`, and the experiment that compares them on validation rows."""

from __future__ import annotations

import pytest

from ser_bench.config import CONF, EXPERIMENTS, ScoredRows
from ser_bench.predictors.llm.label_correction import check_correction
from ser_bench.predictors.llm.parsing.repeated_answers import check_samples
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from tests.support.fake_inputs import compose_config

CHOICES = sorted(path.stem for path in (CONF / "prompting").glob("*.yaml"))
SIX_LABELS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_possible_and_names_itself(name: str) -> None:
    llm = compose_config("experiment=none", "model=llm", "llm=local", f"prompting={name}").llm
    assert llm.option == ("" if name == "none" else name) and llm.name == "local"
    prompt = prompt_template.load(llm.prompt)
    prompt_data.check_examples(prompt, llm)
    prompt_data.check_orders(SIX_LABELS, llm)
    check_correction(prompt, llm)
    check_samples(llm)


def test_a_key_of_the_command_line_wins_over_the_choice() -> None:
    llm = compose_config("experiment=none", "model=llm", "prompting=similar", "llm.shots=2").llm
    assert (llm.option, llm.shots, llm.example_choice.value) == ("similar", 2, "similar")


def test_prompts_are_chosen_on_validation_rows_in_an_mlflow_experiment_of_their_own() -> None:
    cfg = compose_config("experiment=prompt_choice", "prompting=contextual")
    assert cfg.split.scored is ScoredRows.validation and cfg.tracking.experiment == "cremad-validation"
    assert (cfg.llm.option, cfg.llm.limit) == ("contextual", 300)
    text = (EXPERIMENTS / "prompt_choice.yaml").read_text(encoding="utf-8")
    swept = text.rpartition("prompting: ")[2].strip().split(",")
    assert swept[0] == "prosody" and set(swept) <= set(CHOICES), "the first one is what the others are compared with"
