"""Which runs a fusion combines, which it refuses and with what words, and how restored runs answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench import config, pipeline, predictors, stored_predictors, tracking
from ser_bench.config import Config
from ser_bench.errors import ConfigError, NotComparableError, RunNotFoundError
from ser_bench.features.feature_store import Features
from ser_bench.predictors import registry
from ser_bench.predictors.embeddings.probe import Probe
from ser_bench.types import Corpus, FloatArray, Row, Split, clean_rows
from tests.support.tracked_runs import compose_config, make_corpus, make_split

CORPUS = make_corpus()
SPLIT = make_split(CORPUS)
OTHER_SPLIT = replace(SPLIT, val=SPLIT.val[:1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this module's; making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlruns"
    tracking.open_store(compose_config(path).tracking)
    return path


@pytest.fixture
def compose(folder: Path, request: pytest.FixtureRequest):
    """Configurations in an MLflow experiment of the test's own."""
    return lambda *words: compose_config(folder, f"tracking.experiment={request.node.name[:30]}", *words)


def finished(cfg: Config, corpus: Corpus = CORPUS, split: Split = SPLIT) -> str:
    """A run as the pipeline makes it, id."""
    key = pipeline.run_key(cfg, corpus, split) + str(len(tracking.search(cfg.tracking)))
    with tracking.start(cfg, corpus, split, key, predictors.predictor_class(cfg.model.name).groups, None) as active:
        features = Features(cfg, corpus.by_id, corpus.language)
        predictor = predictors.build(cfg, corpus.labels, features, active.work_dir, active.log_epoch)
        predictor.fit(split.train, split.val)
        active.log_split(split)
        active.log_predictions(predictor.predict(split.test), corpus.by_id)
        active.log_predictor(predictor)
    return active.run_id


def fusion(compose, *words: str, names: str = "majority,prior") -> Config:
    return compose("model=fusion", f"model.members=[{names}]", *words)


def test_a_model_is_its_newest_run_and_an_id_is_that_run(compose) -> None:
    old, new, prior = (finished(compose(f"model={name}")) for name in ("majority", "majority", "prior"))
    found = stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)
    assert [(one.name, one.run_id) for one in found] == [("majority", new), ("prior", prior)]
    by_id = stored_predictors.resolve(fusion(compose, names=f"prior,{old}"), CORPUS, SPLIT)
    assert [one.run_id for one in by_id] == [prior, old]
    both = stored_predictors.resolve(fusion(compose, names=f"{old},{new}"), CORPUS, SPLIT)
    assert [one.name for one in both] == [f"majority_{old[:8]}", f"majority_{new[:8]}"]
    assert stored_predictors.resolve(compose("model=majority"), CORPUS, SPLIT) == ()


def test_another_seed_split_or_corpus_is_no_candidate(compose) -> None:
    finished(compose("model=prior"))
    finished(compose("model=majority", "seed=1"))
    finished(compose("model=majority"), split=OTHER_SPLIT)
    finished(compose("model=majority"), corpus=make_corpus(clips=CORPUS.clips[::-1]))
    finished(compose("model=majority", "shuffle_labels=true"))
    with pytest.raises(
        RunNotFoundError, match=r"no finished run of majority .*: python run.py model=majority corpus=demo"
    ):
        stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)
    right = finished(compose("model=majority"))
    assert stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)[0].run_id == right


def test_a_member_that_knows_the_validation_rows_is_only_averaged(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictors.predictor_class("prior"), "groups", ("head",))
    for name in ("majority", "prior"):
        finished(compose(f"model={name}"))
    with pytest.raises(ConfigError, match=r"head\.refit=false"):
        stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)
    assert len(stored_predictors.resolve(fusion(compose, "model.combine=mean"), CORPUS, SPLIT)) == 2
    finished(compose("model=prior", "head.refit=false"))
    assert len(stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)) == 2


@pytest.mark.parametrize("tag", ["partition", "corpus_digest", "labels", "shuffle_labels"])
def test_a_run_of_something_else_is_named_with_the_difference(compose, tag: str) -> None:
    corpus, split, words = CORPUS, SPLIT, []
    if tag == "partition":
        split = OTHER_SPLIT
    elif tag == "corpus_digest":
        corpus = make_corpus(clips=(*CORPUS.clips[:-1], replace(CORPUS.clips[-1], digest="11")))
    elif tag == "labels":
        corpus = make_corpus(labels=(*CORPUS.labels, "bored"))
    else:
        words = ["shuffle_labels=true"]
    prior, strange = finished(compose("model=prior")), finished(compose("model=majority", *words), corpus, split)
    with pytest.raises(NotComparableError, match=f"run {strange} .*differ in {tag}: .* and ") as caught:
        stored_predictors.resolve(fusion(compose, names=f"{prior},{strange}"), CORPUS, SPLIT)
    assert "\n" not in str(caught.value)


