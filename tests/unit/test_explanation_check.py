"""What counts as naming a measured cue, on reasons written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ser_bench.features.prosody import NO_PROSODY, Prosody
from ser_bench.predictors.llm import explanation_check
from ser_bench.predictors.llm.explanation_check import (
    CUE_WORDS,
    cue_of,
    label_figures,
    names_cue,
    names_direction,
    reason_figures,
)
from ser_bench.predictors.llm.prompting import prompt_template
from ser_bench.predictors.llm.prompting.prosody_norms import MEASURES, ProsodyNorms

USUAL = Prosody(10.0, 6.0, -2.0, 60.0, 4.0, 10.0, 2.0, 8.0, 12.0)
NORMS = ProsodyNorms({measure.field: (getattr(USUAL, measure.field), 2.0) for measure in MEASURES}, {})


def test_every_measure_of_the_prompts_has_words():
    assert set(CUE_WORDS) == {measure.field for measure in MEASURES}


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.field)
@pytest.mark.parametrize("is_above", [True, False])
def test_the_words_of_the_prompt_itself_name_measure_and_direction(measure, is_above):
    word, other = (measure.more, measure.less) if is_above else (measure.less, measure.more)
    reason = f"The {measure.name} is much {word} than usual."
    assert names_cue(reason, measure.field) and names_direction(reason, measure.field, is_above)
    assert not names_direction(f"The {measure.name} is {other} than usual.", measure.field, is_above)
    assert not names_direction(f"The {measure.name} is as usual.", measure.field, is_above)
    assert not names_cue("The speaker is angry.", measure.field)


@pytest.mark.parametrize(
    ("reason", "field", "names", "direction"),
    [
        ("She speaks slowly, with a deep voice", "syllables_per_second", True, False),
        ("high pitch, soft and slow", "loudness_db", True, False),
        ("The pitch range is wide", "pitch_semitones", False, False),
        ("A monotone voice", "pitch_range_semitones", True, False),
        ("The loud voice", "loudness_db", True, True),
        ("the allowed content", "loudness_db", False, False),
    ],
)
def test_cases_by_hand(reason, field, names, direction):
    assert names_cue(reason, field) is names
    assert names_direction(reason, field, is_above=True) is direction


def test_the_cue_is_the_measure_that_differs_most():
    assert cue_of(replace(USUAL, loudness_db=55.0, jitter_percent=4.0), "x", NORMS) == ("loudness_db", False)
    assert cue_of(replace(USUAL, loudness_db=None, jitter_percent=4.0), "x", NORMS) == ("jitter_percent", True)
    assert cue_of(replace(USUAL, loudness_db=60.9), "x", NORMS) is None
    assert cue_of(NO_PROSODY, "x", NORMS) is None


def test_figures_by_hand():
    cues = [("loudness_db", True), ("loudness_db", True), ("pause_percent", False), None, ("pause_percent", False)]
    reasons = ["loud voice", "a low volume", "fewer pauses", "loud voice", ""]
    figures = reason_figures(reasons, cues)
    assert figures["reasons"] == 3 and figures["names_cue"] == 1.0
    assert figures["names_direction"] == pytest.approx(2 / 3)
    # Of three reasons, two name loudness and one pauses: 2/3 x 2/3 + 1/3 x 1/3.
    assert figures["names_cue_by_chance"] == pytest.approx(5 / 9)
    assert reason_figures([""], [None]) == {"reasons": 0.0}


def test_a_reason_that_lists_every_measure_names_no_more_than_by_chance():
    everything = "pitch, range, slope, loudness, rate, pauses, jitter, shimmer, harmonics"
    cues = [(measure.field, True) for measure in MEASURES]
    figures = reason_figures([everything] * len(cues), cues)
    assert figures["names_cue"] == 1.0 == pytest.approx(figures["names_cue_by_chance"])
    assert figures["names_direction"] == 0.0


def test_labels_are_compared_only_where_both_prompts_were_asked():
    assert label_figures(["sad", "sad", "", "happy"], ["sad", "happy", "sad", None]) == {
        "same_label_clips": 2.0,
        "same_label": 0.5,
    }
    assert label_figures(["sad"], [None]) == {"same_label_clips": 0.0}


@pytest.mark.parametrize(("with_reason", "without"), explanation_check.WITHOUT_REASON.items())
def test_the_two_prompts_differ_in_the_sentence_that_asks_for_a_reason_only(with_reason, without):
    first, second = prompt_template.load(with_reason), prompt_template.load(without)
    assert first.user == second.user and first.reason and not second.reason
    assert first.system.splitlines()[:-1] == second.system.splitlines()[:-1]
