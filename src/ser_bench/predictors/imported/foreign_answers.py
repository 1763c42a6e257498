"""What a file of predictions says about each clip: label or probabilities, truth, latency and cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import numpy.typing as npt

from ser_bench import audio
from ser_bench.corpora.labels import canonical
from ser_bench.corpora.names import MISSING, nfc, normalised
from ser_bench.errors import ConfigError
from ser_bench.predictors.imported.prediction_table import ADVICE, PredictionTable
from ser_bench.types import CLEAN, VARIANTS, FloatArray, Row

ID_COLUMNS = ("clip_id", "clip", "id", "file", "path", "name")
"""Columns that may name the clip; the first one that the file has is used."""
LABEL_COLUMNS = ("predicted", "prediction", "label")
TRUTH_COLUMNS = ("truth", "emotion")
"""The lists of `ser-bench export-split` have the true label in the column emotion."""
VARIANT, LATENCY, COST = "variant", "latency_s", "cost_usd"
PREFIXES = ("p_", "prob_", "probability_")
"""Beginnings of the names of probability columns; the plain label is such a name too."""
SUM_TOLERANCE = 1e-3
LARGEST = 1e9
"""Largest number of seconds or US dollars of one clip that is believed."""
TIE_BREAK = 1e-6
"""Added to the probability of the stated label where another label has the same one."""
AUDIO_SUFFIXES = audio.EXTENSIONS | audio.UNREAD_EXTENSIONS


@dataclass(frozen=True)
class ColumnChoice:
    """Names of columns as the user gives them; "" chooses the usual name."""

    clip: str = ""
    label: str = ""
    truth: str = ""


@dataclass(frozen=True)
class ForeignAnswers:
    """The answers of a file, in its order.

    Attributes:
        path: the file.
        sha256: of its bytes, hexadecimal.
        names: N names of clips: an id, or the path of an audio file.
        variants: N variants; "clean" unless the file has a column variant.
        places: N places in the file, for messages.
        truth: N labels; () if the file states no truth.
        probabilities: [N, C] float32; rows sum to 1.
        abstained: [N] bool; True where the file has no answer.
        latency_s: [N] float32, seconds; 0 if the file does not state them.
        cost_usd: [N] float32, US dollars; 0 likewise.
        source: "softmax", or "one_hot" if the file has labels only.
    """

    path: Path
    sha256: str
    names: tuple[str, ...]
    variants: tuple[str, ...]
    places: tuple[str, ...]
    truth: tuple[str, ...]
    probabilities: FloatArray
    abstained: npt.NDArray[np.bool_]
    latency_s: FloatArray
    cost_usd: FloatArray
    source: str

    def of_clips(self, clip_ids: Sequence[str]) -> tuple[dict[Row, int], list[int]]:
        """Return row → index of its answer for the clips of a corpus, and the indices whose clip is not among them.

        A name is the id of a clip, or an audio file whose stem is the id. In a run with two corpora, the name of the
        corpus before the id may be left out.

        Args:
            clip_ids: of the corpus.

        Raises:
            ConfigError: two answers are about one clip in one variant.
        """
        known = {clip_id: clip_id for clip_id in clip_ids}
        for clip_id in clip_ids:
            known.setdefault(clip_id.partition(":")[2] or clip_id, clip_id)
        index: dict[Row, int] = {}
        unknown = []
        for i, (name, variant) in enumerate(zip(self.names, self.variants, strict=True)):
            clip = known.get(name, known.get(stem_of(name)))
            if clip is None:
                unknown.append(i)
                continue
            first = index.setdefault(Row(clip, variant), i)
            if first != i:
                raise ConfigError(
                    f"{self.path} {self.places[first]} and {self.places[i]}: both are about the clip {clip}; keep "
                    "one prediction per clip"
                )
        return index, unknown


def stem_of(name: str) -> str:
    """Return the stem of an audio file's name; another name is returned as it is.

    >>> stem_of("AudioWAV/1001_DFA_ANG_XX.wav"), stem_of("1001_DFA_ANG_XX"), stem_of("a.b")
    ('1001_DFA_ANG_XX', '1001_DFA_ANG_XX', 'a.b')
    """
    path = PureWindowsPath(name)  # it takes both kinds of slash
    return path.stem if path.suffix.lower() in AUDIO_SUFFIXES else path.name


def answers_of(
    table: PredictionTable, labels: Sequence[str], chosen: ColumnChoice, allow_missing: bool = False
) -> ForeignAnswers:
    """Return what a file says about each clip.

    Args:
        table: the file.
        labels: C labels of the corpus, the columns of the probabilities.
        chosen: names of columns.
        allow_missing: whether a record without an answer is an abstention, and not an error.

    Raises:
        ConfigError: a column is missing or ambiguous, or a record has no clip, an unknown label, a probability that is
            no number from 0 to 1, or probabilities that do not sum to 1; the message names file and line.
    """
    reader = _RecordReader(table, labels, allow_missing)
    clip = _column(table, chosen.clip, ID_COLUMNS, "the clip", "--id-column")
    if not clip:
        raise ConfigError(
            f"{table.path}: no column {', '.join(ID_COLUMNS[:-1])} or {ID_COLUMNS[-1]} that names the clip; it has "
            f"{_listed(table.columns)}; name it with --id-column"
        )
    label = _column(table, chosen.label, LABEL_COLUMNS, "the predicted label", "--label-column")
    truth = _column(table, chosen.truth, TRUTH_COLUMNS, "the truth", "--truth-column")
    truth = "" if truth == label else truth
    columns = _probability_columns(table, labels, {clip, label, truth, VARIANT, LATENCY, COST})
    if not label and not columns:
        raise ConfigError(
            f"{table.path}: no column {', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}, and no probabilities of "
            f"the labels {', '.join(labels)}; it has {_listed(table.columns)}; name the label with --label-column"
        )
    names, variants, truths = [], [], []
    probabilities = np.full((len(table.records), len(labels)), 1 / len(labels))
    abstained = np.zeros(len(table.records), dtype=np.bool_)
    for i in range(len(table.records)):
        names.append(reader.name(i, clip))
        variants.append(reader.variant(i) if VARIANT in table.columns else CLEAN)
        truths.append(reader.label(i, truth) if truth else "")
        answer = reader.answer(i, label, columns)
        abstained[i] = answer is None
        if answer is not None:
            probabilities[i] = answer
    return ForeignAnswers(
        path=table.path,
        sha256=table.sha256,
        names=tuple(names),
        variants=tuple(variants),
        places=tuple(table.places),
        truth=tuple(truths) if truth else (),
        probabilities=probabilities.astype(np.float32),
        abstained=abstained,
        latency_s=reader.amounts(LATENCY),
        cost_usd=reader.amounts(COST),
        source="softmax" if columns else "one_hot",
    )


class _RecordReader:
    """Reads the cells of a file; each error names file, line and column."""

    def __init__(self, table: PredictionTable, labels: Sequence[str], allow_missing: bool) -> None:
        self._table = table
        self._labels = list(labels)
        self._known = {canonical(label): i for i, label in enumerate(labels)} | {
            label: i for i, label in enumerate(labels)
        }
        self._allow_missing = allow_missing

    def name(self, i: int, column: str) -> str:
        value = self._cell(i, column)
        if value is None:
            raise self._error(i, f"the column {column} names no clip")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return nfc(str(value).strip())

    def variant(self, i: int) -> str:
        value = self._cell(i, VARIANT) or CLEAN
        if value not in VARIANTS:
            raise self._error(i, f"the variant is {value!r}; it must be one of {', '.join(VARIANTS)}")
        return str(value)

    def label(self, i: int, column: str) -> str:
        """Return the label in a column, "" if the cell is empty."""
        value = self._cell(i, column)
        return "" if value is None else self._labels[self._label_index(i, column, value)]

    def answer(self, i: int, label: str, columns: Mapping[str, str]) -> npt.NDArray[np.float64] | None:
        """Return [C] probabilities, or None for an abstention."""
        stated = self._cell(i, label) if label else None
        cells = [self._cell(i, columns[name]) for name in self._labels] if columns else []
        if (label and stated is None) or (columns and all(cell is None for cell in cells)):
            if not self._allow_missing:
                empty = label if label and stated is None else "probabilities"
                raise self._error(i, f"no answer ({empty}: empty); --allow-missing counts such clips as abstentions")
            return None
        if not columns:
            certain = np.zeros(len(self._labels))
            certain[self._label_index(i, label, stated)] = 1
            return certain
        values = np.array(
            [self._probability(i, columns[name], cell) for name, cell in zip(self._labels, cells, strict=True)]
        )
        total = float(values.sum())
        if abs(total - 1) > SUM_TOLERANCE:
            raise self._error(i, f"the probabilities sum to {total:.4f}, not to 1; write one column for each of "
                                 f"{', '.join(self._labels)}, normalised over them")  # fmt: skip
        values /= total
        return values if stated is None else self._checked(i, label, stated, values)

    def amounts(self, column: str) -> FloatArray:
        """Return [N] numbers of a column, 0 where there is none."""
        values = np.zeros(len(self._table.records), dtype=np.float32)
        for i in range(len(values)) if column in self._table.columns else ():
            cell = self._cell(i, column)
            if cell is not None:
                values[i] = self._number(i, column, cell)
        return values

    def _checked(self, i: int, column: str, stated: Any, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the probabilities if the stated label has the highest one; a tie is decided in favour of it."""
        label = self._label_index(i, column, stated)
        highest = int(values.argmax())
        if values[label] < values[highest] - TIE_BREAK:
            raise self._error(i, f"the column {column} says {self._labels[label]}, but {self._labels[highest]} has the "
                                 "highest probability; is it the truth? Name the columns with --label-column and "
                                 "--truth-column")  # fmt: skip
        if highest != label:
            values[label] = values[highest] + TIE_BREAK
            values /= values.sum()
        return values

    def _probability(self, i: int, column: str, cell: Any) -> float:
        if cell is None:
            raise self._error(i, f"the probability {column} is missing, and others are given")
        number = self._number(i, column, cell)
        if number > 1 + SUM_TOLERANCE:
            raise self._error(i, f"{column} is {number:g}; a probability is from 0 to 1")
        return number

    def _number(self, i: int, column: str, cell: Any) -> float:
        try:
            number = math.nan if isinstance(cell, bool) else float(cell)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number <= LARGEST:
            raise self._error(i, f"{column} is {str(cell)[:40]!r}; it must be a number from 0, with a point for "
                                 "decimals")  # fmt: skip
        return number

    def _label_index(self, i: int, column: str, value: Any) -> int:
        text = normalised(value) if isinstance(value, str) else str(value)
        index = self._known.get(text, self._known.get(canonical(text)))
        if index is None:
            raise self._error(i, f"{column} is {text[:40]!r}, which is no label of this corpus: "
                                 f"{', '.join(self._labels)}")  # fmt: skip
        return index

    def _cell(self, i: int, column: str) -> Any:
        """Return a value; None if the cell is empty or holds what programs write for a missing value."""
        value = self._table.records[i].get(column)
        if isinstance(value, float) and math.isnan(value):
            return None
        if isinstance(value, str) and (not value.strip() or value.strip().casefold() in MISSING):
            return None
        return value

    def _error(self, i: int, text: str) -> ConfigError:
        return ConfigError(f"{self._table.path} {self._table.places[i]}: {text}")


