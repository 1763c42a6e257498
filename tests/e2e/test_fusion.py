"""Runs of the demo corpus (SYNTHETIC speech) combined, compared, audited, and asked about new audio."""

from __future__ import annotations

from pathlib import Path

import pytest

from ser_bench import corpora
from tests.e2e.conftest import Bench

pytestmark = pytest.mark.slow


def test_two_finished_runs_are_combined(fresh: Bench, cache: Path) -> None:
    words = ("model=fusion", "model.members=[majority,text_only]")
    missing = fresh.run(*words, status=2)
    assert "no finished run of majority" in missing and "make one: python run.py model=majority" in missing
    fresh.run("-m", "model=majority,text_only")
    output = fresh.run(*words)
    assert "adds     majority: UAR" in output and "adds     text_only: UAR" in output
    assert "audit    clean: " in output and "scaler and combiner saw no test row" in output
    (run,) = fresh.runs(model="fusion")
    text_only, majority = fresh.runs(model="text_only")[0], fresh.runs(model="majority")[0]
    assert run.tags["members"] == f"{majority.run_id} {text_only.run_id}" and run.metrics["leak/combiner"] == 0.0
    assert run.metrics["fusion/adds/text_only/uar"] == pytest.approx(
        run.metrics["test/uar"] - run.metrics["fusion/without/text_only/uar"], abs=2e-6
    )
    assert "done before" in fresh.run("model=fusion", f"model.members=[{majority.run_id},{text_only.run_id}]")

    where = (f"tracking.dir={fresh.tracking.dir}", f"cache_dir={cache}")
    cfg = run.config()
    cfg.cache_dir = str(cache)
    clip = corpora.load(cfg).clips[0]
    said = fresh.cli("predict", run.run_id, str(clip.path), *where)
    assert clip.path.name in said and all(label in said for label in run.predictions().labels)
    assert "fusion" in fresh.cli("compare", run.run_id, majority.run_id, f"--out={fresh.folder}/report", *where)
