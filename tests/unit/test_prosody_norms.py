"""Prosody in words and figures, relative to norms."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from ser_bench.features.prosody import NO_PROSODY, Prosody
from ser_bench.predictors.llm.prompting import prosody_norms
from ser_bench.predictors.llm.prompting.prosody_norms import MIN_SPEAKER_CLIPS

MIDDLE = Prosody(10.0, 6.0, -2.0, 60.0, 4.0, 10.0, 2.0, 8.0, 12.0)
SPREAD = Prosody(4.0, 2.0, 3.0, 5.0, 0.5, 6.0, 0.5, 2.0, 3.0)


def shifted(deviations: float) -> Prosody:
    """Return `MIDDLE`, moved by a number of standard deviations of `AROUND`."""
    return Prosody(*(getattr(MIDDLE, f.name) + deviations * getattr(SPREAD, f.name) for f in fields(Prosody)))


AROUND = [shifted(d) for d in (-1.0, 1.0)] * 10
"""Mean `MIDDLE`, standard deviation `SPREAD`."""


@pytest.mark.parametrize(
    ("deviations", "words"),
    [(0.0, "as usual"), (0.4, "as usual"), (1.0, "louder"), (-1.0, "softer"), (2.0, "much louder"),
     (-2.0, "much softer")],
)  # fmt: skip
def test_difference_from_norms_in_words_and_figures(deviations, words):
    learnt = prosody_norms.learn(AROUND, [str(n) for n in range(20)])
    text = prosody_norms.describe(shifted(deviations), "nobody", learnt)
    assert f"- loudness: {words} ({5.0 * deviations:+.1f} dB)" in text
    assert text.startswith("compared with recordings of other speakers:")
    rate = 4.0 + 0.5 * deviations
    assert f"({rate:.1f} syllables per second; usual 4.0)" in text
    for unit in ("semitones)", "semitones;", "semitones per second", "% of the time", "dB;"):
        assert unit in text


def test_speaker_with_enough_training_clips_is_compared_with_own_norms():
    loud = [replace(prosody, loudness_db=prosody.loudness_db + 20) for prosody in AROUND]
    learnt = prosody_norms.learn(AROUND + loud[:MIN_SPEAKER_CLIPS], ["a"] * 20 + ["b"] * MIN_SPEAKER_CLIPS)
    assert set(learnt.speakers) == {"a", "b"}
    same = replace(MIDDLE, loudness_db=80.0)
    assert "this speaker" in prosody_norms.describe(same, "b", learnt)
    assert "loudness: as usual (+0.0 dB)" in prosody_norms.describe(same, "b", learnt)
    assert "loudness: much louder (+20.0 dB)" in prosody_norms.describe(same, "a", learnt)
    few = prosody_norms.learn(AROUND, ["a"] * (MIN_SPEAKER_CLIPS - 1) + ["c"] * (21 - MIN_SPEAKER_CLIPS))
    assert set(few.speakers) == {"c"}


def test_missing_measures_are_left_out():
    learnt = prosody_norms.learn(AROUND, ["s"] * 20)
    assert prosody_norms.describe(NO_PROSODY, "s", learnt) == prosody_norms.NO_VOICE
    whispered = replace(MIDDLE, pitch_semitones=None, pitch_range_semitones=None, jitter_percent=None)
    text = prosody_norms.describe(whispered, "s", learnt)
    assert "pitch level" not in text and "jitter" not in text and "loudness" in text
    assert prosody_norms.describe(MIDDLE, "s", prosody_norms.learn([NO_PROSODY], ["s"])) == prosody_norms.NO_VOICE
    constant = prosody_norms.learn([MIDDLE] * 12, ["s"] * 12)
    assert "as usual" in prosody_norms.describe(shifted(3.0), "s", constant), "without spread there is no distance"
