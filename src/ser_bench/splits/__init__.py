"""Splits: which rows are training, validation and test rows under each protocol.

- `protocols`: the protocols, and the check that a split follows its protocol;
- `speaker_lists`: published lists of speakers for `split=fixed`.
"""

from ser_bench.splits.protocols import LEAKS, SPEAKERS_APART, check, fold_count, make

__all__ = ["LEAKS", "SPEAKERS_APART", "check", "fold_count", "make"]
