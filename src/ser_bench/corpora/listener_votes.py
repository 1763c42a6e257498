"""Votes of listeners as labels (`corpus.target=votes`) and as soft targets.

The votes themselves are read by the data sheet of a corpus (`DataSheet.votes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ser_bench.corpora.data_sheet import DataSheet, Votes
from ser_bench.corpora.sheets import SHEETS
from ser_bench.errors import ConfigError
from ser_bench.types import Clip, FloatArray


def votes_of(sheet: DataSheet, root: Path) -> Votes:
    """Return clip id → emotion → number of listeners who chose it.

    Raises:
        ConfigError: if the corpus has no votes of listeners.
        CorpusError: if the corpus has votes, but this copy has no readable table of them.
    """
    if sheet.votes is None:
        choices = ", ".join(name for name, other in SHEETS.items() if other.votes is not None)
        raise ConfigError(f"corpus {sheet.name} has no votes of listeners; choose corpus={choices}")
    return sheet.votes(root)


def label_by_plurality(
    clips: Sequence[Clip], votes: Votes, labels: Sequence[str], corpus: str
) -> tuple[list[Clip], str]:
    """Replace the intended emotion of each clip by the emotion that most listeners chose.

    A clip without votes for any of `labels`, or with a tie, has no such emotion and is left out, also from training.

    Args:
        clips: clips with the intended emotion.
        votes: clip id → emotion → number of listeners.
        labels: the labels of the run; votes for other emotions are ignored.
        corpus: name of the corpus, for the summary.

    Returns:
        The remaining clips, in the same order, and a summary of the changes in one line.

    >>> from pathlib import Path
    >>> clips = [Clip(name, Path(name), "sad", "s") for name in "abc"]
    >>> votes = {"a": {"sad": 3, "happy": 5}, "b": {"sad": 2, "happy": 2}}
    >>> labelled, summary = label_by_plurality(clips, votes, ["happy", "sad"], "x")
    >>> [(clip.id, clip.emotion) for clip in labelled]
    [('a', 'happy')]
    >>> summary
    'x: corpus.target=votes: 1 of 3 clips have a label other than the intended one; 2 clips are left out (1 with tied \
votes, 1 without votes)'
    """
    labelled, tied, without_votes = [], 0, 0
    for clip in clips:
        counts = {label: votes.get(clip.id, {}).get(label, 0) for label in labels}
        most = max(counts.values())
        winners = [label for label, count in counts.items() if count == most]
        if not most:
            without_votes += 1
        elif len(winners) > 1:
            tied += 1
        else:
            labelled.append(replace(clip, emotion=winners[0]))
    intended = {clip.id: clip.emotion for clip in clips}
    changed = sum(clip.emotion != intended[clip.id] for clip in labelled)
    summary = (
        f"{corpus}: corpus.target=votes: {changed:,} of {len(clips):,} clips have a label other than the intended one; "
        f"{tied + without_votes:,} clips are left out ({tied:,} with tied votes, {without_votes:,} without votes)"
    )
    return labelled, summary


def vote_shares(votes: Sequence[Mapping[str, int] | None], labels: Sequence[str]) -> FloatArray:
    """Return soft targets: [N, C] float32, the share of each label among the votes for any of `labels`.

    Rows sum to 1. Each of the N clips must have at least one such vote, which `label_by_plurality` ensures.
    """
    counts = vote_counts(votes, labels).astype(np.float32)
    shares: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return shares


def vote_counts(votes: Sequence[Mapping[str, int] | None], labels: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return [N, C], the number of votes for each label. Votes for other labels are dropped; None has no vote.

    >>> vote_counts([{"sad": 3, "happy": 1}, None], ["happy", "sad"]).tolist()
    [[1, 3], [0, 0]]
    """
    counts = np.array([[(clip or {}).get(label, 0) for label in labels] for clip in votes], dtype=np.int64)
    return counts.reshape(len(votes), len(labels))
