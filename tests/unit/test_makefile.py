"""The Makefile: `make ui` shows the store that is asked for, and a run prints the command that shows its own."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from ser_bench.config import TrackingConfig
from ser_bench.tracking import how_to_browse, mlflow_store

ROOT = Path(__file__).resolve().parents[2]
OTHER_FOLDER = "other runs (é) #' \" & `x`"


def make_ui(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `make ui` with a stand-in for MLflow that prints its arguments, one per line."""
    (folder / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
    program = folder / ".venv" / "bin" / "mlflow"
    program.write_text('#!/bin/sh\nfor word; do echo "$word"; done\n')
    program.chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):  # the last is the newest: no installation
        (folder / name).touch()
    command = ["make", "--silent", "-f", str(ROOT / "Makefile"), "ui", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_make_ui_shows_the_store_and_port_that_are_asked_for(tmp_path: Path) -> None:
    for name in ("mlruns", OTHER_FOLDER):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mlflow.db").touch()
    default = make_ui(tmp_path)
    assert default.returncode == 0, default.stderr
    assert f"sqlite:///{tmp_path}/mlruns/mlflow.db" in default.stdout.splitlines()
    assert "5000" in default.stdout.splitlines()
    for runs in (OTHER_FOLDER, f"{tmp_path}/{OTHER_FOLDER}"):
        lines = make_ui(tmp_path, f"RUNS={runs}", "PORT=5001").stdout.splitlines()
        assert f"sqlite:///{tmp_path}/{OTHER_FOLDER}/mlflow.db" in lines and "5001" in lines


def test_make_ui_makes_no_empty_store(tmp_path: Path) -> None:
    ended = make_ui(tmp_path, "RUNS=elsewhere")
    assert ended.returncode != 0 and "no store in elsewhere" in ended.stdout
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_prints_the_command_that_shows_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_store, "results_page", lambda _: "PAGE")

    def command(**keys: str) -> list[str]:
        return shlex.split(how_to_browse(TrackingConfig(experiment="x", **keys)).removesuffix(", then PAGE"))

    assert command(dir=str(ROOT / "mlruns")) == ["make", "ui"]
    assert command(dir=str(tmp_path / "a b")) == ["make", "ui", f"RUNS={tmp_path}/a b"]
    assert command(uri=f"sqlite:///{tmp_path}/x.db")[-1] == f"sqlite:///{tmp_path}/x.db"
    assert command(uri="http://host:5000") == ["PAGE"]


def test_make_docs_installs_its_extra_only_if_it_is_missing(tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    for name in ("pyproject.toml", "constraints.txt", ".venv/.installed"):
        (tmp_path / name).touch()
    command = ["make", "--silent", "-f", str(ROOT / "Makefile"), "docs"]
    for status, installations in ((1, 1), (0, 0)):  # of the import: the extra is missing, then installed
        program.write_text(f'#!/bin/sh\necho "$*"\ntest "$1" != -c || exit {status}\n')
        program.chmod(0o755)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.count(".[demo,dev,docs]") == installations
        assert done.stdout.splitlines()[-1] == "-m docs.site_builder"
