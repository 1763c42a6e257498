"""Users' own clips, listed in a CSV file."""

from __future__ import annotations

import unicodedata
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


# ---- lines that do not fit their header


def test_an_unquoted_separator_is_refused_instead_of_shifting_the_columns(clips: Path) -> None:
    rows = ("a/1.wav,hello,anna,sad", "a/2.wav,please, stop it,anna,sad", "b/1.wav,bye,bert,happy")
    text = "\n".join(("path,text,speaker,emotion", *rows))
    with pytest.raises(BadClipError, match=r"my\.csv line 3: 5 cells, but the header has 4; .*double quotes"):
        load(clips, text)
    corpus = load(clips, text, skip=True)
    assert {clip.speaker for clip in corpus.clips} == {"anna", "bert"}
    assert list(corpus.skipped) == [f"{clips}/my.csv:3"]


def test_a_line_with_too_few_cells_is_refused(clips: Path) -> None:
    with pytest.raises(BadClipError, match=r"line 2: 2 cells, but the header has 3"):
        load(clips, "path,emotion,speaker\na/1.wav,sad\n")


def test_a_stray_quote_does_not_swallow_the_following_lines(clips: Path) -> None:
    rows = ('a/1.wav,"hello,x,sad', "a/2.wav,one,x,sad", 'b/1.wav,two",y,happy', "b/3.wav,no,y,happy")
    text = "\n".join(("path,text,speaker,emotion", *rows))
    with pytest.raises(BadClipError, match=r"my\.csv line 2: .*a double quote must be closed on its line"):
        load(clips, text)
    assert [clip.id for clip in load(clips, text, skip=True).clips] == ["1", "2", "3"]


def test_quoted_separators_and_quotes_inside_words_are_read(clips: Path) -> None:
    text = 'path,text,speaker,emotion\na/1.wav,"please, ""now"", stop",x,sad\na/2.wav,a 5" nail,y,happy\n'
    assert [clip.text for clip in load(clips, text).clips] == ['please, "now", stop', 'a 5" nail']


def test_a_column_that_occurs_twice_is_refused(clips: Path) -> None:
    with pytest.raises(CorpusError, match=r"my\.csv: the column speaker occurs more than once"):
        load(clips, "path,emotion,speaker,Speaker\na/1.wav,sad,x,y\n")


# ---- names


@pytest.mark.parametrize("name", ["nan", "NaN", "null", "N/A"])
@pytest.mark.parametrize("column", ["emotion", "speaker"])
def test_a_text_for_a_missing_value_is_not_a_name(clips: Path, name: str, column: str) -> None:
    row = {"emotion": "sad", "speaker": "x"} | {column: name}
    with pytest.raises(BadClipError, match=rf"my\.csv line 2: the {column} is .*{name}.*missing value"):
        load(clips, f"path,emotion,speaker\na/1.wav,{row['emotion']},{row['speaker']}\n")


@pytest.mark.parametrize("names", [("1", "1.0"), ("1", "01"), ("Anna", "anna"), ("A1", "\uff211")])
def test_speakers_that_look_alike_are_refused_with_their_lines(clips: Path, names: tuple[str, str]) -> None:
    text = f"path,emotion,speaker\na/1.wav,sad,{names[0]}\na/2.wav,happy,b\nb/1.wav,sad,{names[1]}\n"
    for skip in (False, True):
        with pytest.raises(CorpusError, match=rf"my\.csv lines 2 and 4: .*speaker.*{names[0]}.*{names[1]}"):
            load(clips, text, skip=skip)


def test_speakers_and_labels_in_two_unicode_forms_are_one(clips: Path) -> None:
    text = (
        "path,emotion,speaker\na/1.wav,w\u00fctend,M\u00fcller\na/2.wav,wu\u0308tend,Mu\u0308ller\n"
        "b/1.wav,sad,M\u00fcller\u00a0 B\nb/3.wav,sad,M\u00fcller B\n"
    )
    corpus = load(clips, text)
    assert corpus.labels == ("sad", "w\u00fctend")
    assert {clip.speaker for clip in corpus.clips} == {"M\u00fcller", "M\u00fcller B"}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_path_in_another_unicode_form_finds_its_file(clips: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    path = clips / unicodedata.normalize(form, "\u00fc/\u00e4 \u00f6.wav")
    path.parent.mkdir()
    (clips / "a/1.wav").rename(path)
    listed = unicodedata.normalize(other, "\u00fc/\u00e4 \u00f6.wav")
    corpus = load(clips, f"path,emotion,speaker\n{listed},sad,x\na/2.wav,happy,y\n")
    assert {clip.id for clip in corpus.clips} == {"2", "\u00e4 \u00f6"}
    assert path in {clip.path for clip in corpus.clips}


def test_two_files_whose_names_differ_in_unicode_form_only_are_refused(clips: Path) -> None:
    (clips / "a/1.wav").rename(clips / "a/\u00fc.wav")
    (clips / "a/2.wav").rename(clips / "a/u\u0308.wav")
    with pytest.raises(CorpusError, match="more than once"):
        load(clips, "path,emotion,speaker\na/\u00fc.wav,sad,x\na/u\u0308.wav,happy,y\n")


def test_sentences_that_look_alike_are_a_warning(clips: Path) -> None:
    text = "path,emotion,speaker,sentence\na/1.wav,sad,x,Close the door\na/2.wav,happy,y,close the door\n"
    assert any("'Close the door' and 'close the door'" in line for line in load(clips, text).warnings)


# ---- labels


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("a//b", "a slash"),
        ("a/b", "a slash"),
        ("..", "a dot"),
        (".", "a dot"),
        ("../up", "a slash"),
        ("x" * 300, "300 characters"),
        ("a\\b", "a slash"),
        ("sa\x07d", r"U\+0007"),
        ("sa\u200bd", r"U\+200B"),
        ("accuracy", "reserved"),
        ("Abstained", "reserved"),
    ],
)
def test_a_label_that_cannot_be_logged_is_refused_at_load(clips: Path, label: str, reason: str) -> None:
    with pytest.raises(BadClipError, match=rf"my\.csv line 2: the emotion .*{reason}"):
        load(clips, f"path,emotion,speaker\na/1.wav,{label},x\na/2.wav,sad,y\n")


@pytest.mark.parametrize("label", ["$foo{$", "<b>", "very sad", "don't know", "no:1", "+", "\u6012"])
def test_other_characters_are_allowed_in_labels(clips: Path, label: str) -> None:
    assert label in load(clips, f"path,emotion,speaker\na/1.wav,{label},x\na/2.wav,sad,y\n").labels


@pytest.mark.parametrize("other", ["very-sad", "very_sad", "VERY\uff3fsad"])
def test_labels_that_look_alike_are_refused(clips: Path, other: str) -> None:
    with pytest.raises(CorpusError, match=r"my\.csv lines 2 and 3: .*emotion"):
        load(clips, f"path,emotion,speaker\na/1.wav,very sad,x\na/2.wav,{other},y\n")


@pytest.mark.parametrize("column", ["speaker", "path"])
def test_control_characters_are_refused_in_every_name(clips: Path, column: str) -> None:
    row = {"path": "a/1.wav", "speaker": "x"}
    row[column] += "\x00y"
    with pytest.raises(BadClipError, match=rf"line 2: the {column} .*U\+0000"):
        load(clips, f"path,emotion,speaker\n{row['path']},sad,{row['speaker']}\n")
