"""`ser-bench predict`: the model of a stored run applied to new audio files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_bench import audio, predictors, stored_predictors, tracking
from ser_bench.cli.terminal_tables import print_table
from ser_bench.config import compose
from ser_bench.corpora.audio_files import level_warnings, search_folder
from ser_bench.errors import ConfigError
from ser_bench.features.feature_store import Features
from ser_bench.predictions import require_complete
from ser_bench.types import Clip, Predictions, clean_rows

log = logging.getLogger(__name__)


def run(overrides: Sequence[str], words: Sequence[str], as_json: bool) -> None:
    """Print label and probabilities of each audio file.

    Args:
        overrides: Hydra overrides; they decide the store and the cache.
        words: the run's id or its first letters, then files and folders.
        as_json: print a list with one object per file instead of a table.

    Raises:
        ConfigError: no run or no file is named, or a path does not exist.
        RunNotFoundError: the run is not in the store.
        IncompleteRunError: requests to a language model failed; what could be predicted is printed before.
        TrackingError: the predictor or the configuration of the run was changed after it had ended.
    """
    if len(words) < 2:
        raise ConfigError("no audio is named: ser-bench predict RUN FILE..., with the id that the run printed")
    run_id, *paths = words
    cfg = compose(list(overrides))
    stored = tracking.load_run(cfg.tracking, run_id)
    tracking.refuse_changed(stored, "config.yaml", "predictor", "predictions.parquet")
    run_cfg = stored.config()
    run_cfg.cache_dir = cfg.cache_dir
    clips = clips_of([Path(path) for path in paths], run_cfg.corpus.max_duration_s)
    labels = stored.predictions().labels
    language = run_cfg.corpus.language
    combined = stored_predictors.restore(stored.members(), run_cfg, clips, language, labels, new_audio=True)
    features = Features(run_cfg, clips, language, combined)
    predictor = predictors.load(stored.artifact("predictor"), run_cfg, labels, features)
    predictions = predictor.predict(clean_rows(clips))
    records = records_of(predictions)
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        print_table(("file", "emotion", *labels), [list(record.values()) for record in records])
    require_complete(predictions)


def clips_of(paths: Sequence[Path], max_duration_s: float) -> dict[str, Clip]:
    """Each audio file named, or found in a folder named, as a clip whose id is its path.

    A file that is named in two ways counts once. The warnings are those of a corpus.

    Raises:
        ConfigError: a path does not exist, or there is no audio file below the folders.
        BadClipError: a file cannot be read as audio.
    """
    files: dict[tuple[str, str], Path] = {}  # (name, real path) → path as given
    explanation = ""
    warnings: list[str] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"{path}: no such file or folder")
        search = search_folder(path) if path.is_dir() else None
        if search is not None:
            explanation = explanation or search.explanation()
            warnings += search.warnings(str(path))
        for file in [path] if search is None else search.audio:
            files.setdefault((file.name, os.path.realpath(file)), file)
    if not files:
        raise ConfigError(f"{paths[0]}: there is no audio file in this folder; {explanation}")
    infos = {str(path): audio.probe(path, max_duration_s) for path in files.values()}
    for warning in [*warnings, *level_warnings("predict", infos)]:
        log.warning("warning  %s", warning)
    return {
        path: Clip(path, Path(path), "", "", duration_s=info.duration_s, digest=info.digest)
        for path, info in infos.items()
    }


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
