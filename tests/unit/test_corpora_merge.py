"""Merging a training and a test corpus: ids stay distinct, and clips that are left out are counted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import corpora
from ser_bench.config import Config, CorpusConfig, Protocol, SplitConfig
from ser_bench.corpora.loading import merge
from ser_bench.errors import BadClipError, ConfigError, CorpusError
from ser_bench.types import Clip, Corpus

RATE_HZ = 16_000
RAVDESS_CODES = range(1, 9)
EMODB_LETTERS = "WLEAFTN"


def toy(name: str, labels: tuple[str, ...], language: str = "en", speakers: int = 2) -> Corpus:
    clips = tuple(
        Clip(
            f"{speaker}_{label}",
            Path(f"{name}/{speaker}_{label}.wav"),
            label,
            f"{speaker:02d}",
            "s1",
            digest=f"{name}{speaker}{label}",
        )
        for speaker in range(speakers)
        for label in sorted(labels)
    )
    return Corpus(name, clips, labels, language, warnings=(f"{name}: something",), skipped={f"{name}/x.wav": "bad"})


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One actor of RAVDESS and one speaker of EmoDB, one clip an emotion, all of noise."""
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    stems = [f"ravdess/03-01-0{code}-01-01-01-01" for code in RAVDESS_CODES]
    stems += [f"emodb/03a01{letter}a" for letter in EMODB_LETTERS]
    for i, stem in enumerate(stems):
        path = tmp_path / f"{stem}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.1 * np.random.default_rng(i).standard_normal(RATE_HZ // 4), RATE_HZ)
    return tmp_path


def config(roots: Path, protocol: str = "cross_corpus", **split: str | None) -> Config:
    named = {"test_corpus": "emodb", "test_root": str(roots / "emodb"), **split}
    return Config(
        corpus=CorpusConfig(name="ravdess", root=str(roots / "ravdess")),
        split=SplitConfig(protocol=Protocol[protocol], **named),  # type: ignore[arg-type]
    )


def test_labels_are_shared_ones_in_canonical_order_and_other_clips_are_counted() -> None:
    merged = merge(toy("one", ("angry", "neutral", "sad", "calm")), toy("two", ("sad", "angry", "bored", "neutral")))
    assert merged.labels == ("angry", "neutral", "sad")
    assert {clip.emotion for clip in merged.clips} == set(merged.labels)
    assert merged.warnings == (
        "one: something",
        "two: something",
        "one: 2 clips with labels that two does not have are left out (2 calm)",
        "two: 2 clips with labels that one does not have are left out (2 bored)",
    )
    assert dict(merged.skipped) == {"one/x.wav": "bad", "two/x.wav": "bad"}


def test_equal_ids_speakers_and_sentences_do_not_collide() -> None:
    merged = merge(toy("one", ("angry", "sad")), toy("two", ("angry", "sad")))
    assert merged.name == "one-two"
    assert len(merged.by_id) == len(merged.clips) == 8
    assert [clip.id for clip in merged.clips] == sorted(clip.id for clip in merged.clips)
    clip = merged.by_id["two:1_sad"]
    assert (clip.speaker, clip.sentence, clip.corpus, clip.path) == ("two:01", "two:s1", "two", Path("two/1_sad.wav"))
    assert len({clip.speaker for clip in merged.clips}) == 4
    assert {clip.sentence for clip in merged.clips} == {"one:s1", "two:s1"}


def test_an_unknown_sentence_stays_unknown() -> None:
    corpus = toy("one", ("angry", "sad"))
    bare = dataclasses.replace(corpus, clips=tuple(dataclasses.replace(clip, sentence="") for clip in corpus.clips))
    assert {clip.sentence for clip in merge(bare, toy("two", ("angry", "sad"))).clips} == {"", "two:s1"}


def test_the_corpus_has_both_languages_and_each_clip_its_own() -> None:
    labels = ("angry", "sad")
    assert merge(toy("one", labels), toy("two", labels)).language == "en"
    mixed = merge(toy("one", labels, "de"), toy("two", labels, "en"))
    assert mixed.language == "de en"
    assert {(clip.corpus, clip.language) for clip in mixed.clips} == {("one", "de"), ("two", "en")}


