"""Audformat databases as corpora, and as tables of a split; the databases are made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import audformat
import pandas as pd
import pytest
import soundfile

from ser_bench import corpora, splits
from ser_bench.cli import app
from ser_bench.config import Config, CorpusConfig, OnBadClip, Protocol, SplitConfig
from ser_bench.errors import BadClipError, CorpusError, SerBenchError, SplitError
from ser_bench.types import Corpus
from tests.support.small_table import CLIPS, SPEAKERS, write_small_table

NAMES = {"angry": "anger", "happy": "happiness", "sad": "sadness"}
PARTS = {"train": SPEAKERS[:5], "dev": SPEAKERS[5:6], "test": SPEAKERS[6:]}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    write_small_table(tmp_path / "db")
    return tmp_path / "db"


def file_of(clip: str) -> str:
    return f"audio/{clip}.wav"


def database() -> Any:
    """The emotions in one table for each part; speakers, with their sex in a misc table, and sentences in another."""
    db = audformat.Database(
        "small", "https://example.org/small", audformat.define.Usage.RESEARCH, languages=["de"],
        description="A small database", author="A. Nna", license="CC-BY-4.0",
    )  # fmt: skip
    db["people"] = audformat.MiscTable(pd.Index(SPEAKERS, name="who", dtype="string"))
    db["people"]["gender"] = audformat.Column()
    db["people"]["gender"].set(["female", "male"] * 4)
    db.schemes["emotion"] = audformat.Scheme(labels=[*NAMES.values(), "no agreement"])
    db.schemes["speaker"] = audformat.Scheme("str", labels="people")
    db.schemes["sentence"] = audformat.Scheme(labels={"a01": "Der Lappen liegt auf dem Eisschrank."})
    for part, speakers in PARTS.items():
        clips = [clip for clip in CLIPS if clip.partition("_")[0] in speakers]
        db.splits[part] = audformat.Split(part)
        db[f"emotion.{part}"] = audformat.Table(audformat.filewise_index(list(map(file_of, clips))), split_id=part)
        db[f"emotion.{part}"]["emotion"] = audformat.Column(scheme_id="emotion")
        db[f"emotion.{part}"]["emotion"].set([NAMES[CLIPS[clip]] for clip in clips])
    db["files"] = audformat.Table(audformat.filewise_index(list(map(file_of, CLIPS))))
    db["files"]["speaker"] = audformat.Column(scheme_id="speaker")
    db["files"]["speaker"].set([clip.partition("_")[0] for clip in CLIPS])
    db["files"]["sentence"] = audformat.Column(scheme_id="sentence")
    db["files"]["sentence"].set("a01")
    return db


def load(root: Path, skip: bool = False, name: str = "audformat", **keys: Any) -> Corpus:
    cfg = Config(split=SplitConfig(protocol=Protocol.speaker))
    cfg.corpus = CorpusConfig(name=name, root=str(root), **({"language": "de"} | keys))
    cfg.on_bad_clip = OnBadClip.skip if skip else OnBadClip.stop
    return corpora.load(cfg)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_labels_speakers_sexes_sentences_and_parts_are_read_from_the_tables(form: str, root: Path) -> None:
    database().save(str(root), storage_format=form)
    corpus = load(root)
    assert {clip.id: clip.emotion for clip in corpus.clips} == CLIPS and corpus.labels == ("angry", "happy", "sad")
    clip = corpus.by_id["s5_sad"]
    assert (clip.speaker, clip.sex, clip.sentence, clip.part) == ("s5", "male", "a01", "val")
    assert clip.text == "Der Lappen liegt auf dem Eisschrank." and clip.duration_s == 0.25
    assert clip.path == root / "audio/s5_sad.wav" and not corpus.warnings


def test_the_data_sheet_is_that_of_the_header_also_under_a_name_of_ones_own(root: Path) -> None:
    database().save(str(root), storage_format="csv")
    sheet = corpora.sheet_of("small", root)
    assert (sheet.name, sheet.title, sheet.citation) == ("small", "A small database", "A. Nna")
    assert sheet.licence == "CC-BY-4.0 https://creativecommons.org/licenses/by/4.0/"
    assert sheet.homepage == "https://example.org/small"
    assert load(root, name="small").name == "small"


def test_the_parts_of_the_database_are_a_fixed_split(root: Path) -> None:
    db = database()
    db.save(str(root), storage_format="csv")
    cfg = SplitConfig(protocol=Protocol.fixed, list="corpus", folds=1)
    split = splits.make(load(root), cfg, ["clean"])
    for rows, part in ((split.train, "train"), (split.val, "dev"), (split.test, "test")):
        assert {row.clip_id.partition("_")[0] for row in rows} == set(PARTS[part])
    del db.tables["emotion.test"]
    db.save(str(root), storage_format="csv")
    with pytest.raises(SplitError, match="audformat states no test part; use split=speaker"):
        splits.make(load(root), cfg, ["clean"])


def test_files_without_an_emotion_and_another_language_are_warnings(root: Path) -> None:
    db = database()
    db["emotion.dev"]["emotion"].set([None, "anger", "sadness"])
    db.save(str(root), storage_format="csv")
    corpus = load(root, language="en")
    assert len(corpus.clips) == len(CLIPS) - 1
    assert any("1 files without an emotion" in text for text in corpus.warnings)
    assert any("its header says deu, and corpus.language=en" in text for text in corpus.warnings)


def test_segments_must_be_whole_files(root: Path) -> None:
    db = database()
    files, ends = [file_of("s0_sad"), file_of("s1_sad")], ["0.25s", "0.1s"]
    db["emotion.train"] = audformat.Table(audformat.segmented_index(files, ["0s", "0s"], ends))
    db["emotion.train"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["emotion.train"]["emotion"].set("sadness")
    db.save(str(root), storage_format="csv")
    with pytest.raises(BadClipError, match=r"s1_sad.wav: the segment from 0.00 s to 0.10 s is a part of the file"):
        load(root)
    corpus = load(root, skip=True)
    assert "s0_sad" in corpus.by_id and "s1_sad" not in corpus.by_id and len(corpus.skipped) == 1


def test_tables_and_columns_can_be_chosen_and_contradictions_are_named(root: Path) -> None:
    db = database()
    db["heard"] = audformat.Table(audformat.filewise_index([file_of("s0_sad"), file_of("s1_angry")]))
    db["heard"]["emotion"] = audformat.Column(scheme_id="emotion")
    db["heard"]["emotion"].set("anger")
    db.save(str(root), storage_format="csv")
    with pytest.raises(CorpusError, match=r"s0_sad.wav is sad in one table and angry in heard; choose tables with"):
        load(root)
    assert set(load(root, tables="emotion.train emotion.test").by_id) == {c for c in CLIPS if not c.startswith("s5")}
    with pytest.raises(CorpusError, match=r"the table none has a column emotion.*files: speaker, sentence"):
        load(root, tables="none")
    with pytest.raises(CorpusError, match="no table has a column feeling"):
        load(root, emotion_column="feeling")
    with pytest.raises(CorpusError, match=r"no table has a column actor.*corpus.speaker_column"):
        load(root, tables="emotion.train", speaker_column="actor")


def test_nothing_in_the_folder_is_executed(root: Path, tmp_path: Path) -> None:
    database().save(str(root), storage_format="csv")
    (root / "db.files.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    assert len(load(root).clips) == len(CLIPS)
    (root / "db.files.csv").unlink()
    with pytest.raises(CorpusError, match="the table files is stored only as a pickle, which could execute code"):
        load(root)
    (root / "db.yaml").write_text(f"name: !!python/object/apply:os.system ['touch {tmp_path}/ran']\ntables: {{}}\n")
    with pytest.raises(CorpusError, match="not a header of an audformat database"):
        load(root)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "there is no header"),
        (b"", "names no database or no tables"),
        (b"\xff\xfe\x00", "not a header"),
        (b"name: x\ntables: {a: {type: filewise}}\n", "the table a is stored in no file"),
        (b"name: x\ntables: {'../a': {}}\n", "contains a slash"),
        (b"name: x\ntables: 3\n", "cannot be read"),
    ],
)
def test_a_header_that_cannot_be_used_is_one_line(header: bytes | None, message: str, root: Path) -> None:
    if header is not None:
        (root / "db.yaml").write_bytes(header)
    with pytest.raises(SerBenchError, match=message) as error:
        load(root)
    assert "db.yaml" in str(error.value) and "\n" not in str(error.value)


def test_exported_tables_are_a_database_with_the_same_clips(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lists"
    words = [f"corpus.root={root}/clips.csv", "corpus=table", "split.folds=4", "--out", str(out), "--audformat"]
    assert app.main(["export-split", *words]) == 0, capsys.readouterr()
    for file in (out / "audformat").iterdir():
        (root / file.name).write_bytes(file.read_bytes())
    corpus = load(root, language="en")
    assert {clip.id: clip.emotion for clip in corpus.clips} == CLIPS
    assert {clip.speaker: clip.sex for clip in corpus.clips} == dict(zip(SPEAKERS, ["female", "male"] * 4, strict=True))
    split = splits.make(corpus, SplitConfig(protocol=Protocol.fixed, list="corpus", folds=1), ["clean"])
    assert split.partition == json.loads((out / "split.json").read_text())["partition"]
    assert soundfile.info(str(corpus.clips[0].path)).frames == 2_000
