"""Canonical emotions."""

from __future__ import annotations

import pytest

from ser_bench.config import LabelSet
from ser_bench.corpora import labels


@pytest.mark.parametrize("synonym", labels.SYNONYMS)
def test_synonyms_lead_to_canonical_names(synonym: str) -> None:
    assert labels.canonical(f" {synonym.upper()} ") in labels.CANONICAL


def test_canonical_names_stay_and_unknown_ones_are_lowered() -> None:
    assert [labels.canonical(name) for name in labels.CANONICAL] == list(labels.CANONICAL)
    assert labels.canonical("Contempt") == "contempt"


def test_order_does_not_depend_on_the_input() -> None:
    names = ["wistful", "surprised", "sad", "angry", "amused", "sad"]
    assert (
        labels.ordered(names) == labels.ordered(reversed(names)) == ("angry", "sad", "surprised", "amused", "wistful")
    )


def test_label_sets() -> None:
    native = ("sad", "calm", "angry")
    assert labels.choose(native, LabelSet.native) == ("angry", "sad", "calm")
    assert labels.choose(native, LabelSet.basic6) == ("angry", "disgust", "fearful", "happy", "neutral", "sad")


def test_what_is_left_out_is_counted() -> None:
    assert labels.count_excluded(["calm", "sad", "bored", "calm"], labels.BASIC6) == {"calm": 2, "bored": 1}