def test_the_corpus_is_synthetic_if_one_of_the_two_is() -> None:
    one, two = toy("one", ("angry", "sad")), toy("two", ("angry", "sad"))
    assert not merge(one, two).synthetic
    assert merge(dataclasses.replace(one, synthetic=True), two).synthetic
    assert merge(one, dataclasses.replace(two, synthetic=True)).synthetic


def test_the_digest_depends_on_the_clips_only() -> None:
    one, two = toy("one", ("angry", "sad")), toy("two", ("angry", "sad"))
    assert merge(one, two).digest == merge(two, one).digest
    assert merge(one, two).digest not in (one.digest, two.digest)


def test_the_digest_of_one_corpus_does_not_change() -> None:
    """Run keys contain it: with another digest, every finished run would be run again."""
    assert toy("one", ("angry", "sad")).digest == "e52ae62f7ab6ef3b80a332147da9447b"


def test_fewer_than_two_shared_labels_are_refused() -> None:
    with pytest.raises(CorpusError, match=r"one \(angry, calm\) and two \(angry, bored\) share 1 labels"):
        merge(toy("one", ("angry", "calm")), toy("two", ("angry", "bored")))


def test_a_recording_that_is_in_both_is_refused() -> None:
    one, two = toy("one", ("angry", "sad")), toy("two", ("angry", "sad"))
    copied = (dataclasses.replace(two.clips[0], digest=one.clips[3].digest), *two.clips[1:])
    with pytest.raises(CorpusError, match=r"one/1_sad.wav \(one\) and two/0_angry.wav \(two\) .* \(1 pairs"):
        merge(one, dataclasses.replace(two, clips=copied))


def test_two_corpora_are_loaded_from_their_folders(roots: Path) -> None:
    corpus = corpora.load(config(roots))
    assert corpus.name == "ravdess-emodb"
    assert corpus.labels == ("angry", "disgust", "fearful", "happy", "neutral", "sad")
    assert {(clip.corpus, clip.language) for clip in corpus.clips} == {("ravdess", "en"), ("emodb", "de")}
    assert len(corpus.clips) == 12
    assert corpus.by_id["emodb:03a01Wa"].speaker == "emodb:03"
    lines = " | ".join(corpus.warnings)
    assert "ravdess: 2 clips with labels that emodb does not have are left out (1 calm, 1 surprised)" in lines
    assert "emodb: 1 clips with labels that ravdess does not have are left out (1 bored)" in lines
    assert "emodb: this copy has 7 of 535 clips" in lines and "8 of 1,440 clips" in lines


def test_other_protocols_load_one_corpus_as_before(roots: Path) -> None:
    corpus = corpora.load(config(roots, "speaker", test_corpus=None, test_root=None))
    assert corpus.name == "ravdess"
    assert {(clip.corpus, clip.language) for clip in corpus.clips} == {("", "")}


def test_the_language_of_the_test_corpus_can_be_set(roots: Path) -> None:
    assert corpora.load(config(roots, test_language="en")).language == "en"


@pytest.mark.parametrize(
    ("protocol", "split", "message"),
    [
        ("cross_corpus", {"test_corpus": None}, "needs a test corpus.*split.test_corpus=emodb"),
        ("cross_corpus", {"test_corpus": "ravdess"}, "split.test_corpus=ravdess is also the training corpus"),
        ("cross_corpus", {"test_corpus": "iemocap"}, "unknown corpus 'iemocap'"),
        ("speaker", {}, "split.test_corpus=emodb .*split=speaker.*split=cross_corpus"),
    ],
)
def test_a_wrong_test_corpus_is_refused(roots: Path, protocol: str, split: dict[str, str | None], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        corpora.load(config(roots, protocol, **split))


def test_errors_on_the_test_corpus_name_its_configuration_key(roots: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere: no such folder.*split\.test_root=FOLDER") as caught:
        corpora.load(config(roots, test_root=str(roots / "nowhere")))
    assert "corpus.root" not in str(caught.value)
    (roots / "emodb" / "03a01Wa.wav").write_bytes(b"")
    with pytest.raises(BadClipError, match=r"03a01Wa\.wav: is empty"):
        corpora.load(config(roots))
