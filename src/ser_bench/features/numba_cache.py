"""Compilation of librosa's numba functions in one process, before several processes import librosa.

Two processes that write numba's cache at the same time can leave inconsistent files, and every later call then crashes
(numba issue 10128).
"""

from __future__ import annotations

import sys
from importlib import metadata, util
from pathlib import Path

MODULES = ("beat.py", "core/audio.py", "core/pitch.py", "util/utils.py")
"""The modules of librosa that compile functions when they are imported."""
VERSION_BYTES = 64
"""An index file of the cache contains the version of numba in its first bytes."""


def fill() -> None:
    """Compile what the import of librosa compiles, unless the cache has it.

    The cache is checked first, without importing librosa, because the import takes 3 s.
    """
    spec = util.find_spec("librosa")
    if spec is not None and spec.origin is not None and is_filled(Path(spec.origin).parent):
        return
    import librosa.beat
    import librosa.core.audio
    import librosa.core.pitch
    import librosa.util.utils  # noqa: F401


def is_filled(librosa: Path) -> bool:
    """Return whether the cache next to librosa's modules fits this numba and Python and is not older than the modules.

    If numba's cache is elsewhere (NUMBA_CACHE_DIR, or librosa's folder is not writable), return False.
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
