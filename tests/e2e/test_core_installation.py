"""A core installation, without any extra: runs that need none work, and others end in one line with the command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import extras

RATE_HZ = 16_000
IN_CORE = """
import sys
from importlib import metadata
from importlib.machinery import PathFinder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
import ser_bench as sb
from ser_bench.extras import EXTRAS

def of_core(package, found):
    \"\"\"The package and all packages that it requires without extras; MLflow requires FastAPI, for instance.\"\"\"
    if package not in found:
        found.add(package)
        for wanted in map(Requirement, metadata.requires(package) or []):
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                of_core(canonicalize_name(wanted.name), found)
    return found

CORE = of_core("ser-bench", set())
MODULES = {module: package for extra in EXTRAS.values() for module, package in extra.modules.items()}
BLOCKED = {**MODULES, "ctranslate2": "ctranslate2", "tokenizers": "tokenizers"}
BLOCKED = {module: package for module, package in BLOCKED.items() if package not in CORE}

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):  # None, as of a package that is not installed
        return None if name.split(".")[0] in BLOCKED else super().find_spec(name, path, target)

def from_name(name, real=metadata.Distribution.from_name):
    if name in BLOCKED.values():
        raise metadata.PackageNotFoundError(name)
    return real(name)

metadata.Distribution.from_name = from_name  # torchmetrics asks whether transformers is installed
sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
words = ["corpus=table", "corpus.root=clips.csv", "experiment=none", "split.folds=2", "augment=none", "trainer=debug",
         "size=eighth", "tracking.log_model=false"]
for model in ("majority", "mlp", "cnn"):
    run = sb.run([f"model={model}", *words], verbose=False)
    print(model, run.status, run.tags["audit"])
print("blocked", *sorted(BLOCKED))
print("imported", sorted(set(BLOCKED) & set(sys.modules)))
from ser_bench import cli
sys.exit(cli.main(["run", "model=cnn_text", *words]))
"""


@pytest.mark.slow
def test_majority_mlp_and_cnn_run_without_any_extra_and_cnn_text_names_its_own(tmp_path: Path, cache: Path) -> None:
    rng = np.random.default_rng(0)
    lines = ["path,emotion,speaker,text"]
    for speaker in range(6):
        for number, emotion in enumerate(("angry", "happy", "sad")):
            name = f"s{speaker}_{emotion}.wav"
            tone = np.sin(2 * np.pi * (150 + 100 * number) * np.arange(RATE_HZ) / RATE_HZ)
            soundfile.write(tmp_path / name, 0.3 * tone + 0.01 * rng.standard_normal(RATE_HZ), RATE_HZ)
            lines.append(f"{name},{emotion},s{speaker},it is eleven")
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    environment = os.environ | {"SER_BENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", IN_CORE], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert "imported []" in done.stdout, done.stdout + done.stderr
    [blocked] = [line.split() for line in done.stdout.splitlines() if line.startswith("blocked ")]
    assert {"faster_whisper", "sentence_transformers", "transformers", "openai", "gradio", "onnx"} <= set(blocked)
    assert all(f"{model} FINISHED clean" in done.stdout for model in ("majority", "mlp", "cnn")), done.stdout
    [error] = [line for line in (done.stdout + done.stderr).splitlines() if "needs the package" in line]
    assert "error " in error and extras.install_command("asr") in error
    assert done.returncode == 2 and "Traceback" not in done.stderr
