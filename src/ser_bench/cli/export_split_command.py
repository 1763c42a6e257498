"""`ser-bench export-split`: the lists of clips that somebody else needs to train under the same protocol."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from ser_bench import __version__, corpora, extras, splits
from ser_bench.cli.split_options import with_options
from ser_bench.config import Config, Protocol, compose
from ser_bench.corpora.audformat_tables import write_audformat
from ser_bench.errors import ConfigError
from ser_bench.file_access import access_errors
from ser_bench.types import CLEAN, Corpus, Row, Split

SPLIT_FILE = "split.json"
AUDFORMAT_FOLDER = "audformat"
COLUMNS = ("clip_id", "path", "emotion", "speaker", "part")
"""Columns of the lists. The label is called emotion, so that nobody takes it for a prediction."""


@dataclass(frozen=True)
class ExportOptions:
    """What the command line says beside the overrides.

    Attributes:
        out: new folder for the lists.
        corpus: `--corpus`; None: an override names it.
        split: `--split`; None: an override, else the default protocol.
        fold: `--fold`: a number, "all", or None.
        audformat: write audformat tables too.
    """

    out: Path
    corpus: str | None = None
    split: str | None = None
    fold: str | None = None
    audformat: bool = False


def run(overrides: Sequence[str], options: ExportOptions) -> list[Path]:
    """Write the lists of one fold into the folder, or those of each fold into a folder of its own below it.

    Returns:
        The folders with the lists.

    Raises:
        ConfigError: the folder has files, an option is wrong, or the package audformat is missing.
        SerBenchError: the corpus or the split cannot be made.
    """
    if options.audformat:
        extras.require("audformat", "--audformat")
    if options.out.exists() and (not options.out.is_dir() or any(options.out.iterdir())):
        raise ConfigError(f"{options.out}: exists and is not an empty folder; name a new one with --out")
    words, all_folds = with_options(overrides, options.corpus, options.split, options.fold)
    cfg = compose(words)
    corpus = corpora.load(cfg)
    numbers = range(splits.fold_count(corpus, cfg.split)) if all_folds else [cfg.split.fold]
    folders = []
    for fold in numbers:
        of_fold = deepcopy(cfg)
        of_fold.split.fold = fold
        split = splits.make(corpus, of_fold.split, of_fold.augment.variants)
        folder = options.out / f"fold_{fold}" if all_folds else options.out
        write_split(of_fold, corpus, split, folder, options.audformat)
        print(f"written  {folder}: {_counts_in_words(split)}")
        folders.append(folder)
    return folders


def write_split(cfg: Config, corpus: Corpus, split: Split, folder: Path, audformat: bool = False) -> None:
    """Write train.csv, val.csv, test.csv and split.json, and the audformat tables if they are wanted.

    Paths are relative to the folder of the corpus. The list of validation clips may be empty.
    """
    paths = relative_paths(cfg, corpus)
    parts = {"train": split.train, "val": split.val, "test": split.test}
    with access_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in parts.items():
            _write_list(folder / f"{part}.csv", part, rows, corpus, paths)
        (folder / SPLIT_FILE).write_text(
            json.dumps(_description(cfg, corpus, split), indent=1, ensure_ascii=False) + "\n"
        )
        if audformat:
            write_audformat(
                folder / AUDFORMAT_FOLDER, corpus, parts, paths, corpora.sheet_of(cfg.corpus.name, cfg.corpus.root)
            )


def relative_paths(cfg: Config, corpus: Corpus) -> dict[str, str]:
    """Return clip id → path of its file, relative to the folder of its corpus where it lies below it."""
    roots = [corpora.root_of(cfg)]
    if cfg.split.protocol is Protocol.cross_corpus and cfg.split.test_root:
        roots.append(Path(cfg.split.test_root).expanduser())
    folders = [root if root.is_dir() else root.parent for root in roots]
    paths = {}
    for clip in corpus.clips:
        below = [folder for folder in folders if clip.path.is_relative_to(folder)]
        paths[clip.id] = (clip.path.relative_to(below[0]) if below else clip.path).as_posix()
    return paths


def _write_list(path: Path, part: str, rows: Sequence[Row], corpus: Corpus, paths: Mapping[str, str]) -> None:
    clips, has_variants = corpus.by_id, any(row.variant != CLEAN for row in rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, *(["variant"] if has_variants else [])])
        for row in sorted(rows):
            clip = clips[row.clip_id]
            cells = [clip.id, paths[clip.id], clip.emotion, clip.speaker, part]
            writer.writerow([*cells, *([row.variant] if has_variants else [])])


def _description(cfg: Config, corpus: Corpus, split: Split) -> dict[str, object]:
    return {
        "corpus": corpus.measured,
        "corpus_digest": corpus.digest,
        "labels": list(corpus.labels),
        "protocol": split.protocol,
        "leakage": splits.LEAKS[cfg.split.protocol],
        "fold": split.fold,
        "folds": split.folds,
        "seed": cfg.split.seed,
        "partition": split.partition,
        "rows": {"train": len(split.train), "val": len(split.val), "test": len(split.test)},
        "ser_bench": __version__,
    }


def _counts_in_words(split: Split) -> str:
    return (
        f"{len(split.train):,} training, {len(split.val):,} validation, {len(split.test):,} test rows; "
        f"partition {split.partition}"
    )
