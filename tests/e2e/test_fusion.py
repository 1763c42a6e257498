"""Runs of the demo corpus (SYNTHETIC speech) combined, compared, audited, and asked about new audio."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from ser_bench import corpora
from tests.e2e.conftest import Bench

pytestmark = pytest.mark.slow


def test_two_finished_runs_are_combined(fresh: Bench, cache: Path) -> None:
    words = ("model=fusion", "model.members=[majority,cnn]")
    missing = fresh.run(*words, status=2)
    assert "no finished run of majority" in missing and "make one: python run.py model=majority" in missing
    fresh.run("model=majority")
    fresh.run("model=cnn", "trainer=debug")
    output = fresh.run(*words)
    assert "adds     majority: UAR" in output and "adds     cnn: UAR" in output
    assert "audit    clean: " in output and "scaler, choice of checkpoint and combiner saw no test row" in output
    (run,) = fresh.runs(model="fusion")
    cnn, majority = fresh.runs(model="cnn")[0], fresh.runs(model="majority")[0]
    assert run.tags["members"] == f"{majority.run_id} {cnn.run_id}" and run.metrics["leak/combiner"] == 0.0
    assert run.metrics["fusion/adds/cnn/uar"] == pytest.approx(
        run.metrics["test/uar"] - run.metrics["fusion/without/cnn/uar"], abs=2e-6
    )
    assert "done before" in fresh.run("model=fusion", f"model.members=[{majority.run_id},{cnn.run_id}]")

    where = (f"tracking.dir={fresh.tracking.dir}", f"cache_dir={cache}")
    cfg = run.config()
    cfg.cache_dir = str(cache)
    clip = corpora.load(cfg).clips[0]
    said = fresh.cli("predict", run.run_id, str(clip.path), *where)
    assert clip.path.name in said and all(label in said for label in run.predictions().labels)
    assert "fusion" in fresh.cli("compare", run.run_id, majority.run_id, f"--out={fresh.folder}/report", *where)

    weights = cnn.artifact("predictor") / "model.safetensors"
    arrays = load_file(weights)
    save_file(arrays | {"mean": arrays["mean"] + 1}, weights)
    said = fresh.cli("audit", run.run_id, *where, status=3)
    assert f"LEAK scaler                100.0%  member cnn {cnn.run_id[:8]}: " in said
