"""Pooling of folds: one set of predictions per run group and seed, on the clips that all groups predicted.

The folds of a cross-validation are concatenated, so that every clip counts once. Only clips that every group predicted
are used, in the same order for all groups. Augmented rows, which are tested under `paper`, are left out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_bench import predictions as tables
from ser_bench import tracking
from ser_bench.comparison.run_groups import RunGroup
from ser_bench.errors import ArtifactError, NotComparableError, TrackingError
from ser_bench.tracking import StoredRun
from ser_bench.types import CLEAN, Predictions

CLIP_COLUMNS = ["speaker", "sex", "sentence", "intensity", "truth"]


def common_folds(groups: Sequence[RunGroup]) -> list[int]:
    """Return the folds that every group has run, with every seed.

    Raises:
        NotComparableError: if there is none.
    """
    folds = sorted(set.intersection(*(group.folds for group in groups)))
    if not folds:
        raise NotComparableError(
            f"no fold was run by all of {', '.join(group.name for group in groups)}; run the missing folds"
        )
    return folds


def pool_folds(
    groups: Sequence[RunGroup], folds: Sequence[int]
) -> tuple[dict[str, tuple[Predictions, ...]], pd.DataFrame]:
    """Pool the folds of every group.

    Args:
        groups: run groups with different names.
        folds: the folds to pool, of which every group has runs.

    Returns:
        Name of the group → predictions, one per seed, all over the same rows in the same order; and a table of the
        clips, indexed by clip id, in that order, with the columns `CLIP_COLUMNS`.

    Raises:
        NotComparableError: if the groups have no clip in common, or stored predictions were changed after the run.
    """
    by_group = {
        group.name: [_clean_rows([runs[fold] for fold in folds]) for runs in group.runs.values()] for group in groups
    }
    frames = [frame for of_seeds in by_group.values() for frame in of_seeds]
    common = sorted(set.intersection(*(set(frame.index) for frame in frames)))
    if not common:
        raise NotComparableError(f"{', '.join(by_group)} have no clip in common")
    votes = _common_votes(frames, common)
    pooled = {
        name: tuple(replace(_predictions(frame, common), votes=votes) for frame in of_seeds)
        for name, of_seeds in by_group.items()
    }
    return pooled, frames[0].loc[common, CLIP_COLUMNS]


def pool_calibrated(runs: Sequence[StoredRun], clip_ids: Sequence[str]) -> Predictions | None:
    """Return the predictions of these clips from one run per fold, each calibrated by the temperature of its run.

    None if a run has no calibration, because it is older or its predictor has none, or gives no probabilities.
    """
    parts = []
    for run in runs:
        calibration = run.calibration()
        if calibration is None:
            return None
        predictions = run.predictions()
        if not predictions.gives_probabilities:
            return None
        clean = predictions.take([i for i, row in enumerate(predictions.rows) if row.variant == CLEAN])
        parts.append(calibration.applied(clean))
    pooled = functools.reduce(tables.concatenate, parts)
    position = {row.clip_id: i for i, row in enumerate(pooled.rows)}
    return pooled.take([position[clip_id] for clip_id in clip_ids])


def _clean_rows(runs: Sequence[StoredRun]) -> pd.DataFrame:
    """Return the clean rows of several folds, indexed by clip.

    If the folds have probabilities of different kinds, these are not comparable and are marked as one-hot.
    """
    frames = [_unchanged_table(run) for run in runs]
    sources = {frame.attrs.get("source", "softmax") for frame in frames}
    pooled = pd.concat([frame[frame["variant"] == CLEAN] for frame in frames]).set_index("clip_id")
    ordinal = all(frame.attrs.get("ordinal", False) for frame in frames)
    pooled.attrs = {"source": sources.pop() if len(sources) == 1 else "one_hot", "ordinal": ordinal}
    return pooled


def _unchanged_table(run: StoredRun) -> pd.DataFrame:
    """Return the stored table of predictions.

    Raises:
        NotComparableError: it was changed after the run.
    """
    try:
        tracking.refuse_changed(run, "predictions.parquet")
    except TrackingError as error:
        raise NotComparableError(str(error)) from error
    return run.frame()


def readable_runs(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[NotComparableError]]:
    """Return the runs whose predictions can be read, and one error for each other run, which names it.

    A run whose table is damaged, missing or changed must not prevent the comparison of the others.
    """
    readable, refused = [], []
    for run in runs:
        try:
            _unchanged_table(run)
        except (ArtifactError, NotComparableError) as error:
            refused.append(NotComparableError(f"a run is left out: {error}"))
        else:
            readable.append(run)
    return readable, refused


def _common_votes(frames: Sequence[pd.DataFrame], clip_ids: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Return the listeners' votes for these clips, [N, C], from any run that has them; None unless all clips have some.

    Votes belong to the clip, so that runs of earlier versions and imported predictions take them from the others.
    """
    columns = [f"{tables.VOTES}{name.removeprefix(tables.PROBABILITY)}" for name in _probability_columns(frames[0])]
    parts = [frame[columns].dropna() for frame in frames if set(columns) <= set(frame.columns)]
    known = pd.concat(parts) if parts else pd.DataFrame(columns=columns)
    known = known[~known.index.duplicated()]
    if not columns or not set(clip_ids) <= set(known.index):
        return None
    return known.loc[list(clip_ids)].to_numpy(dtype=np.int64)


def _probability_columns(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if str(name).startswith(tables.PROBABILITY)]


def _predictions(frame: pd.DataFrame, clip_ids: Sequence[str]) -> Predictions:
    """Return the predictions of these clips, in this order, without votes."""
    selected = frame.loc[list(clip_ids)].reset_index()
    selected = selected[[name for name in selected.columns if not str(name).startswith(tables.VOTES)]]
    selected.attrs = frame.attrs
    return tables.from_frame(selected)
