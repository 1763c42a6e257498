"""`ser-bench serve` as a process: a stored run behind HTTP, until SIGTERM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.bench import ROOT, Bench

pytest.importorskip("fastapi")

TOKEN = "a-token-for-this-test"


@pytest.fixture(scope="module")
def run_id(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[tuple[Bench, str]]:
    """The cheapest run that can be asked."""
    bench = Bench(tmp_path_factory.mktemp("served"), cache)
    bench.run("model=prior")
    yield bench, bench.runs()[0].run_id


def test_a_run_is_served_until_sigterm(run_id: tuple[Bench, str]) -> None:
    bench, run = run_id
    clip = next(iter(sorted(bench.cache.rglob("*.wav"))))
    words = ["serve", run[:8], "--port", "0", "--token-env", "SER_TEST_TOKEN", *bench.words[:2]]
    process = subprocess.Popen(
        [sys.executable, "-m", "ser_bench.cli", *words],
        cwd=ROOT,
        env=os.environ | {"SER_TEST_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        found = re.match(r"serving  (http://127\.0\.0\.1:\d+) with a token", lines[1])
        assert found, lines + process.stdout.readlines()
        with httpx.Client(base_url=found[1], timeout=30, trust_env=False) as client:
            assert client.get("/health").json()["status"] == "ready"
            assert client.post("/v1/predict", files={"audio": clip.read_bytes()}).status_code == 401
            client.headers["authorization"] = f"Bearer {TOKEN}"
            response = client.post("/v1/predict", files={"audio": (clip.name, clip.read_bytes())})
            answer = response.json()
            assert (response.status_code, answer["run_id"], answer["status"]) == (200, run, "answered")
            assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-3)
            assert answer["label"] in answer["probabilities"] and answer["name"] == clip.name
            assert client.post("/v1/predict", files={"audio": clip.read_bytes()[:999]}).status_code == 422
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert rest == "stopped  accepted requests were answered\n"
    assert TOKEN not in "".join(lines) + rest
