"""Runs on the demo corpus (SYNTHETIC speech) out of the ordinary: cold stores, failures, Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from tests.support.bench import Bench

pytestmark = pytest.mark.slow


def test_parallel_children_on_a_cold_store(fresh: Bench) -> None:
    fresh.run("-m", "model=cnn,cnn_text", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer=debug")
    statuses = {run.tags["model"]: run.status for run in fresh.runs()}
    assert statuses == {"cnn": "FINISHED", "cnn_text": "FINISHED"}
    assert [run.info.status for run in fresh.sweeps()] == ["FINISHED"]


def test_children_of_a_sweep_are_found_in_any_subdir(fresh: Bench) -> None:
    subdir = "hydra.sweep.subdir='${hydra.job.override_dirname}'"
    fresh.run("-m", "model=majority,prior", subdir)
    assert [run.info.status for run in fresh.sweeps()] == ["FINISHED"]
    fresh.run("-m", "model=majority", "split.fold=1,7", subdir, status=2)
    assert sorted(run.info.status for run in fresh.sweeps()) == ["FAILED", "FINISHED"]


def test_a_failing_child_is_reported_and_the_others_go_on(fresh: Bench) -> None:
    output = fresh.run("-m", "model=cnn", "trainer=debug", "split.fold=7,0", status=2)
    assert "split.fold=7 does not exist" in output and "Traceback" not in output
    assert [run.info.status for run in fresh.sweeps()] == ["FAILED"]
    assert [run.status for run in fresh.runs(model="cnn")] == ["FINISHED"]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_kill_end_cleanly_and_the_same_command_resumes(fresh: Bench, sent: signal.Signals) -> None:
    words = ("model=cnn", "trainer.max_epochs=4")
    process = fresh.start(*words)
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline and not list(Path(fresh.tracking.dir).glob("work/*/last.ckpt")):
        assert process.poll() is None, process.said()
        time.sleep(0.2)
    process.send_signal(sent)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 130, output
    (killed,) = fresh.runs(model="cnn")
    assert killed.status == "KILLED"
    fresh.run(*words)
    (resumed,) = fresh.runs(model="cnn")
    assert (resumed.run_id, resumed.status) == (killed.run_id, "FINISHED")
