"""`ser-bench corpora prepare`: get a corpus from its publisher, whole, checked, and resumable."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from tqdm import tqdm

from ser_bench.audio import EXTENSIONS
from ser_bench.corpora import git_lfs
from ser_bench.corpora.catalogue import default_root, sheet_of
from ser_bench.corpora.data_sheet import Host, Remote, Sheet
from ser_bench.corpora.git_lfs import Pointer
from ser_bench.corpora.inventory import MANIFEST, read_manifest, sound_clips
from ser_bench.corpora.transfer import Expected, Patience, Transfer, half_written
from ser_bench.errors import CorpusError, DownloadError

JOBS = 8
"""Files at once: enough to hide latency, few enough not to be taken for an attack."""


def prepare(
    name: str,
    root: Path | None = None,
    *,
    remotes: Sequence[Remote] | None = None,
    patience: Patience | None = None,
    jobs: int = JOBS,
) -> Path:
    """Download what is missing of a corpus; what is here and correct is not asked for again.

    Args:
        name: of the data sheet.
        root: where to; None: where `corpus.root: null` looks.
        remotes: other places than the sheet's, tried in order.
        patience: how long a host is borne with.
        jobs: files at once.

    Returns:
        The folder to give as `corpus.root`.

    Raises:
        DownloadError: no place could deliver all of it; what came is kept for the next attempt.
        CorpusError: the corpus is not downloaded at all, or the folder cannot be written.
        ConfigError: an unknown corpus.
    """
    sheet = sheet_of(name)
    places = tuple(sheet.remotes if remotes is None else remotes)
    if not places:
        raise CorpusError(
            f"{name} is generated on first use: nothing to download"
            if sheet.synthetic
            else f"{name} is yours: nothing to download; give corpus.root=FILE.csv"
        )
    folder = root or default_root(name)
    steps = {Host.git_lfs: _from_git_lfs, Host.archive: _from_archive, Host.dataverse: _from_dataverse}
    transfer = Transfer.open(patience, jobs)
    reasons = []
    with transfer.client:
        for place in places:
            try:
                steps[place.host](transfer, sheet, place, folder, jobs)
                return folder
            except DownloadError as error:
                reasons.append(f"{urlsplit(place.url).netloc}: {error}")
    raise DownloadError(
        f"{name}: no host could deliver all of it, and what came is kept in {folder}. Try again later to go on from "
        f"there, or point corpus.root=FOLDER at a copy from elsewhere ({sheet.homepage}). {' | '.join(reasons)}"
    )


def _from_git_lfs(transfer: Transfer, sheet: Sheet, place: Remote, root: Path, jobs: int) -> None:
    pointers = _pointers(transfer, sheet, place, root)
    folder = root / sheet.folder
    here = [pointer for pointer in pointers if pointer.expected.matches(folder / pointer.name)]
    wanted = sorted(set(pointers) - set(here), key=lambda pointer: pointer.name)
    if not wanted:
        return
    with tqdm(total=len(pointers), initial=len(here), desc=sheet.name, unit="file", disable=None) as bar:
        failed = git_lfs.fetch(transfer, place, wanted, folder, jobs, lambda: bar.update())
    if failed:
        name, reason = next(iter(failed.items()))
        raise DownloadError(f"{len(failed):,} of {len(wanted):,} files did not come, {name} first: {reason}")


def _pointers(transfer: Transfer, sheet: Sheet, place: Remote, root: Path) -> list[Pointer]:
    """From the manifest of an earlier attempt where it is complete, else from the repository's archive."""
    listed = read_manifest(root / MANIFEST) if (root / MANIFEST).is_file() else {}
    if len(listed) >= sheet.clips:
        return [Pointer(name, sha256, size) for name, (sha256, size) in sorted(listed.items())]
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "repository.tar.gz"
        with tqdm(desc=f"{sheet.name}: list of files", unit="B", unit_scale=True, disable=None) as bar:
            transfer.file(place.archive, archive, Expected(), on_bytes=bar.update)
        pointers = git_lfs.read_pointers(archive, sheet.folder, sheet.files, root)
    _write_manifest(root / MANIFEST, pointers)
    return pointers


