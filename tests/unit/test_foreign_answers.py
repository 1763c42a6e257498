"""Files of predictions: what is read from each format, and one clear line for each file that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_bench.errors import ConfigError
from ser_bench.predictors.imported.foreign_answers import ColumnChoice, ForeignAnswers, answers_of
from ser_bench.predictors.imported.prediction_table import read_prediction_table
from ser_bench.types import Row

LABELS = ("angry", "happy", "sad")
RECORDS = [
    {"clip_id": "a", "angry": 0.7, "happy": 0.2, "sad": 0.1, "latency_s": 0.5},
    {"clip_id": "b", "angry": 0.1, "happy": 0.1, "sad": 0.8, "latency_s": 0.25},
]


def read(path: Path, chosen: ColumnChoice | None = None, allow_missing: bool = False) -> ForeignAnswers:
    return answers_of(read_prediction_table(path), LABELS, chosen or ColumnChoice(), allow_missing)


def of_text(folder: Path, text: str, name: str = "p.csv", **options: bool) -> ForeignAnswers:
    (folder / name).write_bytes(text.encode())
    return read(folder / name, **options)  # type: ignore[arg-type]


def write(folder: Path, form: str) -> Path:
    path, frame = folder / f"p.{form}", pd.DataFrame(RECORDS)
    if form == "parquet":
        frame.to_parquet(path)
    elif form == "json":
        path.write_text(json.dumps(RECORDS))
    elif form == "jsonl":
        path.write_text("\n".join(map(json.dumps, RECORDS)) + "\n\n")
    else:
        frame.to_csv(path, index=False, sep="\t" if form == "tsv" else ",")
    return path


@pytest.mark.parametrize("form", ["csv", "tsv", "parquet", "json", "jsonl"])
def test_every_format_says_the_same(form: str, tmp_path: Path) -> None:
    answers = read(write(tmp_path, form))
    assert (answers.names, answers.source, answers.truth) == (("a", "b"), "softmax", ())
    np.testing.assert_allclose(answers.probabilities, [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], rtol=1e-6)
    assert answers.latency_s.tolist() == [0.5, 0.25] and answers.cost_usd.tolist() == [0, 0]
    assert not answers.abstained.any()


def test_labels_become_those_of_the_corpus_and_are_one_hot(tmp_path: Path) -> None:
    answers = of_text(tmp_path, "file;prediction;truth\r\nx/a.wav;Anger;sadness\r\nx\\b.WAV;joy;\r\n")
    assert (answers.source, answers.truth) == ("one_hot", ("sad", ""))
    assert answers.probabilities.tolist() == [[1, 0, 0], [0, 1, 0]]
    assert answers.of_clips(["a", "b"]) == ({Row("a"): 0, Row("b"): 1}, [])


def test_a_byte_order_mark_prefixes_and_spaces_around_ids(tmp_path: Path) -> None:
    answers = of_text(tmp_path, "\ufeffclip_id,p_Anger,prob_happy,probability_sad\n a , .2,.3,.5\n")
    assert answers.names == ("a",)
    np.testing.assert_allclose(answers.probabilities, [[0.2, 0.3, 0.5]])


def test_what_predict_prints_as_json_can_be_imported(tmp_path: Path) -> None:
    record = {"name": "a.wav", "label": "sad", "probabilities": {"angry": 0.1, "happy": 0.1, "sad": 0.8}}
    answers = of_text(tmp_path, json.dumps([record]), "p.json")
    assert answers.of_clips(["a"]) == ({Row("a"): 0}, [])
    np.testing.assert_allclose(answers.probabilities, [[0.1, 0.1, 0.8]], rtol=1e-6)


def test_names_that_no_clip_has_are_returned_and_the_corpus_may_be_left_out(tmp_path: Path) -> None:
    answers = of_text(tmp_path, "id,label\n03a,sad\nother,sad\n")
    assert answers.of_clips(["emodb:03a", "ravdess:1"]) == ({Row("emodb:03a"): 0}, [1])


def test_rounded_probabilities_are_normalised_and_a_tie_goes_to_the_label(tmp_path: Path) -> None:
    answers = of_text(tmp_path, "id,label,angry,happy,sad\na,happy,.4,.4,.2\nb,sad,.333,.333,.3335\n")
    assert answers.probabilities.argmax(axis=1).tolist() == [1, 2]
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, atol=1e-6)


def test_empty_answers_are_abstentions_if_they_are_allowed(tmp_path: Path) -> None:
    text = "id,label\na,\nb,NaN\nc,sad\n"
    answers = of_text(tmp_path, text, allow_missing=True)
    assert answers.abstained.tolist() == [True, True, False]
    np.testing.assert_allclose(answers.probabilities[0], 1 / 3)
    with pytest.raises(ConfigError, match=r"p.csv line 2: no answer .*--allow-missing"):
        of_text(tmp_path, text)


BAD = {
    "empty": ("", "is empty"),
    "blank": (" \n\n", "is empty"),
    "header only": ("id,label\n", "holds no predictions"),
    "binary": ("id,label\na,\x00\x01\n", "line 2: label is"),
    "wrong delimiter": ("id|label\na|sad\n", "no column clip_id"),
    "a column twice": ("id,label,label\na,sad,sad\n", "column label occurs more than once"),
    "cells too many": ("id,label\na,sad,1\n", "line 2: 3 cells, but the header has 2"),
    "no label": ("id,x\na,sad\n", "no column predicted, prediction or label"),
    "no clip": ("label\nsad\n", "names the clip"),
    "no id": ("id,label\n,sad\n", "line 2: the column id names no clip"),
    "unknown label": ("id,label\na,bored\n", "line 2: label is 'bored', which is no label of this corpus: angry"),
    "sum": ("id,angry,happy,sad\na,.5,.2,.2\n", "line 2: the probabilities sum to 0.9000"),
    "negative": ("id,angry,happy,sad\na,1.2,-.2,0\n", "line 2: angry is 1.2"),
    "below zero": ("id,angry,happy,sad\na,.7,-.2,.5\n", "happy is '-.2'"),
    "not a number": ("id,angry,happy,sad\na,nan,.5,.5\n", "the probability angry is missing"),
    "infinite": ("id,angry,happy,sad\na,inf,.5,.5\n", "angry is 'inf'"),
    "comma": ("id;angry;happy;sad\na;0,5;0,5;0\n", "angry is '0,5'; it must be a number.* with a point"),
    "label missing": ("id,angry,happy\na,.5,.5\n", "no probability of sad, but of angry, happy"),
    "label too many": ("id,p_angry,p_happy,p_sad,p_bored\na,.4,.3,.2,.1\n", "column p_bored is the probability of no"),
    "label twice": ("id,angry,p_anger,happy,sad\na,.4,.3,.2,.1\n", "columns angry and p_anger are both of the"),
    "truth as label": ("id,label,angry,happy,sad\na,sad,.6,.3,.1\n", "column label says sad, but angry has the"),
    "endless": ("id,label,cost_usd\na,sad,1e300\n", "cost_usd is '1e300'"),
    "latency": ("id,label,latency_s\na,sad,-1\n", "latency_s is '-1'"),
    "variant": ("id,label,variant\na,sad,loud\n", "the variant is 'loud'"),
    "open quote": ('id,label\n"a,sad\nb,sad\n', "line 2: not a line of a CSV table"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_file_that_cannot_be_used_ends_in_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    with pytest.raises(ConfigError, match=message) as error:
        of_text(tmp_path, text)
    assert "p.csv" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400


BAD_FILES = {
    "p.csv": (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a CSV file in UTF-8"),
    "p.parquet": (b"id,label\na,sad\n", "not a Parquet file"),
    "p.json": (b'[{"id": "a", "label": "sad"', "not JSON"),
    "q.json": (b'{"id": "a", "id": "b"}', "column id occurs more than once"),
    "p.jsonl": (b'{"id": "a", "label": "sad"}\n3\n', "line 2: not an object"),
    "q.jsonl": (b"[" * 100_000, "not JSON"),
    "r.jsonl": (b"\xff\xfe", "not a JSON file in UTF-8"),
    "t.json": (b'[{"id": "a", "label": "sad", "cost_usd": ' + b"9" * 400 + b"}]", "cost_usd is '999"),
    "s.json": (b'[{"id": "a", "probabilities": [1, 0, 0]}]', "probabilities is not an object"),
    "p.xlsx": (b"PK", "ending .xlsx is not known"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_damaged_files_and_other_formats(name: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        read(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


def test_missing_files_folders_columns_and_repeated_clips(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        read(tmp_path / "folder.csv")
    (tmp_path / "p.csv").write_text("id,label\na,sad\na.wav,sad\n")
    with pytest.raises(ConfigError, match=r"no column name .*--id-column.*it has id, label"):
        read(tmp_path / "p.csv", ColumnChoice(clip="name"))
    with pytest.raises(ConfigError, match="line 2 and line 3: both are about the clip a"):
        read(tmp_path / "p.csv").of_clips(["a"])
