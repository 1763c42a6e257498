"""The lists of a split as an audformat database: a header (db.yaml) and one table for each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_bench import extras
from ser_bench.corpora.data_sheet import DataSheet
from ser_bench.errors import ConfigError
from ser_bench.types import CLEAN, Corpus, Row

TABLES = {"train": "train", "val": "dev", "test": "test"}
"""Part of a split → name of the table and of the split in audformat."""


def write_audformat(
    folder: Path, corpus: Corpus, parts: Mapping[str, Sequence[Row]], paths: Mapping[str, str], sheet: DataSheet
) -> None:
    """Write db.yaml and the tables train, dev and test, with the columns emotion and speaker.

    Args:
        folder: of the database; its audio is that of the corpus, so db.yaml belongs into the folder of the corpus.
        corpus: the clips.
        parts: "train", "val" and "test" → rows.
        paths: clip id → path relative to the folder of the corpus.
        sheet: data sheet of the corpus, for licence and source.

    Raises:
        ConfigError: a row is augmented; tables of audformat list files.
    """
    extras.require("audformat", "audformat tables")
    import audformat

    if any(row.variant != CLEAN for rows in parts.values() for row in rows):
        raise ConfigError("audformat tables list files, and this split has augmented rows; leave out --audformat")
    database = audformat.Database(
        name=corpus.measured,
        source=sheet.homepage or "not stated",
        usage=audformat.define.Usage.OTHER,
        languages=corpus.language.split(),
        description=f"{sheet.title}: parts of a split made by ser_bench",
        license=sheet.licence,
    )
    clips = corpus.by_id
    sexes = {clip.speaker: clip.sex for clip in corpus.clips}
    database.schemes["emotion"] = audformat.Scheme(labels=list(corpus.labels))
    database.schemes["speaker"] = audformat.Scheme(
        labels={speaker: {"gender": sex} if sex else {} for speaker, sex in sorted(sexes.items())}
    )
    for part, rows in parts.items():
        name = TABLES[part]
        kind = audformat.define.SplitType.DEVELOP if name == "dev" else name
        database.splits[name] = audformat.Split(kind)
        chosen = [clips[row.clip_id] for row in sorted(rows)]
        table = audformat.Table(audformat.filewise_index([paths[clip.id] for clip in chosen]), split_id=name)
        database[name] = table
        for column in ("emotion", "speaker"):
            table[column] = audformat.Column(scheme_id=column)
            table[column].set([getattr(clip, column) for clip in chosen])
    database.save(str(folder), storage_format=audformat.define.TableStorageFormat.CSV)
