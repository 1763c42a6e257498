"""What a corpus module states: a data sheet, and how a file's name tells what was said, how and by whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fields:
    """What the name of one clip tells.

    Attributes:
        id: unique within the corpus; the stem, spelled as the official release spells it.
        emotion: canonical label (`labels.py`).
        speaker: unique within the corpus.
        sentence: code of the sentence, or "".
        text: its words, or "".
        intensity: "low", "medium", "high", "normal", "strong", or "".
        sex: "female", "male" or "".
    """

    id: str
    emotion: str
    speaker: str
    sentence: str = ""
    text: str = ""
    intensity: str = ""
    sex: str = ""


class Host(Enum):
    """How the host of a corpus hands it out."""

    git_lfs = "git_lfs"
    """A Git forge: pointers in the repository's archive, audio from its Git LFS server."""
    archive = "archive"
    """One ZIP file."""
    dataverse = "dataverse"
    """A Dataverse data set: a list of files with MD5 sums, then one request a file."""


@dataclass(frozen=True, slots=True)
class Remote:
    """One place to get the corpus from; places are tried in the order in which a sheet lists them.

    Attributes:
        host: the protocol spoken there.
        url: `git_lfs`: the repository, without ".git". `archive`: the file. `dataverse`: the server.
        archive: `git_lfs`: the repository's tar.gz. `dataverse`: the persistent id.
        checksum: "md5:…" or "sha256:…" of an archive as its publisher states it; "" where none is published, or
            where every file has its own.
        bytes: size of the archive where it is published, else 0.
    """

    host: Host
    url: str
    archive: str = ""
    checksum: str = ""
    bytes: int = 0


def no_table(_root: Path) -> Mapping[str, str]:
    """For corpora whose file names tell all."""
    return {}


@dataclass(frozen=True)
class Sheet:
    """One corpus.

    Attributes:
        name: what `corpus=` takes.
        title: full name.
        citation: the paper to cite.
        doi: of that paper or of the data, or "".
        licence: as the publisher states it.
        homepage: where a person reads about it.
        language: ISO 639-1.
        labels: canonical labels in canonical order.
        sentences: code → words.
        clips: how many the official release has.
        speakers: how many speakers it has.
        naming: how file names are made, in one line with an example.
        parse: stem → Fields; None for a file of the release that is no speech clip (a song, say); ValueError for a
            name that is not of this corpus.
        examples: stems that parse.
        sexes: root → (speaker → "female" | "male"), for corpora that keep this in a table beside the audio.
        per_emotion: clips of each label in the official release.
        votes: root → (clip id → (emotion → listeners who heard it)), for corpora that people were asked about; else
            None. Raises CorpusError where this copy lacks the table.
        remotes: where to get it, in order; empty where it is not downloaded.
        names: every id of the official release, where it follows from the design; else empty.
        folder: `git_lfs`: the folder of the repository that holds the audio.
        files: `git_lfs`: tables to take from the repository's archive, as path endings.
        synthetic: True where no human spoke.
        notes: what a user of this corpus should know.
    """

    name: str
    title: str
    citation: str
    licence: str
    language: str
    labels: tuple[str, ...]
    parse: Callable[[str], Fields | None]
    naming: str
    examples: tuple[str, ...]
    clips: int
    speakers: int
    sentences: Mapping[str, str] = field(default_factory=dict)
    per_emotion: Mapping[str, int] = field(default_factory=dict)
    doi: str = ""
    homepage: str = ""
    sexes: Callable[[Path], Mapping[str, str]] = no_table
    votes: Callable[[Path], Mapping[str, Mapping[str, int]]] | None = None
    remotes: tuple[Remote, ...] = ()
    names: tuple[str, ...] = ()
    folder: str = ""
    files: tuple[str, ...] = ()
    synthetic: bool = False
    notes: tuple[str, ...] = ()