def _column(table: PredictionTable, given: str, usual: Sequence[str], purpose: str, option: str) -> str:
    """Return the name of a column: as given, else the first usual one; "" if there is none."""
    if given and given not in table.columns:
        raise ConfigError(f"{table.path}: no column {given} for {purpose} ({option}); it has {_listed(table.columns)}")
    return given or next((name for name in usual if name in table.columns), "")


def _probability_columns(table: PredictionTable, labels: Sequence[str], others: set[str]) -> dict[str, str]:
    """Return label → name of its probability column; {} if there is none.

    Raises:
        ConfigError: two columns are of one label, a column with a prefix is of no label, or labels have no column.
    """
    known = {canonical(label): label for label in labels} | {label: label for label in labels}
    by_label: dict[str, str] = {}
    for column in table.columns:
        prefix = next((p for p in PREFIXES if column.lower().startswith(p)), "")
        name = column[len(prefix) :]
        label = known.get(name, known.get(canonical(name)))
        if column in others or (label is None and not prefix):
            continue
        if label is None:
            raise ConfigError(
                f"{table.path}: the column {column} is the probability of no label of this corpus "
                f"({', '.join(labels)}); remove it and divide the others by their sum"
            )
        if label in by_label:
            raise ConfigError(f"{table.path}: the columns {by_label[label]} and {column} are both of the label {label}")
        by_label[label] = column
    missing = [label for label in labels if label not in by_label]
    if by_label and missing:
        raise ConfigError(
            f"{table.path}: no probability of {', '.join(missing)}, but of {', '.join(by_label)}; write a column of "
            f"zeros for a label that the model does not know. {ADVICE}"
        )
    return by_label


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:12])
    return (shown + (", …" if len(columns) > 12 else ""))[:200] or "no columns"
