"""One's own clips: a CSV with one line a clip.

Columns `path`, `emotion` and `speaker` are needed; `sentence`, `text`, `intensity` and `sex` are read where they are
there, others are ignored. Relative paths are relative to the folder of the CSV.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ser_bench.corpora.data_sheet import Fields, Sheet
from ser_bench.corpora.labels import canonical
from ser_bench.errors import CorpusError

NEEDED = ("path", "emotion", "speaker")
SEXES: Mapping[str, str] = {"": "", "f": "female", "female": "female", "m": "male", "male": "male"}


def read(table: Path) -> tuple[list[tuple[Path, Fields]], dict[Path, str]]:
    """The clips of the table, and line → reason for lines that cannot be used.

    A clip's id is the stem of its file, or its path where two stems are alike.

    Raises:
        CorpusError: no such file, not a CSV in UTF-8, a column is missing, or one file is listed twice.
    """
    if not table.is_file():
        raise CorpusError(f"{table}: no such CSV file; corpus=table needs corpus.root=FILE with columns {_columns()}")
    clips: list[tuple[Path, Fields]] = []
    refused: dict[Path, str] = {}
    for number, row in _rows(table):
        try:
            clips.append(_clip(table, row))
        except ValueError as error:
            refused[Path(f"{table}:{number}")] = f"line {number}: {error}"
    twice = [str(path) for path, n in Counter(path for path, _ in clips).items() if n > 1]
    if twice:
        raise CorpusError(f"{table}: {twice[0]} is listed more than once ({len(twice)} such files); keep one line each")
    return _with_ids(table, clips), refused


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line number, column → value) of each line after the header; column names in lower case."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            names = [name.strip().lower() for name in reader.fieldnames or []]
            missing = [name for name in NEEDED if name not in names]
            if missing:
                raise CorpusError(f"{table}: has no column {' nor '.join(missing)}; needs {_columns()}, has {names}")
            reader.fieldnames = names
            return [
                (reader.line_num, {k: (v or "").strip() for k, v in row.items() if isinstance(v, str | None) and k})
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{table}: is not a CSV file in UTF-8 ({error})") from error


def _clip(table: Path, row: Mapping[str, str]) -> tuple[Path, Fields]:
    for name in NEEDED:
        if not row.get(name):
            raise ValueError(f"no {name}")
    sex = row.get("sex", "").lower()
    if sex not in SEXES:
        raise ValueError(f"sex is {sex!r}; female, male or empty")
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
    return ", ".join(NEEDED) + " and, if known, sentence, text, intensity, sex"


def parse(stem: str) -> Fields:
    """Names tell nothing here: the table does.

    Raises:
        ValueError: always.
    """
    raise ValueError(stem)


SHEET = Sheet(
    name="table",
    title="Your own clips, listed in a CSV",
    citation="",
    licence="yours",
    language="en",
    labels=(),
    clips=0,
    speakers=0,
    naming="any; the table says what is what",
    parse=parse,
    examples=(),
    notes=(
        "Set corpus.language to what is spoken.",
        "Emotions may be written as anger, joy, fear … ; names that no other corpus here has are kept as they are.",
    ),
)
