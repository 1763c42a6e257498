"""Data sheet of an audformat database: a folder with a header, db.yaml, tables, and audio files.

audb publishes databases in this format. The header names tables, columns and licence. Nothing in the folder is
executed: the header is read as plain YAML, and tables that were stored as pickles are not read.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from ser_bench import extras
from ser_bench.config import CorpusConfig
from ser_bench.config.bounded_yaml import bounded_yaml_text
from ser_bench.corpora.data_sheet import ClipListing, DataSheet, Fields
from ser_bench.corpora.labels import canonical, check_label, find_alike_labels
from ser_bench.corpora.names import check_characters, check_given, existing_form, find_alike, normalised
from ser_bench.corpora.sheets.table import SEXES, with_ids
from ser_bench.errors import CorpusError, one_line

HEADER = "db.yaml"
TABLE_SUFFIXES = (".csv", ".parquet")
SEX_COLUMNS = ("gender", "sex")
SENTENCE_COLUMNS = ("sentence", "transcription", "text")
PARTS: Mapping[str, str] = {"train": "train", "dev": "val", "test": "test"}
"""Kind of a split in audformat → part; tables named so, or whose name ends so, count too."""
END_TOLERANCE_S = 0.05
"""A segment that ends so near to the end of its file is the whole file."""


@dataclass
class _FileFacts:
    """What all tables together say about the files: attribute → file → value."""

    values: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, what: str, file: str, value: Any, place: str) -> None:
        """Add a value; the same file must not have two.

        Raises:
            ValueError: it has another one.
        """
        text = normalised(str(value))
        first = self.values[what].setdefault(file, text)
        if first != text:
            raise ValueError(
                f"the {what} of {file} is {first!r} in one table and {text!r} in {place}; choose tables with "
                "corpus.tables=\"A B\""
            )

    def of(self, what: str, file: str) -> str:
        return self.values[what].get(file, "")


def read_database(root: Path, cfg: CorpusConfig) -> ClipListing:
    """Read the clips of a database.

    The emotion is in the column `corpus.emotion_column` of the tables `corpus.tables` (all that have the column, if it
    is empty). Speaker, sex, sentence and part are looked up in all tables.

    Raises:
        CorpusError: the folder has no header or its tables cannot be read, a column is missing, or tables contradict
            each other.
        ConfigError: the package audformat is not installed.
    """
    header = read_header(root)
    extras.require("audformat", "corpus=audformat")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _listing(root, cfg, _opened(root, header, Path(scratch)))
    except CorpusError:
        raise
    except Exception as error:  # a damaged header or table can raise any exception
        raise CorpusError(f"{root / HEADER}: this database cannot be read ({one_line(error)})") from error


def read_header(root: Path) -> dict[str, Any]:
    """Return the header of a database as plain values.

    Raises:
        CorpusError: there is none, or it is no header.
    """
    path = root / HEADER
    try:
        header = yaml.safe_load(bounded_yaml_text(path))
    except OSError as error:
        raise CorpusError(
            f"{path}: there is no header of an audformat database ({error.strerror}); corpus=audformat needs "
            "corpus.root=FOLDER, with db.yaml in the folder (docs/corpora.md)"
        ) from error
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise CorpusError(f"{path}: not a header of an audformat database ({one_line(error)})") from error
    if not isinstance(header, dict) or "tables" not in header or "name" not in header:
        raise CorpusError(f"{path}: not a header of an audformat database; it names no database or no tables")
    return header


def sheet_of_database(name: str, root: Path) -> DataSheet:
    """Return the data sheet of one database, with title, licence and source of its header.

    Raises:
        CorpusError: the header cannot be read.
    """
    header = read_header(root)
    licence = " ".join(str(header[key]) for key in ("license", "license_url") if header.get(key))
    title = str(header.get("description") or header["name"]).strip()
    return replace(
        SHEET,
        name=name,
        title=normalised(title),
        citation=normalised(str(header.get("author") or "")),
        licence=normalised(licence) or f"usage: {header.get('usage', 'not stated')}",
        homepage=normalised(str(header.get("source") or "")),
    )


def _opened(root: Path, header: Mapping[str, Any], folder: Path) -> Any:
    """Return the database, opened by audformat in a folder that has no pickles.

    audformat loads pickles where there are some, and reads the header with a loader that can execute code.
    """
    import audformat

    (folder / HEADER).write_text(yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True), encoding="utf-8")
    for table in [*(header.get("tables") or {}), *(header.get("misc_tables") or {})]:
        if "/" in str(table) or "\\" in str(table):
            raise CorpusError(f"{root / HEADER}: the name of the table {table!r} contains a slash")
        files = [root / f"db.{table}{suffix}" for suffix in TABLE_SUFFIXES]
        present = [file for file in files if file.is_file()]
        if not present:
            pickled = (root / f"db.{table}.pkl").exists()
            why = "only as a pickle, which could execute code; save the database as CSV" if pickled else "in no file"
            raise CorpusError(f"{root / HEADER}: the table {table} is stored {why} ({files[0].name})")
        for file in present:
            (folder / file.name).symlink_to(file.resolve())
    return audformat.Database.load(str(folder))


def _listing(root: Path, cfg: CorpusConfig, database: Any) -> ClipListing:
    tables = _tables_with(root, database, cfg.emotion_column, cfg.tables.split())
    facts = _facts(root, database, cfg)
    listing = ClipListing(warnings=_language_warning(cfg, database))
    clips: dict[str, tuple[Path, Fields]] = {}
    unlabelled = 0
    for name in tables:
        table = database.tables[name]
        column = table.columns[cfg.emotion_column]
        for index, value in zip(table.index, table.df[cfg.emotion_column], strict=True):
            file = index if isinstance(index, str) else index[0]
            if _is_missing(value):
                unlabelled += 1
                continue
            path = existing_form(root / file)
            try:
                if not isinstance(index, str):
                    _check_whole(path, index[1], index[2])
                fields = _fields(file, _named(database, column, value), facts)
            except ValueError as error:
                place = f"{root / HEADER} table {name}, {file}"
                listing.refused[Path(place)] = f"{place}: {error}"
                continue
            first = clips.setdefault(file, (path, fields))[1]
            if first.emotion != fields.emotion:
                raise CorpusError(
                    f"{root / HEADER}: {file} is {first.emotion} in one table and {fields.emotion} in {name}; choose "
                    f"tables with corpus.tables, of {', '.join(tables)}"
                )
    if unlabelled:
        listing.warnings.append(f"{cfg.name}: {unlabelled:,} files without an emotion are left out")
    listing.clips = with_ids(root, list(clips.values()))
    _refuse_alike(root, "speakers", find_alike(fields.speaker for _, fields in listing.clips))
    _refuse_alike(root, "emotions", find_alike_labels(fields.emotion for _, fields in listing.clips))
    if not listing.clips and not listing.refused:
        raise CorpusError(f"{root / HEADER}: no file has a value in the column {cfg.emotion_column}")
    return listing


def _tables_with(root: Path, database: Any, column: str, wanted: list[str]) -> list[str]:
    """Return the names of the tables that have a column: the wanted ones, or all."""
    names = wanted or [name for name, table in database.tables.items() if column in table.columns]
    missing = [name for name in names if name not in database.tables or column not in database.tables[name].columns]
    if missing or not names:
        has = "; ".join(f"{name}: {', '.join(table.columns)}" for name, table in database.tables.items())
        raise CorpusError(
            f"{root / HEADER}: {f'the table {missing[0]}' if missing else 'no table'} has a column {column}; set "
            f"corpus.tables and corpus.emotion_column. Tables and columns: {has[:400]}"
        )
    return names


def _facts(root: Path, database: Any, cfg: CorpusConfig) -> _FileFacts:
    """Return speaker, sex, sentence, text and part of each file, from all tables."""
    facts = _FileFacts()
    columns = {cfg.speaker_column: "speaker", **dict.fromkeys(SEX_COLUMNS, "sex")}
    try:
        for name, table in database.tables.items():
            part = _part_of(database, name, table)
            files = list(table.index.get_level_values("file"))
            for file in files if part else ():
                facts.add("part", file, part, name)
            for column_name, column in table.columns.items():
                what = columns.get(column_name)
                if what is None and column_name not in SENTENCE_COLUMNS:
                    continue
                for file, value in zip(files, table.df[column_name], strict=True):
                    if _is_missing(value):
                        continue
                    if what is None:
                        _add_sentence(facts, file, _attributes(database, column, value), value, name)
                        continue
                    facts.add(what, file, _named(database, column, value) if what == "sex" else value, name)
                    attributes = _attributes(database, column, value) if what == "speaker" else {}
                    for key in SEX_COLUMNS:
                        if not _is_missing(attributes.get(key)):
                            facts.add("sex", file, attributes[key], name)
    except ValueError as error:
        raise CorpusError(f"{root / HEADER}: {error}") from error
    if not facts.values["speaker"]:
        raise CorpusError(
            f"{root / HEADER}: no table has a column {cfg.speaker_column}, which names the speaker; set "
            "corpus.speaker_column"
        )
    return facts


def _add_sentence(facts: _FileFacts, file: str, attributes: Mapping[str, Any], value: Any, table: str) -> None:
    """Add the sentence, which is a code whose words the scheme has, or the words themselves."""
    words = attributes.get("", value)
    facts.values["sentence"].setdefault(file, normalised(str(value)))
    facts.values["text"].setdefault(file, normalised(str(words)))


def _part_of(database: Any, name: str, table: Any) -> str:
    """Return the part that a table stands for, by its split or by its name; "" if it stands for none."""
    kind = database.splits[table.split_id].type if table.split_id else name.rpartition(".")[2]
    return PARTS.get(str(kind), "")


def _attributes(database: Any, column: Any, value: Any) -> dict[str, Any]:
    """Return what the scheme of a column says about a value: attribute → value; "" is the key of a plain text."""
    labels = database.schemes[column.scheme_id].labels if column.scheme_id else None
    if isinstance(labels, str):  # the name of a misc table
        frame = database.misc_tables[labels].df
        return dict(frame.loc[value]) if value in frame.index else {}
    about = labels.get(value) if isinstance(labels, dict) else None
    return about if isinstance(about, dict) else {} if about is None else {"": about}


def _named(database: Any, column: Any, value: Any) -> str:
    """Return the text that the scheme gives to a value, else the value itself."""
    return str(_attributes(database, column, value).get("", value))


def _fields(file: str, emotion: str, facts: _FileFacts) -> Fields:
    speaker = facts.of("speaker", file)
    if not speaker:
        raise ValueError("no table names its speaker")
    for kind, name in (("emotion", emotion), ("speaker", speaker)):
        check_given(kind, name)
        check_characters(kind, name)
    label = canonical(emotion)
    check_label(label)
    return Fields(
        id="",
        emotion=label,
        speaker=speaker,
        sentence=facts.of("sentence", file),
        text=facts.of("text", file),
        sex=SEXES.get(facts.of("sex", file).lower(), ""),
        part=facts.of("part", file),
    )


def _check_whole(path: Path, start: Any, end: Any) -> None:
    """Raise ValueError if a segment is a part of its file, because a clip is a whole file."""
    begins = 0.0 if _is_missing(start) else start.total_seconds()
    if begins == 0.0 and _is_missing(end):
        return
    import soundfile

    try:
        duration = soundfile.info(str(path)).duration
    except (OSError, RuntimeError):
        return  # the check of the audio says what is wrong with the file
    ends = duration if _is_missing(end) else end.total_seconds()
    if begins > 0.0 or ends < duration - END_TOLERANCE_S:
        raise ValueError(
            f"the segment from {begins:.2f} s to {ends:.2f} s is a part of the file, and a clip is a whole file; cut "
            "the segments into files first"
        )


def _is_missing(value: Any) -> bool:
    import pandas as pd

    return value is None or bool(pd.isna(value))


def _language_warning(cfg: CorpusConfig, database: Any) -> list[str]:
    """Return a warning if the header names other languages than `corpus.language`."""
    import audformat

    stated = list(database.languages)
    try:
        same = audformat.utils.map_language(cfg.language) in stated
    except ValueError:
        same = False
    named = ", ".join(stated)
    return [f"{cfg.name}: its header says {named}, and corpus.language={cfg.language}"] if stated and not same else []


def _refuse_alike(root: Path, kind: str, alike: tuple[str, str] | None) -> None:
    if alike is not None:
        raise CorpusError(
            f"{root / HEADER}: the {kind} {alike[0]!r} and {alike[1]!r} look like one; write one name in the tables, "
            "or clearly different ones"
        )


def parse(stem: str) -> Fields:
    """Refuse every file name: the fields are in the tables.

    Raises:
        ValueError: always.
    """
    raise ValueError(stem)


SHEET = DataSheet(
    name="audformat",
    title="A database in the format of audformat and audb",
    citation="",
    licence="that in its header",
    language="en",
    labels=(),
    clips=0,
    speakers=0,
    naming="any: the tables contain the fields of each clip",
    parse=parse,
    read_database=read_database,
    examples=(),
    notes=(
        "Set corpus.language to the spoken language.",
        "corpus.name=NAME gives the database a name of its own in runs and reports.",
    ),
)
