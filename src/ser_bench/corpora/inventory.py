"""`ser-bench corpora verify`: which clips of a copy are missing, damaged, extra, or not the official bytes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ser_bench import audio
from ser_bench.corpora import audio_index
from ser_bench.corpora.catalogue import default_root, find, sheet_of
from ser_bench.corpora.data_sheet import Fields, Sheet
from ser_bench.corpora.transfer import Expected
from ser_bench.errors import CorpusError

MANIFEST = "manifest.csv"
"""file, sha256, bytes of every official file; `prepare` writes it, and it is read in the corpus folder or beside it."""
LISTED_AT_MOST = 10


@dataclass(frozen=True)
class Inventory:
    """What `verify` found in one folder.

    Attributes:
        name: of the data sheet.
        root: the folder.
        clips: how many clips can be decoded.
        expected: how many the official release has; 0 where that means nothing.
        missing: ids that are not here, where the official list is known.
        missing_count: how many clips are not here, known or not by name.
        damaged: file → what is wrong with it.
        extra: audio files whose name is not of this corpus.
        compared: how many files stand in the manifest under this very name and were compared with it.
        different: files whose bytes are not those of the manifest.
        twice: ids that are here more than once.
    """

    name: str
    root: Path
    clips: int
    expected: int
    missing: tuple[str, ...] = ()
    missing_count: int = 0
    damaged: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    compared: int = 0
    different: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """True where every official clip is here and nothing found is wrong; extra files do no harm."""
        return not (self.missing_count or self.damaged or self.different or self.twice)

    def lines(self) -> list[str]:
        """The findings, one line each."""
        lines = [f"{self.name}: {self.clips:,} of {self.expected:,} clips in {self.root} can be used"]
        if self.missing_count:
            lines.append(f"missing: {self.missing_count:,}{_named(self.missing)}")
        if self.damaged:
            lines.append(f"damaged: {len(self.damaged):,}{_named(self.damaged.values())}")
        if self.twice:
            lines.append(f"here more than once: {len(self.twice):,}{_named(self.twice)}")
        if self.extra:
            lines.append(f"other audio, not of this corpus: {len(self.extra):,}{_named(self.extra)}")
        if self.compared:
            same = self.compared - len(self.different)
            lines.append(f"byte for byte as published: {same:,} of {self.compared:,}{_named(self.different)}")
        else:
            lines.append("no file could be compared with the published bytes (no manifest, or another format)")
        return lines


def verify(name: str, root: Path | None = None) -> Inventory:
    """Decode every clip of a copy and compare it with what is known of the official release.

    Raises:
        ConfigError: an unknown corpus.
        CorpusError: no such folder, or a corpus that has no official release.
    """
    sheet = sheet_of(name)
    if not sheet.clips:
        raise CorpusError(f"{name}: has no official release to compare with")
    folder = root or default_root(name)
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder; run `ser-bench corpora prepare {name}` or give --root FOLDER")
    named, extra = _sort(sheet, find(folder))
    manifest = _manifest_near(folder)
    damaged = _damaged(named, f"verifying {name}")
    sound = {fields.id for path, fields in named if path not in damaged}
    listed = [path for path, _ in named if path.name in manifest]
    missing = sorted(_official(sheet, manifest) - sound)
    return Inventory(
        name=name,
        root=folder,
        clips=len(sound),
        expected=sheet.clips,
        missing=tuple(missing),
        missing_count=max(len(missing), sheet.clips - len(sound), 0),
        damaged={str(path): reason for path, reason in damaged.items()},
        extra=tuple(str(path) for path in extra),
        compared=len(listed),
        different=tuple(path.name for path in listed if not _expected(manifest, path).matches(path)),
        twice=tuple(sorted(clip for clip, n in Counter(fields.id for _, fields in named).items() if n > 1)),
    )


def sound_clips(sheet: Sheet, root: Path) -> set[str]:
    """Ids of the clips below the folder that can be decoded; empty where there is no folder."""
    named, _ = _sort(sheet, find(root))
    damaged = _damaged(named, f"checking {sheet.name}")
    return {fields.id for path, fields in named if path not in damaged}


def read_manifest(path: Path) -> dict[str, tuple[str, int]]:
    """File name → (sha256, bytes).

    Raises:
        CorpusError: other columns, or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["file"]: (row["sha256"], int(row["bytes"])) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise CorpusError(f"{path}: needs columns file, sha256 and bytes; remove it to have it made again") from error


def _manifest_near(folder: Path) -> dict[str, tuple[str, int]]:
    for path in (folder / MANIFEST, folder.parent / MANIFEST):
        if path.is_file():
            return read_manifest(path)
    return {}


def _official(sheet: Sheet, manifest: Mapping[str, object]) -> set[str]:
    """Every id of the release, from its design or its manifest; empty where neither is known."""
    named, _ = _sort(sheet, [Path(name) for name in manifest])
    return set(sheet.names) or {fields.id for _, fields in named}


def _sort(sheet: Sheet, paths: Iterable[Path]) -> tuple[list[tuple[Path, Fields]], list[Path]]:
    """Clips with what their names tell, and files whose name is not of this corpus."""
    named, extra = [], []
    for path in paths:
        try:
            fields = sheet.parse(path.stem)
        except ValueError:
            extra.append(path)
            continue
        if fields is not None:
            named.append((path, fields))
    return named, extra


def _damaged(named: Iterable[tuple[Path, Fields]], description: str) -> dict[Path, str]:
    """Path → what is wrong, of clips that cannot be used."""
    probed = audio_index.probe_each([path for path, _ in named], audio.MAX_DURATION_S, description)
    return {path: result for path, result in probed if isinstance(result, str)}


def _expected(manifest: Mapping[str, tuple[str, int]], path: Path) -> Expected:
    sha256, size = manifest[path.name]
    return Expected(size, f"sha256:{sha256}")


def _named(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:LISTED_AT_MOST]) + (", …" if len(listed) > LISTED_AT_MOST else "")
    return f" ({shown})" if listed else ""
