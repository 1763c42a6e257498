"""Users' own clips, listed in a CSV file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import corpora
from ser_bench.config import Config, CorpusConfig, LabelSet, OnBadClip, Protocol, SplitConfig
from ser_bench.errors import BadClipError, CorpusError
from ser_bench.types import Corpus


@pytest.fixture(autouse=True)
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    for i, name in enumerate(["a/1.wav", "a/2.wav", "b/1.wav", "b/3.wav"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, 0.1 * np.random.default_rng(i).standard_normal(4000), 16_000)
    return tmp_path


def load(folder: Path, text: str, skip: bool = False, encoding: str = "utf-8", **corpus: object) -> Corpus:
    (folder / "my.csv").write_text(text, encoding=encoding)
    cfg = Config(split=SplitConfig(protocol=Protocol.speaker))
    cfg.corpus = CorpusConfig(name="table", root=str(folder / "my.csv"), language="fr", **corpus)  # type: ignore[arg-type]
    cfg.on_bad_clip = OnBadClip.skip if skip else OnBadClip.stop
    return corpora.load(cfg)


def test_columns_are_read_and_emotions_made_canonical(clips: Path) -> None:
    corpus = load(
        clips,
        "Path,Emotion,Speaker,Sentence,Text,Intensity,Sex,Note\n"
        "a/2.wav,Anger,anna,s1,Bonjour,strong,F,x\n"
        f"{clips}/b/3.wav,joy,bert,,Au revoir,,male,y\n",
    )
    assert corpus.labels == ("angry", "happy")
    assert corpus.language == "fr"
    first, second = corpus.clips
    assert (first.id, first.emotion, first.speaker, first.sentence) == ("2", "angry", "anna", "s1")
    assert (first.text, first.intensity, first.sex) == ("Bonjour", "strong", "female")
    assert first.path.resolve() == clips / "a/2.wav"
    assert (second.id, second.emotion, second.sentence, second.sex) == ("3", "happy", "Au revoir", "male")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_and_a_byte_order_mark(clips: Path, separator: str, encoding: str) -> None:
    rows = ["path,emotion,speaker", "a/1.wav,sad,ä", "a/2.wav,happy,b"]
    corpus = load(clips, "\n".join(rows).replace(",", separator), encoding=encoding)
    assert [clip.speaker for clip in corpus.clips] == ["ä", "b"]


def test_files_with_the_same_stem_have_their_path_as_id(clips: Path) -> None:
    corpus = load(clips, "path,emotion,speaker\na/1.wav,sad,x\nb/1.wav,happy,y\nb/3.wav,sad,y\n")
    assert [clip.id for clip in corpus.clips] == ["3", "a/1.wav", "b/1.wav"]


def test_labels_that_are_not_canonical_are_a_warning(clips: Path) -> None:
    corpus = load(clips, "path,emotion,speaker\na/1.wav,Frustrated,x\na/2.wav,sad,y\n")
    assert corpus.labels == ("sad", "frustrated")
    assert corpus.warnings == ("table: labels that are not canonical: 1 frustrated",)


def test_basic6_needs_clips_of_all_six_labels(clips: Path) -> None:
    with pytest.raises(CorpusError, match="no clip has the label angry or disgust"):
        load(clips, "path,emotion,speaker\na/1.wav,happy,x\na/2.wav,sad,y\n", labels=LabelSet.basic6)


def test_a_missing_column_is_named(clips: Path) -> None:
    with pytest.raises(CorpusError, match=r"my\.csv: no column emotion or speaker"):
        load(clips, "path,label\na/1.wav,sad\n")


@pytest.mark.parametrize(
    ("row", "words"),
    [("a/1.wav,,x,", "no emotion"), ("a/1.wav,sad,,", "no speaker"), ("a/1.wav,sad,x,robot", "sex is 'robot'")],
)
def test_a_bad_line_is_named_or_skipped(clips: Path, row: str, words: str) -> None:
    text = f"path,emotion,speaker,sex\na/2.wav,sad,x,f\n{row}\n"
    with pytest.raises(BadClipError, match=f"my.csv line 3: {words}"):
        load(clips, text)
    corpus = load(clips, text, skip=True)
    assert len(corpus.clips) == 1
    assert len(corpus.skipped) == 1


def test_a_listed_file_that_does_not_exist(clips: Path) -> None:
    text = "path,emotion,speaker\na/1.wav,sad,x\nnowhere.wav,sad,x\n"
    with pytest.raises(BadClipError, match=r"nowhere.wav: cannot be read"):
        load(clips, text)
    assert list(load(clips, text, skip=True).skipped) == [str(clips / "nowhere.wav")]


def test_a_file_that_is_listed_twice(clips: Path) -> None:
    with pytest.raises(CorpusError, match=r"a/1\.wav is listed more than once"):
        load(clips, "path,emotion,speaker\na/1.wav,sad,x\na/1.wav,happy,x\n")


def test_an_empty_table_a_missing_file_and_another_encoding(clips: Path) -> None:
    with pytest.raises(CorpusError, match="lists no clip"):
        load(clips, "path,emotion,speaker\n")
    with pytest.raises(CorpusError, match="not a CSV file in UTF-8"):
        load(clips, "path,emotion,speaker\na/1.wav,sad,é\n", encoding="latin-1")
    cfg = Config(split=SplitConfig(protocol=Protocol.speaker))
    cfg.corpus = CorpusConfig(name="table", root=str(clips / "none.csv"))
    with pytest.raises(CorpusError, match="no such CSV file"):
        corpora.load(cfg)
