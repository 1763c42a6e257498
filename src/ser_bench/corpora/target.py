"""`corpus.target=votes`: the truth of a clip is what listeners heard in it, not what the actor was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ser_bench.types import Clip, FloatArray


def as_heard(
    clips: Sequence[Clip], votes: Mapping[str, Mapping[str, int]], labels: Sequence[str], corpus: str
) -> tuple[list[Clip], str]:
    """Clips whose emotion is the plurality of the votes for `labels`, and one line on what that changes.

    A clip without votes, or whose most frequent votes tie, has no one truth and is left out, of training too.

    >>> from pathlib import Path
    >>> clips = [Clip(name, Path(name), "sad", "s") for name in "abc"]
    >>> votes = {"a": {"sad": 3, "happy": 5}, "b": {"sad": 2, "happy": 2}}
    >>> kept, line = as_heard(clips, votes, ["happy", "sad"], "x")
    >>> [(clip.id, clip.emotion) for clip in kept], line
    ([('a', 'happy')], 'x: listeners decide (corpus.target=votes): 1 of 3 clips have another truth than the actor \
intended, 1 are tied and 1 have no votes; these are left out')
    """
    kept, tied, silent = [], 0, 0
    for clip in clips:
        counts = {label: votes.get(clip.id, {}).get(label, 0) for label in labels}
        most = max(counts.values())
        winners = [label for label, count in counts.items() if count == most]
        if not most:
            silent += 1
        elif len(winners) > 1:
            tied += 1
        else:
            kept.append(replace(clip, emotion=winners[0]))
    meant = {clip.id: clip.emotion for clip in clips}
    other = sum(clip.emotion != meant[clip.id] for clip in kept)
    line = (
        f"{corpus}: listeners decide (corpus.target=votes): {other:,} of {len(clips):,} clips have another truth than "
        f"the actor intended, {tied:,} are tied and {silent:,} have no votes; these are left out"
    )
    return kept, line


def shares(votes: Sequence[Mapping[str, int] | None], labels: Sequence[str]) -> FloatArray:
    """[N, C] share of each label among the votes for any of them: soft targets; rows sum to 1.

    Every row has such a vote, as `as_heard` sees to.
    """
    counts = np.array([[(one or {}).get(label, 0) for label in labels] for one in votes], dtype=np.float32)
    counts = counts.reshape(len(votes), len(labels))
    found: FloatArray = counts / counts.sum(axis=1, keepdims=True)
    return found
