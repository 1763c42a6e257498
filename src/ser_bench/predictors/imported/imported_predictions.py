"""`model=imported`: the answers of a model that was trained elsewhere; nothing is computed or learnt here.

The file is checked against the split before a run is created: `ImportedPredictions.check_answers`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench.config import Config, ModelConfig, model_config
from ser_bench.config.keys import KeyRole, key
from ser_bench.errors import ConfigError
from ser_bench.predictors.base import LightPredictor
from ser_bench.predictors.capabilities import AnswersFromFile
from ser_bench.predictors.imported.foreign_answers import ColumnChoice, ForeignAnswers, answers_of
from ser_bench.predictors.imported.prediction_table import read_prediction_table
from ser_bench.predictors.registry import names as names_of_predictors
from ser_bench.predictors.registry import register
from ser_bench.predictors.stored_model import reading
from ser_bench.types import Corpus, Predictions, Row, Split

TITLE = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
"""What the name of a foreign model may be: it is part of tags, tables and the command line."""
SHOWN = 5
"""Number of ids that a message lists."""
ANSWERS_FILE = "answers.safetensors"
ARRAYS = ("probabilities", "abstained", "latency_s", "cost_usd")
HOW_TO = "ser-bench import FILE --corpus NAME --split PROTOCOL --name MODEL"


@dataclass
class ImportedConfig(ModelConfig):
    """Predictions from a file. `ser-bench import` sets these keys."""

    name: str = "imported"
    title: str = ""
    """Name of the foreign model in tags and tables."""
    file: str = key(KeyRole.machine, "", path=True)
    """The file: CSV, Parquet or JSON."""
    sha256: str = key(KeyRole.pooled, "")
    """Of the file's bytes, hexadecimal; a file with another content is refused. "": computed."""
    id_column: str = key(KeyRole.pooled, "")
    """Column that names the clip; "": the usual name."""
    label_column: str = key(KeyRole.pooled, "")
    """Column of the predicted label; "": the usual name."""
    truth_column: str = key(KeyRole.pooled, "")
    """Column of the true label, which is compared with the corpus; "": the usual name, if there is one."""
    allow_missing: bool = key(KeyRole.neutral, False)
    """Whether test clips without an answer are abstentions, and not an error."""
    all_folds: bool = key(KeyRole.neutral, False)
    """Whether the file holds the test clips of other folds too, which are then left out."""

    @property
    def shown_name(self) -> str:
        """The name of the foreign model."""
        return self.title or self.name


