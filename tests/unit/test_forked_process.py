"""Processes of whole-run tests have their libraries loaded, and their own output, status and signals."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import store_template
from tests.support.forked_process import LIBRARIES, ForkedProcess

PROGRAM = f"""
import atexit, os, sys
atexit.register(print, "at exit")
print(sys.argv[1:], os.getcwd(), os.environ["WORD"], "HOME" in os.environ, {LIBRARIES!r} in sys.modules)
print("to error", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


def test_words_folder_variables_output_and_status_are_those_of_a_process(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [str(tmp_path / "program.py"), "3", "b=c"]
    process = ForkedProcess(program, tmp_path, tmp_path / "out", tmp_path / "err", {"WORD": "kept"})
    output, error = process.communicate(timeout=300)
    assert output == f"['3', 'b=c'] {tmp_path} kept False True\nat exit\n"
    assert error == "to error\n" and process.returncode == 3


def test_an_interrupt_and_a_kill_end_it_and_a_limit_of_time_too(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import time\nprint('here')\ntime.sleep(600)\n")

    def started(name: str) -> ForkedProcess:
        process = ForkedProcess([str(tmp_path / "program.py")], tmp_path, tmp_path / name)
        while "here" not in process.said():
            assert process.poll() is None, process.said()
            time.sleep(0.01)
        return process

    interrupted, killed, slow = started("a"), started("b"), started("c")
    interrupted.send_signal(signal.SIGINT)
    killed.kill()
    assert "KeyboardInterrupt" in interrupted.communicate(timeout=60)[0] and interrupted.returncode == 1
    assert killed.communicate(timeout=60)[0] == "here\n" and killed.returncode == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        slow.communicate(timeout=0.1)


def test_a_new_store_is_a_copy_of_the_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    templates = tmp_path / "templates"
    templates.mkdir()
    monkeypatch.setenv(store_template.FOLDER_VARIABLE, str(templates))
    MlflowClient(f"sqlite:///{tmp_path}/first.db").create_experiment("x")
    with sqlite3.connect(templates / "mlflow.db") as template:
        template.execute("CREATE TABLE of_the_template (x)")
    second = MlflowClient(f"sqlite:///{tmp_path}/second.db")
    assert [experiment.name for experiment in second.search_experiments()] == ["Default"]
    with sqlite3.connect(tmp_path / "second.db") as copied:
        assert copied.execute("SELECT name FROM sqlite_master WHERE name = 'of_the_template'").fetchall()
