"""Verification of a copy of a corpus (`ser-bench corpora verify`).

Every clip is decoded and compared with the official release: missing, damaged, additional and different files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ser_bench import audio
from ser_bench.corpora.audio_files import default_root, find_audio, probe_each, search_folder
from ser_bench.corpora.csv_tables import read_rows
from ser_bench.corpora.data_sheet import DataSheet, Fields
from ser_bench.corpora.download.http_transfer import ExpectedFile, plain_file_name
from ser_bench.corpora.names import existing_form, nfc
from ser_bench.corpora.sheets import sheet_of
from ser_bench.errors import CorpusError

MANIFEST = "manifest.csv"
"""Table of all official files (file, sha256, bytes). `prepare` writes it into the corpus folder."""
MAX_LISTED = 10


@dataclass(frozen=True)
class Inventory:
    """Result of the verification of one folder.

    Attributes:
        name: name of the corpus.
        root: the folder.
        clips: number of clips that can be decoded.
        expected: number of clips in the official release.
        missing: ids of missing clips, if the ids of the official release are known.
        missing_count: number of missing clips, also if their ids are unknown.
        damaged: file → reason why it cannot be used.
        extra: audio files whose name does not belong to the corpus.
        unread: number and extensions of files that libsndfile does not read.
        compared: number of files that the manifest lists and that were compared with it.
        different: names of files whose content differs from the manifest.
        duplicates: ids of clips that occur more than once.
    """

    name: str
    root: Path
    clips: int
    expected: int
    missing: tuple[str, ...] = ()
    missing_count: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    unread: str = ""
    compared: int = 0
    different: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True if no clip is missing, damaged, different or duplicated. Additional files are allowed."""
        return not (self.missing_count or self.damaged or self.different or self.duplicates)

    def lines(self) -> list[str]:
        """Return the result as lines of text."""
        lines = [f"{self.name}: {self.clips:,} of {self.expected:,} clips in {self.root} can be used"]
        if self.missing_count:
            lines.append(f"missing: {self.missing_count:,}{_listed(self.missing)}")
        if self.damaged:
            lines.append(f"damaged: {len(self.damaged):,}{_listed(self.damaged.values())}")
        if self.duplicates:
            lines.append(f"duplicated: {len(self.duplicates):,}{_listed(self.duplicates)}")
        if self.extra:
            lines.append(f"other audio files: {len(self.extra):,}{_listed(self.extra)}")
        if self.unread:
            lines.append(f"left out: {self.unread}; {audio.HOW_TO_CONVERT}")
        if self.compared:
            same = self.compared - len(self.different)
            lines.append(f"identical to the published files: {same:,} of {self.compared:,}{_listed(self.different)}")
        else:
            lines.append("not compared with the published files (no manifest, or another audio format)")
        return lines


def verify(name: str, root: Path | None = None) -> Inventory:
    """Decode every clip of a copy and compare the copy with the official release.

    Args:
        name: name of the corpus.
        root: folder of the copy; None: `default_root`.

    Raises:
        ConfigError: if the corpus is unknown.
        CorpusError: if the folder does not exist, or if the corpus has no official release.
    """
    sheet = sheet_of(name)
    if not sheet.clips:
        raise CorpusError(
            f"{name}: there is no official release to compare with. A run checks every clip; {sheet.how_to_get}"
        )
    folder = existing_form(root) if root else default_root(name)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder; --root FOLDER checks another one. For a copy, {sheet.how_to_get}")
    search = search_folder(folder)
    clips, extra = _sort(sheet, search.audio)
    manifest = _find_manifest(folder)
    damaged = _damaged(clips, f"verifying {name}")
    intact = {fields.id for path, fields in clips if path not in damaged}
    in_manifest = [path for path, _ in clips if nfc(path.name) in manifest]
    missing = sorted(_official_ids(sheet, manifest) - intact)
    return Inventory(
        name=name,
        root=folder,
        clips=len(intact),
        expected=sheet.clips,
        missing=tuple(missing),
        missing_count=max(len(missing), sheet.clips - len(intact), 0),
        damaged={str(path): reason for path, reason in damaged.items()},
        extra=tuple(str(path) for path in extra),
        unread=search.unread(),
        compared=len(in_manifest),
        different=tuple(path.name for path in in_manifest if not _expected(manifest, path).matches(path)),
        duplicates=tuple(sorted(clip for clip, n in Counter(fields.id for _, fields in clips).items() if n > 1)),
    )


def intact_clips(sheet: DataSheet, root: Path) -> set[str]:
    """Return the ids of the clips below a folder that can be decoded; an empty set if the folder does not exist."""
    clips, _ = _sort(sheet, find_audio(root))
    damaged = _damaged(clips, f"checking {sheet.name}")
    return {fields.id for path, fields in clips if path not in damaged}


def read_manifest(path: Path) -> dict[str, tuple[str, int]]:
    """Return file name → (sha256, size in bytes).

    Raises:
        CorpusError: if a column is missing, a line cannot be read, or a name is not that of a file in the same folder.
    """
    advice = "needed are the columns file, sha256 and bytes; remove the file, and `prepare` writes it again"
    manifest: dict[str, tuple[str, int]] = {}
    for line in read_rows(path, ("file", "sha256", "bytes"), advice):
        try:
            name, size = plain_file_name(line.cells["file"]), int(line.cells["bytes"])
            if manifest.setdefault(name, (line.cells["sha256"], size)) != (line.cells["sha256"], size):
                raise ValueError(f"{name} is listed twice, with other values")
        except ValueError as error:
            raise CorpusError(f"{path} line {line.number}: {error}; {advice}") from error
    return manifest


def _find_manifest(folder: Path) -> dict[str, tuple[str, int]]:
    """Read the manifest in a folder or its parent, with names in NFC; return {} if there is none."""
    for path in (folder / MANIFEST, folder.parent / MANIFEST):
        if path.is_file():
            return {nfc(name): entry for name, entry in read_manifest(path).items()}
    return {}


def _official_ids(sheet: DataSheet, manifest: Mapping[str, object]) -> set[str]:
    """Return the ids of the official release, from the data sheet or the manifest; an empty set if neither has them."""
    clips, _ = _sort(sheet, [Path(name) for name in manifest])
    return set(sheet.clip_ids) or {fields.id for _, fields in clips}


def _sort(sheet: DataSheet, paths: Iterable[Path]) -> tuple[list[tuple[Path, Fields]], list[Path]]:
    """Return the clips with their fields, and the files whose name does not belong to the corpus."""
    clips, extra = [], []
    for path in paths:
        try:
            fields = sheet.parse(nfc(path.stem))
        except ValueError:
            extra.append(path)
            continue
        if fields is not None:
            clips.append((path, fields))
    return clips, extra


def _damaged(clips: Iterable[tuple[Path, Fields]], description: str) -> dict[Path, str]:
    """Return path → reason of the clips that cannot be decoded."""
    probed = probe_each([path for path, _ in clips], audio.MAX_DURATION_S, description)
    return {path: result for path, result in probed if isinstance(result, str)}


def _expected(manifest: Mapping[str, tuple[str, int]], path: Path) -> ExpectedFile:
    sha256, size = manifest[nfc(path.name)]
    return ExpectedFile(size, f"sha256:{sha256}")


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    first = ", ".join(every[:MAX_LISTED]) + (", …" if len(every) > MAX_LISTED else "")
    return f" ({first})" if every else ""