@register("imported", ImportedConfig)
class ImportedPredictions(LightPredictor, AnswersFromFile):
    """The answers of a file. It knows no other clips than those of the file."""

    _read: ForeignAnswers | None = None

    @classmethod
    def check_answers(cls, cfg: Config, corpus: Corpus, split: Split) -> dict[str, str]:
        """Check the file against corpus and split; set `model.sha256` if it is empty.

        Returns:
            Tags of the run.

        Raises:
            ConfigError: the name of the model or the file cannot be used, a clip is unknown, is one of training or
                validation, or has no answer, or the truth is not that of the corpus.
        """
        model = model_config(cfg, ImportedConfig)
        check_title(model.title)
        answers = read_answers(model, corpus.labels)
        index, unknown = answers.of_clips([clip.id for clip in corpus.clips])
        refuse_unknown(answers, unknown, corpus)
        check_truth(answers, index, corpus)
        check_parts(answers, index, split, model.all_folds)
        refuse_missing(answers, index, split, model.allow_missing)
        model.sha256 = answers.sha256
        return {
            "imported": "true",
            "imported_file": Path(model.file).name,
            "imported_sha256": answers.sha256,
            "training": "unknown",
        }

    @classmethod
    def origin(cls, cfg: Config) -> str:
        """Return the name of the file with its SHA-256."""
        model = model_config(cfg, ImportedConfig)
        return f"{Path(model.file).name} (SHA-256 {model.sha256})"

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Return {}: nothing is learnt, and no label of a clip is read."""
        return {}

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the answers of the file; rows without one are abstentions if `allow_missing` is set.

        Raises:
            ConfigError: the file has no answer about a row.
        """
        model = model_config(self._cfg, ImportedConfig)
        answers = self._answers
        index, _ = answers.of_clips([row.clip_id for row in rows])
        missing = [row for row in rows if row not in index]
        if missing and (not model.allow_missing or len(missing) == len(rows)):
            raise ConfigError(
                f"there is no model that could predict {missing[0].clip_id}: the predictions of "
                f"{model.shown_name} were imported from a file, which has no answer about it"
            )
        count = len(rows)
        probabilities = np.full((count, len(self._labels)), 1 / len(self._labels), dtype=np.float32)
        abstained = np.ones(count, dtype=np.bool_)
        amounts = np.zeros((2, count), dtype=np.float32)
        for position, row in enumerate(rows):
            if row in index:
                i = index[row]
                probabilities[position] = answers.probabilities[i]
                abstained[position] = answers.abstained[i]
                amounts[:, position] = answers.latency_s[i], answers.cost_usd[i]
        reasons = tuple(
            "" if not out else "the file has no answer" if row in index else "the file does not have the clip"
            for row, out in zip(rows, abstained, strict=True)
        )
        return Predictions(
            rows=tuple(rows),
            truth=tuple(self._inputs.truth(rows)),
            labels=self._labels,
            probabilities=probabilities,
            abstained=abstained,
            latency_s=amounts[0],
            cost_usd=amounts[1],
            source=answers.source,
            reasons=reasons if abstained.any() else (),
        )

    @property
    def _answers(self) -> ForeignAnswers:
        if self._read is None:
            self._read = read_answers(model_config(self._cfg, ImportedConfig), self._labels)
        return self._read

    def _state(self, folder: Path) -> dict[str, Any]:
        """Store the answers by the names that the file gives to clips; there is no model to store."""
        from safetensors.numpy import save_file

        answers = self._answers
        arrays = {name: np.ascontiguousarray(getattr(answers, name), dtype=np.float32) for name in ARRAYS}
        save_file(arrays, folder / ANSWERS_FILE)
        return {name: getattr(answers, name) for name in ("sha256", "names", "variants", "source")}

    def _restore(self, stored: Mapping[str, Any], folder: Path) -> None:
        from safetensors.numpy import load_file

        with reading(folder):
            arrays = load_file(folder / ANSWERS_FILE)
            self._read = ForeignAnswers(
                path=folder / ANSWERS_FILE,
                sha256=str(stored["sha256"]),
                names=tuple(map(str, stored["names"])),
                variants=tuple(map(str, stored["variants"])),
                places=tuple(f"answer {i}" for i in range(1, len(stored["names"]) + 1)),
                truth=(),
                source=str(stored["source"]),
                **(arrays | {"abstained": arrays["abstained"] > 0}),
            )


def check_title(title: str) -> None:
    """Check the name of a foreign model.

    Raises:
        ConfigError: it is missing, has other characters, or is the name of a predictor of this package.
    """
    if not TITLE.fullmatch(title):
        raise ConfigError(
            f"the name {title!r} of an imported model must have 1 to 64 letters, digits, dots, hyphens and underscores"
            f": {HOW_TO}"
        )
    if title in names_of_predictors():
        raise ConfigError(
            f"the name {title} is that of a predictor of ser_bench, so that its runs would be taken for those; choose "
            f"another one, for example --name my_{title}"
        )


def read_answers(model: ImportedConfig, labels: Sequence[str]) -> ForeignAnswers:
    """Read the file that `model.file` names.

    Raises:
        ConfigError: it cannot be used, or its content is not that of `model.sha256`.
    """
    if not model.file:
        raise ConfigError(f"model=imported needs model.file=FILE; {HOW_TO} sets it")
    table = read_prediction_table(Path(model.file).expanduser())
    if model.sha256 and table.sha256 != model.sha256:
        raise ConfigError(
            f"{model.file}: was changed since it was imported (SHA-256 {table.sha256[:12]}…, expected "
            f"{model.sha256[:12]}…); import it again with {HOW_TO}"
        )
    chosen = ColumnChoice(model.id_column, model.label_column, model.truth_column)
    return answers_of(table, labels, chosen, model.allow_missing)


