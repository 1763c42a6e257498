"""Download of a corpus from its publisher (`ser-bench corpora prepare`), checked and resumable."""

from __future__ import annotations

import csv
import io
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from ser_bench.audio import EXTENSIONS, MAX_FILE_BYTES
from ser_bench.corpora.audio_files import default_root
from ser_bench.corpora.data_sheet import DataSheet, Host, Remote
from ser_bench.corpora.download import git_lfs
from ser_bench.corpora.download.git_lfs import Pointer
from ser_bench.corpora.download.http_transfer import (
    ExpectedFile,
    Transfer,
    TransferLimits,
    atomic_write,
    plain_file_name,
    target_inside,
)
from ser_bench.corpora.download.verification import MANIFEST, intact_clips, read_manifest
from ser_bench.corpora.names import existing_form, nfc
from ser_bench.corpora.sheets import sheet_of
from ser_bench.errors import CorpusError, DownloadError

JOBS = 8
"""Number of parallel downloads: enough to hide latency, and few enough not to be blocked by the host."""


def prepare(
    name: str,
    root: Path | None = None,
    *,
    remotes: Sequence[Remote] | None = None,
    limits: TransferLimits | None = None,
    jobs: int = JOBS,
) -> Path:
    """Download the missing files of a corpus. Files that exist and are correct are not downloaded again.

    Args:
        name: name of the corpus.
        root: folder to write; None: `default_root`.
        remotes: download sources, tried in order; None: those of the data sheet.
        limits: retry and timeout settings.
        jobs: number of parallel downloads.

    Returns:
        The folder, for `corpus.root`.

    Raises:
        DownloadError: if no source could deliver all files. The files that were downloaded remain, and the next call
            downloads only the others.
        CorpusError: if the corpus has no download source, or if the folder cannot be written.
        ConfigError: if the corpus is unknown.
    """
    sheet = sheet_of(name)
    sources = tuple(sheet.remotes if remotes is None else remotes)
    if not sources:
        raise CorpusError(f"{name}: nothing to download; {sheet.how_to_get}")
    folder = existing_form(root) if root else default_root(name)
    steps = {Host.git_lfs: _from_git_lfs, Host.archive: _from_archive, Host.dataverse: _from_dataverse}
    transfer = Transfer.open(limits, jobs)
    reasons = []
    with transfer.client:
        for source in sources:
            try:
                steps[source.host](transfer, sheet, source, folder, jobs)
                return folder
            except DownloadError as error:
                reasons.append(f"{urlsplit(source.url).netloc}: {error}")
    raise DownloadError(
        f"{name}: no host could deliver all files; the downloaded files are in {folder}. Run the command again later "
        f"to download the others, or set corpus.root=FOLDER to another copy ({sheet.homepage}). "
        f"{' | '.join(reasons)}"
    )


def _from_git_lfs(transfer: Transfer, sheet: DataSheet, source: Remote, root: Path, jobs: int) -> None:
    pointers = _pointers(transfer, sheet, source, root)
    folder = target_inside(root, sheet.lfs_folder, MANIFEST).parent
    complete = [pointer for pointer in pointers if pointer.expected.matches(folder / pointer.name)]
    missing = sorted(set(pointers) - set(complete), key=lambda pointer: pointer.name)
    if not missing:
        return
    with tqdm(total=len(pointers), initial=len(complete), desc=sheet.name, unit="file", disable=None) as bar:
        failed = git_lfs.fetch(transfer, source, missing, folder, jobs, lambda: bar.update())
    if failed:
        name, reason = next(iter(failed.items()))
        raise DownloadError(
            f"{len(failed):,} of {len(missing):,} files could not be downloaded; the first is {name}: {reason}"
        )


def _pointers(transfer: Transfer, sheet: DataSheet, source: Remote, root: Path) -> list[Pointer]:
    """Return the pointers: from the manifest if it is complete, else from the archive of the repository."""
    listed = read_manifest(root / MANIFEST) if (root / MANIFEST).is_file() else {}
    if len(listed) >= sheet.clips:
        return [Pointer(name, sha256, size) for name, (sha256, size) in sorted(listed.items())]
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "repository.tar.gz"
        with tqdm(desc=f"{sheet.name}: list of files", unit="B", unit_scale=True, disable=None) as bar:
            transfer.file(source.archive, archive, ExpectedFile(), on_bytes=bar.update)
        pointers = git_lfs.read_pointers(archive, sheet.lfs_folder, sheet.lfs_tables, root)
    _write_manifest(root / MANIFEST, pointers)
    return pointers


