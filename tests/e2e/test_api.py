"""The Python interface, as docs/api.md shows it: runs in this process, tables, a comparison, new audio, a corpus."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import ser_bench as sb
from ser_bench import config
from ser_bench.evaluation import calibration
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.tracking import StoredRun, check_artifacts
from ser_bench.tracking.artifact_manifest import ArtifactCheck

WORDS = ("corpus.clips=144", "augment=none", "split.val_fraction=0.2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def runs(folder: Path, cache: Path) -> list[StoredRun]:
    """Two predictors on the demo corpus (SYNTHETIC speech), run in this process and loaded from the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SER_BENCH_CACHE", str(cache))
        for words in (("model=majority",), ("model=egemaps", "head=logistic")):
            sb.run([*words, *WORDS, f"tracking.dir={folder}/mlruns"], verbose=False)
    return sb.load_runs("demo", tags={"protocol": "speaker"}, store=folder / "mlruns")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_BENCH_CACHE", str(cache))


def test_a_run_is_returned_and_found_again(
    runs: list[StoredRun], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = sb.run(["model=majority", *WORDS, f"tracking.dir={folder}/mlruns"])
    assert again.run_id in {run.run_id for run in runs}
    assert "finished before" in capsys.readouterr().out
    assert sb.load_run(f"runs:/{again.run_id}", store=folder / "mlruns").run_id == again.run_id
    table = sb.runs_table(runs)
    assert sorted(table["model"]) == ["egemaps", "majority"] and table["uar"].between(0, 1).all()
    assert list(table.index) == [run.run_id for run in runs]


def test_every_run_has_a_model_card_that_its_manifest_covers(runs: list[StoredRun], folder: Path) -> None:
    for run in runs:
        card = run.artifact("model_card.md").read_text(encoding="utf-8")
        assert "SYNTHETIC" in card and run.tags["audit_verdict"] in card and str(folder) not in card
        assert f"| UAR | {run.metrics['test/uar']:.3f} |" in card
        assert check_artifacts(run, "model_card.md") == ArtifactCheck(recorded=True, files=1)


def test_a_run_is_calibrated_on_its_validation_speakers_or_says_why_not(runs: list[StoredRun]) -> None:
    by_model = {run.tags["model"]: run for run in runs}
    probe, majority = by_model["egemaps"], by_model["majority"]
    found = probe.calibration()
    assert found is not None and found.rows == len(probe.split().val)
    assert found.log_loss_after <= found.log_loss_before
    assert probe.tags["calibration"].startswith(f"temperature {found.temperature:.3g}, of {found.rows}")
    assert check_artifacts(probe, "calibration.json") == ArtifactCheck(recorded=True, files=1)
    logged = {name: value for name, value in probe.metrics.items() if name.endswith("_calibrated")}
    assert logged == pytest.approx(calibration.scores(probe.predictions(), found, "test/"), abs=1e-5)
    assert set(logged) == {"test/ece_calibrated", "test/log_loss_calibrated"}
    assert "leak" not in probe.tags["audit"]
    assert probe.tags["calibration"] in probe.artifact("model_card.md").read_text(encoding="utf-8")
    assert majority.calibration() is None and majority.tags["calibration"].startswith("none: model=majority")
    assert not any(name.endswith("_calibrated") for name in majority.metrics)


def test_runs_are_chosen_as_compare_chooses_them(runs: list[StoredRun], folder: Path) -> None:
    assert len(sb.load_runs("demo", store=folder / "mlruns", models=["egemaps"])) == 1
    assert len(sb.load_runs("demo", store=folder / "mlruns", latest=False)) == 2
    assert sb.load_runs("demo", store=folder / "mlruns", latest=False, tags={"protocol": "clip"}) == []
    with pytest.raises(sb.SerBenchError, match="no finished run of cnn"):
        sb.load_runs("demo", store=folder / "mlruns", models=["cnn"])


def test_a_comparison_has_the_figures_of_the_report(runs: list[StoredRun], tmp_path: Path) -> None:
    result = sb.compare(runs, baseline="majority")
    assert list(result.table.index) == ["majority", "egemaps"]
    row = result.table.loc["egemaps"]
    uar = {run.tags["model"]: run.metrics["test/uar"] for run in runs}
    assert row["uar"] == pytest.approx(uar["egemaps"], abs=1e-6) and row["uar_low"] < row["uar"] < row["uar_high"]
    assert row["difference"] == pytest.approx(100 * (uar["egemaps"] - uar["majority"]), abs=1e-4)
    assert np.isnan(result.table.loc["majority", "difference"])
    assert "SYNTHETIC" in repr(result) and "egemaps" in result.verdict
    page = result.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    shown = result._repr_html_()
    assert f"{row['uar']:.3f}".lstrip("0") in page and "<table" in shown and "egemaps" in shown
    assert "# " in result.to_markdown()


def test_new_audio_is_predicted_from_files_and_samples_alike(runs: list[StoredRun], cache: Path) -> None:
    run = next(run for run in runs if run.tags["model"] == "egemaps")
    clip = sb.load_corpus("demo", overrides=[WORDS[0]]).by_id[run.frame()["clip_id"][0]]
    samples, rate = soundfile.read(clip.path, dtype="float32")
    predictor = sb.load_predictor(run)
    table = predictor.predict([clip.path, samples], sample_rate_hz=rate)
    assert list(table.columns) == ["file", "label", *predictor.labels, "flags", "seconds"]
    assert list(table["file"]) == [str(clip.path), "samples 1"]
    np.testing.assert_allclose(table[list(predictor.labels)].iloc[0], table[list(predictor.labels)].iloc[1], atol=1e-6)
    stored = run.predictions().probabilities[0]
    uncalibrated = replace(PredictorFiles.of_run(run), calibration=None)
    raw = AudioPredictor(uncalibrated, config.compose([])).predict(
        [Recording.from_file(clip.path)]
    )
    np.testing.assert_allclose(list(raw[0].probabilities.values()), stored, atol=1e-5)
    assert len(predictor.predict(samples, sample_rate_hz=rate)) == 1
    with pytest.raises(sb.SerBenchError, match=r"mono samples \[T\]"):
        predictor.predict([np.zeros((2, 16_000), np.float32)])
    with pytest.raises(sb.SerBenchError, match="no such file"):
        predictor.predict("absent.wav")


def test_a_corpus_is_a_table() -> None:
    corpus = sb.load_corpus("demo", overrides=[WORDS[0]])
    assert isinstance(corpus.table, pd.DataFrame) and len(corpus.table) == 144
    assert set(corpus.table["emotion"]) == set(corpus.labels)
    with pytest.raises(sb.SerBenchError, match="nowhere"):
        sb.load_corpus("cremad", root="nowhere (here), there=1")


def test_importing_the_package_imports_nothing_large() -> None:
    code = "import sys, ser_bench; print(sorted({m.split('.')[0] for m in sys.modules}))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("torch", "mlflow", "pandas", "numpy", "hydra", "sklearn"):
        assert f"'{name}'" not in modules
    assert set(sb.__all__) <= set(dir(sb))
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        sb.absent  # noqa: B018
