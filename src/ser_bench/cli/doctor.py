"""`ser-bench doctor`: what is installed, which weights and corpora are here, and the commands that get the rest."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata

from ser_bench import corpora, weights
from ser_bench.config import Config, cache_dir
from ser_bench.extras import EXTRAS, install_command, missing_packages

COLUMNS = ("about", "name", "state")
PACKAGES = (
    "ser-bench", "torch", "torchaudio", "pytorch-lightning", "hydra-core", "mlflow", "librosa", "scikit-learn",
)  # fmt: skip

Line = tuple[str, str, str]
"""Subject, name, state: one cell for each of `COLUMNS`."""


def rows(cfg: Config) -> list[Line]:
    """One line per package, weight file, corpus, key and folder; a key is reported as set or not set, never shown."""
    return [*_machine(), *_packages(), *_weights(), *_corpora(cfg), *_keys(), *_folders(cfg)]


def _machine() -> Iterator[Line]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    yield "machine", f"{platform.system()} {platform.machine()}", f"{cores} cores, GPU: {gpu}"
    yield "python", platform.python_version(), "ser_bench needs 3.11 to 3.13"


def _packages() -> Iterator[Line]:
    for name in PACKAGES:
        try:
            yield "package", name, metadata.version(name)
        except metadata.PackageNotFoundError:
            yield "package", name, f"MISSING: pip install {name}"
    for name, extra in EXTRAS.items():
        missing = missing_packages(name)
        note = f"; {extra.note}" if extra.note else ""
        state = f"not here ({', '.join(missing)}): {install_command(name)}" if missing else "here"
        yield "extra", f"ser-bench[{name}]", f"{state}  (for {extra.needed_for.replace('`', '')}{note})"


def _weights() -> Iterator[Line]:
    for name, entry in weights.TABLE.items():
        state = "here" if weights.find(name) else f"not here: ser-bench weights fetch {name}"
        yield "weights", name, f"{state}  ({entry.licence})"


def _corpora(cfg: Config) -> Iterator[Line]:
    for name, sheet in corpora.SHEETS.items():
        folder = cache_dir(cfg) / "corpora" / name
        here = folder.is_dir() and any(folder.iterdir())
        state = f"here: {folder}" if here else f"not here: {sheet.how_to_get}"
        yield "corpus", name, f"{state}{'; SYNTHETIC' if sheet.synthetic else ''}  ({sheet.licence})"


def _keys() -> Iterator[Line]:
    is_set = bool(os.environ.get("OPENAI_API_KEY"))
    yield "key", "OPENAI_API_KEY", "set" if is_set else "not set; llm=gpt4o and text=openai need it, llm=local does not"


def _folders(cfg: Config) -> Iterator[Line]:
    yield "folder", "cache", f"{cache_dir(cfg)}  (change it with $SER_BENCH_CACHE or cache_dir=...)"
    yield "folder", "runs", f"{cfg.tracking.uri or cfg.tracking.dir}  (ser-bench runs lists them)"
