"""Votes of listeners as labels (`corpus.target=votes`) and as soft targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression

from ser_bench import config, corpora, pipeline
from ser_bench.config import Config, HeadConfig, Target
from ser_bench.corpora import listener_votes
from ser_bench.errors import ConfigError
from ser_bench.features.feature_store import Features
from ser_bench.predictors.baselines.listeners import Listeners
from ser_bench.predictors.cnn.cnn import Cnn
from ser_bench.predictors.embeddings.whisper_probe import WhisperProbe
from ser_bench.predictors.heads import Head
from ser_bench.types import FloatArray, Row, Split
from tests.support.fake_inputs import LABELS, TINY, FakeInputs, compose_config, rows

VOTES = """fileName,A,D,F,H,N,S
1001_DFA_ANG_XX,9,1,0,0,0,0
1001_DFA_HAP_XX,0,0,0,3,6,0
1001_DFA_SAD_XX,0,0,0,0,4,4
1002_DFA_ANG_XX,1,0,0,7,0,0
1002_DFA_NEU_XX,0,0,0,0,8,1
"""
WITHOUT_VOTES = "1002_DFA_FEA_XX"


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """Six clips: two with the intended label, two with another one, one with a tie, and one without votes."""
    root = tmp_path / "AudioWAV"
    root.mkdir()
    (tmp_path / "voice_votes.csv").write_text(VOTES)
    for number, name in enumerate([*(line.split(",")[0] for line in VOTES.splitlines()[1:]), WITHOUT_VOTES]):
        tone = np.sin(np.arange(4_000) * (0.1 + 0.01 * number)).astype(np.float32) / 2
        soundfile.write(root / f"{name}.wav", tone, 16_000)
    words = ("experiment=none", "corpus=cremad", "on_bad_clip=skip", "corpus.target=votes")
    return compose_config(*words, f"corpus.root={root}", f"cache_dir={tmp_path / 'cache'}")


def test_the_label_is_the_plurality_and_clips_without_one_are_left_out(cfg: Config) -> None:
    by_votes = corpora.load(cfg)
    assert {clip.id: clip.emotion for clip in by_votes.clips} == {
        "1001_DFA_ANG_XX": "angry",
        "1001_DFA_HAP_XX": "neutral",
        "1002_DFA_ANG_XX": "happy",
        "1002_DFA_NEU_XX": "neutral",
    }
    assert by_votes.labels == ("angry", "happy", "neutral")
    summary = "2 of 6 clips have a label other than the intended one; 2 clips are left out (1 with tied votes"
    assert any(summary in line for line in by_votes.warnings)


def test_the_name_of_the_corpus_contains_the_target(cfg: Config) -> None:
    by_votes = corpora.load(cfg)
    intended = corpora.load(replace(cfg, corpus=replace(cfg.corpus, target=Target.intended)))
    assert (by_votes.measured, intended.measured) == ("cremad-votes", "cremad")
    assert by_votes.digest != intended.digest
    split = Split("clip", 0, 2, rows(0, 3), rows(3, 3), rows(6, 3))
    same = replace(intended, target="votes")  # another target, even if every vote agrees with the intended label
    assert pipeline.run_key(cfg, intended, split) != pipeline.run_key(cfg, same, split)


def test_shares_of_votes_are_trained_on_only_where_they_are_the_target(cfg: Config) -> None:
    by_votes = corpora.load(cfg)
    asked = [Row("1001_DFA_HAP_XX"), Row("1002_DFA_ANG_XX")]
    targets = Features(cfg, by_votes.by_id, "en").soft_targets(asked, by_votes.labels)
    np.testing.assert_allclose(targets, [[0, 3 / 9, 6 / 9], [1 / 8, 7 / 8, 0]], rtol=1e-6)
    intended = replace(cfg, corpus=replace(cfg.corpus, target=Target.intended))
    assert Features(intended, by_votes.by_id, "en").soft_targets(asked, by_votes.labels) is None
    assert listener_votes.vote_shares([], by_votes.labels).shape == (0, 3)


def test_votes_are_refused_without_a_table_and_for_two_corpora(cfg: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"emodb has no votes of listeners; choose corpus=cremad"):
        corpora.votes_of(corpora.sheet_of("emodb"), tmp_path)
    both = replace(cfg, split=replace(cfg.split, protocol=config.Protocol.cross_corpus, test_corpus="emodb"))
    with pytest.raises(ConfigError, match=r"corpus\.target=votes .*split=cross_corpus"):
        corpora.load(both)
    with pytest.raises(ConfigError, match="by their own votes"):
        Listeners(cfg, LABELS, FakeInputs(), tmp_path, lambda epoch, metrics: None).fit((), ())


# ---- training on shares


class SharesOfVotes(FakeInputs):
    """Soft targets: `share` of the votes for the label, the others for the next label."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray:
        indices = [labels.index(label) for label in self.truth(rows)]
        hot = np.eye(len(labels), dtype=np.float32)[indices]
        return (self.share * hot + (1 - self.share) * np.roll(hot, 1, axis=1)).astype(np.float32)


