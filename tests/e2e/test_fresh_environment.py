"""MLflow's server in an environment made from a model's own requirements answers as `ser-bench predict` does.

    SER_BENCH_FRESH_ENVIRONMENT=/tmp/fresh python -m pytest -n0 tests/e2e/test_fresh_environment.py

The folder gets the environment, of about 300 packages, and is used again if it is there. No other test downloads
packages, so this one is skipped unless the variable is set.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ser_bench import api
from ser_bench.tracking import audio_model, model_registry
from ser_bench.tracking.mlflow_store import client

FOLDER = os.environ.get("SER_BENCH_FRESH_ENVIRONMENT", "")
START_S = 300.0
"""A loaded machine takes minutes to import PyTorch."""

pytestmark = pytest.mark.skipif(not FOLDER, reason="SER_BENCH_FRESH_ENVIRONMENT names no folder")


@pytest.mark.slow
def test_a_server_in_a_fresh_environment_answers_as_predict_does(tmp_path: Path) -> None:
    words = ["model=cnn_text", "corpus=demo", "corpus.clips=108", "trainer.max_epochs=1"]
    stored = api.run([*words, f"tracking.dir={tmp_path}/mlruns"], verbose=False)
    clip = tmp_path / "clip.wav"
    clip.write_bytes(base64.b64decode(audio_model.example_audio()))
    here = json.loads(
        _output(sys.executable, "-m", "ser_bench.cli", "predict", stored.run_id, str(clip), "--format", "jsonl",
                f"tracking.dir={tmp_path}/mlruns")
    )  # fmt: skip

    model_id = model_registry.audio_model_of(stored)
    assert model_id is not None
    location = client(stored.tracking).get_logged_model(model_id).artifact_location.removeprefix("file://")
    shutil.copytree(location, tmp_path / "model")
    python = Path(FOLDER) / "bin/python"
    if not python.exists():
        _output(sys.executable, "-m", "venv", FOLDER)
    _output(str(python), "-m", "pip", "install", "-q", "-r", str(tmp_path / "model/requirements.txt"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", "model", "--env-manager", "local"]
    environment = {"PATH": f"{python.parent}:/usr/bin:/bin", "HOME": str(Path.home())}
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=tmp_path, env=environment, start_new_session=True
    )
    try:
        _wait(f"http://127.0.0.1:{port}/ping", server)
        body = json.dumps({"dataframe_records": [{"audio": base64.b64encode(clip.read_bytes()).decode()}]}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=START_S) as reply:
            [there] = json.load(reply)["predictions"]
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)
    for answer in (here, there):
        del answer["seconds"], answer["name"]
    assert there == here


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def _wait(address: str, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        assert server.poll() is None, "the server has ended"
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail("the server does not answer")
