"""Stored runs that were tampered with: what the audit computes again, it finds; a run as it was stored has no leak."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_bench import predictions as tables
from ser_bench import tracking
from ser_bench.audit import Audit, Finding, audit_run
from ser_bench.audit.scores import check_scores
from ser_bench.config import TrackingConfig
from ser_bench.tracking import StoredRun
from ser_bench.tracking.artifact_manifest import HASH_TAG, MANIFEST_FILE, manifest_of
from ser_bench.types import FloatArray, Predictions, Row
from tests.fixtures.spoken import Spoken
from tests.support.fake_inputs import FakeInputs

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "stored_runs"
CASES = sorted(path.name for path in FIXTURES.iterdir())
SPREAD = 1.5
"""Of the features of the stored runs; see `tests/fixtures/make_stored_runs.py`."""
KEPT, EPOCHS = 2, 4
"""Of the stored networks."""


class CachedInputs(Spoken, FakeInputs):
    """The inputs of the stored runs, in place of the feature store; there are no fingerprints."""

    def cached_spectral(self, rows: Sequence[Row]) -> FloatArray | None:
        return None


@dataclass(frozen=True)
class RunOnDisk(StoredRun):
    """A stored run without a database."""

    curves: Mapping[str, Mapping[int, float]] = field(default_factory=dict)

    def history(self, metric: str) -> dict[int, float]:
        return dict(self.curves.get(metric, {}))

    def members(self) -> list[StoredRun]:
        return []


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
