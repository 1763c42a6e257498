"""Entries are read as they were written, damaged entries are not read, and only missing results are computed."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest

from ser_bench.cache import Cache, CachedComputation, array_format, float32_format, json_format
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
        stored = set(pool.map(write, range(16)))
    assert stored == {cache.read("ab12")}


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
    assert not list(tmp_path.rglob(".half-*")), "a partial entry stays"


class Squares:
    """Squares of integers, cached as JSON; notes which integers are computed, and computes them in reverse order."""

    def __init__(self, folder: Path) -> None:
        self.computed: list[int] = []
        self.fail_at: int | None = None
        self.cached = CachedComputation(Cache(folder), self.key, self.compute, json_format(), "squares", "number")

    @staticmethod
    def key(number: int) -> str:
        return Cache.key(magnitude=abs(number))

    def compute(self, numbers: Sequence[int]) -> Generator[tuple[int, dict[str, int]], None, None]:
        for position in reversed(range(len(numbers))):
            if numbers[position] == self.fail_at:
                raise ValueError("interrupted")
            self.computed.append(numbers[position])
            yield position, {"square": numbers[position] ** 2}


def squares_of(*numbers: int) -> list[dict[str, int]]:
    return [{"square": number**2} for number in numbers]


def test_values_are_in_the_order_of_the_items_and_each_key_is_computed_once(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    assert squares.cached.values([3, 1, 3, -1, 2]) == squares_of(3, 1, 3, 1, 2)
    assert squares.computed == [2, 1, 3], "-1 has the key of 1"
    assert squares.cached.values([4, 2, 3]) == squares_of(4, 2, 3)
    assert squares.computed == [2, 1, 3, 4]
    assert squares.cached.values([]) == []


def test_an_interrupted_computation_keeps_its_results(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    squares.fail_at = 1
    with pytest.raises(ValueError, match="interrupted"):
        squares.cached.values([1, 2, 3])
    squares.fail_at = None
    assert squares.cached.values([1, 2, 3]) == squares_of(1, 2, 3)
    assert squares.computed == [3, 2, 1]


def test_fill_counts_what_it_computes_and_stream_reads_in_order(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    assert squares.cached.read(5) is None and not squares.computed
    assert squares.cached.fill([5, -5, 6]) == 2
    assert squares.cached.fill([5, 6, 7]) == 1
    assert squares.cached.read(-5) == {"square": 25}
    assert list(squares.cached.stream([8, 5, 8])) == squares_of(8, 5, 8)
    assert squares.computed == [6, 5, 7, 8]


def test_stream_names_the_cache_that_was_emptied_meanwhile(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    values = squares.cached.stream([1, 2])
    next(values)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        path.unlink()
    with pytest.raises(CacheError, match="squares"):
        next(values)


def test_an_entry_of_another_format_is_computed_again(tmp_path: Path) -> None:
    squares = Squares(tmp_path)
    Cache(tmp_path).write(squares.key(2), b"not JSON")
    assert squares.cached.values([2]) == squares_of(2)
    assert squares.cached.values([2]) == squares_of(2)
    assert squares.computed == [2]


def test_a_result_that_is_missing_is_an_error(tmp_path: Path) -> None:
    def compute(numbers: Sequence[int]) -> Generator[tuple[int, int], None, None]:
        yield 0, 1

    with pytest.raises(RuntimeError, match="1 of 2"):
        CachedComputation(Cache(tmp_path), Squares.key, compute, json_format(), "numbers").values([1, 2])


def test_the_computation_is_closed_when_its_results_are_no_longer_read(tmp_path: Path) -> None:
    closed = []

    def compute(numbers: Sequence[int]) -> Generator[tuple[int, int], None, None]:
        try:
            yield from enumerate(numbers)
        finally:
            closed.append(True)

    results = CachedComputation(Cache(tmp_path), Squares.key, compute, json_format(), "numbers").each([1, 2])
    next(results)
    results.close()
    assert closed == [True]


def test_payload_formats_have_fixed_bytes() -> None:
    assert json_format().encode({"text": "Grüße", "n": [1, 2.5]}) == '{"text": "Grüße", "n": [1, 2.5]}'.encode()
    vector = np.array([1.0, -2.0], dtype=np.float32)
    assert float32_format(2).encode(vector) == b"\x00\x00\x80?\x00\x00\x00\xc0"
    assert float32_format(3).decode(float32_format(2).encode(vector)) is None
    payload = array_format().encode(vector.astype(np.float16))
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (2,), }"
    assert payload.startswith(header) and payload.endswith(b"\x00<\x00\xc0")
    assert array_format((3,)).decode(payload) is None
    np.testing.assert_array_equal(array_format((2,)).decode(payload), vector)
