"""`ser-bench predict`: lists, standard input, files that are continued, timelines, and what the exit status says."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import cli, tracking
from ser_bench.cli import predict_command, recording_list, result_file, timeline_output
from ser_bench.cli.predict_command import csv_row, table_of
from ser_bench.cli.recording_list import ListedRecording, recordings_of
from ser_bench.cli.result_file import ResultFile
from ser_bench.config import Config, OnBadClip, compose
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.input_checks import Flag
from ser_bench.inference.recording import Recording

RUN_ID = "8b97" * 8
RATE_HZ = 8000


class LoudnessPredictor:
    """Stands for a trained predictor: loud recordings are angry."""

    run_id, labels, max_duration_s = RUN_ID, ("angry", "sad"), 5.0

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        self.batches.append([recording.name for recording in recordings])
        return [self._answer(recording) for recording in recordings]

    def _answer(self, recording: Recording) -> Answer:
        loud = min(1.0, float(np.abs(recording.samples).mean()))
        probabilities = {"angry": loud, "sad": 1 - loud}
        label = max(probabilities, key=lambda name: probabilities[name])
        return Answer(recording.name, label, probabilities, seconds={"total": 0.01}, duration_s=recording.duration_s)


@pytest.fixture(scope="module")
def cfg() -> Config:
    return compose([])


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch, cfg: Config) -> LoudnessPredictor:
    made = LoudnessPredictor()
    # Composing a configuration takes longer than all else here.
    bad = {"on_bad_clip=skip": OnBadClip.skip}
    monkeypatch.setattr(
        predict_command,
        "compose",
        lambda words: replace(cfg, on_bad_clip=next(map(bad.__getitem__, words), OnBadClip.stop)),
    )
    monkeypatch.setattr(tracking, "load_run", lambda *_: SimpleNamespace())
    monkeypatch.setattr(AudioPredictor, "from_run", lambda *_, **__: made)
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "no gate")
    return made


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for number in range(4):
        soundfile.write(folder / f"{number}.wav", np.full(RATE_HZ, 0.2 * number + 0.1), RATE_HZ)
    (folder / "bad.wav").write_bytes(b"no audio")
    return folder


def stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_listed_recording_keeps_what_was_measured_of_its_file(tmp_path: Path) -> None:
    wave = np.random.default_rng(0).normal(0.0, 0.1, RATE_HZ)
    soundfile.write(tmp_path / "both.wav", np.stack([wave, -wave], axis=1), RATE_HZ)
    read = recording_list.ListedRecording("as given", tmp_path / "both.wav").read(60.0)
    assert read.name == "as given" and read.cancelled


@pytest.mark.usefixtures("predictor")
def test_a_bad_file_is_a_row_and_the_status_says_so(clips: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "8b97", str(clips), "--format", "csv"]) == cli.EXIT_FAILED
    shown = capsys.readouterr()
    rows = list(csv.DictReader(shown.out.splitlines()))
    assert [row["label"] for row in rows] == ["sad", "sad", "angry", "angry", ""]
    assert rows[0]["angry"] == "0.1" and rows[0]["seconds"] == "0.01" and rows[0]["run_id"] == RUN_ID
    assert rows[4]["status"] == "failed" and "bad.wav: not audio" in rows[4]["reason"]
    assert "1 of 5 recordings have no answer" in shown.err and shown.err.count("\n") == 1
    assert cli.main(["predict", "8b97", str(clips), "--format", "csv", "on_bad_clip=skip"]) == 0
    assert cli.main(["predict", "8b97", str(clips / "bad.wav"), "on_bad_clip=skip"]) == cli.EXIT_FAILED
    assert "(failed)" in capsys.readouterr().out


def test_batches_bound_the_memory(
    predictor: LoudnessPredictor, clips: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict_command, "BATCH", 2)
    (clips / "bad.wav").unlink()
    assert cli.main(["predict", "8b97", str(clips), "--format", "jsonl"]) == 0
    assert [len(batch) for batch in predictor.batches] == [2, 2]
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(record["name"]).stem for record in records] == ["0", "1", "2", "3"]
    assert records[3]["probabilities"] == {"angry": 0.7, "sad": 0.3} and records[3]["run_id"] == RUN_ID
    monkeypatch.setattr(predict_command, "BATCH_S", 0.5)
    predictor.batches.clear()
    cli.main(["predict", "8b97", str(clips), "--json"])
    assert [len(batch) for batch in predictor.batches] == [1, 1, 1, 1]


def test_results_are_appended_and_continued(
    predictor: LoudnessPredictor, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("results.csv", "results.jsonl"):
        out = tmp_path / "new" / name
        words = ["predict", "8b97", "--out", str(out), "on_bad_clip=skip"]
        assert cli.main([*words, str(clips / "0.wav"), str(clips / "1.wav")]) == 0
        complete = out.read_bytes()
        with out.open("ab") as file:
            file.write(complete.splitlines()[-1].replace(b"1.wav", b"2.wav")[:-9])  # the command was stopped
        predictor.batches.clear()
        capsys.readouterr()
        assert cli.main([*words, str(clips)]) == 0
        assert [[Path(name).stem for name in batch] for batch in predictor.batches] == [["2", "3"]]
        said = capsys.readouterr().err
        assert f"present  2 of 5 recordings are in {out}\n" in said and f"written  3 rows to {out}\n" in said
        assert out.read_bytes().startswith(complete) and out.read_bytes().count(b"\n") == 5 + name.endswith("csv")
        assert cli.main([*words, str(clips)]) == 0
        assert "1 of them failed, remove their lines to try again\n" in capsys.readouterr().err
    names = [Path(row["file"]).stem for row in rows_of(tmp_path / "new" / "results.csv")]
    assert names == ["0", "1", "2", "3", "bad"]


def test_a_file_of_another_run_or_with_other_columns_is_not_continued(tmp_path: Path) -> None:
    columns = ["file", "status", "run_id"]
    path = tmp_path / "a.csv"
    with ResultFile(path, columns, "aa") as file:
        file.append({"file": 'b"\n.wav', "status": "answered", "run_id": "aa"})
        with pytest.raises(ConfigError, match="another process"), ResultFile(path, columns, "aa"):
            pass
    with ResultFile(path, columns, "aa") as file:
        assert file.done == {'b"\n.wav'}
    content = path.read_bytes()
    path.write_bytes(content + b'"half\n of a name')
    with ResultFile(path, columns, "aa") as file:
        assert file.done == {'b"\n.wav'} and path.read_bytes() == content
    for other, words, message in (
        ("bb", columns, "answers of run aa, not of bb"),
        ("aa", ["file", "status", "x", "run_id"], "other columns"),
    ):
        with pytest.raises(ConfigError, match=message), ResultFile(path, words, other):
            pass
    (tmp_path / "a.jsonl").write_text('{"name": "b.wav"}\n')
    with pytest.raises(ConfigError, match="not a file of answers"), ResultFile(tmp_path / "a.jsonl", columns, "aa"):
        pass
    with pytest.raises(ConfigError, match=r"\.csv or \.jsonl"):
        result_file.format_of(tmp_path / "a.xlsx")


def test_lists_keep_their_columns(
    clips: Path, predictor: LoudnessPredictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = clips / "table.csv"
    table.write_text('id,path,angry\n1,0.wav,yes\n2,"missing, too.wav",no\n')
    assert cli.main(["predict", "8b97", "--list", str(table), "--format", "csv"]) == cli.EXIT_FAILED
    first, second = csv.DictReader(capsys.readouterr().out.splitlines())
    assert (first["file"], first["id"], first["given_angry"], first["angry"]) == ("0.wav", "1", "yes", "0.1")
    assert second["file"] == "missing, too.wav" and second["id"] == "2" and "cannot be read" in second["reason"]
    stdin(monkeypatch, f"{clips}/1.wav\n{clips}/2.wav\n".encode())
    assert cli.main(["predict", "8b97", "--list", "-", "--json"]) == 0
    assert [Path(record["name"]).stem for record in json.loads(capsys.readouterr().out)] == ["1", "2"]
    assert predictor.batches[-1] == [f"{clips}/1.wav", f"{clips}/2.wav"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "names no recording"), ("path,path\na,b\n", "column twice"), ("path,id\na.wav\n", "line 2: has not 2 cells")],
)
def test_lists_that_cannot_be_read(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(ConfigError, match=message):
        recordings_of([], [str(tmp_path / "list.csv")])
    with pytest.raises(ConfigError, match=r"--list .*missing\.csv: cannot be read"):
        recordings_of([], [str(tmp_path / "missing.csv")])


def test_lists_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    for place in ("a.wav", "folder/a.wav", "b.wav"):
        (tmp_path / place).write_bytes(b"")
    (tmp_path / "folder" / "list.txt").write_text("a.wav\nb.wav\n\na.wav\n")
    monkeypatch.chdir(tmp_path)
    found = recordings_of([], ["folder/list.txt"])
    assert [recording.path for recording in found] == [Path("folder/a.wav"), Path("b.wav")]
    stdin(monkeypatch, b"a.wav\0b\n.wav\0")
    assert [recording.name for recording in recordings_of([], ["-"])] == ["a.wav", "b\n.wav"]
    with pytest.raises(ConfigError, match="either audio"):
        recordings_of(["-"], ["-"])


def test_audio_on_standard_input(
    clips: Path, predictor: LoudnessPredictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, (clips / "3.wav").read_bytes())
    assert cli.main(["predict", "8b97", "-", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["name"] == "standard input" and record["label"] == "angry"
    stdin(monkeypatch, b"no audio")
    assert cli.main(["predict", "8b97", "-"]) == cli.EXIT_FAILED
    assert "standard input: not audio" in capsys.readouterr().err
    with pytest.raises(BadClipError, match="more than 3 bytes"):
        stdin(monkeypatch, b"12345")
        recording_list.stdin_bytes(3)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(ConfigError, match="terminal"):
        recordings_of(["-"])[0].read(5.0)


@pytest.mark.usefixtures("predictor")
def test_tables_have_a_note_where_an_answer_is_unsure_or_absent() -> None:
    sure = Answer("a.wav", "sad", {"angry": 0.123, "sad": 0.877}, seconds={"total": 0.5})
    assert table_of([sure], ("angry", "sad")) == (
        ["file", "label", "angry", "sad", "seconds"],
        [["a.wav", "sad", 0.123, 0.877, 0.5]],
    )
    unsure = Answer("b.wav", "sad", {"angry": 0.1, "sad": 0.9}, flags=(Flag("short", ""),), seconds={"total": 0.5})
    failed = Answer("c.wav", status="failed", reason="c.wav: no audio")
    columns, rows = table_of([unsure, failed], ("angry", "sad"))
    assert columns[-1] == "note" and rows[0][-1] == "short" and rows[0][2] == "0.100"
    assert rows[1] == ["c.wav", "(failed)", "", "", "", "c.wav: no audio"]
    listed = ListedRecording("b.wav", None, {"speaker": "anna"})
    columns = predict_command.columns_of(("angry", "sad"), ["speaker"])
    assert list(csv_row(listed, unsure, "aa", columns)) == columns and columns[1] == "speaker"
    assert csv_row(listed, unsure, "aa", columns)["flags"] == "short"


# ---- timelines


@pytest.fixture
def meeting(tmp_path: Path) -> Path:
    """Twelve seconds, the last six of them loud; longer than an utterance of the predictor may be."""
    path = tmp_path / "meeting.flac"
    soundfile.write(path, np.concatenate([np.full(6 * RATE_HZ, 0.1), np.full(6 * RATE_HZ, 0.8)]), RATE_HZ)
    return path


@pytest.mark.usefixtures("predictor")
def test_a_timeline_in_every_format(meeting: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "8b97", str(meeting), "--window", "3", "--hop", "1.5"]
    expected = ["sad"] * 4 + ["angry"] * 3
    assert cli.main([*words, "--plot", str(tmp_path / "meeting.png")]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["start", "end", "speech", "label", "angry", "sad", "note"]
    assert lines[0].split() == ["0.00", "3.00", "?", "sad", "0.100", "0.900"] and len(lines) == 7
    assert len({len(line) for line in lines}) == 1
    assert (tmp_path / "meeting.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main([*words, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["label"] for row in rows] == expected and rows[-1]["end_s"] == "12.0"
    assert cli.main([*words, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["label"] for record in records] == expected and records[0]["speech"] is None
    assert cli.main([*words, "--format", "jsonl"]) == 0
    assert [json.loads(line)["start_s"] for line in capsys.readouterr().out.splitlines()][:2] == [0, 1.5]
    out = tmp_path / "labels.txt"
    assert cli.main([*words, "--out", str(out)]) == 0
    assert out.read_text() == "0.000000\t6.750000\tsad 81 %\n6.750000\t12.000000\tangry 80 %\n"
    assert not capsys.readouterr().out


def test_a_timeline_of_standard_input(
    meeting: Path, predictor: LoudnessPredictor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin(monkeypatch, meeting.read_bytes())
    assert cli.main(["predict", "8b97", "-", "--window", "4", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["start_s"] for record in records] == pytest.approx([0, 4 / 3, 8 / 3, 4, 16 / 3, 20 / 3, 8], abs=1e-3)
    assert predictor.batches[0][0] == "standard input 0.00-4.00 s"


@pytest.mark.usefixtures("predictor")
def test_a_fault_in_the_recording_ends_a_timeline_that_is_written_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = np.full(30 * RATE_HZ, 0.1, np.float32)
    samples[25 * RATE_HZ] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE_HZ, subtype="FLOAT")
    assert cli.main(["predict", "8b97", str(tmp_path / "nan.wav"), "--window", "4", "--hop", "4", "--json"]) == 2
    shown = capsys.readouterr()
    assert "not numbers (NaN or infinite) after 20 s" in shown.err
    assert json.loads(shown.out) == [] or json.loads(shown.out)[-1]["end_s"] <= 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.wav", "b.wav", "--window", "3"], "one recording"),
        ([".", "--window", "3"], "one recording"),
        (["a.wav", "--window", "3", "--list", "x"], "one recording"),
        (["a.wav", "--window", "0.1"], "--window 0.1"),
        (["a.wav", "--window", "2", "--hop", "3"], "--hop 3"),
        (["a.wav", "--window", "3", "--format", "xml"], "--format xml"),
        (["a.wav", "--format", "audacity"], "without --window"),
        (["a.wav", "--hop", "1"], "give --window"),
        (["a.wav", "--plot", "x.png"], "give --window"),
        (["a.wav", "--out", "x.csv", "--format", "jsonl"], "its name says csv"),
        (["a.wav", "--out", "x.txt", "--format", "csv"], r"x.txt: the name ends with"),
        (["a.wav", "--json", "--format", "csv"], "contradict"),
        ([], "no audio is named"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_the_model_is_loaded(
    words: list[str],
    message: str,
    cfg: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(predict_command, "compose", lambda _: cfg)
    monkeypatch.setattr(tracking, "load_run", lambda *_: pytest.fail("the run was loaded"))
    assert cli.main(["predict", "8b97", *words]) == cli.EXIT_FAILED
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("predictor")
def test_a_window_is_no_longer_than_an_utterance(meeting: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "8b97", str(meeting), "--window", "6"]) == cli.EXIT_FAILED
    assert "a window has 0.5 to 5 seconds" in capsys.readouterr().err


def test_a_chart_averages_windows_and_leaves_out_what_is_no_speech() -> None:
    chart = timeline_output.TimelineChart(("a", "b"), 7200.0)
    answers: list[Any] = [Answer("", "a", {"a": 1.0, "b": 0.0}), Answer("", "b", {"a": 0.0, "b": 1.0}), None]
    for start_s, answer in zip((0.0, 1200.0, 4800.0), answers, strict=True):
        chart.add(timeline_output.TimelineEntry(start_s, start_s + 2400, answer is not None, 1.0, answer))
    means = chart._sums / np.maximum(chart._counts, 1)[:, None]
    assert means[[0, 500, 1000, 2000]].tolist() == [[1, 0], [0.5, 0.5], [0, 1], [0, 0]]
    assert "3 windows" in chart.figure("a.wav").axes[0].get_title()