def refuse_unknown(answers: ForeignAnswers, unknown: Sequence[int], corpus: Corpus) -> None:
    """Raise ConfigError if the file names clips that are not in the corpus."""
    if unknown:
        raise ConfigError(
            f"{answers.path}: {_counted(len(unknown), 'id')} of no clip of {corpus.measured}, for example "
            f"{_some([answers.names[i] for i in unknown])}; an id is the stem of a file name, such as "
            f"{corpus.clips[0].id}. Is it the right corpus, and the right column (--id-column)?"
        )


def check_truth(answers: ForeignAnswers, index: Mapping[Row, int], corpus: Corpus) -> None:
    """Raise ConfigError if a stated truth is not the label in the corpus."""
    if not answers.truth:
        return
    clips = corpus.by_id
    wrong = [
        f"{row.clip_id} ({answers.truth[i]}, in the corpus {clips[row.clip_id].emotion})"
        for row, i in index.items()
        if answers.truth[i] and answers.truth[i] != clips[row.clip_id].emotion
    ]
    if wrong:
        raise ConfigError(
            f"{answers.path}: the truth of {_counted(len(wrong), 'clip')} is not that of {corpus.measured}: "
            f"{_some(wrong)}; the model was scored on other labels, or the column is not the truth (--truth-column)"
        )


def check_parts(answers: ForeignAnswers, index: Mapping[Row, int], split: Split, all_folds: bool) -> None:
    """Raise ConfigError if the file has answers about rows that are not test rows of the split.

    With `all_folds` such rows may be test rows of other folds; `ser-bench import --fold all` checks that they are.
    """
    tested = set(split.test)
    others = [row for row in index if row not in tested]
    if not others or all_folds:
        return
    where = f"{split.protocol} fold {split.fold}"
    more = (
        " If the file holds all folds, each predicted by a model that was not trained on it, import it with --fold all."
        if split.folds > 1
        else ""
    )
    for part, rows in (("training", split.train), ("validation", split.val)):
        clips = {row.clip_id for row in rows}
        inside = [row.clip_id for row in others if row.clip_id in clips]
        if inside:
            raise ConfigError(
                f"{answers.path}: {_counted(len(inside), 'clip')} of the {part} part of {where}, for example "
                f"{_some(inside)}. A model is not measured on clips that it was trained or chosen on: that would be "
                f"the leak. Keep the test clips only (ser-bench export-split lists them).{more}"
            )
    raise ConfigError(
        f"{answers.path}: {_counted(len(others), 'row')} that {where} does not test, for example "
        f"{_some(['/'.join(row) for row in others])}; keep the test clips only (ser-bench export-split lists them)."
        f"{more}"
    )


def refuse_untested(answers: ForeignAnswers, index: Mapping[Row, int], folds: Sequence[Split]) -> None:
    """Raise ConfigError if the file has answers about rows that no fold tests."""
    tested = {row for split in folds for row in split.test}
    others = [row for row in index if row not in tested]
    if others:
        raise ConfigError(
            f"{answers.path}: {_counted(len(others), 'row')} that no fold of {folds[0].protocol} tests, for example "
            f"{_some(['/'.join(row) for row in others])}; keep the test clips only (ser-bench export-split lists them)"
        )


def refuse_missing(answers: ForeignAnswers, index: Mapping[Row, int], split: Split, allow_missing: bool) -> None:
    """Raise ConfigError if a test row has no answer, unless that is allowed; or if no test row has one."""
    missing = [row for row in split.test if row not in index]
    if len(missing) == len(split.test):
        raise ConfigError(f"{answers.path}: has no answer about a test clip of {split.protocol} fold {split.fold}")
    if missing and not allow_missing:
        raise ConfigError(
            f"{answers.path}: {len(missing):,} of {len(split.test):,} test rows of {split.protocol} fold {split.fold} "
            f"have no prediction, for example {_some([row.clip_id for row in missing])}; add them, or count them as "
            "abstentions, which are wrong answers, with --allow-missing"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
