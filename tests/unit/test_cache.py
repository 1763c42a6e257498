"""The cache gives back what was written, and nothing that was damaged."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

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


def test_the_first_writer_wins_and_the_second_gets_what_is_stored(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache.key(x=1)
    assert cache.write_first_json(key, {"label": "sad"}) == {"label": "sad"}
    assert cache.write_first_json(key, {"label": "happy"}) == {"label": "sad"} == cache.read_json(key)
    assert not list(tmp_path.rglob(".half-*"))


def test_a_damaged_first_entry_wins_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    key = cache.key(x=1)
    cache.write(key, b"first")
    path = next(p for p in tmp_path.rglob("*") if p.is_file())
    path.write_bytes(path.read_bytes()[:-1])
    assert cache.write_first(key, b"second") == b"second" == cache.read(key)


def test_many_threads_that_write_at_once_go_on_with_one_value(tmp_path: Path) -> None:
    cache, start = Cache(tmp_path), Barrier(16)

    def write(number: int) -> bytes:
        start.wait()
        return cache.write_first("ab12", b"%d" % number)

    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(write, range(16)))
    assert found == {cache.read("ab12")}


def test_a_file_system_without_hard_links_keeps_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    cache = Cache(tmp_path)
    assert cache.write_first("ab12", b"one") == b"one"
    assert cache.write_first("ab12", b"two") == b"one"


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
