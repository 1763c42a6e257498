"""The cache gives back what was written, and nothing that was damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ser_bench.cache import Cache
from ser_bench.errors import CacheError


def test_round_trips(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache.key(a=1, b="x")
    assert cache.read(key) is None
    cache.write_array(key, np.arange(6, dtype=np.float32).reshape(2, 3))
    restored = cache.read_array(key)
    assert restored is not None and restored.shape == (2, 3) and restored.dtype == np.float32
    cache.write_json(key, {"words": "grüße"})
    assert cache.read_json(key) == {"words": "grüße"}


def test_keys_depend_on_every_part_and_on_no_order() -> None:
    assert Cache.key(a=1, b=2) == Cache.key(b=2, a=1) != Cache.key(a=1, b=3)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_entry_is_absent_and_removed(tmp_path: Path, damage: str) -> None:
    cache = Cache(tmp_path)
    key = cache.key(x=1)
    cache.write(key, b"payload of some length")
    path = next(p for p in tmp_path.rglob("*") if p.is_file())
    blob = path.read_bytes()
    path.write_bytes({"flip": blob[:-1] + b"X", "cut": blob[:-5], "empty": b""}[damage])
    assert cache.read(key) is None
    assert not path.exists()


def test_a_read_only_or_full_cache_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="cache_dir="):
        Cache(tmp_path / "file").write("ab12", b"x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(CacheError, match="No space left on device"):
        Cache(tmp_path).write("ab12", b"x")
    assert not list(tmp_path.rglob(".half-*")), "nothing half-written stays"
