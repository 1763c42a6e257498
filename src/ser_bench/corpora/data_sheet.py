"""The data sheet of a corpus: what each module in `corpora/sheets/` defines.

A data sheet states what the publisher releases (citation, licence, labels, counts, download sources) and how to read
the fields of a clip, usually from its file name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from ser_bench.config import RUN_COMMAND, CorpusConfig

Votes = Mapping[str, Mapping[str, int]]
"""Clip id → emotion → number of listeners who chose this emotion."""
HeardIntensity = Mapping[str, float]
"""Clip id → mean intensity of the emotion that listeners heard; the scale is that of the corpus."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one clip, as its file name or its line in a table gives them.

    Attributes:
        id: unique within the corpus: the stem of the file name, in the spelling of the official release.
        emotion: canonical label (`labels.py`).
        speaker: unique within the corpus.
        sentence: code of the sentence, or "" if it is unknown.
        text: words of the sentence, or "" if they are unknown.
        intensity: "low", "medium", "high", "normal", "strong", or "" if it is unknown.
        sex: "female", "male", or "" if it is unknown.
        part: "train", "val" or "test", if the corpus states one (`split=fixed split.list=corpus`); else "".
    """

    id: str
    emotion: str
    speaker: str
    sentence: str = ""
    text: str = ""
    intensity: str = ""
    sex: str = ""
    part: str = ""


@dataclass
class ClipListing:
    """The files of a corpus before their audio is checked.

    Attributes:
        clips: audio file and fields of each clip.
        refused: file, or line of a table → reason why its fields cannot be read.
        other: number of files of the release that are not speech clips.
        warnings: on files that cannot be read at all.
    """

    clips: list[tuple[Path, Fields]] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)
    other: int = 0
    warnings: list[str] = field(default_factory=list)


class Host(Enum):
    """Kind of server that a corpus is downloaded from."""

    git_lfs = "git_lfs"
    """A Git server with Git LFS: the archive of the repository contains pointers, the LFS server the audio."""
    archive = "archive"
    """A web server with one ZIP file."""
    dataverse = "dataverse"
    """A Dataverse server: a list of files with MD5 checksums, and one request per file."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A download source of a corpus. The sources of a data sheet are tried in order.

    Attributes:
        host: kind of server.
        url: `git_lfs`: the repository, without ".git"; `archive`: the ZIP file; `dataverse`: the server.
        archive: `git_lfs`: the tar.gz file of the repository; `dataverse`: the persistent id of the data set.
        checksum: "md5:…" or "sha256:…" of an archive, as stated by its publisher; "" if none is published or if every
            file has its own.
        bytes: size of the archive; 0 if it is not published.
    """

    host: Host
    url: str
    archive: str = ""
    checksum: str = ""
    bytes: int = 0


def no_sexes(_root: Path) -> Mapping[str, str]:
    """Return an empty mapping: the default of `DataSheet.sexes`."""
    return {}


@dataclass(frozen=True)
class DataSheet:
    """Description of one corpus.

    Attributes:
        name: value of the override `corpus=`; also the name of the module and of `conf/corpus/NAME.yaml`.
        title: full name.
        citation: the paper to cite.
        licence: as the publisher states it.
        language: ISO 639-1 code of the spoken language.
        labels: canonical labels in canonical order; () if they depend on the user's table.
        parse: returns the fields of a clip, given the stem of its file name; None for a file of the release that is not
            a speech clip (for example a song). It raises ValueError for a name that does not belong to the corpus.
        naming: scheme of the file names in one line, with an example.
        examples: stems that `parse` accepts.
        clips: number of clips in the official release; 0 if there is no release.
        speakers: number of speakers in the official release.
        sentences: code of a sentence → its words.
        clips_per_label: number of clips of each label in the official release.
        doi: of the paper or of the data, or "".
        homepage: address of the corpus, or "".
        sexes: returns speaker → "female" | "male", given the root folder, if the release has a table of speakers.
        votes: returns the votes of listeners, given the root folder, if the release has them; else None. It raises
            CorpusError if the table is missing from this copy.
        intensities: the levels of intensity that actors were asked for, from the least to the most; () if there are
            none, or if they depend on the user's table.
        heard_intensity: returns the mean intensity that listeners heard, given the root folder, {} if this copy lacks
            the table; None if the release has no such ratings.
        generate: writes the corpus into a folder, unless the folder is complete, for a synthetic corpus:
            `generate(folder, clips, seed)`; else None.
        read_table: reads the clips from a table that is given as `corpus.root`; else None. It returns (audio file,
            fields) of each clip, and line → reason of each line that cannot be used.
        read_database: reads the clips of a folder with tables, given its root and the keys of the corpus; else None.
        remotes: download sources, in the order in which they are tried; () if the corpus is not downloaded.
        clip_ids: all ids of the official release, if they follow from its design; else ().
        lfs_folder: for `Host.git_lfs`: folder of the repository that contains the audio.
        lfs_tables: for `Host.git_lfs`: tables to extract from the archive of the repository (ends of their paths).
        synthetic: True if the speech is synthetic.
        notes: known peculiarities of the corpus.
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
    clips_per_label: Mapping[str, int] = field(default_factory=dict)
    doi: str = ""
    homepage: str = ""
    sexes: Callable[[Path], Mapping[str, str]] = no_sexes
    votes: Callable[[Path], Votes] | None = None
    intensities: tuple[str, ...] = ()
    heard_intensity: Callable[[Path], HeardIntensity] | None = None
    generate: Callable[[Path, int, int], None] | None = None
    read_table: Callable[[Path], tuple[list[tuple[Path, Fields]], dict[Path, str]]] | None = None
    read_database: Callable[[Path, CorpusConfig], ClipListing] | None = None
    remotes: tuple[Remote, ...] = ()
    clip_ids: tuple[str, ...] = ()
    lfs_folder: str = ""
    lfs_tables: tuple[str, ...] = ()
    synthetic: bool = False
    notes: tuple[str, ...] = ()

    @property
    def how_to_get(self) -> str:
        """What a user does to get this corpus, as the end of a message: a command, or the key that names a copy."""
        if self.remotes:
            return f"run `ser-bench corpora prepare {self.name}`, or set corpus.root=FOLDER to a copy"
        if self.generate is not None:
            return f"it is generated at its first use: {RUN_COMMAND} corpus={self.name}"
        if self.read_table is not None:
            return (
                "list your clips in a CSV file with the columns path, emotion and speaker: "
                f"{RUN_COMMAND} corpus={self.name} corpus.root=FILE.csv"
            )
        if self.read_database is not None:
            return f"name a folder with db.yaml: {RUN_COMMAND} corpus={self.name} corpus.root=FOLDER"
        return f"set corpus.root=FOLDER to a copy{f' ({self.homepage})' if self.homepage else ''}"
