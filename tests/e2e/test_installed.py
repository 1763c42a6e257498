"""The wheel, installed outside the checkout: every command works in an empty folder, with the user's own files."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import __version__

ROOT = Path(__file__).resolve().parents[2]
CLIPS_PER_SPEAKER, SPEAKERS, EMOTIONS = 6, ("anna", "bert", "cleo", "dan", "eva"), ("anger", "joy")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with wheel and sdist, built from this checkout without network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def command(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program `ser-bench` of a new environment, which takes the libraries, but not ser_bench, from this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    [wheel] = built.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    program = folder / "bin" / "ser-bench"
    program.write_text(
        f"#!{folder}/bin/python\nimport sys\nfrom ser_bench.cli.app import main\nsys.exit(main())\n", encoding="utf-8"
    )
    program.chmod(0o755)
    return program


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a table of 30 clips, a corpus and an experiment of her own."""
    folder = tmp_path_factory.mktemp("project")
    lines = ["path,emotion,speaker"]
    for speaker in SPEAKERS:
        for i in range(CLIPS_PER_SPEAKER):
            name = f"{speaker}_{i}.wav"
            samples = 0.1 * np.random.default_rng([i, *speaker.encode()]).standard_normal(8_000)
            soundfile.write(folder / name, samples, 16_000)
            lines.append(f"{name},{EMOTIONS[i % 2]},{speaker}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    (folder / "conf" / "corpus").mkdir(parents=True)
    (folder / "conf" / "corpus" / "mine.yaml").write_text("defaults: [table]\nname: mine\nroot: clips.csv\nfolds: 2\n")
    (folder / "experiments").mkdir()
    (folder / "experiments" / "mine.yaml").write_text(
        "defaults:\n  - override /corpus: mine\n  - override /augment: none\nexperiment_name: mine\n"
    )
    return folder


def test_the_archives_hold_the_configuration_and_the_version(built: Path) -> None:
    [wheel], [sdist] = built.glob("*.whl"), built.glob("*.tar.gz")
    inside = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("conf", "experiments"):
        for path in (ROOT / folder).rglob("*.yaml"):
            assert f"ser_bench/{path.relative_to(ROOT).as_posix()}" in inside
    assert not [name for name in inside if name.startswith(("tests", "docs")) or name.endswith((".db", ".pyc"))]
    assert f"-{__version__}-" in wheel.name
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {"conf/config.yaml", "experiments/demo.yaml", "run.py", "src/ser_bench/__init__.py"} <= packed


def test_every_command_works_in_a_users_folder(command: Path, project: Path, cache: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*words: str) -> str:
        done = subprocess.run(
            [command, *words], cwd=project, capture_output=True, text=True, timeout=900,
            env=environment | {"SER_BENCH_CACHE": str(cache)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    output = call("run", "-m", "experiment=mine", "model=majority,egemaps", "head=logistic", "split.val_fraction=0.4")
    assert "corpus   mine: 30 clips, 5 speakers, labels angry happy" in output
    assert "predictor" in output and "UAR" in output
    assert {path.name for path in project.iterdir()} >= {"mlruns", "multirun"}
    assert not (project / "mlflow.db").exists()
    run_id = output.partition("run      ")[2].split()[0]
    assert call("compare", "--out", "report").startswith("mine, split=speaker")  # the corpus of the latest run
    assert "no leakage found" in call("audit", run_id)
    assert "anna_0.wav" in call("predict", run_id, "anna_0.wav")
    assert "Total" in call("describe", "model=cnn", "experiment=mine")
    assert __version__ in call("doctor")
    help_text = call("run", "--help")
    assert "model: audio_llm, cnn, cnn_text" in help_text
    assert "corpus: audformat, cremad, demo, emodb, mine" in help_text
