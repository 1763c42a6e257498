"""`ser-bench listen` on a file: answers while it plays, a summary, and errors of one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import cli, tracking
from ser_bench.cli import listen_command
from ser_bench.config import Config, compose
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording

RATE_HZ = 8000


class AngryPredictor:
    name, labels = "cnn speaker fold 0", ("angry", "sad")

    def warm_up(self) -> None:
        pass

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        return [Answer(recording.name, "angry", {"angry": 0.75, "sad": 0.25}) for recording in recordings]


@pytest.fixture(scope="module")
def cfg() -> Config:
    return compose([])


@pytest.fixture(autouse=True)
def predictor(monkeypatch: pytest.MonkeyPatch, cfg: Config) -> None:
    monkeypatch.setattr(listen_command, "compose", lambda _: cfg)
    monkeypatch.setattr(tracking, "load_run", lambda *_: SimpleNamespace())
    monkeypatch.setattr(AudioPredictor, "from_run", lambda *_: AngryPredictor())
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "no gate")


@pytest.fixture
def talk(tmp_path: Path) -> str:
    soundfile.write(tmp_path / "talk.wav", np.full(3 * RATE_HZ, 0.1), RATE_HZ)
    return str(tmp_path / "talk.wav")


def test_a_file_is_answered_while_it_plays(talk: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["listen", "8b97", "--from-file", talk, "--speed", "20"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "angry" in lines[0] and "75%" in lines[0] and " end " in lines[-1] and "3.00 s" in lines[-1]
    first, gate, last = shown.err.splitlines()
    assert "talk.wav at 20 times its speed" in first and "no speech gate" in gate
    assert last.startswith("ended    3 s of audio") and "1 utterance (angry 1)" in last and "0.0 s dropped" in last


def test_json_has_one_object_per_answer_and_a_limit_ends_it(talk: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["listen", "8b97", "--from-file", talk, "--speed", "20", "--json", "--seconds", "1"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[-1]["final"] and 1.0 <= records[-1]["end_s"] < 3.0
    assert records[0]["label"] == "angry" and records[0]["utterance"] == 0


def test_ctrl_c_ends_with_the_summary(
    talk: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(listen_command.Summary, "add", interrupted)
    assert cli.main(["listen", "8b97", "--from-file", talk, "--speed", "20"]) == 0
    assert "ended    " in capsys.readouterr().err


def microphones(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    module = ModuleType("sounddevice")
    vars(module).update(PortAudioError=RuntimeError, **functions)
    monkeypatch.setitem(sys.modules, "sounddevice", module)


def test_a_microphone_feeds_the_session(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Stream:
        def __init__(self, callback: Any, finished_callback: Any, **settings: Any) -> None:
            assert settings["samplerate"] == 48_000 and settings["channels"] == 1
            self._callback, self._finished = callback, finished_callback

        def start(self) -> None:
            for number in range(40):
                status = SimpleNamespace(input_overflow=number == 3)
                self._callback(np.full((2400, 1), 0.1, np.float32), 2400, None, status)
            self._finished()

        def close(self) -> None:
            pass

    def refused(**_: Any) -> None:
        raise RuntimeError("invalid rate")

    microphones(
        monkeypatch,
        query_devices=lambda *_: {"name": "USB", "default_samplerate": 48_000.0},
        check_input_settings=refused,
        InputStream=Stream,
    )
    assert cli.main(["listen", "8b97"]) == 0
    shown = capsys.readouterr()
    assert "microphone USB" in shown.err and "2 s of audio" in shown.err and "0.1 s dropped" in shown.err


def test_errors_are_one_line(
    tmp_path: Path, talk: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_device(*words: Any) -> Any:
        if words:
            raise ValueError("No input device matching 'x'")
        return [{"name": "HDMI", "max_input_channels": 0}, {"name": "USB", "max_input_channels": 1}]

    microphones(monkeypatch, query_devices=no_device)
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    for words, message in (
        ([], "Missing argument"),
        (["8b97", "e6a6", "--from-file", talk], "one run"),
        (["8b97", "--from-file", talk, "--speed", "0"], "--speed"),
        (["8b97", "--from-file", str(tmp_path / "bad.wav")], "bad.wav: not audio"),
        (["8b97", "--device", "x"], "--device is one of: 1 USB"),
    ):
        assert cli.main(["listen", *words]) == cli.EXIT_FAILED, words
        assert message in capsys.readouterr().err
    samples = np.full(RATE_HZ, 0.1, np.float32)
    samples[-1] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, RATE_HZ, subtype="FLOAT")
    assert cli.main(["listen", "8b97", "--from-file", str(tmp_path / "nan.wav"), "--speed", "20"]) == cli.EXIT_FAILED
    assert "not numbers" in capsys.readouterr().err
