"""Data sheet of users' own clips, which are listed in a CSV file with one line per clip.

The columns `path`, `emotion` and `speaker` are required; `sentence`, `text`, `intensity` and `sex` are optional; other
columns are ignored. Relative paths are relative to the folder of the CSV file.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ser_bench.corpora.data_sheet import DataSheet, Fields
from ser_bench.corpora.labels import canonical
from ser_bench.errors import CorpusError

REQUIRED = ("path", "emotion", "speaker")
SEXES: Mapping[str, str] = {"": "", "f": "female", "female": "female", "m": "male", "male": "male"}


def read_table(table: Path) -> tuple[list[tuple[Path, Fields]], dict[Path, str]]:
    """Read the clips of a table.

    The id of a clip is the stem of its file name, or its path if two files have the same stem.

    Returns:
        Audio file and fields of each clip; and line → reason for each line that cannot be used.

    Raises:
        CorpusError: if the file does not exist, is not a CSV file in UTF-8, lacks a column, or lists a file twice.
    """
    if not table.is_file():
        raise CorpusError(
            f"{table}: no such CSV file; corpus=table needs corpus.root=FILE with the columns {_columns()}"
        )
    clips: list[tuple[Path, Fields]] = []
    refused: dict[Path, str] = {}
    for number, row in _rows(table):
        try:
            clips.append(_clip(table, row))
        except ValueError as error:
            refused[Path(f"{table}:{number}")] = f"line {number}: {error}"
    repeated = [str(path) for path, n in Counter(path for path, _ in clips).items() if n > 1]
    if repeated:
        raise CorpusError(
            f"{table}: {repeated[0]} is listed more than once ({len(repeated)} such files); remove the repeated lines"
        )
    return _with_ids(table, clips), refused


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, column → value) of each line below the header; column names are in lower case."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            names = [name.strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in REQUIRED if name not in names]
            if missing:
                raise CorpusError(
                    f"{table}: no column {' or '.join(missing)}; needed are {_columns()}; the file has {names}"
                )
            reader.fieldnames = names
            return [
                (reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(v, str | None) and k})
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{table}: not a CSV file in UTF-8 ({error})") from error


def _clip(table: Path, row: Mapping[str, str]) -> tuple[Path, Fields]:
    for name in REQUIRED:
        if not row.get(name):
            raise ValueError(f"no {name}")
    sex = row.get("sex", "").lower()
    if sex not in SEXES:
        raise ValueError(f"sex is {sex!r}; it must be female, male or empty")
    path = Path(row["path"]).expanduser()
    return table.parent / path, Fields(
        id="",
        emotion=canonical(row["emotion"]),
        speaker=row["speaker"],
        sentence=row.get("sentence", "") or row.get("text", ""),
        text=row.get("text", ""),
        intensity=row.get("intensity", ""),
        sex=SEXES[sex],
    )


def _with_ids(table: Path, clips: list[tuple[Path, Fields]]) -> list[tuple[Path, Fields]]:
    stems = Counter(path.stem for path, _ in clips)
    named = []
    for path, fields in clips:
        inside = path.relative_to(table.parent) if path.is_relative_to(table.parent) else path
        name = path.stem if stems[path.stem] == 1 else inside.as_posix()
        named.append((path, replace(fields, id=name)))
    return named


def _columns() -> str:
    return ", ".join(REQUIRED) + " and, if known, sentence, text, intensity, sex"


def parse(stem: str) -> Fields:
    """Refuse every file name: the fields are in the table.

    Raises:
        ValueError: always.
    """
    raise ValueError(stem)


SHEET = DataSheet(
    name="table",
    title="Your own clips, listed in a CSV file",
    citation="",
    licence="yours",
    language="en",
    labels=(),
    clips=0,
    speakers=0,
    naming="any: the table contains the fields of each clip",
    parse=parse,
    read_table=read_table,
    examples=(),
    notes=(
        "Set corpus.language to the spoken language.",
        "Common names of emotions (anger, joy, fear …) become canonical labels; other names are used as they are.",
    ),
)