def test_what_is_no_member_is_told(compose) -> None:
    prior = finished(compose("model=prior"))
    for names, said in (
        ("prior,svm", "'svm' is neither a run id nor a model"),
        ("prior,fusion", "by its run id"),
        (f"prior,{prior[:12]}", f"names run {prior} .* twice"),
        ("prior,ffffffff", "no run 'ffffffff'"),
    ):
        with pytest.raises((ConfigError, RunNotFoundError), match=said):
            stored_predictors.resolve(fusion(compose, names=names), CORPUS, SPLIT)
    with (
        pytest.raises(ZeroDivisionError),
        tracking.start(compose("model=majority"), CORPUS, SPLIT, "broken", (), None) as active,
    ):
        raise ZeroDivisionError
    with pytest.raises(NotComparableError, match=f"run {active.run_id} .* is FAILED"):
        stored_predictors.resolve(fusion(compose, names=f"prior,{active.run_id}"), CORPUS, SPLIT)


def test_a_run_that_answered_some_clips_only_is_refused(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = finished(compose("model=majority", "llm.limit=3"))
    monkeypatch.setattr(predictors.predictor_class("majority"), "groups", ("llm",))
    finished(compose("model=prior"))
    with pytest.raises(NotComparableError, match=f"run {limited} .* 3 clips.*llm.limit=null"):
        stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)


def test_stored_answers_come_first_and_the_restored_run_gives_the_others(compose) -> None:
    run_id = finished(compose("model=majority"))
    cfg = fusion(compose, names="majority,prior")
    stored = tracking.load_run(cfg.tracking, run_id)
    path = stored.artifact("predictions.parquet")
    frame = stored.frame()
    frame["p_angry"], frame["p_neutral"], frame["p_sad"] = 0.2, 0.3, 0.5
    frame.to_parquet(path)
    (member,) = stored_predictors.restore([stored], cfg, CORPUS.by_id, "en", CORPUS.labels)
    asked = (SPLIT.test[1], SPLIT.val[0], SPLIT.test[0])
    found = member.predict(asked)
    assert found.rows == asked and found.truth == tuple(CORPUS.by_id[row.clip_id].emotion for row in asked)
    np.testing.assert_allclose(found.probabilities[[0, 2]], [[0.2, 0.3, 0.5]] * 2, atol=1e-6)
    np.testing.assert_allclose(found.probabilities[1], [1 / 3] * 3, atol=1e-6)  # shares of the training labels
    assert member.predict(()).rows == ()


