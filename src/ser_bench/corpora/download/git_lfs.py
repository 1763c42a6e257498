"""Download of files that a Git repository stores in Git LFS.

The archive of the repository contains a pointer (sha256 and size) for each file. The files themselves are requested
from the Git LFS server through its batch API.

Protocol: https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md and basic-transfers.md beside it.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ser_bench.audio import is_lfs_pointer
from ser_bench.corpora.data_sheet import Remote
from ser_bench.corpora.download.http_transfer import ExpectedFile, Transfer, atomic_write
from ser_bench.errors import DownloadError

MEDIA_TYPE = "application/vnd.git-lfs+json"
HEADERS = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
OBJECTS_PER_BATCH = 100
POINTER_MAX_BYTES = 1024
TABLE_MAX_BYTES = 256 << 20
"""Limit of a table in the archive of a repository: 256 MiB. The largest one of CREMA-D has about 20 MB."""
POINTER = re.compile(rb"^oid sha256:(?P<oid>[0-9a-f]{64})\s+size (?P<size>\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A Git LFS pointer: the entry of the repository for one audio file.

    Attributes:
        name: file name.
        oid: sha256 of the audio file, hexadecimal.
        bytes: size of the audio file.
    """

    name: str
    oid: str
    bytes: int

    @property
    def expected(self) -> ExpectedFile:
        """Size and checksum of the audio file."""
        return ExpectedFile(self.bytes, f"sha256:{self.oid}")


def read_pointers(archive: Path, folder: str, tables: Sequence[str], root: Path) -> list[Pointer]:
    """Read the pointers in an archive of a repository, and extract tables from it.

    Args:
        archive: the tar.gz file.
        folder: folder of the repository that contains the pointers.
        tables: ends of the paths of tables, which are written to `root`.
        root: folder of the corpus.

    Returns:
        The pointers, sorted by name.

    Raises:
        DownloadError: if the archive is damaged, or if the folder contains no pointers.
        CorpusError: if `root` cannot be written.
    """
    pointers = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                source = tar.extractfile(member) if member.isfile() else None
                if source is None:
                    continue
                if path.parent.name == folder and member.size <= POINTER_MAX_BYTES:
                    pointers += _pointer(path.name, source.read())
                elif any(f"/{path.as_posix()}".endswith(f"/{name}") for name in tables):
                    if member.size > TABLE_MAX_BYTES:
                        raise DownloadError(
                            f"{path.name} in the archive of the repository has {member.size:,} bytes, the limit is "
                            f"{TABLE_MAX_BYTES:,}"
                        )
                    table = source.read()
                    with atomic_write(root / path.name) as file:
                        file.write(table)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(f"the archive of the repository is damaged ({error})") from error
    if not pointers:
        raise DownloadError(f"the archive of the repository contains no Git LFS pointers in {folder}")
    return sorted(pointers, key=lambda pointer: pointer.name)


def _pointer(name: str, text: bytes) -> list[Pointer]:
    match = POINTER.search(text) if is_lfs_pointer(text) else None
    return [Pointer(name, match["oid"].decode(), int(match["size"]))] if match else []


def fetch(
    transfer: Transfer,
    remote: Remote,
    pointers: Sequence[Pointer],
    folder: Path,
    jobs: int,
    on_file: Callable[[], object],
) -> dict[str, str]:
    """Download the files of the pointers, several at once.

    Args:
        transfer: the connections.
        remote: the repository.
        pointers: the files to download.
        folder: folder to write the files to.
        jobs: number of parallel downloads.
        on_file: called after each file, for a progress bar.

    Returns:
        Name → reason of each file that could not be downloaded, if the host delivered others.

    Raises:
        DownloadError: if the host refuses (for example because its quota is exhausted), or if all files of a batch
            fail.
        CorpusError: if the folder cannot be written.
    """
    failed: dict[str, str] = {}
    executor = ThreadPoolExecutor(max_workers=jobs)
    try:
        for start in range(0, len(pointers), OBJECTS_PER_BATCH):
            batch = pointers[start : start + OBJECTS_PER_BATCH]
            objects = _request_batch(transfer, remote, batch)

            def download(pointer: Pointer, objects: Mapping[str, object] = objects) -> str:
                try:
                    _download(transfer, pointer, objects.get(pointer.oid), folder)
                except DownloadError as error:
                    return str(error)
                on_file()
                return ""

            reasons = dict(zip([p.name for p in batch], executor.map(download, batch), strict=True))
            failed |= {name: reason for name, reason in reasons.items() if reason}
            if all(reasons.values()):
                raise DownloadError(f"{remote.url}: all {len(batch)} files failed; {next(iter(reasons.values()))}")
    finally:
        executor.shutdown(cancel_futures=True)
    return failed


def _request_batch(transfer: Transfer, remote: Remote, batch: Sequence[Pointer]) -> dict[str, object]:
    """Return oid → the object in the response of the server."""
    body = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": size} for oid, size in sorted({(p.oid, p.bytes) for p in batch})],
    }
    url = f"{remote.url}.git/info/lfs/objects/batch"
    response = transfer.json("POST", url, HEADERS, body)
    objects = response.get("objects") if isinstance(response, dict) else None
    if not isinstance(objects, list):
        raise DownloadError(f"{url}: the response has no list of objects")
    return {str(item.get("oid")): item for item in objects if isinstance(item, dict)}


def _download(transfer: Transfer, pointer: Pointer, lfs_object: object, folder: Path) -> None:
    if not isinstance(lfs_object, dict):
        raise DownloadError(f"{pointer.name}: not in the response of the server")
    if "error" in lfs_object:
        error = lfs_object["error"]
        raise DownloadError(f"{pointer.name}: {error.get('code')} {error.get('message')}")
    try:
        action = lfs_object["actions"]["download"]
        url, headers = str(action["href"]), {str(k): str(v) for k, v in (action.get("header") or {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{pointer.name}: no address in the response of the server") from error
    transfer.file(url, folder / pointer.name, pointer.expected, headers)