def _write_manifest(path: Path, pointers: Sequence[Pointer]) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerows([("file", "sha256", "bytes"), *((p.name, p.oid, p.bytes) for p in pointers)])
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def _from_archive(transfer: Transfer, sheet: DataSheet, source: Remote, root: Path, _jobs: int) -> None:
    expected = ExpectedFile(source.bytes, source.checksum)
    if _count_intact(sheet, root) >= sheet.clips:
        return
    archive = root / f".{sheet.name}.zip"  # in the target folder, so that renaming is atomic
    with tqdm(total=source.bytes or None, desc=sheet.name, unit="B", unit_scale=True, disable=None) as bar:
        transfer.file(source.url, archive, expected, on_bytes=bar.update)
    try:
        _unpack(archive, root, sheet)
    finally:
        archive.unlink(missing_ok=True)
    if _count_intact(sheet, root) < sheet.clips:
        raise DownloadError(f"the archive contains {_count_intact(sheet, root):,} of {sheet.clips:,} clips")


def _unpack(archive: Path, root: Path, sheet: DataSheet) -> None:
    """Extract the clips of a ZIP archive to ROOT/FOLDER/FILE. Each is checked by its CRC.

    Raises:
        DownloadError: if the archive is damaged or cannot be extracted.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [item for item in opened.infolist() if _is_clip(PurePosixPath(item.filename), sheet)]
            for item in tqdm(members, desc=f"{sheet.name}: unpacking", unit="file", disable=None, delay=2.0):
                if item.file_size > MAX_FILE_BYTES:  # no more than this size is unpacked
                    raise DownloadError(
                        f"{item.filename} in the archive has {item.file_size:,} bytes, the limit is {MAX_FILE_BYTES:,}"
                    )
                path = PurePosixPath(item.filename)
                inside = path.name if path.parent.name in ("", "..") else f"{path.parent.name}/{path.name}"
                with opened.open(item) as source, atomic_write(target_inside(root, inside)) as file:
                    while chunk := source.read(1 << 20):
                        file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"the archive is damaged ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # an unsupported compression method, or a password
        raise DownloadError(f"the archive cannot be unpacked ({error})") from error


def _from_dataverse(transfer: Transfer, sheet: DataSheet, source: Remote, root: Path, _jobs: int) -> None:
    """Download each file in the list of a Dataverse data set, with its MD5 checksum; unpack ZIP files among them."""
    url = f"{source.url}/api/datasets/:persistentId/versions/:latest-published/files?persistentId={source.archive}"
    response = transfer.json("GET", url, {"Accept": "application/json"})
    items = response.get("data") if isinstance(response, dict) else None
    if not isinstance(items, list):
        raise DownloadError(f"{url}: the response has no list of files")
    for item in tqdm(items, desc=sheet.name, unit="file", disable=None):
        try:
            file, name = item["dataFile"], PurePosixPath(item["label"])
            inside = plain_file_name(PurePosixPath(item.get("directoryLabel") or "audio").name)
            expected = ExpectedFile(int(file["filesize"]), f"md5:{file['md5']}" if file.get("md5") else "")
            address = f"{source.url}/api/access/datafile/{int(file['id'])}"
        except (KeyError, TypeError, ValueError) as error:
            raise DownloadError(f"{url}: a file without name, size or id") from error
        if name.suffix.lower() == ".zip" and _count_intact(sheet, root) < sheet.clips:
            archive = root / f".{name.name}"
            transfer.file(address, archive, expected)
            _unpack(archive, root, sheet)
            archive.unlink()
        elif _is_clip(name, sheet) and not expected.matches(target := target_inside(root, inside, name.name)):
            transfer.file(address, target, expected)
    if _count_intact(sheet, root) < sheet.clips:
        raise DownloadError(f"the data set contains {_count_intact(sheet, root):,} of {sheet.clips:,} clips")


def _is_clip(path: PurePosixPath, sheet: DataSheet) -> bool:
    if path.suffix.lower() not in EXTENSIONS or path.name.startswith(".") or "__MACOSX" in path.parts:
        return False
    try:
        return sheet.parse(nfc(path.stem)) is not None
    except ValueError:
        return False


def _count_intact(sheet: DataSheet, root: Path) -> int:
    return len(intact_clips(sheet, root))
