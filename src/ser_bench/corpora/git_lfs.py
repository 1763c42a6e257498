"""Audio that a Git repository keeps in Git LFS: pointers from the repository's archive, objects by the batch API.

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
from ser_bench.corpora.transfer import Expected, Transfer, half_written
from ser_bench.errors import DownloadError

MEDIA_TYPE = "application/vnd.git-lfs+json"
HEADERS = {"Accept": MEDIA_TYPE, "Content-Type": MEDIA_TYPE}
OBJECTS_PER_BATCH = 100
POINTER_MAX_BYTES = 1024
POINTER = re.compile(rb"^oid sha256:(?P<oid>[0-9a-f]{64})\s+size (?P<size>\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What stands in the repository in place of one audio file."""

    name: str
    oid: str
    """sha256 of the audio, hexadecimal."""
    bytes: int

    @property
    def expected(self) -> Expected:
        """What the audio must be."""
        return Expected(self.bytes, f"sha256:{self.oid}")


def read_pointers(archive: Path, folder: str, tables: Sequence[str], root: Path) -> list[Pointer]:
    """The pointers in `folder` of a repository's tar.gz; `tables` (path endings) are written into `root` on the way.

    Raises:
        DownloadError: not a tar.gz, or no pointers in that folder.
        CorpusError: `root` cannot be written.
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
                    table = source.read()
                    with half_written(root / path.name) as file:
                        file.write(table)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DownloadError(f"the repository's archive is damaged ({error})") from error
    if not pointers:
        raise DownloadError(f"the repository's archive holds no Git LFS pointers in {folder}")
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
    """Download what the pointers stand for, several at once.

    Returns:
        name → reason of each file that this mirror could not deliver while it delivered others.

    Raises:
        DownloadError: the mirror refuses (its quota is spent, say), or delivers nothing of a whole batch.
        CorpusError: the folder cannot be written.
    """
    failed: dict[str, str] = {}
    executor = ThreadPoolExecutor(max_workers=jobs)
    try:
        for start in range(0, len(pointers), OBJECTS_PER_BATCH):
            batch = pointers[start : start + OBJECTS_PER_BATCH]
            answers = _ask(transfer, remote, batch)

            def deliver(pointer: Pointer, answers: Mapping[str, object] = answers) -> str:
                try:
                    _download(transfer, pointer, answers.get(pointer.oid), folder)
                except DownloadError as error:
                    return str(error)
                on_file()
                return ""

            reasons = dict(zip([p.name for p in batch], executor.map(deliver, batch), strict=True))
            failed |= {name: reason for name, reason in reasons.items() if reason}
            if all(reasons.values()):
                raise DownloadError(f"{remote.url}: none of {len(batch)} files came; {next(iter(reasons.values()))}")
    finally:
        executor.shutdown(cancel_futures=True)
    return failed


def _ask(transfer: Transfer, remote: Remote, batch: Sequence[Pointer]) -> dict[str, object]:
    """oid → the server's answer for that object."""
    body = {
        "operation": "download",
        "transfers": ["basic"],
        "objects": [{"oid": oid, "size": size} for oid, size in sorted({(p.oid, p.bytes) for p in batch})],
    }
    url = f"{remote.url}.git/info/lfs/objects/batch"
    answer = transfer.json("POST", url, HEADERS, body)
    objects = answer.get("objects") if isinstance(answer, dict) else None
    if not isinstance(objects, list):
        raise DownloadError(f"{url}: the answer lists no objects")
    return {str(item.get("oid")): item for item in objects if isinstance(item, dict)}


def _download(transfer: Transfer, pointer: Pointer, answer: object, folder: Path) -> None:
    if not isinstance(answer, dict):
        raise DownloadError(f"{pointer.name}: the server does not mention it")
    if "error" in answer:
        error = answer["error"]
        raise DownloadError(f"{pointer.name}: {error.get('code')} {error.get('message')}")
    try:
        action = answer["actions"]["download"]
        url, headers = str(action["href"]), {str(k): str(v) for k, v in (action.get("header") or {}).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"{pointer.name}: the server says not where it is") from error
    transfer.file(url, folder / pointer.name, pointer.expected, headers)
