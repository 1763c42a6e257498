"""Conversion of predictions to a table and back; every run stores this table as Parquet.

`require_complete` refuses predictions of which some requests failed, wherever a score or a combination is computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_bench.errors import IncompleteRunError
from ser_bench.types import Clip, Predictions, Row

PROBABILITY = "p_"
"""Prefix of the probability columns."""
VOTES = "votes_"
"""Prefix of the columns with the number of listeners who chose a label."""
CLIP_COLUMNS = ("speaker", "sex", "sentence", "intensity", "duration_s")
"""Attributes of the clip that the table contains."""
RUN_AGAIN = "Run the same command again, which asks only for these"


def to_frame(predictions: Predictions, clips: Mapping[str, Clip]) -> pd.DataFrame:
    """Return predictions as a table with one line per row.

    The columns are clip_id, variant, `CLIP_COLUMNS`, truth, predicted, abstained, p_<label> for each label, latency_s,
    cost_usd and note; `attrs["source"]` is the source of the probabilities, and `attrs["ordinal"]` is True where the
    labels are ordered levels. Where the predictor states why a row has no label, the columns status ("answered",
    "abstained", "failed") and reason (of an abstention or of a failure) follow. Where the votes of listeners are known,
    the columns votes_<label> follow.

    Args:
        predictions: N rows.
        clips: clip id → clip, for every row.
    """
    frame = pd.DataFrame(
        {"clip_id": [r.clip_id for r in predictions.rows], "variant": [r.variant for r in predictions.rows]}
    )
    for column in CLIP_COLUMNS:
        frame[column] = [getattr(clips[row.clip_id], column) for row in predictions.rows]
    frame["truth"] = list(predictions.truth)
    frame["predicted"] = list(predictions.predicted)
    frame["abstained"] = predictions.abstained
    for i, label in enumerate(predictions.labels):
        frame[PROBABILITY + label] = predictions.probabilities[:, i]
    frame["latency_s"] = predictions.latency_s
    frame["cost_usd"] = predictions.cost_usd
    frame["note"] = list(predictions.notes) if predictions.notes else [""] * len(predictions.rows)
    if predictions.reasons or predictions.causes:
        empty = ("",) * len(predictions.rows)
        pairs = zip(predictions.reasons or empty, predictions.causes or empty, strict=True)
        frame["status"] = list(predictions.status)
        frame["reason"] = [cause or reason for reason, cause in pairs]
    if predictions.votes is not None:
        for i, label in enumerate(predictions.labels):
            frame[VOTES + label] = predictions.votes[:, i]
    frame.attrs = {"source": predictions.source} | ({"ordinal": True} if predictions.ordinal else {})
    return frame


def from_frame(frame: pd.DataFrame) -> Predictions:
    """Return the predictions in a table of `to_frame`. The order of the labels is that of the probability columns."""
    columns = [name for name in frame.columns if name.startswith(PROBABILITY)]
    statuses = [str(status) for status in frame.get("status", ())]
    reasons = [str(reason) for reason in frame.get("reason", ())]
    has_failed = [status == "failed" for status in statuses]
    return Predictions(
        rows=tuple(Row(str(c), str(v)) for c, v in zip(frame["clip_id"], frame["variant"], strict=True)),
        truth=tuple(str(t) for t in frame["truth"]),
        labels=tuple(name.removeprefix(PROBABILITY) for name in columns),
        probabilities=frame[columns].to_numpy(dtype=np.float32),
        abstained=frame["abstained"].to_numpy(dtype=np.bool_),
        latency_s=frame["latency_s"].to_numpy(dtype=np.float32),
        cost_usd=frame["cost_usd"].to_numpy(dtype=np.float32),
        source=str(frame.attrs.get("source", "softmax")),
        notes=tuple(str(n) for n in frame["note"]) if frame["note"].astype(bool).any() else (),
        reasons=tuple("" if failed else reason for failed, reason in zip(has_failed, reasons, strict=True)),
        causes=tuple(reason if failed else "" for failed, reason in zip(has_failed, reasons, strict=True))
        if any(has_failed)
        else (),
        ordinal=bool(frame.attrs.get("ordinal", False)),
        votes=votes_in(frame),
    )


def votes_in(frame: pd.DataFrame) -> npt.NDArray[np.int64] | None:
    """Return the votes in a table of `to_frame`, [N, C] in the order of the labels; None if it has none."""
    columns = [VOTES + name.removeprefix(PROBABILITY) for name in frame.columns if name.startswith(PROBABILITY)]
    if not columns or not set(columns) <= set(frame.columns):
        return None
    return frame[columns].to_numpy(dtype=np.int64)


def concatenate(first: Predictions, second: Predictions) -> Predictions:
    """Return the rows of `first`, followed by the rows of `second`, without notes.

    `source` is "one_hot" if the probabilities come from two different sources, so that log-loss and ECE are not
    computed.

    Raises:
        ValueError: if the labels differ, or if a row is in both.
    """
    if first.labels != second.labels:
        raise ValueError(f"predictions over {first.labels} cannot be concatenated with those over {second.labels}")
    return Predictions(
        rows=first.rows + second.rows,
        truth=first.truth + second.truth,
        labels=first.labels,
        probabilities=np.concatenate([first.probabilities, second.probabilities]),
        abstained=np.concatenate([first.abstained, second.abstained]),
        latency_s=np.concatenate([first.latency_s, second.latency_s]),
        cost_usd=np.concatenate([first.cost_usd, second.cost_usd]),
        source=first.source if first.source == second.source else "one_hot",
        reasons=_joined(first, first.reasons, second, second.reasons),
        causes=_joined(first, first.causes, second, second.causes),
        ordinal=first.ordinal and second.ordinal,
        votes=None if first.votes is None or second.votes is None else np.concatenate([first.votes, second.votes]),
    )


def _joined(
    first: Predictions, of_first: tuple[str, ...], second: Predictions, of_second: tuple[str, ...]
) -> tuple[str, ...]:
    if not of_first and not of_second:
        return ()
    return (of_first or ("",) * len(first.rows)) + (of_second or ("",) * len(second.rows))


def count_by_status(predictions: Predictions) -> str:
    """Return how many rows were answered, abstained from, or failed, with the causes of the failures.

    For example "18 rows: 12 answered, 2 abstained, 4 failed (HTTP 429: 3, timeout: 1)".
    """
    counts = Counter(predictions.status)
    causes = Counter(cause for cause in predictions.causes if cause)
    stated = f" ({', '.join(f'{cause}: {count}' for cause, count in causes.most_common())})" if causes else ""
    parts = ", ".join(f"{counts[status]} {status}" for status in ("answered", "abstained", "failed"))
    return f"{len(predictions.rows)} rows: {parts}{stated}"


def require_complete(predictions: Predictions, remedy: str = RUN_AGAIN) -> None:
    """Check that no request failed.

    Args:
        predictions: of any predictor.
        remedy: what to do next, for the message.

    Raises:
        IncompleteRunError: if one failed; the message counts the rows and quotes the first failure.
    """
    if not predictions.failed.any():
        return
    note = predictions.notes[int(predictions.failed.argmax())] if predictions.notes else ""
    words, bracket, _ = note.partition("). ")  # what follows is advice on one request
    quoted = f". The first failure: {words.rstrip('.')}{bracket[:1]}" if words else ""
    raise IncompleteRunError(f"incomplete, so there is no score: {count_by_status(predictions)}{quoted}. {remedy}")


def save(predictions: Predictions, clips: Mapping[str, Clip], path: Path) -> None:
    """Write the table of `to_frame` as Parquet. Its `attrs` are in the metadata of the file."""
    to_frame(predictions, clips).to_parquet(path, index=False)


def load(path: Path) -> Predictions:
    """Read a file of `save`."""
    return from_frame(pd.read_parquet(path))
