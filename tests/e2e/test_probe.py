"""`model=whisper_probe` from the command line, with an encoder of random weights: runs, names, audits, comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bench import Bench
from tests.support.tiny_whisper import write_tiny

pytestmark = pytest.mark.slow


def test_plain_and_adapted_probes_are_rows_of_their_own(fresh: Bench, tmp_path: Path) -> None:
    words = ("model=whisper_probe", f"model.encoders=[{write_tiny(tmp_path / 'tiny')}]", "head=logistic")
    assert "audit    no leakage found" in fresh.run(*words)
    transductive = fresh.run(*words, "adapt=speaker_stats")
    assert "scaler" in transductive and "adapt=speaker_stats: all clips of each tested speaker" in transductive
    enrolled = fresh.run(*words, "adapt=speaker_stats", "adapt.enrol=5")
    assert "audit    no leakage found" in enrolled
    assert "5 clips of each tested speaker, which are not scored" in enrolled
    assert "done     run" in fresh.run(*words, "adapt=speaker_stats", "adapt.enrol=5")
    names = ("whisper_probe", "whisper_probe+speaker_stats", "whisper_probe+speaker_stats_5")
    (plain,), (everything,), (few,) = (fresh.runs(model=name) for name in names)
    assert len(plain.predictions().rows) == len(everything.predictions().rows)
    speakers = len({clip_id.split("_")[0] for clip_id, _ in plain.predictions().rows})
    assert len(plain.predictions().rows) - len(few.predictions().rows) == 5 * speakers
    assert all(run.metrics["leak/scaler"] == 0.0 == run.metrics["leak/predictions"] for run in (plain, everything, few))
    table = fresh.cli("compare", f"tracking.dir={fresh.tracking.dir}", "tracking.experiment=demo")
    assert all(f"{name} " in table for name in names)


def test_attention_over_time_is_an_ordinary_run(fresh: Bench, tmp_path: Path) -> None:
    words = ("model=whisper_probe", f"model.encoders=[{write_tiny(tmp_path / 'tiny')}]", "head=logistic")
    attentive = (*words, "model.pooling=attentive", "model.attention.epochs=2")
    refused = fresh.run(*attentive, status=2)
    assert "name one, as model.layers=[4]" in refused and "Traceback" not in refused
    assert "audit    no leakage found" in fresh.run(*attentive, "model.layers=[1]")
    (run,) = (run for run in fresh.runs(model="whisper_probe") if run.status == "FINISHED")
    assert run.metrics["leak/scaler"] == 0.0
    clip = next(iter(sorted(fresh.cache.rglob("*.wav"))))
    assert clip.stem in fresh.cli("predict", run.run_id, str(clip), *fresh.words[:2])
