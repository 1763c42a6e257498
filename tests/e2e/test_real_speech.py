"""The main job's corpora as they are: counts, splits, and a subset of real clips through the whole chain."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ser_bench import corpora, splits, tracking
from ser_bench.config import compose
from tests.support.bench import Bench

pytestmark = [pytest.mark.corpora, pytest.mark.slow]


def test_the_paper_protocol_has_the_papers_rows_on_cremad(corpora_root: Path, cache: Path) -> None:
    cfg = compose(["experiment=paper", f"corpus.root={corpora_root / 'cremad' / 'AudioWAV'}", f"cache_dir={cache}"])
    corpus = corpora.load(cfg)
    split = splits.make(corpus, cfg.split, cfg.augment.variants)
    assert (len(split.train), len(split.val), len(split.test)) == (23_814, 0, 5_954)
    trained = {row.clip_id for row in split.train}
    leaked = sum(row.clip_id in trained for row in split.test) / len(split.test)
    assert leaked == pytest.approx(0.992, abs=0.004)


def test_speakers_of_cremad_stay_apart_and_every_clip_is_tested_once(corpora_root: Path, cache: Path) -> None:
    root = f"corpus.root={corpora_root / 'cremad' / 'AudioWAV'}"
    tested: list[str] = []
    for fold in range(5):
        cfg = compose(["experiment=none", "corpus=cremad", root, f"cache_dir={cache}", f"split.fold={fold}"])
        split = splits.make(corpora.load(cfg), cfg.split, cfg.augment.variants)
        tested += [row.clip_id for row in split.test]
    assert len(tested) == len(set(tested)) == 7_442


def test_emodb_runs_speaker_by_speaker(corpora_root: Path, fresh: Bench) -> None:
    root = f"corpus.root={corpora_root / 'emodb'}"
    output = fresh.run("corpus=emodb", root, "split=loso", "model=cnn", "trainer=debug", "augment=none")
    assert "535 clips, 10 speakers" in output and "range(10)" in output and "UAR" in output


def test_a_german_corpus_is_refused_by_an_english_recogniser(corpora_root: Path, fresh: Bench) -> None:
    root = f"corpus.root={corpora_root / 'emodb'}"
    output = fresh.run("corpus=emodb", root, "split=loso", "model=cnn_text", "trainer=debug", status=2)
    assert "asr.model=base" in output and "Traceback" not in output


def test_ravdess_over_the_six_shared_emotions(corpora_root: Path, cache: Path) -> None:
    root = f"corpus.root={corpora_root / 'ravdess'}"
    corpus = corpora.load(compose(["corpus=ravdess", root, "corpus.labels=basic6", f"cache_dir={cache}"]))
    assert (len(corpus.clips), len({clip.speaker for clip in corpus.clips})) == (440, 10)
    assert any("600 of 1,440" in line for line in corpus.warnings), corpus.warnings


def test_trained_on_ravdess_and_tested_on_emodb(corpora_root: Path, fresh: Bench) -> None:
    output = fresh.run("-m", "seed=0,1", *_ravdess_to_emodb(corpora_root), "model=cnn", "trainer=debug", "augment=none")
    assert "ravdess-emodb: 894 clips, 20 speakers, labels angry disgust fearful happy neutral sad" in output
    assert "396 training, 44 validation, 454 test rows; no known leakage" in output
    assert re.search(r"ravdess: 160 clips .* left out \(80 calm, 80 surprised\)", output)
    assert re.search(r"emodb: 81 clips .* left out \(81 bored\)", output)
    runs = tracking.search(fresh.tracking, experiment="ravdess")
    done = {run.tags["seed"]: run for run in runs if run.status == "FINISHED" and run.tags["kind"] == "run"}
    assert set(done) == {"0", "1"}
    assert {run.tags["corpus"] for run in done.values()} == {"ravdess-emodb"}
    assert done["0"].tags["partition"] == done["1"].tags["partition"]
    clips, speakers = (set(done["0"].frame()[column]) for column in ("clip_id", "speaker"))
    assert (len(clips), len(speakers)) == (454, 10)
    assert all(name.startswith("emodb:") for name in clips | speakers)
    table = fresh.cli("compare", *sorted(run.run_id for run in done.values()), f"tracking.dir={fresh.tracking.dir}")
    assert "ravdess-emodb" in table and "cross_corpus" in table and "454 clips" in table


def test_words_of_two_languages_are_refused_by_a_recogniser_of_one(corpora_root: Path, fresh: Bench) -> None:
    output = fresh.run(*_ravdess_to_emodb(corpora_root), "model=cnn_text", "augment=none", status=2)
    assert "'en de'" in output and "asr.model=base" in output and "Traceback" not in output


def _ravdess_to_emodb(root: Path) -> tuple[str, ...]:
    test = ("split=cross_corpus", "split.test_corpus=emodb", f"split.test_root={root / 'emodb'}")
    return ("corpus=ravdess", f"corpus.root={root / 'ravdess'}", *test)
