"""A run on levels of intensity, from the corpus to its model card and to new audio, and comparisons of such runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import pipeline, tracking
from ser_bench.comparison import Report
from ser_bench.comparison.paired import compare
from ser_bench.comparison.report_markdown import as_text
from ser_bench.config import Config
from ser_bench.errors import NotComparableError
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording
from ser_bench.tracking import StoredRun
from ser_bench.types import Predictions
from tests.support.fake_inputs import compose_config
from tests.support.stored_runs import make_clips, predict, store

RATE_HZ = 16_000
LEVELS = {"LO": 0.05, "MD": 0.2, "HI": 0.8}
"""Level in the file name → amplitude, so that the level can be heard."""
EMOTIONS = {"ANG": 220.0, "SAD": 140.0}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, StoredRun]:
    """Six speakers × two emotions × three levels, with ratings of listeners; eGeMAPS functionals and `head=ordinal`."""
    pytest.importorskip("opensmile", reason="the extra egemaps is not installed")
    folder = tmp_path_factory.mktemp("intensity")
    audio = folder / "AudioWAV"
    audio.mkdir()
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    votes = ['"",A,D,F,H,N,S,fileName,meanAngerResp,meanDisgustResp,meanFearResp,meanHappyResp,meanSadResp']
    for speaker in range(1001, 1007):
        for emotion, f0 in EMOTIONS.items():
            for level, amplitude in LEVELS.items():
                name = f"{speaker}_IEO_{emotion}_{level}"
                f0_hz = f0 * rng.uniform(0.9, 1.1)
                tone = sum(np.sin(2 * np.pi * k * f0_hz * time_s) / k for k in range(1, 6))
                samples = amplitude * (tone / np.abs(tone).max() + rng.normal(0, 0.02, RATE_HZ)) / 1.2
                soundfile.write(audio / f"{name}.wav", samples, RATE_HZ)
                votes.append(f"{100_000 + len(votes)},5,0,0,0,5,0,{name},{100 * amplitude:g},-1,-1,-1,-1")
    (folder / "tabulatedVotes.csv").write_text("\n".join(votes) + "\n")
    words = ("experiment=none", "corpus=cremad", "corpus.target=intensity", "split=speaker", "split.folds=2")
    words += ("augment=none", "model=egemaps", "head=ordinal", "head.logistic_c=[0.1]")
    places = (f"corpus.root={audio}", f"cache_dir={folder / 'cache'}", f"tracking.dir={folder / 'mlruns'}")
    cfg = compose_config(*words, *places)
    return cfg, tracking.load_run(cfg.tracking, pipeline.run(cfg).run_id)


def test_a_run_has_the_metrics_of_levels_and_the_agreement_with_listeners(finished: tuple[Config, StoredRun]) -> None:
    run = finished[1]
    assert run.tags["corpus"] == "cremad-intensity" and run.tags["labels"] == "low medium high"
    assert run.metrics["test/quadratic_kappa"] > 0.5 and run.metrics["test/mae_levels"] < 0.4
    assert run.metrics["test/spearman_low"] <= run.metrics["test/spearman"] <= run.metrics["test/spearman_high"]
    assert run.metrics["intensity/heard_spearman"] > 0.5 and run.metrics["intensity/instruction_spearman"] == 1
    card = run.artifact("model_card.md").read_text(encoding="utf-8")
    assert "low, medium, high; levels of intensity in ascending order, as the actor was asked for them" in card
    assert "| quadratic-weighted kappa |" in card and "| MAE (levels) |" in card
    findings = json.loads(run.artifact("audit.json").read_text(encoding="utf-8"))
    assert "logged scores are those of the stored predictions" in json.dumps(findings)


def test_the_run_answers_new_audio_with_a_level(finished: tuple[Config, StoredRun]) -> None:
    cfg, run = finished
    predictor = AudioPredictor.from_run(run, cfg)
    files = [Path(str(cfg.corpus.root)) / f"1001_IEO_ANG_{level}.wav" for level in LEVELS]
    answers = predictor.predict([Recording.from_file(path) for path in files])
    assert predictor.labels == ("low", "medium", "high")
    assert [list(answer.probabilities) for answer in answers] == [["low", "medium", "high"]] * 3
    highest = [answer.probabilities["high"] for answer in answers]
    assert highest == sorted(highest) and answers[2].label == "high"


def ordinal_run(folder: Path, model: str, skill: float, ordinal: bool = True, **tags: str) -> StoredRun:
    clips = make_clips(12)
    predictions: Predictions = replace(predict(clips, skill, len(model)), ordinal=ordinal)
    return store(folder, model, predictions, clips, **tags)


def test_a_comparison_shows_the_metrics_of_levels(tmp_path: Path) -> None:
    compared = compare([ordinal_run(tmp_path, "egemaps", 0.5), ordinal_run(tmp_path, "whisper_probe", 0.9)])
    better = compared.result("whisper_probe")
    assert list(better.of_levels) == ["quadratic_kappa", "spearman", "mae_levels"]
    assert better.of_levels["quadratic_kappa"].low > compared.baseline.of_levels["quadratic_kappa"].high
    report = Report.of("Levels", [compared])
    assert "quadratic-weighted kappa" in report.markdown() and "Recall by level" in report.markdown()
    assert "MAE (levels)" in report.html() and "emotion (row)" not in report.html()
    assert report.to_json()["comparisons"][0]["predictors"][1]["of_levels"]["spearman"]["speakers"] == 12
    assert "Spearman" in as_text(compared)


def test_a_comparison_of_emotions_has_none(tmp_path: Path) -> None:
    compared = compare([ordinal_run(tmp_path, "egemaps", 0.5, ordinal=False)])
    assert not compared.baseline.of_levels
    assert "kappa" not in Report.of("Emotions", [compared]).markdown() + as_text(compared)


def test_emotions_and_levels_are_not_compared(tmp_path: Path) -> None:
    runs = [
        ordinal_run(tmp_path, "egemaps", 0.5, ordinal=False),
        ordinal_run(tmp_path, "whisper_probe", 0.9, corpus="tiny-intensity"),
    ]
    with pytest.raises(NotComparableError, match="differ in corpus: tiny and tiny-intensity"):
        compare(runs)
