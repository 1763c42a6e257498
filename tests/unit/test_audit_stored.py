"""Stored runs that were tampered with: what the audit computes again, it finds; a run as it was stored has no leak."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from safetensors.numpy import load_file, save_file

from ser_bench import predictions as tables
from ser_bench import predictors, tracking
from ser_bench.audit import Audit, Finding, audit_run
from ser_bench.audit.repeated_predictions import check_repetition, sample
from ser_bench.audit.scores import check_scores
from ser_bench.audit.stored_member import AuditedMember
from ser_bench.audit.validation import REMARK, loss_of
from ser_bench.config import Config, Protocol, TrackingConfig
from ser_bench.errors import SerBenchError
from ser_bench.evaluation import run_scores
from ser_bench.evaluation.calibration import Calibration
from ser_bench.features.feature_store import Features
from ser_bench.tracking import StoredRun
from ser_bench.tracking.artifact_manifest import HASH_TAG, MANIFEST_FILE, manifest_of
from ser_bench.tracking.audit_records import CLIP_COLUMNS, FIT_ROWS_FILE, fit_rows_json
from ser_bench.types import FusionMember, Predictions, Row, Split
from tests.fixtures.spoken import Spoken
from tests.support.fake_inputs import LABELS as FAKE_LABELS
from tests.support.fake_inputs import TINY, FakeInputs, compose_config, rows

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "stored_runs"
CASES = sorted(path.name for path in FIXTURES.iterdir())
SPREAD = 1.5
"""Of the features of the stored runs; see `tests/fixtures/make_stored_runs.py`."""
KEPT, EPOCHS = 2, 4
"""Of the stored networks."""


class CachedInputs(Spoken, FakeInputs):
    """The inputs of the stored runs, in place of the feature store; there are no copies of recordings."""

    def __init__(self, spread: float = SPREAD) -> None:
        super().__init__(spread=spread)
        self.labels_read: set[Row] = set()
        self.own_members: Sequence[FusionMember] | None = None

    def truth(self, rows: Sequence[Row]) -> list[str]:
        self.labels_read.update(rows)
        return super().truth(rows)

    def members(self) -> Sequence[FusionMember]:
        return super().members() if self.own_members is None else self.own_members

    def under(self, cfg: Config, members: Sequence[FusionMember] = ()) -> CachedInputs:
        inputs = CachedInputs(self.spread)
        inputs.own_members = members
        return inputs

    def copies(self, clip_ids: Sequence[str], compute: bool) -> list[tuple[str, str]]:
        return []


@dataclass(frozen=True)
class RunOnDisk(StoredRun):
    """A stored run without a database."""

    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    of_members: Sequence[StoredRun] = ()

    def history(self, metric: str) -> dict[int, float]:
        return dict(self.curves.get(metric, {}))

    def members(self) -> list[StoredRun]:
        return list(self.of_members)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def stored(case: str, folder: Path, **changes: Any) -> RunOnDisk:
    """A copy of a stored run that a test may change."""
    shutil.copytree(FIXTURES / case, folder / case)
    tags, metrics, params = (read_json(folder / case / f"{name}.json") for name in ("tags", "metrics", "params"))
    values: dict[str, Any] = {
        "run_id": "0" * 32,
        "name": case,
        "status": "FINISHED",
        "start_time": 0,
        "tags": tags,
        "metrics": metrics,
        "params": params,
        "parent": None,
        "artifact_uri": (folder / case).as_uri(),
        "tracking": TrackingConfig(dir=str(folder)),
        "curves": {"val/loss": {KEPT: 1.0, EPOCHS: 2.0}},
    }
    return RunOnDisk(**(values | changes))


def audited(run: StoredRun) -> Audit:
    clips = tracking.stored_clips(run)
    assert clips is not None
    return audit_run(run, run.config(), clips, CachedInputs(spread=SPREAD))  # type: ignore[arg-type]


def finding(audit: Audit, name: str) -> Finding:
    return next(each for each in audit.findings if each.name == name)


def rewrite(run: StoredRun, predictions: Predictions) -> None:
    clips = tracking.stored_clips(run)
    assert clips is not None
    tables.save(predictions, clips, run.artifact("predictions.parquet"))


# ---- scores


@pytest.mark.parametrize("case", CASES)
def test_the_logged_scores_of_stored_runs_follow_from_their_predictions(case: str, tmp_path: Path) -> None:
    run = stored(case, tmp_path)
    speakers = {clip.id: clip.speaker for clip in (tracking.stored_clips(run) or {}).values()}
    scores = check_scores(run.predictions(), run.tags["protocol"], speakers, run.metrics)
    assert (scores.leak, scores.share) == (False, 0.0), scores.text


def test_predictions_that_were_replaced_by_the_truth_are_found(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    before = run.predictions()
    right = np.eye(len(before.labels), dtype=np.float32)[[before.labels.index(label) for label in before.truth]]
    rewrite(run, replace(before, probabilities=right))
    audit = audited(run)
    assert "scores" in audit.leaks and audit.unannounced
    assert "test/uar 0.291667, and 1 by predictions.parquet" in finding(audit, "scores").text


def test_a_logged_score_that_was_edited_is_found(tmp_path: Path) -> None:
    metrics = read_json(FIXTURES / "cnn" / "metrics.json") | {"test/precision/fear": 0.343333}
    text = finding(audited(stored("cnn", tmp_path, metrics=metrics)), "scores").text
    assert "1 of" in text and "test/precision/fear" in text


def test_calibrated_scores_are_computed_again_from_the_stored_calibration(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    speakers = {clip.id: clip.speaker for clip in (tracking.stored_clips(run) or {}).values()}
    found = Calibration(2.0, 9, 3, 0.2, 0.1, 1.2, 1.1)
    predictions = run.predictions()
    logged = run_scores.score(predictions, Protocol.speaker, speakers, found)
    honest = check_scores(predictions, "speaker", speakers, logged, found)
    assert not honest.leak and "others" not in honest.text
    assert check_scores(predictions, "speaker", speakers, logged | {"test/ece_calibrated": 0.001}, found).leak


def test_a_score_that_was_not_logged_is_no_leak(tmp_path: Path) -> None:
    metrics = read_json(FIXTURES / "cnn" / "metrics.json")
    fewer = {name: value for name, value in metrics.items() if name != "test/ece"} | {"test/unheard_of": 0.5}
    scores = finding(audited(stored("cnn", tmp_path, metrics=fewer)), "scores")
    assert not scores.leak and "1 others are not scores of this version" in scores.text
    none = finding(audited(stored("cnn", tmp_path / "none", metrics={})), "scores")
    assert none.share is None and none.text.startswith("not checked")


@pytest.mark.parametrize("column", ["speaker", "sentence", "predicted"])
def test_a_table_whose_columns_contradict_the_corpus_or_the_probabilities_is_found(column: str, tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    frame = pd.read_parquet(run.artifact("predictions.parquet"))
    frame[column] = frame[column].iloc[::-1].to_numpy() if column == "predicted" else "another"
    frame.to_parquet(run.artifact("predictions.parquet"), index=False)
    audit = audited(run)
    assert "predictions" in audit.leaks and f"another {column}" in finding(audit, "predictions").text


# ---- artifacts


def test_two_changed_bytes_in_stored_weights_are_found(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    assert finding(audited(run), "artifacts").share is None, "the stored runs are older than the manifest"
    text, run.tags[HASH_TAG] = manifest_of(run.artifact(""))
    run.artifact("").joinpath(MANIFEST_FILE).write_text(text)
    assert finding(audited(run), "artifacts").share == 0.0
    weights = run.artifact("predictor/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-2] + b"??")
    audit = audited(run)
    assert "artifacts" in audit.unannounced
    assert finding(audit, "artifacts").text == "since the run has ended, predictor/model.safetensors was changed"


# ---- predictions by the stored predictor


@pytest.mark.parametrize("case", CASES)
def test_the_stored_predictor_gives_the_stored_predictions_again(case: str, tmp_path: Path) -> None:
    run = stored(case, tmp_path)
    predictor = predictors.load(
        run.artifact("predictor"), run.config(), run.predictions().labels, CachedInputs(spread=SPREAD)
    )
    again = check_repetition(predictor, "", run.split(), run.predictions(), seed=0)
    assert not again.leak, again.text
    if case.startswith("llm"):
        assert again.text == "not checked: the language model is not asked again"
    else:
        assert again.share == 0.0 and "24 of 24 test rows" in again.text


def test_predictions_and_scores_that_were_both_replaced_are_found(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    before = run.predictions()
    right = np.eye(len(before.labels), dtype=np.float32)[[before.labels.index(label) for label in before.truth]]
    forged = replace(before, probabilities=right)
    rewrite(run, forged)
    scores = run_scores.score(forged, Protocol.speaker, dict.fromkeys([row.clip_id for row in forged.rows], "s"))
    audit = audited(replace(run, metrics=run.metrics | tracking.storable(scores)))
    assert "scores" not in audit.leaks and "repeated_predictions" in audit.unannounced
    text = finding(audit, "repeated_predictions").text
    assert text.startswith("of 24 of 24 test rows, the stored predictor predicts 24 otherwise")


def test_weights_of_another_training_are_found(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    path = run.artifact("predictor/model.safetensors")
    arrays = load_file(path)
    last = max(name for name in arrays if name.startswith("network.") and name.endswith("weight"))
    save_file(arrays | {last: arrays[last] + np.float32(0.5)}, path)
    assert "repeated_predictions" in audited(run).unannounced


def test_a_slow_predictor_is_asked_for_a_sample(tmp_path: Path) -> None:
    before = stored("cnn", tmp_path).predictions()
    rows = list(range(24))
    assert sample(before, rows, seed=0) == rows
    slow = replace(before, latency_s=np.full(24, 60.0, np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ser_bench.audit.repeated_predictions.SAMPLE_ROWS", 5)
        chosen = sample(slow, rows, seed=0)
        assert len(chosen) == 5 == len(set(chosen)) and chosen == sample(slow, rows, seed=0) != sample(slow, rows, 1)
    assert sample(slow, rows, seed=0) == rows, "a few rows are always predicted again"


def test_without_the_audio_nothing_is_predicted_again(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    audit = audit_run(run, run.config(), tracking.stored_clips(run) or {}, None)
    open_questions = ("repeated_predictions", "scaler", "val_loss")
    assert set(open_questions) < set(audit.not_checked) and finding(audit, "scores").share == 0.0
    assert finding(audit, "val_loss").text == "not checked: the audio is not available"
    assert "predictions by the stored predictor" in audit.verdict.partition("; not checked: ")[2]


# ---- validation loss

TRAIN, VALIDATION, TEST = rows(0, 60), rows(100, 30), rows(300, 30)
NETWORK = ("model=mlp", "model.hidden=4", *TINY[0:1], *TINY[3:], "trainer.learning_rate=0.02")


def trained(
    folder: Path, train: Sequence[Row] = TRAIN, val: Sequence[Row] = VALIDATION, *words: str, test: Sequence[Row] = ()
) -> RunOnDisk:
    """A run whose predictor was fitted on these rows, and whose split.json has the honest ones."""
    inputs, curves = CachedInputs(spread=SPREAD), defaultdict[str, dict[int, float]](dict)

    def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            curves[name][epoch] = value

    cfg = compose_config(*NETWORK, *words)
    (folder / "work").mkdir(parents=True)
    predictor = predictors.build(cfg, FAKE_LABELS, inputs, folder / "work", on_epoch)
    facts = dict(predictor.fit(train, val, test))
    (folder / FIT_ROWS_FILE).write_text(fit_rows_json(inputs.labels_read))
    answers = predictor.predict(TEST)
    clips = {clip.id: clip for clip in inputs.clips([*TRAIN, *VALIDATION, *TEST])}
    predictor.save(folder / "predictor")
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(cfg)))
    split = Split("speaker", 0, 2, TRAIN, VALIDATION, TEST)
    parts = {"train": TRAIN, "val": VALIDATION, "test": TEST}
    (folder / "split.json").write_text(json.dumps({"protocol": "speaker", "fold": 0, "folds": 2, **parts}))
    tables.save(answers, clips, folder / "predictions.parquet")
    frame = pd.DataFrame([{name: getattr(clip, name) for name in CLIP_COLUMNS} for clip in clips.values()])
    frame.insert(0, "clip_id", list(clips))
    frame.to_parquet(folder / "clips.parquet")
    scores = run_scores.score(answers, Protocol.speaker, {clip.id: clip.speaker for clip in clips.values()})
    return RunOnDisk(
        "0" * 32, "mlp", "FINISHED", 0, {"model": "mlp", "protocol": split.protocol}, tracking.storable(facts | scores),
        {}, None, folder.as_uri(), TrackingConfig(dir=str(folder)), curves,
    )  # fmt: skip


def test_the_validation_loss_of_an_honest_run_is_computed_again(tmp_path: Path) -> None:
    val_loss = finding(audited(trained(tmp_path)), "val_loss")
    assert (val_loss.leak, val_loss.share) == (False, 0.0) and "on 30 validation rows" in val_loss.text


def test_early_stopping_on_test_rows_is_found(tmp_path: Path) -> None:
    audit = audited(trained(tmp_path, TRAIN, TEST))
    assert "val_loss" in audit.unannounced
    assert "the logged one is that of the test rows" in finding(audit, "val_loss").text


def test_weights_of_a_training_that_gives_another_validation_loss_are_found(tmp_path: Path) -> None:
    run, other = trained(tmp_path / "a"), trained(tmp_path / "b", (*TRAIN, *TEST))
    for name in ("predictor", "predictions.parquet"):
        shutil.move(run.artifact(name), tmp_path / f"old {name}")
        shutil.move(other.artifact(name), run.artifact("") / name)
    scores = {name: value for name, value in other.metrics.items() if name.startswith("test/")}
    audit = audited(replace(run, metrics=run.metrics | scores))
    assert {"scores", "repeated_predictions"}.isdisjoint(audit.leaks) and "val_loss" in audit.leaks


def test_a_test_loss_far_below_the_validation_loss_is_remarked(tmp_path: Path) -> None:
    run = trained(tmp_path, (*TRAIN, *TEST), VALIDATION, "trainer.max_epochs=40", "trainer.learning_rate=0.05")
    audit = audited(run)
    assert not finding(audit, "val_loss").leak and any(REMARK in note for note in audit.notes)
    assert not audited(trained(tmp_path / "honest")).notes


def test_a_head_is_checked_unless_it_was_fitted_to_validation_rows(tmp_path: Path) -> None:
    run = stored("egemaps", tmp_path)  # head.refit=false
    predictor = predictors.load(run.artifact("predictor"), run.config(), FAKE_LABELS, CachedInputs(spread=SPREAD))
    loss = loss_of(predictor.predict(run.split().val))
    right, wrong = (replace(run, metrics=run.metrics | {"fit/val_log_loss": value}) for value in (loss, loss + 0.1))
    assert finding(audited(right), "val_loss").share == 0.0
    assert finding(audited(wrong), "val_loss").leak
    refitted = finding(audited(stored("whisper_probe_stats", tmp_path)), "val_loss")
    assert refitted.share is None and not refitted.applies


def test_a_validation_loss_without_validation_rows_is_a_leak(tmp_path: Path) -> None:
    run = stored("cnn", tmp_path)
    path = run.artifact("split.json")
    path.write_text(json.dumps(read_json(path) | {"val": []}))
    assert "has no validation rows" in finding(audited(run), "val_loss").text and "val_loss" in audited(run).leaks


# ---- rows that the training has read


def test_the_optimiser_of_an_honest_run_read_its_training_rows_only(tmp_path: Path) -> None:
    read = finding(audited(trained(tmp_path)), "training_rows")
    assert (read.leak, read.share) == (False, 0.0)
    assert read.text == (
        "in 4 epochs the optimiser read each of the 60 training rows once per epoch, and no other row; "
        "fitting read no label of a test clip"
    )


def test_test_rows_that_the_optimiser_read_are_found(tmp_path: Path) -> None:
    audit = audited(trained(tmp_path, (*TRAIN, *TEST[:10])))
    read = finding(audit, "training_rows")
    assert "training_rows" in audit.unannounced and read.share == pytest.approx(1 / 3)
    assert "the optimiser read 10 test rows" in read.text and "fitting read the labels of 10 test clips" in read.text


def test_validation_rows_that_the_optimiser_read_are_found(tmp_path: Path) -> None:
    read = finding(audited(trained(tmp_path, (*TRAIN, *VALIDATION[:5]))), "training_rows")
    assert read.leak and "5 rows that are neither training nor test rows" in read.text


def test_labels_of_test_rows_that_any_predictor_reads_while_it_is_fitted_are_found(tmp_path: Path) -> None:
    run = trained(tmp_path, TRAIN, (*VALIDATION, *TEST[:1]))
    read = finding(audited(run), "training_rows")
    assert read.leak and "fitting read the labels of 1 test clips" in read.text
    path = run.artifact("split.json")
    path.write_text(json.dumps(read_json(path) | {"protocol": "paper"}))
    announced = finding(audited(run), "training_rows")
    assert not announced.leak and "labels of test clips are read for the test curve" in announced.text


def test_the_feature_store_notes_whose_labels_are_read() -> None:
    clips = {clip.id: clip for clip in FakeInputs().clips(TEST)}
    features = Features(compose_config("model=mlp"), clips, "en")
    features.clips(TEST)
    assert not features.labels_read
    assert features.truth(TEST[:2]) == ["anger", "fear"] and features.labels_read == set(TEST[:2])


def test_a_run_without_a_record_is_not_checked(tmp_path: Path) -> None:
    run = trained(tmp_path)
    (run.artifact("fit_rows.json")).unlink()
    only_optimiser = finding(audited(run), "training_rows")
    assert only_optimiser.share == 0.0 and "labels" not in only_optimiser.text
    run.artifact("predictor/training_rows.json").unlink()
    assert finding(audited(run), "training_rows").text.startswith("not checked: ")


# ---- fusions


def fusion_of(folder: Path, *members: RunOnDisk) -> RunOnDisk:
    """A stored mean of the probabilities of two stored runs."""
    run = trained(folder / "fusion")
    shutil.rmtree(run.artifact("predictor"))
    run.artifact("fit_rows.json").unlink()
    cfg = compose_config("model=fusion", f"model.members=[{','.join(m.run_id for m in members)}]", "model.combine=mean")
    (folder / "fusion" / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(cfg)))
    inputs = CachedInputs().under(cfg, [AuditedMember(member, lambda: pytest.fail("restored")) for member in members])
    fusion = predictors.build(cfg, FAKE_LABELS, inputs, folder, lambda epoch, metrics: None)
    fusion.fit((), ())
    fusion.save(folder / "fusion" / "predictor")
    rewrite(run, fusion.predict(TEST))
    scores = run_scores.score(run.predictions(), Protocol.speaker, dict.fromkeys([row.clip_id for row in TEST], "s"))
    tags = run.tags | {"model": "fusion"}
    return replace(run, of_members=members, tags=tags, curves={}, metrics=tracking.storable(scores), run_id="f" * 32)


def test_a_fusion_predicts_again_with_the_stored_predictions_of_its_members(tmp_path: Path) -> None:
    members = [replace(trained(tmp_path / name, TRAIN, VALIDATION, f"seed={i}"), run_id=name * 32) for i, name in
               enumerate("ab")]  # fmt: skip
    fused = fusion_of(tmp_path, *members)
    audit = audited(fused)
    assert finding(audit, "repeated_predictions").share == 0.0
    assert audit.leaks == ("speaker",), "the speakers of the generated clips are in all parts"
    assert finding(audit, "val_loss").text.startswith("member mlp aaaaaaaa: the stored predictor has the logged loss")
    before = members[0].predictions()
    rewrite(members[0], replace(before, probabilities=before.probabilities[::-1]))
    changed = audited(fused)
    assert {"repeated_predictions", "scores"} <= set(changed.leaks)
    with pytest.raises(SerBenchError, match="has not stored predictions of all rows"):
        AuditedMember(members[0], lambda: pytest.fail("restored")).predict(TRAIN)
