"""The recordings that `ser-bench predict` is given: files, folders, lists of paths, and standard input."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ser_bench import audio
from ser_bench.corpora.csv_tables import MAX_TABLE_BYTES
from ser_bench.corpora.names import existing_form
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference.recording import Recording
from ser_bench.new_audio import audio_files

STDIN = "-"
STDIN_NAME = "standard input"
PATH_COLUMNS = ("path", "file")
"""Names of the column of a list that holds the paths; the first one that is there is used."""


@dataclass(frozen=True)
class ListedRecording:
    """One recording that is to be predicted.

    Attributes:
        name: the path as it was given; it is the key of a file with results.
        path: the file; None for standard input.
        given: the further columns of the list; {} for files that are named otherwise.
    """

    name: str
    path: Path | None
    given: Mapping[str, str] = field(default_factory=dict)

    def read(self, max_duration_s: float) -> Recording:
        """Read it.

        Raises:
            BadClipError: it cannot be used.
        """
        if self.path is None:
            return Recording.from_bytes(stdin_bytes(), self.name, max_duration_s)
        return replace(Recording.from_file(self.path, max_duration_s), name=self.name)


def recordings_of(words: Sequence[str], lists: Sequence[str] = ()) -> list[ListedRecording]:
    """Return what paths, `-` (audio on standard input) and lists name, in this order. A name counts once.

    Args:
        words: files, folders and `-`.
        lists: files with paths; `-` is standard input.

    Raises:
        ConfigError: a path among `words` does not exist, or a list cannot be read. A path in a list that does not exist
            is no error here, but the answer of this recording says it.
    """
    if STDIN in words and STDIN in lists:
        raise ConfigError("standard input is either audio (-) or a list (--list -)")
    found: dict[str, ListedRecording] = {}
    paths = [Path(word) for word in words if word != STDIN]
    for path in audio_files(paths) if paths else []:
        found.setdefault(str(path), ListedRecording(str(path), path))
    if STDIN in words:
        found.setdefault(STDIN_NAME, ListedRecording(STDIN_NAME, None))
    for word in lists:
        for recording in _of_list(word):
            found.setdefault(recording.name, recording)
    return list(found.values())


def stdin_bytes(limit: int = audio.MAX_FILE_BYTES) -> bytes:
    """Return all of standard input.

    Raises:
        ConfigError: it is a terminal.
        BadClipError: it has more bytes than `limit`.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("-: standard input is a terminal; give audio or a list with < FILE, or with a pipe")
    content = sys.stdin.buffer.read(limit + 1)
    if len(content) > limit:
        raise BadClipError(f"{STDIN_NAME}: has more than {limit:,} bytes; write it to a file")
    return content


def _of_list(word: str) -> list[ListedRecording]:
    """Read a list: a CSV table with a column of `PATH_COLUMNS`, or one path per line (or with NUL between paths).

    A relative path starts at the folder of the list; if there is no such file, at the working directory.
    """
    name = STDIN_NAME if word == STDIN else word
    try:
        content = stdin_bytes(MAX_TABLE_BYTES) if word == STDIN else Path(word).read_bytes()
    except OSError as error:
        raise ConfigError(f"--list {word}: cannot be read ({error.strerror})") from error
    folder = Path() if word == STDIN else Path(word).parent
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if "\0" in text:
        found = [_listed(path, folder, {}) for path in text.split("\0") if path]
    else:
        header = next(csv.reader(io.StringIO(text)), [])
        column = next((column for column in PATH_COLUMNS if column in header), None)
        if column is None:
            found = [_listed(line, folder, {}) for line in text.splitlines() if line.strip()]
        else:
            found = _of_table(text, name, column, folder)
    if not found:
        raise ConfigError(f"--list {word}: names no recording")
    return found


def _of_table(text: str, name: str, column: str, folder: Path) -> list[ListedRecording]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = list(reader.fieldnames or ())
    if len(set(columns)) < len(columns):
        raise ConfigError(f"{name}: has a column twice: {', '.join(columns)}")
    found = []
    for row in reader:
        if None in row or None in row.values() or not row[column]:
            raise ConfigError(f"{name}, line {reader.line_num}: has not {len(columns)} cells, or no path")
        found.append(_listed(row[column], folder, {key: row[key] for key in columns if key != column}))
    return found


def _listed(word: str, folder: Path, given: Mapping[str, str]) -> ListedRecording:
    beside = existing_form(folder / word)
    return ListedRecording(word, beside if beside.exists() else existing_form(Path(word)), given)
