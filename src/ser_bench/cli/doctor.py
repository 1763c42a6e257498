"""What is installed, which weights and corpora are here, what is missing, and the command that brings it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata, util

from ser_bench import corpora, weights
from ser_bench.config import Config, cache_dir

PACKAGES = (
    "ser-bench", "torch", "torchaudio", "pytorch-lightning", "hydra-core", "mlflow", "librosa", "scikit-learn",
    "faster-whisper", "sentence-transformers", "praat-parselmouth", "openai",
)  # fmt: skip
OPTIONAL = {
    "espeakng_loader": ("demo", "the demo corpus"),
    "xllamacpp": ("demo", "llm=local"),
    "whisper": ("whisper", "asr=whisper"),
    "opensmile": ("egemaps", "model=egemaps; research, not commercial use"),
}


def report(cfg: Config) -> str:
    """A page of plain text; keys are reported as set or not set, never shown."""
    return "\n".join(
        [*_machine(), "", *_packages(), "", *_weights(), "", *_corpora(cfg), "", *_keys(), "", *_places(cfg)]
    )


def _machine() -> Iterator[str]:
    import torch

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    yield f"machine     {platform.system()} {platform.machine()}, {len(os.sched_getaffinity(0))} cores, GPU: {gpu}"
    yield f"python      {platform.python_version()}"


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        try:
            yield f"package     {name:24} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield f"package     {name:24} MISSING: pip install -e ."
    for module, (extra, purpose) in OPTIONAL.items():
        state = "here" if util.find_spec(module) else f"not here: pip install -e '.[{extra}]'"
        yield f"optional    {module:24} {state}  (for {purpose})"


def _weights() -> Iterator[str]:
    for name, entry in weights.TABLE.items():
        state = "here" if weights.find(name) else f"not here: ser-bench weights fetch {name}"
        yield f"weights     {name:32} {state}  ({entry.licence})"


def _corpora(cfg: Config) -> Iterator[str]:
    for name, sheet in corpora.SHEETS.items():
        folder = cache_dir(cfg) / "corpora" / name
        if folder.is_dir() and any(folder.iterdir()):
            state = f"here: {folder}"
        elif name == "demo":
            state = "generated at its first use (SYNTHETIC)"
        elif name == "table":
            state = "your own CSV: corpus=table corpus.root=my_clips.csv"
        else:
            state = f"not in the cache: ser-bench corpora prepare {name}, or corpus.root=FOLDER where you have it"
        yield f"corpus      {name:10} {state}  ({sheet.licence})"


def _keys() -> Iterator[str]:
    state = (
        "set" if os.environ.get("OPENAI_API_KEY") else "not set (llm=gpt4o and text=openai need it; llm=local does not)"
    )
    yield f"key         OPENAI_API_KEY {state}"


def _places(cfg: Config) -> Iterator[str]:
    yield f"cache       {cache_dir(cfg)}  (elsewhere: $SER_BENCH_CACHE or cache_dir=...)"
    yield f"runs        {cfg.tracking.uri or cfg.tracking.dir}  (browse: make ui)"
