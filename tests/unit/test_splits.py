"""Every protocol gives the split that it describes, and the check detects leakage."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from ser_bench import splits
from ser_bench.config import Protocol, ScoredRows, SplitConfig
from ser_bench.errors import SplitError
from ser_bench.splits.speaker_lists import SPEAKER_LISTS
from ser_bench.types import VARIANTS, Clip, Corpus, Row

EMOTIONS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")


def make_corpus(speakers: int = 12, sentences: int = 6, name: str = "toy") -> Corpus:
    clips = [
        Clip(
            f"{s}_{t}_{e}",
            Path("x.wav"),
            e,
            f"sp{s:02d}",
            f"t{t}",
            sex="female" if s % 2 else "male",
            digest=f"{s}{t}{e}",
        )
        for s in range(speakers)
        for t in range(sentences)
        for e in EMOTIONS
    ]
    return Corpus(name, tuple(sorted(clips, key=lambda c: c.id)), EMOTIONS, "en")


def cfg(protocol: str, **kwargs: object) -> SplitConfig:
    return SplitConfig(protocol=Protocol[protocol], **{"folds": 3, **kwargs})  # type: ignore[arg-type]


FOLDED = ["speaker", "sentence", "clip"]


@pytest.mark.parametrize("protocol", FOLDED)
def test_folds_test_every_clip_exactly_once(protocol: str) -> None:
    corpus = make_corpus()
    tested = Counter(row for fold in range(3) for row in splits.make(corpus, cfg(protocol, fold=fold), VARIANTS).test)
    assert set(tested.values()) == {1}
    assert {row.clip_id for row in tested} == set(corpus.by_id)


@pytest.mark.parametrize("protocol", ["speaker", "loso", "sentence", "speaker_sentence", "clip"])
def test_augmented_rows_only_train(protocol: str) -> None:
    split = splits.make(make_corpus(), cfg(protocol), VARIANTS)
    assert {row.variant for row in split.train} == set(VARIANTS)
    assert {row.variant for row in (*split.val, *split.test)} == {"clean"}
    assert split.val


def test_speakers_and_sentences_stay_apart() -> None:
    corpus = make_corpus()
    clips = corpus.by_id
    for protocol, fields in {
        "speaker": ["speaker"],
        "loso": ["speaker"],
        "speaker_sentence": ["speaker", "sentence"],
    }.items():
        split = splits.make(corpus, cfg(protocol), VARIANTS)
        for field in fields:
            of = [{getattr(clips[r.clip_id], field) for r in part} for part in (split.train, split.test)]
            assert not of[0] & of[1], (protocol, field)


def test_both_sexes_are_tested_in_every_fold() -> None:
    corpus = make_corpus()
    for fold in range(3):
        split = splits.make(corpus, cfg("speaker", fold=fold), VARIANTS)
        assert Counter(corpus.by_id[r.clip_id].sex for r in split.test) == {"female": 72, "male": 72}


def test_paper_protocol_shuffles_rows_and_leaks() -> None:
    corpus = make_corpus()
    split = splits.make(corpus, cfg("paper", folds=1), VARIANTS)
    total = len(corpus.clips) * 4
    assert (len(split.train), len(split.val), len(split.test)) == (total - -(-total // 5), 0, -(-total // 5))
    trained = {row.clip_id for row in split.train}
    assert sum(row.clip_id in trained for row in split.test) / len(split.test) > 0.95


def test_the_paper_protocol_has_the_row_counts_of_the_paper() -> None:
    clips = tuple(Clip(f"c{i:04d}", Path("x"), EMOTIONS[i % 6], f"s{i % 91}", digest=str(i)) for i in range(7_442))
    split = splits.make(Corpus("toy", clips, EMOTIONS, "en"), cfg("paper", folds=1), VARIANTS)
    assert (len(split.train), len(split.test)) == (23_814, 5_954)


def test_loso_has_one_fold_per_speaker() -> None:
    corpus = make_corpus(speakers=4)
    assert splits.fold_count(corpus, cfg("loso")) == 4
    tested = {
        corpus.by_id[splits.make(corpus, cfg("loso", fold=f), VARIANTS).test[0].clip_id].speaker for f in range(4)
    }
    assert len(tested) == 4


def test_same_seed_same_digest_and_other_seed_other_digest() -> None:
    corpus = make_corpus()
    first, second = (splits.make(corpus, cfg("speaker"), VARIANTS) for _ in range(2))
    other = splits.make(corpus, cfg("speaker", seed=1), VARIANTS)
    assert (first.partition, first.rows) == (second.partition, second.rows)
    assert first.partition != other.partition


def test_partition_ignores_training_variants_but_rows_do_not() -> None:
    corpus = make_corpus()
    augmented, clean = (splits.make(corpus, cfg("speaker"), v) for v in (VARIANTS, ("clean",)))
    assert augmented.partition == clean.partition
    assert augmented.rows != clean.rows


def test_validation_can_be_empty() -> None:
    assert splits.make(make_corpus(), cfg("speaker", val_fraction=0.0), VARIANTS).val == ()


def test_a_published_list_contains_every_speaker_once() -> None:
    for item in SPEAKER_LISTS.values():
        assert not (item.train & item.val or item.train & item.test or item.val & item.test)
    evar = SPEAKER_LISTS["evar"]
    assert (len(evar.train), len(evar.val), len(evar.test)) == (63, 9, 19)


def test_fixed_split_follows_its_list() -> None:
    clips = tuple(Clip(f"{s}_{e}", Path("x"), e, str(s), digest=f"{s}{e}") for s in range(1001, 1092) for e in EMOTIONS)
    corpus = Corpus("cremad", clips, EMOTIONS, "en")
    split = splits.make(corpus, cfg("fixed", folds=1, list="evar"), VARIANTS)
    assert {corpus.by_id[r.clip_id].speaker for r in split.test} == set(SPEAKER_LISTS["evar"].test)


def two_corpora() -> Corpus:
    """Two corpora as `corpora.loading.merge` returns them: ids and speakers have the prefix of their corpus."""
    parts = [
        dataclasses.replace(clip, id=f"{name}:{clip.id}", speaker=f"{name}:{clip.speaker}", corpus=name)
        for name, speakers in (("home", 12), ("away", 5))
        for clip in make_corpus(speakers, 2, name).clips
    ]
    return Corpus("home-away", tuple(sorted(parts, key=lambda clip: clip.id)), EMOTIONS, "en")


def test_cross_corpus_tests_every_clip_of_the_test_corpus_and_trains_on_none() -> None:
    corpus = two_corpora()
    split = splits.make(corpus, cfg("cross_corpus", test_corpus="away", folds=5), VARIANTS)
    of = [{corpus.by_id[row.clip_id].corpus for row in part} for part in (split.train, split.val, split.test)]
    assert of == [{"home"}, {"home"}, {"away"}]
    assert {row.clip_id for row in split.test} == {c.id for c in corpus.clips if c.corpus == "away"}
    assert (split.folds, len(split.test), len(split.val)) == (1, 60, 12)
    assert len(split.train) == 11 * 12 * len(VARIANTS)
    assert {row.variant for row in split.train} == set(VARIANTS)
    speakers = [{corpus.by_id[row.clip_id].speaker for row in part} for part in (split.train, split.val)]
    assert not speakers[0] & speakers[1]


def test_cross_corpus_takes_validation_speakers_from_the_training_corpus() -> None:
    corpus = two_corpora()
    split = splits.make(corpus, cfg("cross_corpus", test_corpus="away", val_fraction=0.5), VARIANTS)
    assert len({corpus.by_id[row.clip_id].speaker for row in split.val}) == 6


def test_cross_corpus_has_one_fold() -> None:
    with pytest.raises(SplitError, match=r"split.fold=1 does not exist: cross_corpus has folds 0 to 0"):
        splits.make(two_corpora(), cfg("cross_corpus", test_corpus="away", folds=5, fold=1), VARIANTS)


def test_cross_corpus_of_one_corpus_is_refused() -> None:
    with pytest.raises(SplitError, match="the test part of cross_corpus fold 0 is empty"):
        splits.make(make_corpus(), cfg("cross_corpus", test_corpus="away"), VARIANTS)


def test_the_check_detects_leaks_between_corpora() -> None:
    corpus = two_corpora()
    correct = splits.make(corpus, cfg("cross_corpus", test_corpus="away"), VARIANTS)
    leaked = correct.test[0]
    rest = correct.test[1:]
    speaker = corpus.by_id[correct.val[0].clip_id].speaker
    trained = next(row for row in correct.train if row.variant == "clean")
    planted = {
        "corpus away is in training or validation and in test": [
            dataclasses.replace(correct, train=(*correct.train, *chosen), test=others)
            for chosen, others in [_rows_of_speaker(corpus, correct.test, corpus.by_id[leaked.clip_id].speaker)]
        ],
        "corpus home is in training or validation and in test": [
            dataclasses.replace(correct, val=(), test=(*correct.test, *correct.val)),
        ],
        "every clip of the test corpus; 1 ": [dataclasses.replace(correct, test=rest)],
        f"speaker {speaker} is in training and in validation": [
            dataclasses.replace(correct, train=(*correct.train, correct.val[0]), val=correct.val[1:])
        ],
        "is in training and in test": [dataclasses.replace(correct, test=(*correct.test, trained))],
        "outside training": [dataclasses.replace(correct, test=(*rest, Row(leaked.clip_id, "noise")))],
    }
    for message, planted_splits in planted.items():
        for split in planted_splits:
            with pytest.raises(SplitError, match=message):
                splits.check(split, corpus)


def _rows_of_speaker(corpus: Corpus, rows: tuple[Row, ...], speaker: str) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    chosen = tuple(row for row in rows if corpus.by_id[row.clip_id].speaker == speaker)
    return chosen, tuple(row for row in rows if row not in chosen)


@pytest.mark.parametrize(
    ("protocol", "changes", "message"),
    [
        ("speaker", {"folds": 13}, "12 speakers cannot be split into 13 folds"),
        ("speaker", {"fold": 3}, "split.fold=3 does not exist"),
        ("fixed", {"list": "nobody"}, "split.list=nobody .* toy"),
    ],
)
def test_impossible_splits_are_errors(protocol: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(SplitError, match=message):
        splits.make(make_corpus(), cfg(protocol, **changes), VARIANTS)


def test_unknown_sentences_are_refused() -> None:
    corpus = make_corpus()
    bare = dataclasses.replace(corpus, clips=tuple(dataclasses.replace(c, sentence="") for c in corpus.clips))
    with pytest.raises(SplitError, match="sentence of 432 clips is unknown"):
        splits.make(bare, cfg("sentence"), VARIANTS)


def test_the_check_detects_planted_leaks() -> None:
    corpus = make_corpus()
    correct = splits.make(corpus, cfg("speaker"), VARIANTS)
    leaked = correct.test[0]
    sibling = Row(leaked.clip_id, "noise")
    same_speaker = next(r for r in correct.test if r != leaked)
    planted = {
        "is in training and in test": dataclasses.replace(correct, train=(*correct.train, leaked)),
        "clip": dataclasses.replace(correct, train=(*correct.train, sibling)),
        "speaker": dataclasses.replace(
            correct,
            train=(*correct.train, Row(same_speaker.clip_id)),
            test=tuple(r for r in correct.test if r != same_speaker),
        ),
        "outside training": dataclasses.replace(
            correct, test=(*(r for r in correct.test if r != leaked), Row(leaked.clip_id, "pitch"))
        ),
        "empty": dataclasses.replace(correct, test=()),
        "contains a row twice": dataclasses.replace(correct, test=(*correct.test, leaked)),
        "no training rows": dataclasses.replace(
            correct, train=tuple(r for r in correct.train if corpus.by_id[r.clip_id].emotion != "sad")
        ),
    }
    for message, split in planted.items():
        with pytest.raises(SplitError, match=message):
            splits.check(split, corpus)


@pytest.mark.parametrize("protocol", ["speaker", "loso", "speaker_sentence", "clip", "paper"])
def test_a_corpus_with_one_emotion_is_refused_under_every_protocol(protocol: str) -> None:
    corpus = make_corpus()
    sad = dataclasses.replace(corpus, clips=tuple(c for c in corpus.clips if c.emotion == "sad"), labels=("sad",))
    with pytest.raises(SplitError, match=r"toy: all clips have the emotion 'sad'; .*two or more emotions"):
        splits.make(sad, cfg(protocol), VARIANTS)


def test_training_rows_of_one_emotion_are_refused() -> None:
    corpus = make_corpus(speakers=2)
    split = splits.make(corpus, cfg("loso"), VARIANTS)
    sad = [tuple(r for r in part if corpus.by_id[r.clip_id].emotion == "sad") for part in (split.train, split.test)]
    with pytest.raises(SplitError, match="loso fold 0: all training rows have the emotion 'sad'"):
        splits.check(dataclasses.replace(split, train=sad[0], val=(), test=sad[1]), corpus)


@pytest.mark.parametrize("protocol", ["speaker", "speaker_sentence"])
def test_one_speaker_is_named_and_another_split_is_suggested(protocol: str) -> None:
    with pytest.raises(SplitError, match=f"one speaker, 'sp00', and split={protocol} needs two") as error:
        splits.make(make_corpus(speakers=1), cfg(protocol, folds=2), VARIANTS)
    assert "from 2 to 1" not in str(error.value)


def test_one_sentence_is_named() -> None:
    with pytest.raises(SplitError, match="one sentence, 't0', and split=sentence needs two or more"):
        splits.make(make_corpus(sentences=1), cfg("sentence"), VARIANTS)


def test_too_few_clips_to_draw_from_are_one_line() -> None:
    corpus = make_corpus(speakers=1, sentences=1)
    with pytest.raises(SplitError, match=r"toy has too few clips \(6\) to draw validation .*split.val_fraction=0"):
        splits.make(corpus, cfg("clip"), VARIANTS)
    with pytest.raises(SplitError, match=r"toy has too few clips \(6\) to draw test rows; change split.test_fraction"):
        splits.make(corpus, cfg("paper", test_fraction=0.999), ("clean",))


def test_scored_validation_rows_leave_out_every_test_row_and_have_validation_speakers_of_their_own() -> None:
    corpus = make_corpus(speakers=20)
    usual = splits.make(corpus, cfg("speaker", val_fraction=0.3), VARIANTS)
    choosing = splits.make(corpus, cfg("speaker", val_fraction=0.3, scored=ScoredRows.validation), VARIANTS)

    def speakers(*parts: tuple[Row, ...]) -> set[str]:
        return {corpus.by_id[row.clip_id].speaker for part in parts for row in part}

    assert choosing.test == usual.val and choosing.val
    assert not speakers(usual.test) & speakers(choosing.train, choosing.val, choosing.test)
    assert speakers(choosing.train, choosing.val) == speakers(usual.train)
    assert not speakers(choosing.train) & speakers(choosing.val)
    assert choosing.partition != usual.partition
    assert choosing.partition == splits.make(
        corpus, cfg("speaker", val_fraction=0.3, scored=ScoredRows.validation), ["clean"]
    ).partition  # fmt: skip


def test_figures_of_validation_rows_are_those_of_another_corpus_by_name() -> None:
    corpus = make_corpus()
    assert corpus.measured == "toy"
    assert dataclasses.replace(corpus, scored="validation").measured == "toy-validation"
    assert dataclasses.replace(corpus, scored="validation", target="votes").measured == "toy-votes-validation"


@pytest.mark.parametrize(
    ("protocol", "changes", "words"),
    [
        ("clip", {}, "split.scored=validation is not possible under split=clip; use split=speaker or split=fixed"),
        ("speaker", {"val_fraction": 0.0}, "fold 0 has no validation rows; set split.val_fraction above 0"),
    ],
)
def test_validation_rows_that_cannot_be_scored_are_refused(protocol: str, changes: dict, words: str) -> None:
    with pytest.raises(SplitError, match=words):
        splits.make(make_corpus(), cfg(protocol, scored=ScoredRows.validation, **changes), VARIANTS)
