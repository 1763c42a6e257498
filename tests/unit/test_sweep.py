"""The command line around runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from ser_bench import launcher, tracking
from ser_bench.config import TrackingConfig
from ser_bench.launcher import multirun_first


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["model=cnn"], ["model=cnn"]),
        (["corpus=cremad", "-m", "model=cnn,llm"], ["-m", "corpus=cremad", "model=cnn,llm"]),
        (["model=cnn,llm", "--multirun"], ["--multirun", "model=cnn,llm"]),
    ],
)
def test_the_multirun_flag_may_stand_anywhere(words: list[str], expected: list[str]) -> None:
    assert multirun_first(words) == expected


def test_a_sweep_is_closed_whatever_becomes_of_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / launcher.PARENT_FILE).write_text("the parent")
    child = tmp_path / "0"
    child.mkdir()
    (child / launcher.RESULT_FILE).write_text('{"status": "finished"}')
    closed = []

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(launcher, "_sweep_dir", tmp_path)
    monkeypatch.setattr(launcher, "_tracking", TrackingConfig(experiment="x"))
    monkeypatch.setattr(launcher, "_report", fails)
    monkeypatch.setattr(tracking, "end_parent", lambda _cfg, run_id, status: closed.append((run_id, status)))
    with pytest.raises(ZeroDivisionError):
        launcher._close_sweep(False)
    assert closed == [("the parent", "FINISHED")]


@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def test_sigterm_stops_a_run_as_ctrl_c_does_also_where_ctrl_c_is_ignored(
    ctrl_c: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGINT, ctrl_c)

    def task() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    try:
        assert launcher.main(task) == launcher.EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
