"""The choices of `prompting`, and the experiment that compares them on validation rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ser_bench import splits
from ser_bench.comparison import run_groups
from ser_bench.config import CONF, EXPERIMENTS, LlmConfig, ScoredRows
from ser_bench.errors import NotComparableError
from ser_bench.predictors.llm.label_correction import check_correction
from ser_bench.predictors.llm.parsing.repeated_answers import check_samples
from ser_bench.predictors.llm.prompting import prompt_data, prompt_template
from ser_bench.tracking import StoredRun, run_description
from ser_bench.types import Clip, Corpus
from tests.support.fake_inputs import compose_config

CHOICES = sorted(path.stem for path in (CONF / "prompting").glob("*.yaml"))
SIX_LABELS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")


@pytest.mark.parametrize("name", CHOICES)
def test_every_choice_is_possible_and_names_itself(name: str) -> None:
    keys = OmegaConf.load(CONF / "prompting" / f"{name}.yaml")
    llm = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(LlmConfig(name="local", model="m")), keys))
    assert isinstance(llm, LlmConfig) and llm.option == ("" if name == "none" else name)
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


def stored(scored: ScoredRows) -> StoredRun:
    """Return a run on generated clips of ten speakers, with the tags that a run gets."""
    clips = [Clip(f"{s}{e}", Path("x.wav"), e, f"s{s}", digest=f"{s}{e}") for s in range(10) for e in SIX_LABELS]
    corpus = Corpus("toy", tuple(clips), SIX_LABELS, "en", scored=scored.value)
    cfg = compose_config("experiment=none", "model=llm", f"split.scored={scored.value}", "split.folds=2")
    split = splits.make(corpus, cfg.split, ["clean"])
    tags = run_description.tags(cfg, corpus, split, "key", ("llm",))
    return StoredRun(scored.value, "llm", "FINISHED", 0, tags, {}, run_description.params(cfg), None, "", cfg.tracking)


def test_a_run_on_validation_rows_is_never_compared_with_one_on_test_rows() -> None:
    runs = [stored(ScoredRows.test), stored(ScoredRows.validation)]
    with pytest.raises(NotComparableError, match="differ in corpus: toy and toy-validation"):
        run_groups.refuse_unequal(run_groups.group_runs(runs))
    run_groups.refuse_unequal(run_groups.group_runs([stored(ScoredRows.validation)]))
