"""Runs and sweeps as `run.py` starts them: words, children of a sweep, signals, exit statuses."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ser_bench import launcher, tracking
from ser_bench.config import ModelConfig, TrackingConfig
from ser_bench.launcher import multirun_first
from ser_bench.tracking import sweep_run

ROOT = Path(__file__).resolve().parents[2]


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


def make_child(folder: Path, number: int | None, result: str | None) -> Path:
    """A child's folder as Hydra and the launcher leave it."""
    if number is not None:
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "hydra.yaml").write_text(f"hydra: {{job: {{num: {number}}}}}")
    folder.mkdir(parents=True, exist_ok=True)
    if result is not None:
        (folder / launcher.RESULT_FILE).write_text(result)
    return folder


@pytest.mark.parametrize(
    "names",
    [("0", "1", "10"), ("model=cnn", "model=llm", "model=a"), ("z/model=cnn", "dir=/x/model=b", "a")],
    ids=["numbers", "override_dirname", "nested"],
)
def test_children_are_found_in_any_subdir_in_the_order_of_their_job_numbers(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    numbers = (2, 0, 10)
    for number, name in zip(numbers, names, strict=True):
        make_child(tmp_path / name, number, '{"status": "finished"}')
    (tmp_path / "not a child").mkdir()
    expected = [tmp_path / names[i] for i in (1, 0, 2)]
    assert launcher.children_of(tmp_path) == expected


def test_a_child_without_a_result_has_failed_and_one_without_hydras_files_is_listed_last(tmp_path: Path) -> None:
    died = make_child(tmp_path / "a,model=cnn", 3, None)
    bare = make_child(tmp_path / "0", None, '{"status": "finished"}')
    assert launcher.children_of(tmp_path) == [died, bare]
    result = launcher._read_result(died)
    assert result["status"] == "failed" and str(died) in result["error"]


@pytest.mark.parametrize("damaged", ["", '{"status": "fin', "null", "[]", "{}"])
def test_a_child_whose_result_is_damaged_has_failed(tmp_path: Path, damaged: str) -> None:
    result = launcher._read_result(make_child(tmp_path / "0", 0, damaged))
    assert result["status"] == "failed" and "ended without a result" in result["error"]


@pytest.mark.parametrize(
    ("results", "status"),
    [
        (['{"status": "finished"}', '{"status": "finished"}'], "FINISHED"),
        (['{"status": "finished"}', '{"status": "failed", "overrides": ["a=1"], "error": "no"}'], "FAILED"),
        (['{"status": "finished"}', None], "FAILED"),
        ([], "FAILED"),
    ],
)
def test_the_status_of_a_sweep_is_that_of_its_children(
    results: list[str | None], status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / launcher.PARENT_FILE).write_text("the parent")
    for i, result in enumerate(results):
        make_child(tmp_path / f"model=m{i},seed=0", i, result)
    closed = []
    monkeypatch.setattr(launcher, "_sweep_dir", tmp_path)
    monkeypatch.setattr(launcher, "_tracking", TrackingConfig(experiment="x"))
    monkeypatch.setattr(launcher, "_report", lambda *_: None)
    monkeypatch.setattr(tracking, "end_parent", lambda _cfg, run_id, given: closed.append((run_id, given)))
    assert launcher._close_sweep(False) is (status == "FAILED")
    assert closed == [("the parent", status)]


def test_a_sweep_is_closed_whatever_becomes_of_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / launcher.PARENT_FILE).write_text("the parent")
    make_child(tmp_path / "0", 0, '{"status": "finished"}')
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


def test_a_run_goes_on_when_the_reader_of_its_output_has_gone(tmp_path: Path) -> None:
    code = (
        "import sys, logging; from ser_bench import launcher\n"
        "def task():\n"
        "    logging.basicConfig(stream=sys.stdout)\n"
        "    for i in range(3): print(i, flush=True); logging.warning(i)\n"
        f"    open({str(tmp_path / 'done')!r}, 'w')\n"
        "sys.argv = ['run.py']; sys.exit(launcher.main(task))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, check=False
    )
    os.close(writing)
    assert (ended.stderr, ended.returncode) == ("", 0) and (tmp_path / "done").exists()


def test_help_ends_quietly_when_the_reader_has_gone() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "run.py", "--help"]
    ended = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, cwd=ROOT, check=False
    )
    os.close(writing)
    assert (ended.stderr, ended.returncode) == ("", 0)


def log_formats() -> list[str]:
    """The text of every call of `log.info`, `log.warning`, `log.error` and `log.exception` in the package."""
    formats = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name("log"), attr="info" | "warning" | "error" | "exception"),
                    args=[ast.Constant(value=str(text)), *_],
                ):
                    formats.append(text)
    return formats


def test_every_line_of_a_run_begins_with_a_word_in_a_column_of_its_own() -> None:
    """A line is read by its first word ("error    …"); a line that a function returns ("%s") is not checked here."""
    formats = [text for text in log_formats() if not text.startswith(("%s", "epoch %d/"))]
    assert len(formats) > 15
    assert not [text for text in formats if not re.match(r"[a-z ]{8} \S", text)]


@pytest.mark.slow
def test_the_same_command_goes_on_with_a_sweep_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = TrackingConfig(dir=str(tmp_path / "mlruns"), experiment="x")
    hydra = {"overrides": {"task": ["model=cnn,llm"]}, "launcher": {}, "sweep": {"dir": str(tmp_path / "sweep")}}
    config = OmegaConf.create({"corpus": {"name": "demo"}, "hydra": hydra})
    config.tracking, config.model = OmegaConf.structured(settings), OmegaConf.structured(ModelConfig)
    monkeypatch.setattr(launcher, "check_composed", lambda _: None)
    for name in ("_sweep_dir", "_tracking"):
        monkeypatch.setattr(launcher, name, None)
    parents = []
    for _ in range(2):
        launcher.SweepCallback().on_multirun_start(config)
        parents.append((tmp_path / "sweep" / launcher.PARENT_FILE).read_text())
        sweep_run._open.pop(parents[-1])[1].release()  # what the system does when the process is killed
    assert parents[0] == parents[1] and tracking.load_run(settings, parents[0]).status == "RUNNING"
    assert f"{parents[0]} was killed and goes on" in capsys.readouterr().err
