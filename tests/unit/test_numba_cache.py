"""The check of numba's cache: a false positive would let parallel runs crash."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ser_bench.features import numba_cache

PYTHON = f"py{sys.version_info.major}{sys.version_info.minor}"
NUMBA = metadata.version("numba")


def index(module: str, root: Path) -> Path:
    path = root / module
    return path.parent / "__pycache__" / f"{path.stem}._peak-1.{PYTHON}.nbi"


@pytest.fixture
def librosa(tmp_path: Path) -> Path:
    """Modules with an index of the cache each."""
    for module in numba_cache.MODULES:
        path = tmp_path / module
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
        path = index(module, tmp_path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"\x80\x05\x95" + NUMBA.encode() + b"\x94.")
    return tmp_path


def test_a_filled_cache_is_known(librosa: Path) -> None:
    assert numba_cache.is_filled(librosa)


def test_a_module_without_an_index_has_to_be_compiled(librosa: Path) -> None:
    index("util/utils.py", librosa).unlink()
    assert not numba_cache.is_filled(librosa)


def test_an_index_of_another_numba_does_not_count(librosa: Path) -> None:
    index("beat.py", librosa).write_bytes(b"\x80\x05\x95" + b"0.1.0" + b"\x94.")
    assert not numba_cache.is_filled(librosa)


def test_an_index_of_another_python_does_not_count(librosa: Path) -> None:
    old = index("beat.py", librosa)
    old.rename(old.with_name(old.name.replace(PYTHON, "py27")))
    assert not numba_cache.is_filled(librosa)


def test_a_module_newer_than_its_index_has_to_be_compiled(librosa: Path) -> None:
    stamp = index("core/pitch.py", librosa).stat().st_mtime
    os.utime(librosa / "core/pitch.py", (stamp + 10, stamp + 10))
    assert not numba_cache.is_filled(librosa)


def test_what_importing_librosa_compiles_is_found_here() -> None:
    import librosa.beat
    import librosa.core.audio
    import librosa.core.pitch
    import librosa.util.utils

    home = Path(librosa.__file__).parent
    if not index("beat.py", home).parent.exists() or "NUMBA_CACHE_DIR" in os.environ or not os.access(home, os.W_OK):
        pytest.skip("numba keeps its cache in another folder here")
    assert numba_cache.is_filled(home)
