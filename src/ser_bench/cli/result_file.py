"""Files that receive one row per recording as soon as it is predicted, and that a later command continues."""

from __future__ import annotations

import csv
import fcntl
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ser_bench.errors import ConfigError
from ser_bench.file_access import access_errors

FORMATS = {".csv": "csv", ".jsonl": "jsonl"}
"""Suffix of a file → its format."""
RUN_ID, FILE, NAME, STATUS = "run_id", "file", "name", "status"
"""Every row has the run that answered, the name of the recording (`file` in CSV, `name` in JSON), and the status."""
OTHER = "choose another file for --out, or remove this one"


class ResultFile:
    """A CSV or JSON Lines file with the answers of one run. Use it in a `with` block.

    A file that exists is continued: `done` are the recordings that it holds. A last line that was written only in part,
    because the command was stopped, is removed. Each row is handed to the operating system at once.

    Args:
        path: the file; its suffix decides the format.
        columns: of a CSV file; `RUN_ID`, `FILE` and `STATUS` are among them. A JSON record has these keys, with `NAME`.
        run_id: the run that answers.

    Raises:
        ConfigError: the suffix is unknown, another process writes the file, or it holds other columns or answers of
            another run.
        FileAccessError: the file cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], run_id: str) -> None:
        self.path = path
        self.form = format_of(path)
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self._columns = list(columns)
        self._run_id = run_id
        self._file: BinaryIO | None = None

    def __enter__(self) -> ResultFile:
        with access_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ConfigError(f"{self.path}: another process writes this file; {OTHER}") from None
        try:
            self._continue(file)
        except BaseException:
            file.close()
            raise
        self._file = file
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        if self._file is None:
            raise ValueError("the file is not open")
        line = csv_line([row[column] for column in self._columns]) if self.form == "csv" else json_line(row)
        with access_errors(self.path):
            self._file.write(line)
            self._file.flush()

    def _continue(self, file: BinaryIO) -> None:
        """Read what is there, remove half a line at its end, and write the header of a new file."""
        file.seek(0)
        content = file.read()
        whole = _whole_lines(content, self.form)
        if whole < len(content):
            file.truncate(whole)
        text = content[:whole].decode("utf-8", errors="surrogateescape")
        for run_id, name, status in self._rows_of(text):
            if run_id != self._run_id:
                raise ConfigError(f"{self.path}: holds answers of run {run_id}, not of {self._run_id}; {OTHER}")
            self.done.add(name)
            if status == "failed":
                self.failed.add(name)
        if self.form == "csv" and not text:
            with access_errors(self.path):
                file.write(csv_line(self._columns))
                file.flush()

    def _rows_of(self, text: str) -> list[tuple[str, str, str]]:
        """Return run id, name and status of each row.

        Raises:
            ConfigError: the text is not a file of this kind.
        """
        if self.form == "csv":
            rows = list(csv.reader(io.StringIO(text, newline="")))
            if rows and rows[0] != self._columns:
                raise ConfigError(f"{self.path}: has other columns than {', '.join(self._columns)}; {OTHER}")
            places = [self._columns.index(column) for column in (RUN_ID, FILE, STATUS)]
            if any(len(row) != len(self._columns) for row in rows):
                raise ConfigError(f"{self.path}: is damaged, a line has not {len(self._columns)} cells; {OTHER}")
            return [(row[places[0]], row[places[1]], row[places[2]]) for row in rows[1:]]
        try:
            records = [json.loads(line) for line in text.split("\n") if line]
            return [(record[RUN_ID], record[NAME], record[STATUS]) for record in records]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{self.path}: is not a file of answers ({error}); {OTHER}") from error


def format_of(path: Path) -> str:
    """Return the format of a file by its suffix.

    Raises:
        ConfigError: it has none of `FORMATS`.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"--out {path}: the name ends with {' or '.join(FORMATS)}, which decides the format")
    return FORMATS[path.suffix.lower()]


def csv_line(cells: Sequence[Any]) -> bytes:
    """Return one line of a CSV file.

    >>> csv_line(["a,b", 0.5, None])
    b'"a,b",0.5,\\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue().encode("utf-8", errors="surrogateescape")


def json_line(row: Mapping[str, Any]) -> bytes:
    """Return one line of a JSON Lines file. Undecodable bytes of a file name are escaped."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        return f"{text}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(row, allow_nan=False)}\n".encode()


def _whole_lines(content: bytes, form: str) -> int:
    """Return how many bytes belong to whole lines. A line break inside the quotes of a CSV cell does not end a line."""
    end = content.rfind(b"\n") + 1
    while form == "csv" and end and content.count(b'"', 0, end) % 2:
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end
