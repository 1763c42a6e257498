"""torchaudio works beside any torch, and so do the libraries that import it themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    """A new process, because what was imported before would hide a failure."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def test_transforms_run() -> None:
    done = python(
        "from ser_bench.features.torchaudio_cpu import torchaudio; import torch;"
        "mfcc = torchaudio.transforms.MFCC(22050, 20);"
        "print(tuple(mfcc(torch.randn(2, 22050)).shape)[:2])"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(2, 20)"


def test_a_plain_import_afterwards_finds_the_same_package() -> None:
    done = python(
        "from ser_bench.features.torchaudio_cpu import torchaudio as ours; import torchaudio, sys;"
        "from torchaudio.functional import lfilter; print(torchaudio is ours)"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


@pytest.mark.slow
def test_sentence_transformers_can_be_imported() -> None:
    done = python("import ser_bench.features.torchaudio_cpu, sentence_transformers; print('here')")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "here"


@pytest.mark.parametrize("error", ["OSError('libcudart.so.13')", "RuntimeError('different CUDA versions')"])
def test_an_extension_that_cannot_be_loaded_is_declared_absent(error: str) -> None:
    done = python(
        "import torch\n"
        f"def broken(path): raise {error}\n"
        "torch.ops.load_library = broken\n"
        "from ser_bench.features.torchaudio_cpu import torchaudio\n"
        "from torchaudio._extension import _IS_TORCHAUDIO_EXT_AVAILABLE as there\n"
        "print(there)\n"
        "try: torchaudio.functional.forced_align(None, None)\n"
        "except RuntimeError as error: print(error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False\n")
    assert "compiled extension" in done.stdout


def test_another_import_error_is_not_hidden() -> None:
    done = python("import sys; sys.modules['torchaudio'] = None\nimport ser_bench.features.torchaudio_cpu\n")
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr
