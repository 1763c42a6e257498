"""How many listeners heard which emotion in each clip of CREMA-D, from the sound alone.

The official table, `processedResults/tabulatedVotes.csv`, has three lines a clip. Its first column, without a name, is
100,000 × query type + number of the clip, where query type 1 is voice only, 2 face only and 3 both (`tabulateVotesV2.r`
and the README of the corpus's repository); columns A D F H N S count the votes, and `fileName` is the clip. The
authors left out practice clips, repetitions, and answers whose first click came more than ten seconds after the clip
(`processFinishedResponses.R`). A table called `voice_votes.csv` holds the same columns of the voice-only lines.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

from ser_bench.errors import CorpusError

Votes = Mapping[str, Mapping[str, int]]
"""Clip id → emotion → number of listeners."""

TABLES = ("voice_votes.csv", "tabulatedVotes.csv", "processedResults/tabulatedVotes.csv")
"""In the order in which they are looked for: where `prepare` puts the official table, and where a clone has it."""
EMOTIONS: Mapping[str, str] = {
    "A": "angry",
    "D": "disgust",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
}
ROW_NUMBER = ""
"""Name that R gives the column of row names."""
CLIPS_PER_QUERY_TYPE = 100_000
VOICE_ONLY = 1


def read(root: Path, clip_id: Callable[[str], str]) -> Votes:
    """Votes of every clip in the first of `TABLES` that is in the corpus's folder or beside it.

    Args:
        root: the corpus's folder.
        clip_id: `fileName` → the clip's id; ValueError for a name that is not of the corpus.

    Raises:
        CorpusError: there is no such table, or it has other columns than it should.
    """
    for path in (folder / name for folder in (root, root.parent) for name in TABLES):
        if path.is_file():
            try:
                with path.open(newline="", encoding="utf-8-sig") as file:
                    lines = csv.DictReader(file)
                    if missing := {"fileName", *EMOTIONS} - set(lines.fieldnames or ()):
                        raise ValueError(f"no column {', '.join(sorted(missing))}")
                    return {clip_id(row["fileName"]): _counts(row) for row in lines if _is_voice(row)}
            except (TypeError, ValueError, csv.Error) as error:
                raise CorpusError(
                    f"{path}: is not a table of votes with columns fileName, {', '.join(EMOTIONS)} ({error!r}); "
                    "fetch it again or remove it"
                ) from error
    raise CorpusError(
        f"{root}: no table of listeners' votes ({TABLES[0]} or {TABLES[1]}) in this folder or beside it; "
        "`ser-bench corpora prepare cremad` fetches one with the corpus, or put one there"
    )


def _is_voice(row: Mapping[str, str]) -> bool:
    return ROW_NUMBER not in row or int(row[ROW_NUMBER]) // CLIPS_PER_QUERY_TYPE == VOICE_ONLY


def _counts(row: Mapping[str, str]) -> dict[str, int]:
    return {emotion: int(row[letter]) for letter, emotion in EMOTIONS.items()}
