"""Runs of the demo corpus (SYNTHETIC speech) combined, compared, audited, and asked about new audio."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from ser_bench import corpora
from tests.support.bench import Bench
from tests.support.tiny_whisper import write_tiny

pytestmark = pytest.mark.slow


def test_two_finished_runs_are_combined(fresh: Bench, cache: Path) -> None:
    words = ("model=fusion", "model.members=[majority,cnn]")
    missing = fresh.run(*words, status=2)
    assert "no finished run of majority" in missing and "make one: python run.py model=majority" in missing
    fresh.run("model=majority")
    fresh.run("model=cnn", "trainer=debug")
    output = fresh.run(*words)
    assert "adds     majority: UAR" in output and "adds     cnn: UAR" in output
    assert "audit    no leakage found: " in output and "combiner" in output
    (run,) = fresh.runs(model="fusion")
    cnn, majority = fresh.runs(model="cnn")[0], fresh.runs(model="majority")[0]
    assert run.tags["members"] == f"{majority.run_id} {cnn.run_id}" and run.metrics["leak/combiner"] == 0.0
    assert run.metrics["fusion/adds/cnn/uar"] == pytest.approx(
        run.metrics["test/uar"] - run.metrics["fusion/without/cnn/uar"], abs=2e-6
    )
    assert "done     run" in fresh.run("model=fusion", f"model.members=[{majority.run_id},{cnn.run_id}]")

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


def test_vectors_of_finished_runs_are_weighed_by_attention(fresh: Bench, cache: Path, tmp_path: Path) -> None:
    words = ("model=whisper_probe", f"model.encoders=[{write_tiny(tmp_path / 'tiny')}]", "head=logistic")
    fresh.run(*words)
    fresh.run(*words, "adapt=speaker_stats")
    (plain,), (adapted,) = (fresh.runs(model=f"whisper_probe{name}") for name in ("", "+speaker_stats"))
    fused = ("model=fusion", f"model.members=[{plain.run_id},{adapted.run_id}]", "model.combine=attention")
    output = fresh.run(*fused)
    assert "adds     whisper_probe: UAR" in output and "adds     whisper_probe_speaker_stats: UAR" in output
    assert "member whisper_probe" in output and "all clips of each tested speaker" in output
    (run,) = fresh.runs(model="fusion+speaker_stats")
    shares = [value for name, value in run.metrics.items() if name.startswith("fusion/attention/whisper_probe")]
    assert len(shares) == 2 and sum(shares) == pytest.approx(1.0)
    assert run.metrics["leak/scaler"] == 0.0 and "leak/combiner" not in run.metrics

    where = (f"tracking.dir={fresh.tracking.dir}", f"cache_dir={cache}")
    cfg = run.config()
    cfg.cache_dir = str(cache)
    clip = corpora.load(cfg).clips[0]
    assert clip.path.name in fresh.cli("predict", run.run_id, str(clip.path), *where)
    weights = run.artifact("predictor") / "attention.safetensors"
    arrays = load_file(weights)
    save_file(arrays | {"mean": arrays["mean"] + 1}, weights)
    said = fresh.cli("audit", run.run_id, *where, status=3)
    assert "LEAK scaler                100.0%  the statistics of the scaler are not those of the training rows" in said