def test_attention_takes_members_that_have_vectors_of_every_clip(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    majority, prior = finished(compose("model=majority")), finished(compose("model=prior"))
    attention = fusion(compose, "model.combine=attention")
    with pytest.raises(ConfigError) as caught:
        stored_predictors.resolve(attention, CORPUS, SPLIT)
    message = str(caught.value)
    assert majority in message and "has no fixed vectors" in message and "\n" not in message
    for name in ("text_only", "whisper_probe", "egemaps", "ssl_probe", "model.combine=stack"):
        assert name in message

    for name in ("majority", "prior"):
        monkeypatch.setitem(registry._REGISTERED, name, with_vectors(predictors.predictor_class(name)))
    found = stored_predictors.resolve(attention, CORPUS, SPLIT)
    np.testing.assert_array_equal(found[0].vectors(SPLIT.val), np.eye(len(SPLIT.val), 5))
    enrolled = finished(compose("model=majority", "adapt=speaker_stats", "adapt.enrol=2"))
    some = fusion(compose, "model.combine=attention", names=f"{prior},{enrolled}")
    with pytest.raises(ConfigError, match=r"run \w+ .*: adapt.enrol=2 leaves out clips"):
        stored_predictors.resolve(some, CORPUS, SPLIT)


def with_vectors(base: Any) -> Any:
    """The same predictor with vectors, as every probe has them."""

    class WithVectors(base, Probe):
        name, groups, needs = base.name, ("adapt",), base.needs
        fit, predict, _state, _restore = base.fit, base.predict, base._state, base._restore

        def vectors(self, rows: Sequence[Row]) -> FloatArray:
            return np.eye(len(rows), 5, dtype=np.float32)

        def _raw(self, rows: Sequence[Row]) -> FloatArray:
            return self.vectors(rows)

    return WithVectors


def test_the_key_holds_the_runs_and_not_the_words(compose) -> None:
    finished(compose("model=majority")), finished(compose("model=prior"))
    cfg = fusion(compose)
    ids = [one.run_id for one in stored_predictors.resolve(cfg, CORPUS, SPLIT)]
    named = pipeline.run_key(cfg, CORPUS, SPLIT, ids)
    assert pipeline.run_key(fusion(compose, names=",".join(ids)), CORPUS, SPLIT, ids) == named
    finished(compose("model=majority", "force=true"))
    newer = [one.run_id for one in stored_predictors.resolve(cfg, CORPUS, SPLIT)]
    assert pipeline.run_key(cfg, CORPUS, SPLIT, newer) != named
    assert pipeline.run_key(fusion(compose, "model.combine=mean"), CORPUS, SPLIT, ids) != named


def test_tags_say_which_runs_and_how_they_were_configured(compose) -> None:
    finished(compose("model=majority")), finished(compose("model=prior"))
    first = stored_predictors.resolve(fusion(compose), CORPUS, SPLIT)
    tags = stored_predictors.tags_of(first)
    assert tags["members"].split() == [one.run_id for one in first]
    finished(compose("model=majority", "seed=3")), finished(compose("model=prior", "seed=3"))
    again = stored_predictors.tags_of(stored_predictors.resolve(fusion(compose, "seed=3"), CORPUS, SPLIT))
    assert again["member_settings"] == tags["member_settings"] and again["members"] != tags["members"]
    assert stored_predictors.tags_of(()) == {} and "model" not in tags
    with tracking.start(fusion(compose), CORPUS, SPLIT, "fused", (), None) as active:
        active.log_tags(tags)
    stored = tracking.load_run(compose().tracking, active.run_id)
    assert [one.run_id for one in stored.members()] == tags["members"].split()
    gone = replace(stored, tags={"members": "f" * 32})
    with pytest.raises(RunNotFoundError, match="no longer in this store"):
        gone.members()


def test_a_fusion_of_an_adapted_member_is_named_for_what_it_heard(compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would stand in the table as if it had never heard the speakers."""
    prior = finished(compose("model=prior"))
    monkeypatch.setattr(predictors.predictor_class("majority"), "groups", ("adapt",))
    adapted = finished(compose("model=majority", "adapt=speaker_stats"))
    cfg = fusion(compose, names=f"{prior},{adapted}")
    tags = stored_predictors.tags_of(stored_predictors.resolve(cfg, CORPUS, SPLIT))
    assert tags["model"] == "fusion+speaker_stats"
    with tracking.start(cfg, CORPUS, SPLIT, "fused", (), None) as active:
        active.log_tags(tags)
    assert tracking.load_run(cfg.tracking, active.run_id).tags["model"] == "fusion+speaker_stats"


def test_another_runs_configuration_is_kept_but_for_where_things_are(compose) -> None:
    theirs = compose("model=cnn", "corpus.root=/theirs", "seed=5", "trainer.accelerator=gpu", "features.offset_s=0")
    here = config.run_here(theirs, compose("corpus.root=/here", "cache_dir=/cache"))
    assert (here.corpus.root, here.cache_dir, here.trainer.accelerator) == ("/here", "/cache", "cpu")
    assert (here.seed, here.features.offset_s, here.model) == (5, 0, theirs.model)
    assert theirs.corpus.root == "/theirs"


def test_what_each_adds_is_asked_of_fusions_only(compose, caplog: pytest.LogCaptureFixture) -> None:
    finished(compose("model=majority")), finished(compose("model=prior"))
    cfg = fusion(compose, "model.combine=mean")
    speakers = {clip.id: clip.speaker for clip in CORPUS.clips}
    rows = clean_rows(row.clip_id for row in SPLIT.test)
    for one, combined in ((cfg, stored_predictors.resolve(cfg, CORPUS, SPLIT)), (compose("model=majority"), ())):
        features = Features(one, CORPUS.by_id, "en", combined)
        predictor = predictors.build(one, CORPUS.labels, features, Path(), lambda epoch, metrics: None)
        predictor.fit(SPLIT.train, SPLIT.val)
        with caplog.at_level("INFO"):
            facts = stored_predictors.what_each_adds(predictor, predictor.predict(rows), speakers)
        assert ("fusion/without/majority/uar" in facts) is bool(combined)
        assert bool(facts) is bool(combined)
    assert sum(message.startswith("adds     prior: UAR") for message in caplog.messages) == 1