def _write_manifest(path: Path, pointers: Sequence[Pointer]) -> None:
    rows = ["file,sha256,bytes", *(f"{p.name},{p.oid},{p.bytes}" for p in pointers)]
    with half_written(path) as file:
        file.write(("\n".join(rows) + "\n").encode())


def _from_archive(transfer: Transfer, sheet: Sheet, place: Remote, root: Path, _jobs: int) -> None:
    expected = Expected(place.bytes, place.checksum)
    if _sound(sheet, root) >= sheet.clips:
        return
    archive = root / f".{sheet.name}.zip"  # kept beside its content, so that the move there is atomic
    with tqdm(total=place.bytes or None, desc=sheet.name, unit="B", unit_scale=True, disable=None) as bar:
        transfer.file(place.url, archive, expected, on_bytes=bar.update)
    try:
        _unpack(archive, root, sheet)
    finally:
        archive.unlink(missing_ok=True)
    if _sound(sheet, root) < sheet.clips:
        raise DownloadError(f"the archive holds {_sound(sheet, root):,} of {sheet.clips:,} clips")


def _unpack(archive: Path, root: Path, sheet: Sheet) -> None:
    """Write the archive's clips as FOLDER/FILE below the root; ZIP checks each by its CRC.

    Raises:
        DownloadError: damaged, or not a ZIP.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [item for item in opened.infolist() if _is_clip(PurePosixPath(item.filename), sheet)]
            for item in tqdm(members, desc=f"{sheet.name}: unpacking", unit="file", disable=None, delay=2.0):
                path = PurePosixPath(item.filename)
                inside = path.name if path.parent.name in ("", "..") else f"{path.parent.name}/{path.name}"
                with opened.open(item) as source, half_written(root / inside) as file:
                    while chunk := source.read(1 << 20):
                        file.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"the archive is damaged ({error})") from error
    except (NotImplementedError, RuntimeError) as error:  # a kind of compression that Python lacks, or a password
        raise DownloadError(f"the archive cannot be unpacked here ({error})") from error


def _from_dataverse(transfer: Transfer, sheet: Sheet, place: Remote, root: Path, _jobs: int) -> None:
    """List the files of the data set with their MD5 sums, then fetch each; ZIP files among them are unpacked."""
    url = f"{place.url}/api/datasets/:persistentId/versions/:latest-published/files?persistentId={place.archive}"
    answer = transfer.json("GET", url, {"Accept": "application/json"})
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise DownloadError(f"{url}: the answer lists no files")
    for item in tqdm(items, desc=sheet.name, unit="file", disable=None):
        try:
            file, name = item["dataFile"], PurePosixPath(item["label"])
            inside = PurePosixPath(item.get("directoryLabel") or "audio").name
            expected = Expected(int(file["filesize"]), f"md5:{file['md5']}" if file.get("md5") else "")
            source = f"{place.url}/api/access/datafile/{int(file['id'])}"
        except (KeyError, TypeError, ValueError) as error:
            raise DownloadError(f"{url}: a file without name, size or number") from error
        if name.suffix.lower() == ".zip" and _sound(sheet, root) < sheet.clips:
            archive = root / f".{name.name}"
            transfer.file(source, archive, expected)
            _unpack(archive, root, sheet)
            archive.unlink()
        elif _is_clip(name, sheet) and not expected.matches(root / inside / name.name):
            transfer.file(source, root / inside / name.name, expected)
    if _sound(sheet, root) < sheet.clips:
        raise DownloadError(f"the data set holds {_sound(sheet, root):,} of {sheet.clips:,} clips")


def _is_clip(path: PurePosixPath, sheet: Sheet) -> bool:
    if path.suffix.lower() not in EXTENSIONS or path.name.startswith(".") or "__MACOSX" in path.parts:
        return False
    try:
        return sheet.parse(path.stem) is not None
    except ValueError:
        return False


def _sound(sheet: Sheet, root: Path) -> int:
    return len(sound_clips(sheet, root))
