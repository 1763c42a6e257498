"""majority, prior, text_only and listeners beside independent oracles; the votes and the ceiling of real corpora."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_bench import corpora
from ser_bench.corpora.data_sheet import Votes
from ser_bench.errors import ConfigError, CorpusError, LanguageError, SerBenchError
from ser_bench.evaluation import metrics
from ser_bench.evaluation.sentence_ceiling import sentence_ceiling
from ser_bench.features.feature_store import Features
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.baselines.listeners import Listeners, tie_free_scores
from ser_bench.predictors.baselines.majority import Majority, Prior
from ser_bench.predictors.baselines.text_only import TextOnly
from ser_bench.types import Clip, FloatArray, Row, clean_rows
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows

UNEVEN = (*rows(0, 30), *(Row(f"fear-{i}") for i in range(1000, 1015)))
VARIANTS = tuple(Row(f"anger-{i}", v) for i in range(0, 30, 3) for v in ("noise", "pitch", "noise_pitch"))
"""Training variants of one label only, which must not make it the majority."""
TEST = rows(200, 1200)
REAL_LABELS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")


def build(cls: type[LightPredictor], inputs: FakeInputs | None = None, **changes: Any) -> Any:
    cfg = replace(compose_config("experiment=none", f"model={cls.name}"), **changes)
    return cls(cfg, LABELS, inputs or FakeInputs(), Path(), lambda epoch, values: None)


def dummy(strategy: str) -> DummyClassifier:
    truth = FakeInputs().truth(UNEVEN)
    return DummyClassifier(strategy=strategy, random_state=0).fit(np.zeros((len(truth), 1)), truth)


def test_majority_is_scikit_learns_dummy() -> None:
    model = build(Majority)
    facts = model.fit(UNEVEN + VARIANTS, ())
    found, oracle, blank = model.predict(TEST), dummy("prior"), np.zeros((len(TEST), 1))
    assert tuple(oracle.classes_) == LABELS
    assert list(found.predicted) == list(oracle.predict(blank)) and set(found.predicted) == {"fear"}
    np.testing.assert_allclose(found.probabilities, oracle.predict_proba(blank), rtol=1e-6)
    assert facts == pytest.approx({f"prior/{c}": p for c, p in zip(LABELS, oracle.class_prior_, strict=True)})
    assert metrics.score(found)["test/log_loss"] == pytest.approx(
        log_loss(found.truth, oracle.predict_proba(blank), labels=list(LABELS)), rel=1e-6
    )
    assert metrics.uar(found) == pytest.approx(1 / 3)


def test_a_tied_majority_is_the_first_label() -> None:
    model = build(Majority)
    model.fit(rows(0, 30), ())
    assert set(model.predict(TEST).predicted) == {"anger"}


def test_prior_draws_in_the_shares_of_the_training_labels() -> None:
    model = build(Prior)
    model.fit(UNEVEN + VARIANTS, ())
    found = model.predict(TEST)
    shares = [found.predicted.count(label) / len(TEST) for label in LABELS]
    expected = dummy("stratified").class_prior_
    error = 4 * np.sqrt(expected * (1 - expected) / len(TEST))  # four standard errors of a share
    assert (np.abs(shares - expected) < error).all()
    assert found.source == "one_hot" and "test/log_loss" not in metrics.score(found)
    assert metrics.uar(found) == pytest.approx(1 / 3, abs=0.04)


def test_prior_depends_on_seed_and_clip_not_on_order_or_variant() -> None:
    model, other = build(Prior), build(Prior, seed=1)
    model.fit(UNEVEN, ())
    other.fit(UNEVEN, ())
    found = model.predict(TEST).predicted
    assert model.predict(TEST[::-1]).predicted == found[::-1]
    assert model.predict([Row(row.clip_id, "noise") for row in TEST]).predicted == found
    assert other.predict(TEST).predicted != found


@pytest.mark.parametrize("cls", [Majority, Prior, TextOnly])
def test_untrained_controls_say_so(cls: type[LightPredictor], tmp_path: Path) -> None:
    with pytest.raises(SerBenchError, match=f"this {cls.name} is not trained"):
        build(cls).predict(TEST[:3])


@pytest.mark.parametrize("cls", [Majority, TextOnly])
def test_without_clean_training_rows_nothing_is_learnt(cls: type[LightPredictor]) -> None:
    with pytest.raises(ConfigError, match="clean rows"):
        build(cls).fit(VARIANTS, ())


class Telling(FakeInputs):
    """Embeddings that lean towards the label, with columns of very different scale."""

    def text(self, rows: Sequence[Row]) -> FloatArray:
        lean = np.array([LABELS.index(label) for label in self.truth(rows)], np.float32).reshape(-1, 1)
        scaled: FloatArray = (super().text(rows) + 0.7 * lean) * np.logspace(-3, 3, self.text_dim, dtype=np.float32)
        return scaled


def pipeline(inputs: FakeInputs, train: Sequence[Row], c: float = 1.0) -> Any:
    clean = [row for row in train if row.variant == "clean"]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))
    return model.fit(inputs.text(clean).astype(np.float64), inputs.truth(clean))


@pytest.mark.parametrize("c", [1.0, 0.1])
def test_text_only_is_scikit_learns_pipeline_on_clean_training_rows(c: float) -> None:
    inputs = Telling()
    model = build(TextOnly, inputs, model=replace(compose_config("experiment=none", "model=text_only").model, C=c))
    facts = model.fit(UNEVEN + VARIANTS, ())
    found, oracle = model.predict(TEST), pipeline(inputs, UNEVEN, c)
    assert tuple(oracle.classes_) == LABELS
    np.testing.assert_allclose(found.probabilities, oracle.predict_proba(inputs.text(TEST).astype(float)), atol=2e-5)
    assert facts["params/total"] == facts["params/trainable"] == 3 * inputs.text_dim + 3


def test_text_only_of_two_labels_in_training_gives_the_third_no_chance() -> None:
    inputs = Telling()
    two = [row for row in UNEVEN if not row.clip_id.startswith("fear")]
    model = build(TextOnly, inputs)
    model.fit(two, ())
    found, oracle = model.predict(TEST), pipeline(inputs, two)
    expected = oracle.predict_proba(inputs.text(TEST).astype(float))
    assert list(oracle.classes_) == ["anger", "sadness"]
    np.testing.assert_allclose(found.probabilities[:, [0, 2]], expected, atol=2e-5)
    assert not found.probabilities[:, 1].any()


def test_text_only_of_one_label_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="all training rows are fear"):
        build(TextOnly).fit([row for row in UNEVEN if row.clip_id.startswith("fear")], ())


def test_text_only_falls_to_chance_where_training_labels_are_shuffled() -> None:
    uar = {}
    for shuffle in (False, True):
        model = build(TextOnly, Telling(), shuffle_labels=shuffle)
        model.fit(rows(0, 90), ())
        uar[shuffle] = metrics.uar(model.predict(TEST))
    assert uar[False] > 0.6 and uar[True] < 0.45


def test_text_only_says_that_it_has_not_converged(caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(compose_config("experiment=none", "model=text_only").model, max_iter=1)
    with caplog.at_level(logging.WARNING):
        build(TextOnly, Telling(), model=settings).fit(UNEVEN, ())
    assert "raise model.max_iter" in caplog.text


def test_text_only_refuses_embeddings_of_another_length(tmp_path: Path) -> None:
    model = build(TextOnly)
    model.fit(UNEVEN, ())
    model.save(tmp_path)
    loaded = TextOnly.load(tmp_path, model._cfg, LABELS, FakeInputs(text_dim=9))
    with pytest.raises(SerBenchError, match="9 numbers"):
        loaded.predict(TEST[:3])


@pytest.mark.parametrize("broken", ["predictor.json", "text_only.safetensors"])
def test_a_damaged_folder_is_one_line(broken: str, tmp_path: Path) -> None:
    model = build(TextOnly)
    model.fit(UNEVEN, ())
    model.save(tmp_path)
    (tmp_path / broken).write_bytes(b"nothing of the kind")
    with pytest.raises(SerBenchError, match="force=true"):
        TextOnly.load(tmp_path, model._cfg, LABELS, FakeInputs())


def test_text_only_checks_the_language_before_it_hears_anything() -> None:
    cfg = compose_config("experiment=none", "model=text_only", "corpus=emodb")
    clips = {f"c{i}": Clip(f"c{i}", Path("absent.wav"), LABELS[i % 3], "s") for i in range(6)}
    model = TextOnly(cfg, LABELS, Features(cfg, clips, "de"), Path(), lambda epoch, values: None)
    with pytest.raises(LanguageError, match="de"):
        model.fit(clean_rows(clips), ())


def test_listeners_share_their_votes_and_draw_among_ties() -> None:
    model = build(Listeners)
    assert model.fit(UNEVEN, ()) == {}
    found = model.predict(TEST)
    plurality = [LABELS[n % 3] for n in range(3, 9)]
    for row, said, shares, out in zip(found.rows, found.predicted, found.probabilities, found.abstained, strict=True):
        number = int(row.clip_id.split("-")[1]) % 10
        assert out == (number == 9)
        if number >= 3 and not out:
            assert said == plurality[number - 3]
            counts = np.zeros(3)
            counts[number % 3], counts[(number + 1) % 3] = 5, number // 3
            np.testing.assert_allclose(shares, counts / counts.sum(), atol=1e-6)  # votes for "bored" are dropped
    tied = [i for i, row in enumerate(TEST) if row.clip_id.endswith("0")]
    np.testing.assert_allclose(found.probabilities[tied], 1 / 3, atol=1e-5)
    drawn = [found.predicted[i] for i in tied]
    assert all(24 < drawn.count(label) < 56 for label in LABELS), "120 three-way ties fall to each label in turn"
    facts = model.facts()
    assert (facts["listeners/tied"], facts["listeners/without_votes"]) == (360, 120)
    assert facts["listeners/accuracy_shared"] == pytest.approx(metrics.accuracy(found), abs=0.03)
    assert facts["listeners/uar_shared"] == pytest.approx(metrics.uar(found), abs=0.03)


def test_shared_credit_by_hand() -> None:
    # Four clips of a, one of b: right alone, one of two, wrong, nobody voted; one of three.
    winners = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=np.bool_)
    found = tie_free_scores(winners, ("a", "a", "a", "a", "b"), ("a", "b", "c"))
    assert found == pytest.approx(
        {
            "listeners/accuracy_shared": (1 + 1 / 2 + 0 + 0 + 1 / 3) / 5,
            "listeners/uar_shared": ((1 + 1 / 2) / 4 + 1 / 3) / 2,
            "listeners/recall_shared/a": 1.5 / 4,
            "listeners/recall_shared/b": 1 / 3,
        }
    )
    assert tie_free_scores(winners, ("",) * 5, ("a", "b", "c")) == {}


OFFICIAL = """\
"","A","D","F","H","N","S","fileName","numResponses","agreement","emoVote"
"100001",5,5,0,0,1,1,"1001_IEO_ANG_MD",12,0.416666666666667,"A:D"
"103234",0,0,2,0,5,3,"1040_ITH_SAD_X",10,0.5,"N"
"200001",12,0,0,0,0,0,"1001_IEO_ANG_MD",12,1,"A"
"300001",0,12,0,0,0,0,"1001_IEO_ANG_MD",12,1,"D"
"""
OWN = "fileName,A,D,F,H,N,S\n1001_IEO_ANG_MD,5,5,0,0,1,1\n1040_ITH_SAD_XX,0,0,2,0,5,3\n"


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("AudioWAV/voice_votes.csv", OWN),
        ("voice_votes.csv", OWN),
        ("AudioWAV/tabulatedVotes.csv", OFFICIAL),
        ("tabulatedVotes.csv", OFFICIAL),
        ("processedResults/tabulatedVotes.csv", OFFICIAL),
    ],
)
def test_votes_are_read_from_either_table_voice_only(tmp_path: Path, place: str, content: str) -> None:
    root = tmp_path / "AudioWAV"
    root.mkdir()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text(content)
    found = read(root)
    assert found["1001_IEO_ANG_MD"] == {"angry": 5, "disgust": 5, "fearful": 0, "happy": 0, "neutral": 1, "sad": 1}
    assert found["1040_ITH_SAD_XX"]["neutral"] == 5 and len(found) == 2


def read(root: Path) -> Votes:
    reader = corpora.SHEETS["cremad"].votes
    assert reader is not None
    return reader(root)


@pytest.mark.parametrize(
    "content",
    [
        "version https://git-lfs.github.com/spec/v1\n",
        "a,b\n1,2\n",
        OWN.replace("1040_ITH_SAD_XX", "holiday"),
        OWN.replace(",5,3", ",five,3"),
        OWN.replace(",0,5,3", ""),
        OWN.replace(",5,3", ",-5,3"),
        OWN.replace(",5,3", ",5,3,1"),
        OWN + OWN.splitlines()[1].replace(",0,", ",7,", 1) + "\n",
    ],
)
def test_another_table_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "voice_votes.csv").write_text(content)
    with pytest.raises(CorpusError, match=r"voice_votes\.csv( line \d+)?: .*download it again"):
        read(tmp_path)


def features(corpus: str, root: Path, clips: Mapping[str, Clip]) -> Features:
    cfg = compose_config("experiment=none", f"corpus={corpus}", f"corpus.root={root}", "model=listeners")
    return Features(cfg, clips, "en")


def test_a_corpus_without_votes_is_one_line(tmp_path: Path) -> None:
    clips = {"c": Clip("c", tmp_path, "sad", "s")}
    with pytest.raises(CorpusError, match="no table of listeners' votes"):
        features("cremad", tmp_path / "AudioWAV", clips).votes(clean_rows(clips))
    with pytest.raises(ConfigError, match=r"corpus ravdess has no votes.*corpus=cremad"):
        features("ravdess", tmp_path, clips).votes(clean_rows(clips))


def test_votes_of_a_tested_second_corpus_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "voice_votes.csv").write_text(OWN)
    name = "cremad:1040_ITH_SAD_XX"
    clips = {name: Clip(name, tmp_path, "sad", "1040", corpus="cremad")}
    cfg = compose_config(
        *("experiment=none", "model=listeners", "corpus=ravdess", "corpus.root=nowhere", "split=cross_corpus"),
        *("split.test_corpus=cremad", f"split.test_root={tmp_path}"),
    )
    [found] = Features(cfg, clips, "en").votes(clean_rows(clips))
    assert found is not None and found["neutral"] == 5


def real_clips(folder: Path, corpus: str) -> dict[str, Clip]:
    parsed = [(path, corpora.SHEETS[corpus].parse(path.stem)) for path in sorted(folder.rglob("*.*"))]
    return {f.id: Clip(f.id, path, f.emotion, f.speaker, f.sentence) for path, f in parsed if f}


@pytest.mark.corpora
def test_listeners_of_crema_d_reach_what_its_vote_table_says(corpora_root: Path) -> None:
    """Expected figures: computed from the same table apart from this code; 644 of 7,442 clips are tied."""
    root = corpora_root / "cremad" / "AudioWAV"
    clips = real_clips(root, "cremad")
    inputs = features("cremad", root, clips)
    model = Listeners(compose_config("model=listeners"), REAL_LABELS, inputs, Path(), lambda epoch, values: None)
    found = model.predict(clean_rows(clips))
    facts = model.facts()
    assert len(found.rows) == 7442 and not found.abstained.any() and facts["listeners/tied"] == 644
    assert facts["listeners/accuracy_shared"] == pytest.approx(0.446, abs=0.0005)
    assert facts["listeners/uar_shared"] == pytest.approx(0.459, abs=0.0005)
    recall = {"neutral": 0.97, "angry": 0.64, "fearful": 0.35, "disgust": 0.30, "happy": 0.30, "sad": 0.20}
    for label, value in recall.items():
        assert facts[f"listeners/recall_shared/{label}"] == pytest.approx(value, abs=0.0051)
    assert metrics.accuracy(found) == pytest.approx(facts["listeners/accuracy_shared"], abs=0.01)
    assert facts["listeners/votes_per_clip"] == pytest.approx(68_568 / 7442)


def test_ceiling_by_hand_and_at_its_ends() -> None:
    assert sentence_ceiling("aaabb", "xxyxy") == pytest.approx((3 / 5, (2 / 3 + 1 / 2) / 2))
    assert sentence_ceiling("abc", "xyz") == (1.0, 1.0)
    assert sentence_ceiling("aabb", "xyxy") == (0.5, 0.5)
    with pytest.raises(ValueError, match="no clips"):
        sentence_ceiling([], [])


def test_ceiling_is_the_best_of_all_functions_of_the_sentence() -> None:
    from itertools import product

    from sklearn.metrics import accuracy_score, balanced_accuracy_score

    rng = np.random.default_rng(3)
    sentences = rng.choice(list("abcd"), 60, p=[0.4, 0.3, 0.2, 0.1])
    truth = rng.choice(list("xyz"), 60, p=[0.5, 0.3, 0.2])
    answers = [[dict(zip("abcd", choice, strict=True))[s] for s in sentences] for choice in product("xyz", repeat=4)]
    found = sentence_ceiling(list(sentences), list(truth))
    assert found.accuracy == pytest.approx(max(accuracy_score(truth, answer) for answer in answers))
    assert found.uar == pytest.approx(max(balanced_accuracy_score(truth, answer) for answer in answers))


@pytest.mark.corpora
def test_ceiling_of_real_corpora(corpora_root: Path) -> None:
    cremad = real_clips(corpora_root / "cremad" / "AudioWAV", "cremad").values()
    found = sentence_ceiling([clip.sentence for clip in cremad], [clip.emotion for clip in cremad])
    assert found.accuracy == pytest.approx(0.1708, abs=0.00005)
    assert found.uar == pytest.approx(0.189, abs=0.0005)
    emodb = real_clips(corpora_root / "emodb", "emodb").values()
    assert sentence_ceiling([c.sentence for c in emodb], [c.emotion for c in emodb]).uar == pytest.approx(
        0.202, abs=0.0005
    )