def test_logistic_regression_on_shares_equals_one_on_single_votes() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    votes = rng.integers(0, 4, size=(60, 3)) + np.eye(3, dtype=int)[y]
    shares = votes / votes.sum(axis=1, keepdims=True)
    head = Head(HeadConfig(members=["logistic"], logistic_c=[0.5], refit=True), 3)
    head.fit(x, y, x[:0], y[:0], (shares, shares[:0]))
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    each = [
        (row, label, 1 / votes[row].sum()) for row in range(60) for label in range(3) for _ in range(votes[row, label])
    ]
    row_indices, labels, weights = (np.array(part) for part in zip(*each, strict=True))
    oracle = LogisticRegression(C=0.5, max_iter=1000, tol=1e-8).fit(scaled[row_indices], labels, sample_weight=weights)
    np.testing.assert_allclose(head.predict_proba(x), oracle.predict_proba(scaled), atol=2e-3)
    hard = Head(HeadConfig(members=["logistic"], logistic_c=[0.5]), 3)
    hard.fit(x, y, x[:0], y[:0])
    assert np.abs(hard.predict_proba(x) - head.predict_proba(x)).max() > 0.05


@pytest.mark.parametrize("members", [["logistic"], ["mlp"]])
@pytest.mark.parametrize("refit", [True, False])
def test_the_confidence_of_a_head_equals_the_share_of_votes(members: list[str], refit: bool) -> None:
    inputs = SharesOfVotes(0.7)
    words = ("experiment=none", "model=whisper_probe", "head.label_smoothing=0.0", "head.mixup=0.0", "head.dropout=0.0")
    cfg = compose_config(*words, f"head.refit={refit}", f"head.members={members}", "head.logistic_c=[1.0]")
    probe = WhisperProbe(cfg, LABELS, inputs, Path(), lambda epoch, metrics: None)
    probe.fit(rows(0, 90), rows(100, 12))
    answers = probe.predict(rows(200, 60)).probabilities
    assert answers.max(axis=1).mean() == pytest.approx(0.7, abs=0.07)
    assert np.sort(answers, axis=1)[:, 0].mean() < 0.08


def test_the_confidence_of_a_network_follows_the_share_of_votes(tmp_path: Path) -> None:
    words = (*TINY[:1], "model.channels=[8,8,8,8,8]", "model.hidden=16", *TINY[4:], "trainer.learning_rate=0.01")
    cfg = compose_config(*words, "trainer.max_epochs=25")

    def confidence(inputs: FakeInputs, folder: Path) -> tuple[float, Any]:
        folder.mkdir()
        losses = []
        network = Cnn(cfg, LABELS, inputs, folder, lambda epoch, metrics: losses.append(metrics))
        network.fit(rows(0, 60), rows(100, 12))
        return float(network.predict(rows(200, 60)).probabilities.max(axis=1).mean()), losses[-1]

    hard, _ = confidence(FakeInputs(), tmp_path / "hard")
    soft, last = confidence(SharesOfVotes(0.6), tmp_path / "soft")
    assert soft < 0.75 < hard
    assert last["train/accuracy"] > 0.6  # accuracy with respect to the plurality
