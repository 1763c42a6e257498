"""Data sheet of users' own clips, which are listed in a CSV file with one line per clip.

The columns `path`, `emotion` and `speaker` are required; `sentence`, `text`, `intensity` and `sex` are optional; other
columns are ignored. Relative paths are relative to the folder of the CSV file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ser_bench.corpora.csv_tables import SEPARATORS, read_lines
from ser_bench.corpora.data_sheet import DataSheet, Fields
from ser_bench.corpora.labels import canonical, check_label, find_alike_labels
from ser_bench.corpora.names import check_characters, check_given, existing_form, find_alike, nfc, normalised
from ser_bench.errors import CorpusError

REQUIRED = ("path", "emotion", "speaker")
SEXES: Mapping[str, str] = {"": "", "f": "female", "female": "female", "m": "male", "male": "male"}


def read_table(table: Path) -> tuple[list[tuple[Path, Fields]], dict[Path, str]]:
    """Read the clips of a table.

    The id of a clip is the stem of its file name, or its path if two files have the same stem.

    Returns:
        Audio file and fields of each clip; and line → reason for each line that cannot be used.

    Raises:
        CorpusError: if the file does not exist, is not a CSV file in UTF-8, lacks a column, or lists a file twice; if
            two speakers or two emotions are probably one.
    """
    if not table.is_file():
        raise CorpusError(
            f"{table}: no such CSV file; corpus=table needs corpus.root=FILE with the columns {_columns()}"
        )
    clips: list[tuple[Path, Fields]] = []
    numbers: list[int] = []
    refused: dict[Path, str] = {}
    for line in read_lines(table, REQUIRED, f"needed are {_columns()}", SEPARATORS, lower_names=True):
        try:
            if line.problem:
                raise ValueError(line.problem)
            clips.append(_clip(table, line.cells))
            numbers.append(line.number)
        except ValueError as error:
            refused[Path(f"{table}:{line.number}")] = f"line {line.number}: {error}"
    repeated = [path for path, n in Counter(nfc(str(path)) for path, _ in clips).items() if n > 1]
    if repeated:
        raise CorpusError(
            f"{table}: {repeated[0]} is listed more than once ({len(repeated)} such files); remove the repeated lines"
        )
    _refuse_alike(table, "speakers", numbers, [fields.speaker for _, fields in clips], find_alike)
    _refuse_alike(table, "emotions", numbers, [fields.emotion for _, fields in clips], find_alike_labels)
    return with_ids(table.parent, clips), refused


def _refuse_alike(
    table: Path,
    kind: str,
    numbers: Sequence[int],
    names: Sequence[str],
    find: Callable[[Sequence[str]], tuple[str, str] | None],
) -> None:
    """Raise CorpusError if two names are probably one. They are not merged, because they may be two."""
    alike = find(names)
    if alike is not None:
        first, second = (numbers[names.index(name)] for name in alike)
        raise CorpusError(
            f"{table} lines {first} and {second}: the {kind} {alike[0]!r} and {alike[1]!r} look like one; write one "
            "name for one of them, and clearly different names for two"
        )


def _clip(table: Path, row: Mapping[str, str]) -> tuple[Path, Fields]:
    for name in REQUIRED:
        if not row.get(name):
            raise ValueError(f"no {name}")
        check_given(name, row[name])
        check_characters(name, row[name])
    sex = row.get("sex", "").lower()
    if sex not in SEXES:
        raise ValueError(f"sex is {sex!r}; it must be female, male or empty")
    emotion, speaker = canonical(row["emotion"]), normalised(row["speaker"])
    check_label(emotion)
    text = normalised(row.get("text", ""))
    return existing_form(table.parent / Path(row["path"]).expanduser()), Fields(
        id="",
        emotion=emotion,
        speaker=speaker,
        sentence=normalised(row.get("sentence", "")) or text,
        text=text,
        intensity=normalised(row.get("intensity", "")),
        sex=SEXES[sex],
    )


def with_ids(folder: Path, clips: list[tuple[Path, Fields]]) -> list[tuple[Path, Fields]]:
    """Return the clips with the stem of the file name as id, or the path below `folder` if two have the same stem."""
    stems = Counter(nfc(path.stem) for path, _ in clips)
    named = []
    for path, fields in clips:
        inside = path.relative_to(folder) if path.is_relative_to(folder) else path
        stem = nfc(path.stem)
        named.append((path, replace(fields, id=stem if stems[stem] == 1 else nfc(inside.as_posix()))))
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
