"""`ser-bench import`: predictions of a model that was trained elsewhere become stored runs."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

from ser_bench import comparison, corpora, pipeline, splits, tracking
from ser_bench.api import printed_log
from ser_bench.cli.split_options import with_options
from ser_bench.comparison import paired
from ser_bench.config import Config, compose, model_config
from ser_bench.errors import ConfigError
from ser_bench.predictors.imported import ImportedConfig
from ser_bench.predictors.imported.imported_predictions import (
    check_title,
    check_truth,
    read_answers,
    refuse_missing,
    refuse_unknown,
    refuse_untested,
)


@dataclass(frozen=True)
class ImportOptions:
    """What the command line says beside the file and the overrides.

    Attributes:
        name: of the foreign model.
        corpus: `--corpus`; None: an override names it.
        split: `--split`; None: an override, else the default protocol.
        fold: `--fold`: a number, "all", or None.
        id_column: column that names the clip; "": the usual name. The other columns likewise.
        label_column: column of the predicted label.
        truth_column: column of the true label.
        allow_missing: count test clips without an answer as abstentions.
    """

    name: str
    corpus: str | None = None
    split: str | None = None
    fold: str | None = None
    id_column: str = ""
    label_column: str = ""
    truth_column: str = ""
    allow_missing: bool = False


def run(overrides: Sequence[str], words: Sequence[str], options: ImportOptions) -> list[str]:
    """Store the predictions of a file as a run, or as one run for each fold, and return the ids of the runs.

    Args:
        overrides: Hydra overrides.
        words: the file.
        options: of the command line.

    Raises:
        ConfigError: no file or several are named, or the file cannot be used for this corpus and split.
        SerBenchError: the corpus or the store cannot be used.
    """
    if len(words) != 1:
        raise ConfigError(f"name one file with predictions, not {len(words)}: ser-bench import FILE --name MODEL")
    check_title(options.name)
    composed, all_folds = with_options(overrides, options.corpus, options.split, options.fold)
    cfg = compose(["model=imported", *composed])
    cfg.model = replace(
        model_config(cfg, ImportedConfig),
        title=options.name,
        file=str(Path(words[0]).expanduser().absolute()),
        id_column=options.id_column,
        label_column=options.label_column,
        truth_column=options.truth_column,
        allow_missing=options.allow_missing,
        all_folds=all_folds,
    )
    with printed_log():
        return _import_folds(cfg) if all_folds else [pipeline.run(cfg).run_id]


def _import_folds(cfg: Config) -> list[str]:
    """Store one run for each fold below a common parent run, and print their pooled result."""
    of_folds = _checked_folds(cfg)
    tracking.open_store(cfg.tracking)
    model = model_config(cfg, ImportedConfig)
    parent, _ = tracking.start_sweep(
        cfg.tracking,
        cfg.tracking.experiment,
        name=f"import {model.title}",
        tags={"corpus": cfg.corpus.name, "kind": "sweep"},
        words=["import", model.title, model.file],
    )
    status = "FAILED"
    try:
        run_ids = [pipeline.run(of_fold, parent).run_id for of_fold in of_folds]
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracking.end_parent(cfg.tracking, parent, status)
    print(comparison.all_as_text(paired.comparisons_of_sweep(cfg.tracking, parent)))
    return run_ids


def _checked_folds(cfg: Config) -> list[Config]:
    """Return one configuration per fold, after the file was checked against all of them together."""
    corpus = corpora.load(cfg)
    of_folds = []
    for fold in range(splits.fold_count(corpus, cfg.split)):
        of_fold = deepcopy(cfg)
        of_fold.split.fold = fold
        of_folds.append(of_fold)
    made = [splits.make(corpus, of_fold.split, of_fold.augment.variants) for of_fold in of_folds]
    model = model_config(cfg, ImportedConfig)
    answers = read_answers(model, corpus.labels)
    index, unknown = answers.of_clips([clip.id for clip in corpus.clips])
    refuse_unknown(answers, unknown, corpus)
    check_truth(answers, index, corpus)
    refuse_untested(answers, index, made)
    for split in made:
        refuse_missing(answers, index, split, model.allow_missing)
    return of_folds
