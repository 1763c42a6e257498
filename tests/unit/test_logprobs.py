from __future__ import annotations

import math

import pytest

from ser_bench.predictors.llm.parsing.logprobs import AnswerToken, label_probabilities

LABELS = ("angry", "happy", "sad")


FILLER = (b"~", math.log(1e-9))
"""A very improbable last entry of a report, so that unreported tokens are even less probable."""


def token(text: str, **others: float) -> AnswerToken:
    """Return a written token with the probabilities of the reported tokens."""
    top = tuple((key.encode(), math.log(p)) for key, p in others.items())
    return AnswerToken(text.encode(), dict(top).get(text.encode(), math.log(1e-9)), (*top, FILLER))


def answer(*label: AnswerToken, lead: str = '{"emotion":"') -> list[AnswerToken]:
    """Return the tokens of an answer; reports of the tokens before the label must not matter."""
    before = [token("```"), token("json\n"), token(lead[:4], angry=0.9), token(lead[4:], sad=0.9)]
    return [*before, *label, AnswerToken(b'"}', 0.0, ((b'"}', 0.0),))]


def test_case_computed_by_hand():
    # Unconstrained: 0.5 is on words that are no label. happy: .2 + .04 + .01 = .25; angry: .1; sad: .15.
    tokens = answer(token("happy", The=0.5, happy=0.2, s=0.15, ang=0.1, h=0.04, happ=0.01), token(""))
    assert label_probabilities(tokens, LABELS) == pytest.approx([0.1 / 0.5, 0.25 / 0.5, 0.15 / 0.5])


def test_labels_that_share_a_beginning_are_told_apart_by_the_next_token():
    labels = ("sad", "surprised", "happy")
    # "s" (.4) can become either label; the next token has .3 : .1, which gives three quarters and one quarter of it.
    tokens = answer(token("s", s=0.4, sad=0.1, happy=0.1), token("ad", ad=0.3, urpr=0.1, x=0.6))
    assert label_probabilities(tokens, labels) == pytest.approx([(0.1 + 0.3) / 0.6, 0.1 / 0.6, 0.1 / 0.6])


def test_undecided_token_that_was_not_written_makes_probabilities_unknown():
    labels = ("sad", "surprised", "happy")
    tokens = answer(token("happy", s=0.4, sad=0.1, surprised=0.1, happy=0.2), token(""))
    assert label_probabilities(tokens, labels) is None


def test_label_that_is_the_beginning_of_another():
    labels = ("sad", "saddened")
    # The written "sad" can be either label; a closing quotation mark (.6) or "dened" (.2) decides.
    tokens = answer(
        token("sad", sad=0.5),
        AnswerToken(b'"}', math.log(0.6), ((b'"}', math.log(0.6)), (b"dened", math.log(0.2)), FILLER)),
    )
    assert label_probabilities(tokens[:-1], labels) == pytest.approx([0.75, 0.25])


def test_label_may_start_within_a_token():
    tokens = [
        token('{"emotion"'),
        token(': "ha', **{': "ha': 0.3, ': "ang': 0.1, ':"sad': 0.9, ': "s': 0.2}),
        token("ppy"),
    ]
    # ':"sad' has a different layout: it does not match the text before the label.
    assert label_probabilities(tokens, LABELS) == pytest.approx([0.1 / 0.6, 0.3 / 0.6, 0.2 / 0.6])


def report(*top: tuple[str, float]) -> list[AnswerToken]:
    """Return an answer "happy" whose report ends with the last of `top`."""
    entries = tuple((text.encode(), math.log(p)) for text, p in top)
    return answer(AnswerToken(b"happy", dict(entries)[b"happy"], entries))


def test_unknown_if_unreported_tokens_could_matter():
    # All labels are reported, but each may have ten more spellings as probable as the last reported token.
    assert label_probabilities(report(("The", 0.5), ("happy", 0.1), ("ang", 0.05), ("sad", 0.02)), LABELS) is None
    assert label_probabilities(report(("The", 0.5), ("happy", 0.1), ("ang", 0.05), ("sad", 0.02), ("A", 1e-5)), LABELS)


def test_no_mass_is_hidden_if_the_report_holds_all_of_it():
    probabilities = label_probabilities(report(("happy", 0.7), ("ang", 0.2), ("sad", 0.1)), LABELS)
    assert probabilities == pytest.approx([0.2, 0.7, 0.1])


def test_label_without_any_mass_gets_at_most_that_of_the_last_reported_token():
    probabilities = label_probabilities(report(("happy", 0.5), ("ang", 0.1), ("The", 1e-4)), LABELS)
    assert probabilities == pytest.approx([0.1 / 0.6001, 0.5 / 0.6001, 1e-4 / 0.6001])
    assert label_probabilities(report(("happy", 0.5), ("ang", 0.1), ("The", 1e-2)), LABELS) is None


def test_written_label_that_is_not_reported_counts():
    happy = AnswerToken(
        b"happy", math.log(0.01), ((b"The", math.log(0.9)), (b"ang", math.log(0.02)), (b"sad", math.log(0.02)), FILLER)
    )
    assert label_probabilities(answer(happy), LABELS) == pytest.approx([0.4, 0.2, 0.4])


def test_already_constrained_distribution_gives_the_same():
    free = answer(token("happy", The=0.5, happy=0.2, s=0.15, ang=0.15))
    constrained = answer(token("happy", happy=0.4, s=0.3, ang=0.3))
    assert label_probabilities(free, LABELS) == pytest.approx(label_probabilities(constrained, LABELS))


def test_token_that_ends_the_object_counts_and_other_text_does_not():
    tokens = answer(
        token("happy", **{'happy"}': 0.2, "happy": 0.1, 'happy", ': 0.9, "happyness": 0.9, "s": 0.1, "ang": 0.1})
    )
    assert label_probabilities(tokens, LABELS) == pytest.approx([0.2, 0.6, 0.2])


@pytest.mark.parametrize("tokens", [[], [token("happy", happy=1.0)], answer(AnswerToken(b"happy", 0.0, ()))])
def test_without_report_or_label_probabilities_are_unknown(tokens):
    assert label_probabilities(tokens, LABELS) is None


def test_last_answer_counts_if_the_text_before_looks_like_an_answer():
    tokens = [
        token('{"emotion":"'),
        token("sad", sad=1.0),
        token('"}\n{"emotion":"'),
        token("happy", happy=0.5, s=0.25, ang=0.25),
    ]
    assert label_probabilities(tokens, LABELS) == pytest.approx([0.25, 0.5, 0.25])


def test_bytes_of_a_character_split_over_tokens():
    labels = ("wütend", "froh")
    top = ((b"w\xc3", math.log(0.2)), (b"froh", math.log(0.3)), FILLER)
    tokens = [
        token('{"emotion":"'),
        AnswerToken(b"w\xc3", math.log(0.2), top),
        AnswerToken(b"\xbctend", 0.0, ((b"\xbctend", 0.0),)),
    ]
    assert label_probabilities(tokens, labels) == pytest.approx([0.4, 0.6])


def test_two_tokens_of_the_same_bytes_both_count():
    entries = ((b"happy", math.log(0.3)), (b"happy", math.log(0.1)), (b"ang", math.log(0.3)), (b"s", math.log(0.3)))
    assert label_probabilities(answer(AnswerToken(b"happy", math.log(0.3), entries)), LABELS) == pytest.approx(
        [0.3, 0.4, 0.3]
    )
