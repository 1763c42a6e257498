"""Full disks, read-only folders and missing permissions: one line at every place that writes."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from ser_bench import file_access, launcher, tracking
from ser_bench.cli import app, compare_command
from ser_bench.config import TrackingConfig
from ser_bench.errors import FileAccessError
from ser_bench.file_access import access_errors
from ser_bench.tracking import run_writer
from ser_bench.tracking.epoch_metrics import EpochMetricLog

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
READ_ONLY = OSError(errno.EROFS, os.strerror(errno.EROFS), "/data/report.html")


def raising(error: Exception) -> Any:
    def fails(*_: object, **__: object) -> None:
        raise error

    return fails


@pytest.mark.parametrize(("error", "message"), [
    (NO_SPACE, "^/x/y: No space left on device; free some space"),
    (READ_ONLY, "^/x/y: Read-only file system; change its permissions"),
    (PermissionError(errno.EACCES, "Permission denied", "/z"), "^/x/y: Permission denied; change its permissions"),
    (RuntimeError("I/O error: No space left on device (os error 28)"), "^/x/y: No space left on device; free some"),
])  # fmt: skip
def test_what_a_user_can_correct_is_told_in_one_line(error: Exception, message: str) -> None:
    with pytest.raises(FileAccessError, match=message), access_errors(Path("/x/y")):
        raise error


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file", "/z"), ValueError("a bug")])
def test_other_errors_keep_their_traceback(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(type(error)), access_errors(tmp_path):
        raise error


def test_the_full_disks_are_named_where_the_error_does_not_name_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_access.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(FileAccessError, match=str(Path.cwd())), access_errors():
        raise NO_SPACE
    with pytest.raises(FileAccessError, match=r"/data/report.html"), access_errors():
        raise READ_ONLY


def test_a_real_full_device(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="/dev/full: No space left"), access_errors(Path("/dev/full")):
        Path("/dev/full").write_text("text")


def test_artifacts_and_journal_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = TrackingConfig(dir=str(tmp_path))
    with pytest.raises(FileAccessError, match=r"table.parquet: No space"):
        run_writer.log_written_file(cfg, "run", "table.parquet", raising(NO_SPACE))
    with pytest.raises(FileAccessError, match="No space"):
        run_writer.log_written_folder(cfg, "run", "predictor", raising(NO_SPACE))
    journal = EpochMetricLog(cfg, "run", tmp_path / "epochs.jsonl")
    (tmp_path / "epochs.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileAccessError, match=r"epochs.jsonl: No space"):
        journal(1, {"train/loss": 1.0})


@pytest.mark.parametrize("error", [NO_SPACE, READ_ONLY])
def test_commands_end_in_one_line_and_status_2(
    error: OSError, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_command, "run", raising(error))
    assert app.main(["compare"]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error    ") and text.count("\n") == 1 and os.strerror(error.errno or 0) in text


def test_hydras_own_files_on_a_full_disk_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["run.py"])
    monkeypatch.setattr(launcher, "_statuses", [])
    assert launcher.main(raising(NO_SPACE)) == 2
    text = capsys.readouterr().err
    assert text.startswith("error    ") and "No space left" in text and text.count("\n") == 1


def single_run(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the launcher see a single run with this output folder, which composes to nothing."""
    settings = {"mode": RunMode.RUN, "runtime": {"output_dir": str(folder)}, "overrides": {"task": ["model=cnn"]}}
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create(settings))
    monkeypatch.setattr(launcher, "_statuses", [])
    for name in ("check_composed", "to_config", "register_secrets", "_share_cores", "redact_files"):
        monkeypatch.setattr(launcher, name, lambda *_: None)
    monkeypatch.setattr(launcher, "only_own_services", lambda _: __import__("contextlib").nullcontext())


def test_a_run_on_a_full_disk_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    single_run(monkeypatch, tmp_path)
    monkeypatch.setattr("ser_bench.pipeline.run", raising(NO_SPACE))
    launcher.carry_out(OmegaConf.create({}))
    assert launcher._statuses == ["failed"]
    assert "No space left" in json.loads((tmp_path / launcher.RESULT_FILE).read_text())["error"]
    assert [record.exc_info for record in caplog.records] == [None]


def test_a_finished_run_whose_result_cannot_be_written_fails_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    single_run(monkeypatch, tmp_path)
    (tmp_path / launcher.RESULT_FILE).symlink_to("/dev/full")
    monkeypatch.setattr("ser_bench.pipeline.run", lambda *_: SimpleNamespace(run_id="r", skipped=False))
    launcher.carry_out(OmegaConf.create({}))
    assert launcher._statuses == ["failed"]
    assert [f"{tmp_path}: No space left" in record.getMessage() for record in caplog.records] == [True]


def test_a_sweep_that_cannot_be_closed_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / launcher.PARENT_FILE).write_text("the parent")
    monkeypatch.setattr(launcher, "_sweep_dir", tmp_path)
    monkeypatch.setattr(launcher, "_tracking", TrackingConfig(experiment="x"))
    monkeypatch.setattr(launcher, "_report", raising(NO_SPACE))
    monkeypatch.setattr(tracking, "end_parent", raising(FileAccessError("the store is full")))
    assert launcher._close_sweep(False) is True
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "No space left" in lines[0] and "could not be closed: the store is full" in lines[1]
