"""A file of predictions (CSV, Parquet, JSON or JSON Lines) as records, and what is wrong with it in one line."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_bench.corpora.csv_tables import MAX_TABLE_BYTES, SEPARATORS, read_lines
from ser_bench.errors import ConfigError, CorpusError, one_line

CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PARQUET_SUFFIXES = (".parquet", ".pq")
JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
NESTED = "probabilities"
"""Key of a JSON record whose value may be an object, label → probability, as `ser-bench predict --json` writes it."""
ADVICE = "docs/foreign_predictions.md describes the columns"


@dataclass(frozen=True)
class PredictionTable:
    """The records of a file.

    Attributes:
        path: the file.
        sha256: of its bytes, hexadecimal.
        columns: names of the columns, in their order; unique.
        records: column → value of each record; a column that a record lacks is absent.
        places: of each record, for messages: "line 3" or "record 2".
    """

    path: Path
    sha256: str
    columns: tuple[str, ...]
    records: Sequence[Mapping[str, Any]]
    places: Sequence[str]


def read_prediction_table(path: Path) -> PredictionTable:
    """Read a file of predictions; its ending says what it is.

    Raises:
        ConfigError: the file does not exist, is no such file, is too large, is empty, or has a column twice.
    """
    suffix = path.suffix.lower()
    if suffix not in (*CSV_SUFFIXES, *PARQUET_SUFFIXES, *JSON_SUFFIXES):
        raise ConfigError(
            f"{path}: the ending {suffix or '(none)'} is not known; predictions are read from .csv, .tsv, .txt, "
            ".parquet, .json and .jsonl files"
        )
    content = _content(path)
    if suffix in CSV_SUFFIXES:
        columns, records, places = _read_csv(path)
    elif suffix in PARQUET_SUFFIXES:
        columns, records, places = _read_parquet(path)
    else:
        columns, records, places = _read_json(path, content)
    if not records:
        raise ConfigError(f"{path}: holds no predictions, only a header; write one line per clip")
    return PredictionTable(path, hashlib.sha256(content).hexdigest(), columns, records, places)


def _content(path: Path) -> bytes:
    try:
        if path.is_dir():
            raise ConfigError(f"{path}: is a folder; name the file with the predictions")
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ConfigError(f"{path}: has {path.stat().st_size:,} bytes, the limit is {MAX_TABLE_BYTES:,}")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name the file with the predictions") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    if not content.strip():
        raise ConfigError(f"{path}: is empty; {ADVICE}")
    return content


Read = tuple[tuple[str, ...], list[dict[str, Any]], list[str]]


def _read_csv(path: Path) -> Read:
    try:
        lines = read_lines(path, (), ADVICE, SEPARATORS)
    except CorpusError as error:
        raise ConfigError(str(error)) from error
    for line in lines:
        if line.problem:
            raise ConfigError(f"{path} line {line.number}: {line.problem}")
    columns = tuple(lines[0].cells) if lines else ()
    return columns, [dict(line.cells) for line in lines], [f"line {line.number}" for line in lines]


def _read_parquet(path: Path) -> Read:
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        records = table.to_pylist()
    except Exception as error:  # a damaged file can raise any exception
        raise ConfigError(f"{path}: not a Parquet file, or damaged ({one_line(error)}); write it again") from error
    _refuse_repeated(path, table.column_names)
    return tuple(table.column_names), records, [f"record {i}" for i in range(1, len(records) + 1)]


def _read_json(path: Path, content: bytes) -> Read:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a JSON file in UTF-8 ({error}); {ADVICE}") from error
    records: list[dict[str, Any]] = []
    places: list[str] = []
    for place, value in _json_values(path, text):
        if not isinstance(value, dict):
            raise ConfigError(f"{path} {place}: not an object with the columns as keys; {ADVICE}")
        nested = value.pop(NESTED, None)
        if isinstance(nested, dict):
            _refuse_repeated(path, [*value, *nested])
            value |= nested
        elif nested is not None:
            raise ConfigError(f"{path} {place}: {NESTED} is not an object, label → probability")
        records.append(value)
        places.append(place)
    columns = tuple(dict.fromkeys(name for record in records for name in record))
    return columns, records, places


def _json_values(path: Path, text: str) -> list[tuple[str, Any]]:
    """Return place and value of each record: of a list, or of one value per line."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        _refuse_repeated(path, [name for name, _ in pairs])
        return dict(pairs)

    if text.lstrip().startswith("["):
        try:
            values = json.loads(text, object_pairs_hook=unique)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not JSON ({one_line(error)}); {ADVICE}") from error
        return [(f"record {number}", value) for number, value in enumerate(values, start=1)]
    values_of_lines = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                values_of_lines.append((f"line {number}", json.loads(line, object_pairs_hook=unique)))
            except (ValueError, RecursionError) as error:
                raise ConfigError(
                    f"{path} line {number}: not JSON ({one_line(error)}); write a list of objects, or one object per "
                    "line"
                ) from error
    return values_of_lines


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"{path}: the column {repeated[0]} occurs more than once; {ADVICE}")
