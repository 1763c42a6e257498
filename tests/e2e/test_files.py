"""Runs and commands write to `mlruns/`, `outputs/`, `multirun/` and the cache, and nowhere else. SYNTHETIC speech."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ser_bench import cli, tracking
from ser_bench.config import TrackingConfig
from tests.support import fake_openai as fake
from tests.support.bench import FEWER_CLIPS, ROOT

pytestmark = pytest.mark.slow

ALLOWED = {"mlruns", "outputs", "multirun"}


def start_run(folder: Path, *words: str) -> None:
    command = [sys.executable, str(ROOT / "run.py"), *words, FEWER_CLIPS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr


def answer(body: dict[str, object]) -> fake.Reply:
    return fake.label(("angry", "happy", "sad")[len(json.dumps(body)) % 3])


def test_runs_and_commands_write_to_their_own_folders_only(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test-0123456789abcdef")
    where = f"cache_dir={cache}"
    start_run(tmp_path, where, "model=cnn", "trainer=debug")
    with fake.serve(answer) as server:
        service = ("llm=gpt4o", f"llm.base_url={server.base_url}", "llm.model=a-fake-of-this-test")
        start_run(tmp_path, where, "model=llm", *service, "llm.limit=6", "tracking.trace_share=1")
    start_run(tmp_path, where, "-m", "model=majority,prior")
    assert {path.name for path in tmp_path.iterdir()} == ALLOWED

    runs = tracking.search(TrackingConfig(dir=str(tmp_path / "mlruns")))
    assert len(runs) == 4
    cnn = next(run for run in runs if run.tags["model"] == "cnn")
    clip = next((cache / "corpora").rglob("*.wav"))
    for words in (
        ["describe", "model=cnn"],
        ["compare", "corpus=demo"],
        ["audit", cnn.run_id],
        ["predict", cnn.run_id, str(clip)],
        ["doctor"],
        ["corpora", "list"],
        ["weights", "list"],
    ):
        assert cli.main([*words, *([] if words[-1] == "list" else [where])]) == 0, words
        assert {path.name for path in tmp_path.iterdir()} <= ALLOWED, words
    assert "MLFLOW_TRACKING_URI" not in os.environ
