"""One sweep of the three predictors on the demo corpus (SYNTHETIC speech), looked at from all sides."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ser_bench.evaluation.calibration import CALIBRATION_FILE, Calibration
from tests.support.bench import Bench

CHANCE = 1 / 6
EPOCHS = "trainer.max_epochs=6"
"""As in the fixture `sweep`."""

pytestmark = pytest.mark.slow


def test_the_two_cnns_learn_and_the_llm_accounts_for_every_clip(sweep: tuple[Bench, str]) -> None:
    bench, output = sweep
    runs = {run.tags["model"]: run for run in bench.runs(shuffle_labels="false")}
    assert set(runs) == {"cnn", "cnn_text", "llm"}
    assert all(run.status == "FINISHED" for run in runs.values())
    for name in ("cnn", "cnn_text"):
        assert runs[name].metrics["test/uar"] > 2 * CHANCE, runs[name].metrics
        assert runs[name].metrics["memory/peak_mib"] > 0
    test_clips = {row.clip_id for row in runs["cnn"].split().test}
    answers = runs["llm"].predictions()
    assert {row.clip_id for row in answers.rows} == test_clips
    assert runs["llm"].metrics["llm/asked"] == len(test_clips)
    assert "SYNTHETIC" in output and "experiment=demo" in output and "experiment=paper" in output


def test_true_labels_beat_shuffled_ones_by_a_margin(sweep: tuple[Bench, str]) -> None:
    """The same networks, split and epochs; only the training labels are permuted."""
    bench, _ = sweep
    bench.run("-m", "model=cnn,cnn_text", "shuffle_labels=true", EPOCHS)
    uar = {(run.tags["model"], run.tags["shuffle_labels"]): run.metrics["test/uar"] for run in bench.runs()}
    for model in ("cnn", "cnn_text"):
        assert uar[model, "true"] < uar[model, "false"] - 0.15, uar


def test_the_sweep_prints_one_table_and_keeps_it_in_the_parents_description(sweep: tuple[Bench, str]) -> None:
    bench, output = sweep
    parent = min(bench.sweeps(), key=lambda run: run.info.start_time)
    assert parent.info.status == "FINISHED"
    assert [run.parent for run in bench.runs(shuffle_labels="false")] == [parent.info.run_id] * 3
    table = parent.data.tags["mlflow.note.content"]
    for text in (output, table):
        assert "UAR" in text and "cnn_text" in text and "72 clips" in text and "too few for a test" in text
    artifacts = {path.name for path in (Path(bench.tracking.dir) / "artifacts").rglob("comparison.*")}
    assert artifacts == {"comparison.html", "comparison.md", "comparison.json"}


def test_stored_metrics_are_those_of_the_stored_predictions(sweep: tuple[Bench, str]) -> None:
    from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

    for run in sweep[0].runs():
        frame = run.frame()
        truth, said = frame["truth"], frame["predicted"].replace("", "(none)")
        recall = np.mean([(said[truth == label] == label).mean() for label in sorted(set(truth))])
        assert run.metrics["test/uar"] == pytest.approx(recall, abs=1e-6)
        assert run.metrics["test/accuracy"] == pytest.approx(accuracy_score(truth, said), abs=1e-6)
        assert 0 <= run.metrics["test/uar_low"] <= run.metrics["test/uar"] <= run.metrics["test/uar_high"] <= 1
        if not frame["abstained"].any():
            assert run.metrics["test/uar"] == pytest.approx(balanced_accuracy_score(truth, said), abs=1e-6)
            f1 = f1_score(truth, said, average="macro", labels=sorted(set(truth)), zero_division=0)
            assert run.metrics["test/macro_f1"] == pytest.approx(f1, abs=1e-6)


def test_a_finished_run_is_found_and_skipped_unless_forced(sweep: tuple[Bench, str]) -> None:
    bench, _ = sweep
    before = len(bench.runs(model="llm"))
    assert "done     run" in bench.run("model=llm")
    assert len(bench.runs(model="llm")) == before
    output = bench.run("model=llm", "force=true")
    assert "done     run" not in output
    runs = sorted(bench.runs(model="llm"), key=lambda run: run.start_time)
    assert len(runs) == before + 1
    np.testing.assert_array_equal(runs[0].predictions().probabilities, runs[-1].predictions().probabilities)


def test_predict_labels_new_audio(sweep: tuple[Bench, str], cache: Path) -> None:
    bench, _ = sweep
    folder = next((cache / "corpora").rglob("*.wav")).parent
    clips = sorted(folder.glob("9001_*.wav"))[:2]
    for model in ("cnn", "cnn_text"):
        run = bench.runs(model=model, shuffle_labels="false")[0]
        words = (f"tracking.dir={bench.tracking.dir}", f"cache_dir={cache}")
        rows = json.loads(bench.cli("predict", run.run_id[:8], *map(str, clips), "--json", *words))
        assert [row["name"] for row in rows] == [str(clip) for clip in clips]
        expected = Calibration.load(run.artifact(CALIBRATION_FILE)).applied(run.predictions())
        stored = {row.clip_id: p for row, p in zip(expected.rows, expected.probabilities, strict=True)}
        for row, clip in zip(rows, clips, strict=True):
            if clip.stem in stored:
                labels = run.predictions().labels
                given = [row["probabilities"][label] for label in labels]
                np.testing.assert_allclose(given, stored[clip.stem], atol=2e-3)


def test_compare_writes_a_report_and_refuses_other_partitions(sweep: tuple[Bench, str], tmp_path: Path) -> None:
    bench, _ = sweep
    where = f"tracking.dir={bench.tracking.dir}"
    said = bench.cli("compare", where, f"cache_dir={bench.cache}", "--baseline", "llm", "--out", str(tmp_path))
    assert "cnn_text differs from llm by" in said and "too few for a test" in said
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.html", "comparison.md", "comparison.json"}
    content = json.loads((tmp_path / "comparison.json").read_text())
    compared = {one["runs"][0]: one["uar"]["value"] for one in content["comparisons"][0]["predictors"]}
    metrics = {run.run_id: run.metrics["test/uar"] for run in bench.runs() if run.run_id in compared}
    assert compared == pytest.approx(metrics, abs=1e-6) and len(compared) == 3
    said = bench.cli("compare", where, "--models", "llm,cnn", "--out", str(tmp_path / "two"))
    assert "Of 2 predictors" in said and "cnn_text" not in said
    assert "no finished run of crnn" in bench.cli("compare", where, "--models", "cnn,crnn", status=2)
    assert "data:audio/mpeg" in (tmp_path / "comparison.html").read_text()
    bench.run("model=cnn", "split.seed=5", "trainer=debug")
    other = max(bench.runs(model="cnn"), key=lambda run: run.start_time)
    first = min(bench.runs(model="cnn"), key=lambda run: run.start_time)
    said = bench.cli("compare", first.run_id, other.run_id, where, status=2)
    assert "differ in partition" in said and first.run_id in said
    assert "no run" in bench.cli("compare", "ffffffff", where, status=2).lower()
