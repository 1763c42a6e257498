"""`ser-bench predict`: the model of a stored run applied to new audio files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_bench import tracking
from ser_bench.cli.terminal_tables import print_json, print_table
from ser_bench.config import OnBadClip, compose
from ser_bench.errors import ConfigError
from ser_bench.new_audio import NewAudioPredictor, clips_of
from ser_bench.predictions import require_complete
from ser_bench.types import Predictions

log = logging.getLogger(__name__)


def run(overrides: Sequence[str], words: Sequence[str], as_json: bool) -> None:
    """Print label and probabilities of each audio file.

    Args:
        overrides: Hydra overrides; they decide the store, the cache and the services that may be asked, and
            `on_bad_clip` what happens to a file that cannot be used.
        words: the run's id or its first letters, then files and folders.
        as_json: print a list with one object per file instead of a table.

    Raises:
        ConfigError: no run or no file is named, or a path does not exist.
        BadClipError: a file cannot be used, unless `on_bad_clip=skip`.
        RunNotFoundError: the run is not in the store.
        LLMError: the run asks a service that these overrides and the user's configuration do not name.
        IncompleteRunError: requests to a language model failed; what could be predicted is printed before.
        TrackingError: the predictor or the configuration of the run was changed after it had ended.
    """
    if len(words) < 2:
        raise ConfigError("no audio is named: ser-bench predict RUN FILE..., with the id that the run printed")
    run_id, *paths = words
    cfg = compose(list(overrides))
    predictor = NewAudioPredictor(tracking.load_run(cfg.tracking, run_id), cfg)
    skipped: dict[str, str] | None = {} if cfg.on_bad_clip is OnBadClip.skip else None
    clips = clips_of([Path(path) for path in paths], predictor.max_duration_s, skipped)
    predictions = predictor.predict(clips, skipped)
    records = records_of(predictions)
    if as_json:
        print_json(records)
    else:
        print_table(("file", "emotion", *predictor.labels), [list(record.values()) for record in records])
    for reason in (skipped or {}).values():
        log.warning("skipped  %s", reason)
    if skipped:
        log.warning("skipped  %d of %d files (on_bad_clip=skip)", len(skipped), len(skipped) + len(records))
    require_complete(predictions)


def records_of(predictions: Predictions) -> list[dict[str, Any]]:
    """One mapping per row: `file`, `emotion`, and the probability of each label, rounded to four decimals."""
    return [
        {"file": row.clip_id, "emotion": label or f"({status})"}
        | dict(zip(predictions.labels, map(float, probabilities), strict=True))
        for row, label, status, probabilities in zip(
            predictions.rows,
            predictions.predicted,
            predictions.status,
            predictions.probabilities.round(4),
            strict=True,
        )
    ]
