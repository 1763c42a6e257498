"""Planted leaks of each kind are found, and no leakage is found in an honest split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ser_bench.audit import run_audit
from ser_bench.audit.checkpoint import check_checkpoint
from ser_bench.audit.combiner import check_combiner
from ser_bench.audit.finding import (
    ADAPTATION,
    NEVER_CHECKED,
    NOT_APPLICABLE,
    Audit,
    Finding,
    not_checked_in_words,
    outcome_in_words,
)
from ser_bench.audit.inherited import inherited
from ser_bench.audit.overlap import near_identical, overlaps, predictions_match
from ser_bench.audit.scaler import Scaler, check_scaler, stored_scaler
from ser_bench.config import Config
from ser_bench.predictors.fusion.fusion import Fusion
from ser_bench.types import CLEAN, VARIANTS, Clip, FloatArray, Predictions, Row, Split, clean_rows
from tests.support.fake_inputs import LABELS as FAKE_LABELS
from tests.support.fake_inputs import FakeInputs, compose_config, rows

SPEAKERS, SENTENCES, LABELS = 6, ("DFA", "IEO"), ("angry", "sad")


def corpus() -> dict[str, Clip]:
    clips = [
        Clip(f"s{s}_{sentence}_{label}", Path(), label, f"s{s}", sentence, digest=f"{s}{sentence}{label}")
        for s in range(SPEAKERS)
        for sentence in SENTENCES
        for label in LABELS
    ]
    return {clip.id: clip for clip in clips}


def of(clips: dict[str, Clip], *speakers: int) -> list[str]:
    return [clip.id for clip in clips.values() if clip.speaker in {f"s{s}" for s in speakers}]


def honest(clips: dict[str, Clip]) -> Split:
    train = tuple(Row(clip_id, variant) for clip_id in of(clips, 0, 1, 2, 3) for variant in VARIANTS)
    return Split("speaker", 0, 3, train, clean_rows(of(clips, 4)), clean_rows(of(clips, 5)))


def shares(split: Split, clips: dict[str, Clip]) -> dict[str, float | None]:
    return {finding.name: finding.share for finding in overlaps(split, clips)}


def leaks(split: Split, clips: dict[str, Clip], *more: Finding) -> tuple[str, ...]:
    return Audit(split.protocol, len(split.test), (*overlaps(split, clips), *more)).leaks


def test_no_leakage_is_found_in_an_honest_split():
    clips = corpus()
    audit = Audit("speaker", 4, tuple(overlaps(honest(clips), clips)))
    assert (audit.tag, audit.leakage_found, audit.unannounced) == ("clean", False, ())
    assert audit.verdict.startswith(
        "no leakage found: no clip, augmented sibling, identical audio or speaker of the 4 test rows"
    )
    assert shares(honest(clips), clips)["sentence"] == 1.0  # shared by the design of the corpus, and stated


def test_the_verdict_names_what_was_checked_and_what_was_not():
    clips = corpus()
    checkpoint = Finding("checkpoint", "epoch 2 of 4 was kept: it has the lowest validation loss", 0.0)
    open_ = Finding("val_loss", "not checked: no audio")
    absent = Finding("combiner", f"{NOT_APPLICABLE}: no fusion")
    audit = Audit("speaker", 4, (*overlaps(honest(clips), clips), checkpoint, open_, absent))
    assert "recomputed without contradiction: choice of the kept epoch by the logged losses" in audit.verdict
    assert "not checked: validation loss of the kept epoch; " in audit.verdict
    assert audit.verdict.endswith(f"never checked: {NEVER_CHECKED}")
    assert "combiner" not in audit.verdict and "saw no test row" not in audit.verdict
    assert audit.not_checked == ("val_loss",) and audit.tags["audit_not_checked"] == "val_loss"
    whole = replace(audit, findings=(checkpoint,))
    assert "; not checked" not in whole.verdict and whole.tags["audit_not_checked"] == "none"
    leaking = replace(audit, findings=(*audit.findings, Finding("speaker", "all test rows", 1.0, leak=True)))
    assert "not checked: validation loss of the kept epoch" in leaking.verdict


def test_a_stored_list_of_open_questions_is_read_in_words():
    assert not_checked_in_words({"audit": "clean", "audit_not_checked": "none"}) == ""
    assert not_checked_in_words({"audit": "clean", "audit_not_checked": "val_loss artifacts"}) == (
        "validation loss of the kept epoch and files by their SHA-256"
    )
    assert "scores" in not_checked_in_words({"audit": "clean"}), "an audit of an older version checked less"
    assert not_checked_in_words({}) == ""


def test_a_test_clip_in_training_is_found():
    clips = corpus()
    split = honest(clips)
    leaking = replace(split, train=(*split.train, Row("s5_DFA_sad")))
    assert shares(leaking, clips)["clip"] == pytest.approx(1 / 4)
    assert shares(leaking, clips)["sibling"] == 0.0
    assert {"clip", "speaker"} <= set(leaks(leaking, clips))


def test_an_augmented_sibling_in_training_is_found():
    clips = corpus()
    split = honest(clips)
    leaking = replace(split, train=(*split.train, Row("s5_DFA_sad", "noise"), Row("s5_IEO_sad", "pitch")))
    assert shares(leaking, clips)["sibling"] == pytest.approx(2 / 4)
    assert "sibling" in leaks(leaking, clips)


def test_the_leaks_of_the_papers_protocol_are_announced():
    clips = corpus()
    rows = [Row(clip_id, variant) for clip_id in clips for variant in VARIANTS]
    split = Split("paper", 0, 1, tuple(rows[::2]), (), tuple(rows[1::2]))
    audit = Audit("paper", len(split.test), tuple(overlaps(split, clips)))
    assert audit.leaks == ("clip", "sibling", "speaker") and audit.unannounced == ()
    assert "all test rows have another variant of their clip in training" in audit.verdict
    assert "split=paper announces it" in audit.verdict
    pretending = replace(audit, protocol="speaker")
    assert pretending.unannounced == audit.leaks and "does not announce" in pretending.verdict


def test_a_shared_speaker_is_a_leak_that_split_clip_announces_and_split_speaker_does_not():
    clips = corpus()
    rows = clean_rows(clips)
    split = Split("clip", 0, 2, rows[::2], (), rows[1::2])
    audit = Audit("clip", len(split.test), tuple(overlaps(split, clips)))
    assert audit.leaks == ("speaker",) and audit.unannounced == ()
    assert replace(audit, protocol="speaker").unannounced == ("speaker",)
    assert "all test rows have their speaker in training" in audit.verdict


def test_identical_bytes_under_another_name_are_found_and_are_not_counted_as_nearly_identical_too():
    clips = corpus()
    clips["s5_DFA_sad"] = replace(clips["s5_DFA_sad"], digest=clips["s0_DFA_sad"].digest)
    split = honest(clips)
    assert leaks(split, clips) == ("identical_audio",)
    assert shares(split, clips)["identical_audio"] == pytest.approx(1 / 4)
    assert near_identical(split, clips, [("s5_DFA_sad", "s0_DFA_sad")]).share == 0.0
    unknown = {clip_id: replace(clip, digest="") for clip_id, clip in clips.items()}
    assert leaks(split, unknown) == ()


def test_nearly_identical_audio_is_counted_by_test_row_and_a_clip_is_not_its_own_copy():
    clips = corpus()
    found = near_identical(honest(clips), clips, [("s5_DFA_sad", "s0_IEO_sad"), ("s5_DFA_sad", "s1_IEO_sad")])
    assert found.leak and found.share == pytest.approx(1 / 4)
    assert not near_identical(honest(clips), clips, [("s5_DFA_sad", "s5_DFA_sad")]).leak


@pytest.mark.parametrize("protocol", ["sentence", "speaker_sentence"])
def test_a_shared_sentence_is_a_leak_if_the_protocol_excludes_it(protocol):
    clips = corpus()
    split = replace(honest(clips), protocol=protocol)
    assert "sentence" in leaks(split, clips)
    apart = replace(
        split,
        train=tuple(row for row in split.train if "DFA" in row.clip_id),
        test=tuple(row for row in split.test if "IEO" in row.clip_id),
    )
    assert "sentence" not in leaks(apart, clips) and shares(apart, clips)["sentence"] == 0.0


def test_unknown_sentences_are_not_checked():
    clips = {clip_id: replace(clip, sentence="") for clip_id, clip in corpus().items()}
    assert shares(honest(clips), clips)["sentence"] is None


def test_test_clips_among_validation_rows_are_found():
    clips = corpus()
    split = honest(clips)
    leaking = replace(split, val=(*split.val, split.test[0]))
    assert leaks(leaking, clips) == ("val_clip", "val_speaker")


# ---- predictions


def predictions(split: Split, clips: dict[str, Clip]) -> Predictions:
    n = len(split.test)
    truth = tuple(clips[row.clip_id].emotion for row in split.test)
    even = np.full((n, 2), 0.5, np.float32)
    nothing = np.zeros(n, np.float32)
    return Predictions(split.test, truth, LABELS, even, np.zeros(n, bool), nothing, nothing)


def test_predictions_of_other_rows_or_with_another_truth_are_found():
    clips = corpus()
    split = honest(clips)
    stored = predictions(split, clips)
    assert not predictions_match(split, stored, clips, limit="").leak
    fewer = stored.take([0, 2])
    assert predictions_match(split, fewer, clips, limit="").leak  # the easy rows alone
    assert not predictions_match(split, fewer, clips, limit="llm.limit").leak
    assert "2 of 4" in predictions_match(split, fewer, clips, limit="llm.limit").text
    assert "as adapt.enrol allows" in predictions_match(split, fewer, clips, limit="adapt.enrol").text
    relabelled = replace(stored, truth=tuple(reversed(stored.truth)))
    assert predictions_match(split, relabelled, clips, limit="llm.limit").leak
    strange = replace(stored, rows=(split.train[0], *stored.rows[1:]))
    assert predictions_match(split, strange, clips, limit="llm.limit").leak


# ---- scaler


def read(rows: Sequence[Row]) -> FloatArray:
    """[N, 5] features: the speaker shifts them, the variant too; the last column never varies."""
    out = np.empty((len(rows), 5), np.float32)
    for values, row in zip(out, rows, strict=True):
        rng = np.random.default_rng([ord(c) for c in row.clip_id + row.variant])
        values[:4] = rng.normal(-300 + 5 * int(row.clip_id[1]) + 3 * VARIANTS.index(row.variant), 20, 4)
        values[4] = 7.0
    return out


def fitted(rows: Sequence[Row]) -> Scaler:
    values = read(rows).astype(np.float64)
    std = values.std(axis=0)
    return Scaler(values.mean(axis=0).astype(np.float32), np.where(std == 0, 1.0, std).astype(np.float32))


def test_the_scaler_of_training_rows_passes_and_one_of_all_rows_is_named():
    split = honest(corpus())
    assert check_scaler(fitted(split.train), split, read).share == 0.0
    everything = check_scaler(fitted([*split.train, *split.val, *split.test]), split, read)
    assert everything.leak and "training, validation and test" in everything.text
    both = check_scaler(fitted([*split.train, *split.test]), split, read)
    assert both.leak and "training and test rows" in both.text
    one_too_many = check_scaler(fitted([*split.train, split.test[0]]), split, read)
    assert one_too_many.leak and "not those of the training rows" in one_too_many.text


def test_a_scaler_without_test_rows_is_no_leak():
    split = honest(corpus())
    clean = [row for row in split.train if row.variant == CLEAN]
    assert not check_scaler(fitted(clean), split, read).leak
    assert "validation" in check_scaler(fitted([*split.train, *split.val]), split, read).text
    assert not check_scaler(fitted([*split.train, *split.val]), split, read).leak
    assert "clean training and validation" in check_scaler(fitted([*clean, *split.val]), split, read).text


def test_a_wrong_standard_deviation_is_a_leak():
    split = honest(corpus())
    scaler = fitted(split.train)
    assert check_scaler(Scaler(scaler.mean, scaler.std * 1.001), split, read).leak


def test_without_scaler_or_features_the_scaler_is_not_checked(tmp_path):
    split = honest(corpus())
    assert check_scaler(None, split, read).share is None
    assert check_scaler(fitted(split.train), split, None).share is None
    assert stored_scaler(tmp_path) is None
    save_file({"mean": np.zeros(3, np.float32), "scale": np.ones(3, np.float32)}, tmp_path / "a.safetensors")
    stored = stored_scaler(tmp_path)
    assert stored is not None and stored.std.tolist() == [1, 1, 1]


# ---- checkpoint

VAL = {1: 1.5, 2: 1.2, 3: 1.3, 4: 1.4}
TEST = {"loss": {1: 1.6, 2: 1.5, 3: 1.1, 4: 1.3}, "accuracy": {1: 0.2, 2: 0.3, 3: 0.6, 4: 0.5}, "uar": {}}


def of_epoch(loss: float) -> Predictions:
    clips = corpus()
    split = honest(clips)
    p = float(np.exp(-loss))
    probabilities = np.array(
        [[p, 1 - p] if clips[row.clip_id].emotion == "angry" else [1 - p, p] for row in split.test]
    )
    return replace(predictions(split, clips), probabilities=probabilities.astype(np.float32))


def test_the_lowest_validation_loss_and_the_last_epoch_are_honest_choices():
    anything = of_epoch(1.0)
    assert check_checkpoint(2, 10, VAL, {}, anything).share == 0.0
    assert check_checkpoint(4, 10, VAL, {}, anything).share == 0.0
    assert check_checkpoint(4, 4, {}, TEST, of_epoch(1.3)).share == 0.0
    assert check_checkpoint(None, 4, {}, {}, anything).share is None
    tied = {1: 1.5, 2: 1.2, 3: 1.2000004}
    assert not check_checkpoint(3, 10, tied | {4: 1.4}, {}, anything).leak


def test_a_checkpoint_chosen_on_test_rows_is_found():
    found = check_checkpoint(3, 4, {}, TEST, of_epoch(1.1))
    assert found.leak and "best by test loss and accuracy" in found.text
    assert check_checkpoint(3, 10, VAL, {}, of_epoch(1.1)).leak


def test_a_training_stopped_without_validation_rows_is_found():
    assert check_checkpoint(4, 30, {}, TEST, of_epoch(1.3)).leak


def test_predictions_of_another_epoch_than_the_named_one_are_found():
    found = check_checkpoint(4, 4, {}, TEST, of_epoch(1.1))
    assert found.leak and "test loss of epoch 3" in found.text


# ---- JSON, text and stored tag


def test_stored_tags_are_read_in_words():
    assert outcome_in_words("clean") == "no leakage found"
    assert outcome_in_words("leaks: clip, speaker") == "leakage found: clip, speaker"
    assert outcome_in_words("leaks: scores, artifacts") == "contradiction found: scores, artifacts"
    assert outcome_in_words("leaks: speaker, artifacts") == "leakage found: speaker, artifacts"
    leak = Audit("speaker", 4, (Finding("clip", "all test rows have their clip in training", 1.0, leak=True),))
    assert leak.tag == "leaks: clip" and outcome_in_words(leak.tag) == "leakage found: clip"


def test_the_json_and_the_text_hold_every_answer():
    clips = corpus()
    split = honest(clips)
    audit = Audit("speaker", 4, (*overlaps(split, clips), check_scaler(None, split, None)), ("without the audio",))
    content = json.loads(audit.as_json())
    assert content["verdict"] == audit.verdict and content["convicted"] is False
    assert [finding["name"] for finding in content["findings"]] == [finding.name for finding in audit.findings]
    for finding in audit.findings:
        assert finding.name in audit.as_text() and finding.text in audit.as_text()
    assert "without the audio" in audit.as_text()
    assert "leak/scaler" not in audit.metrics and audit.metrics["leak/clip"] == 0.0


OWN = (
    Finding("speaker", "no speaker", 0.0),
    Finding("near_identical_audio", "not checked: no features"),
    Finding("scaler", "not applicable: no scaler"),
    Finding("checkpoint", "not applicable: no epochs"),
    Finding("predictions", "exactly the test rows", 0.0),
)


def members_say(question: str, *of_members: Finding) -> Finding:
    members = {f"m{i}": (replace(one, name=question),) for i, one in enumerate(of_members)}
    return next(one for one in inherited(OWN, members) if one.name == question)


def test_a_fusion_leaks_what_a_member_leaks() -> None:
    clean, leak = Finding("", "fine", 0.0), Finding("", "of test rows", 1.0, leak=True)
    for question in ("speaker", "scaler", "checkpoint", "predictions", "near_identical_audio"):
        found = members_say(question, clean, leak)
        assert (found.leak, found.share, found.text) == (True, 1.0, "member m1: of test rows")
    small = replace(leak, share=0.2)
    assert members_say("speaker", small, leak).text == "member m1: of test rows"
    mine = replace(OWN[0], share=0.5, leak=True)
    assert inherited([mine], {"m0": (replace(small, name="speaker"),)}) == [mine]


def test_a_fusion_has_its_members_answers_to_questions_of_their_own() -> None:
    clean, open_ = Finding("", "fine", 0.0), Finding("", "not checked: gone")
    absent = Finding("", "not applicable: none")
    assert members_say("scaler", clean, absent) == Finding("scaler", "member m0: fine", 0.0)
    assert members_say("scaler", clean, clean).text == "member m0: fine; member m1: fine"
    assert members_say("scaler", clean, open_) == Finding("scaler", "member m1: not checked: gone")
    assert members_say("scaler", absent, absent) == OWN[2]
    assert members_say("speaker", open_, clean) == OWN[0], "its own rows answer this one"
    assert [one.name for one in inherited(OWN, {"m0": ()})] == [one.name for one in OWN]


def stored_fusion(folder: Path, *words: str, fitted_on: tuple[Row, ...]) -> tuple[Config, dict[str, Clip], Split]:
    cfg, inputs = compose_config("model=fusion", *words), FakeInputs()
    val, test = rows(100, 60), rows(200, 60)
    fusion = Fusion(cfg, FAKE_LABELS, inputs, folder, lambda epoch, metrics: None)
    fusion.fit((), fitted_on)
    fusion.save(folder)
    split = Split("speaker", 0, 2, rows(0, 30), val, test)
    clips = {clip.id: clip for clip in inputs.clips([*split.train, *val, *test])}
    return cfg, clips, split


@pytest.mark.parametrize("words", [(), ("shuffle_labels=true", "seed=3")])
def test_a_regression_on_validation_rows_is_no_leak(tmp_path: Path, words: tuple[str, ...]) -> None:
    cfg, clips, split = stored_fusion(tmp_path, *words, fitted_on=rows(100, 60))
    found = check_combiner(tmp_path, cfg, split, clips)
    assert found is not None and (found.leak, found.share) == (False, 0.0) and "60 validation rows" in found.text


def test_a_regression_fitted_to_test_rows_is_found(tmp_path: Path) -> None:
    cfg, clips, split = stored_fusion(tmp_path, fitted_on=rows(150, 60))
    found = check_combiner(tmp_path, cfg, split, clips)
    assert found is not None and found.leak and "50 rows" in found.text and "10 are test rows" in found.text


def test_a_regression_that_was_changed_is_found(tmp_path: Path) -> None:
    cfg, clips, split = stored_fusion(tmp_path, fitted_on=rows(100, 60))
    arrays = load_file(tmp_path / "fusion.safetensors")
    save_file(arrays | {"coefficients": 1.01 * arrays["coefficients"]}, tmp_path / "fusion.safetensors")
    found = check_combiner(tmp_path, cfg, split, clips)
    assert found is not None and found.leak and "not the one" in found.text


def test_a_mean_and_other_models_have_no_combiner(tmp_path: Path) -> None:
    cfg, clips, split = stored_fusion(tmp_path, "model.combine=mean", fitted_on=())
    assert check_combiner(tmp_path, cfg, split, clips) is None
    assert check_combiner(tmp_path, compose_config("model=majority"), split, clips) is None


def test_the_adaptation_of_a_member_is_in_the_verdict_of_the_fusion():
    told = Finding(ADAPTATION, "adapt=speaker_stats: 10 clips of each tested speaker were used without their labels")
    found = inherited(OWN, {"probe": (told,), "cnn": ()})
    assert [one.name for one in found] == [ADAPTATION, *(one.name for one in OWN)]
    verdict = Audit("speaker", 4, tuple(found)).verdict
    assert "member probe: adapt=speaker_stats: 10 clips of each tested speaker" in verdict


class Copies:
    """Stands for the feature store: these pairs of clips have the same recording."""

    def __init__(self, *pairs: tuple[str, str], cached: bool = True) -> None:
        self.pairs, self.cached, self.asked = list(pairs), cached, list[list[str]]()

    def copies(self, clip_ids: Sequence[str], compute: bool) -> list[tuple[str, str]] | None:
        self.asked.append(list(clip_ids))
        return self.pairs if compute or self.cached else None


def test_a_copy_of_a_test_clip_in_training_is_found_in_either_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = corpus()
    split = honest(clips)
    for pair in (("s5_DFA_sad", "s0_IEO_sad"), ("s0_IEO_sad", "s5_DFA_sad")):
        features = Copies(pair, ("s0_DFA_sad", "s1_DFA_sad"), ("s4_DFA_sad", "s5_IEO_sad"))
        found = run_audit._near_identical(split, clips, features, compute=False)
        assert found.leak and found.share == pytest.approx(1 / 4), "a copy in training or validation is none"
        assert features.asked == [sorted(clips)], "all clips of the split, so that every fold asks for the same"
    monkeypatch.setattr(run_audit, "CLIPS_AT_THE_END", 3)
    late = run_audit._near_identical(split, clips, Copies(cached=False), compute=False)
    assert late.share is None and "24 clips take long to compare; ser-bench audit does it" in late.text
    assert run_audit._near_identical(split, clips, Copies(cached=False), compute=True).share == 0.0
    assert run_audit._near_identical(split, clips, None, compute=True).share is None
