"""Audits of imported predictions, and of fusions with such members: nothing about the training is claimed."""

from __future__ import annotations

import pytest

from ser_bench.audit.finding import IMPORTED, Audit, Finding, not_checked_in_words, outcome_in_words
from ser_bench.audit.inherited import inherited
from ser_bench.audit.unknown_training import with_unknown_training

CHECKED = [
    Finding("clip", "no test row has their clip in training", 0.0),
    Finding("speaker", "no test row has their speaker in training", 0.0),
    Finding("scaler", "not applicable: no scaler"),
    Finding("predictions", "exactly the test rows of the split", 0.0),
    Finding("scores", "as stored", 0.0),
    Finding("artifacts", "as logged", 0.0),
]
FILES = ("predictions", "scores", "artifacts")


def test_without_knowledge_of_the_training_no_absence_of_leakage_is_claimed() -> None:
    audit = Audit("speaker", 6, tuple(with_unknown_training(CHECKED, "p.csv (SHA-256 ab)")))
    assert audit.tag == "unknown" and not audit.leakage_found
    assert audit.verdict.startswith("leakage not known: the predictions come from the file p.csv (SHA-256 ab)")
    assert "no leakage found" not in audit.verdict and "no leakage found" not in outcome_in_words(audit.tag)
    assert audit.not_checked == ("clip", "speaker", "scaler")
    assert set(audit.metrics) == {f"leak/{name}" for name in FILES}
    assert not_checked_in_words(audit.tags) == "clip, speaker and scaler"


@pytest.mark.parametrize("name", FILES)
def test_a_contradiction_in_the_files_is_still_found(name: str) -> None:
    changed = [Finding(f.name, "changed", 1.0, leak=True) if f.name == name else f for f in CHECKED]
    audit = Audit("speaker", 6, tuple(with_unknown_training(changed, "p.csv")))
    assert audit.tag == f"leaks: {name}" and audit.verdict.startswith("contradiction found")


def test_a_fusion_inherits_that_the_training_of_a_member_is_not_known() -> None:
    of_member = with_unknown_training(CHECKED, "p.csv")
    audit = Audit("speaker", 6, tuple(inherited(CHECKED, {"mine 12": of_member, "cnn 34": CHECKED})))
    assert audit.tag == "unknown" and audit.verdict.startswith("leakage not known: member mine 12: the predictions")
    assert {"clip", "speaker"} <= set(audit.not_checked) and "leak/speaker" not in audit.metrics
    assert [finding.name for finding in audit.findings].count(IMPORTED) == 1
    own_leak = [Finding("clip", "all of them", 1.0, leak=True), *CHECKED[1:]]
    audit = Audit("speaker", 6, tuple(inherited(own_leak, {"mine 12": of_member})))
    assert audit.tag == "leaks: clip"
    assert Audit("speaker", 6, tuple(inherited(CHECKED, {"cnn 34": CHECKED}))).tag == "clean"
