"""numba's cache of what it compiles for librosa: filled by one process alone, before several import librosa.

Two processes that fill it at once can leave halves that do not fit each other, and every later call crashes
(numba issue 10128).
"""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path

MODULES = ("beat.py", "core/audio.py", "core/pitch.py", "util/utils.py")
"""Of librosa, those that compile when they are imported."""
VERSION_BYTES = 64
"""An index of the cache begins with the version of numba."""


def fill() -> None:
    """Compile what importing librosa compiles, unless that is in the cache: to look there takes no import (3 s)."""
    spec = util.find_spec("librosa")
    if spec is not None and spec.origin is not None and is_filled(Path(spec.origin).parent):
        return
    import librosa.beat
    import librosa.core.audio
    import librosa.core.pitch
    import librosa.util.utils  # noqa: F401


def is_filled(librosa: Path) -> bool:
    """Whether the cache beside librosa's modules is of this numba and Python, and no older than the modules.

    Where numba keeps its cache elsewhere (a folder that cannot be written, NUMBA_CACHE_DIR), the answer is no.
    """
    version = metadata.version("numba").encode()
    return all(_fresh(librosa / module, version) for module in MODULES)


def _fresh(module: Path, version: bytes) -> bool:
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    indexes = list((module.parent / "__pycache__").glob(f"{module.stem}.*.{python}.nbi"))
    changed = module.stat().st_mtime
    return bool(indexes) and all(
        index.stat().st_mtime >= changed and version in index.read_bytes()[:VERSION_BYTES] for index in indexes
    )
