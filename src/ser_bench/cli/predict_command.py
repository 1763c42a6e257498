"""`ser-bench predict`: the model of a stored run applied to new audio files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ser_bench import predictors, stored_predictors, tracking
from ser_bench.audio import AudioInfo
from ser_bench.cli.terminal_tables import print_table
from ser_bench.config import OnBadClip, compose
from ser_bench.config.services import only_own_services
from ser_bench.corpora.audio_files import level_warnings, probe_each, search_folder
from ser_bench.corpora.names import existing_form
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.features.feature_store import Features
from ser_bench.predictions import require_complete
from ser_bench.types import Clip, Predictions, clean_rows

log = logging.getLogger(__name__)

HOW_TO_SKIP = "on_bad_clip=skip leaves out and lists such files"

Prediction = TypeVar("Prediction")


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
    stored = tracking.load_run(cfg.tracking, run_id)
    tracking.refuse_changed(stored, "config.yaml", "predictor", "predictions.parquet")
    run_cfg = stored.config()
    run_cfg.cache_dir = cfg.cache_dir
    skipped: dict[str, str] | None = {} if cfg.on_bad_clip is OnBadClip.skip else None
    clips = clips_of([Path(path) for path in paths], run_cfg.corpus.max_duration_s, skipped)
    labels = stored.predictions().labels
    language = run_cfg.corpus.language

    def predict(usable: Mapping[str, Clip]) -> Predictions:
        combined = stored_predictors.restore(stored.members(), run_cfg, usable, language, labels, new_audio=True)
        features = Features(run_cfg, usable, language, combined)
        predictor = predictors.load(stored.artifact("predictor"), run_cfg, labels, features)
        return predictor.predict(clean_rows(usable))

    with only_own_services(cfg):
        stored_predictors.check_services(run_cfg)
        predictions = without_refused(predict, clips, skipped)
    records = records_of(predictions)
    if as_json:
        print(json.dumps(records, indent=1))
    else:
        print_table(("file", "emotion", *labels), [list(record.values()) for record in records])
    for reason in (skipped or {}).values():
        log.warning("skipped  %s", reason)
    if skipped:
        log.warning("skipped  %d of %d files (on_bad_clip=skip)", len(skipped), len(skipped) + len(records))
    require_complete(predictions)


def without_refused(
    predict: Callable[[Mapping[str, Clip]], Prediction],
    clips: Mapping[str, Clip],
    skipped: dict[str, str] | None,
) -> Prediction:
    """Return the predictions of the clips, without those that the features refuse, such as clips that are too short.

    Args:
        predict: returns predictions of clips by id.
        clips: id → clip; the id is the path, with which the message of a `BadClipError` starts.
        skipped: receives path → reason of each clip that is left out; None: no clip is left out.

    Raises:
        BadClipError: a clip is refused and `skipped` is None, or all are refused.
    """
    while True:
        usable = {name: clip for name, clip in clips.items() if name not in (skipped or {})}
        try:
            return predict(usable)
        except BadClipError as error:
            refused = next((name for name in usable if str(error).startswith(f"{name}:")), None)
            if refused is None:
                raise
            if skipped is None:
                raise BadClipError(f"{error} ({HOW_TO_SKIP})") from error
            if len(usable) == 1:
                raise BadClipError(f"{error}; no file can be used") from error
            skipped[refused] = str(error)


def clips_of(paths: Sequence[Path], max_duration_s: float, skipped: dict[str, str] | None = None) -> dict[str, Clip]:
    """Each audio file named, or found in a folder named, as a clip whose id is its path.

    A file that is named in two ways counts once. The warnings are those of a corpus.

    Args:
        paths: files and folders.
        max_duration_s: longer files cannot be used.
        skipped: receives path → reason of each file that cannot be used; None: such a file is an error.

    Raises:
        ConfigError: a path does not exist, or there is no audio file below the folders.
        BadClipError: a file cannot be used and `skipped` is None, or no file can be used.
    """
    files: dict[tuple[str, str], Path] = {}  # (name, real path) → path as given
    explanation = ""
    warnings: list[str] = []
    for path in map(existing_form, paths):
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
    infos: dict[str, AudioInfo] = {}
    for path, result in probe_each(list(files.values()), max_duration_s, "checking audio"):
        if isinstance(result, AudioInfo):
            infos[str(path)] = result
        elif skipped is not None:
            skipped[str(path)] = result
        else:
            raise BadClipError(f"{result} ({HOW_TO_SKIP})")
    if skipped and not infos:
        raise BadClipError(f"{next(iter(skipped.values()))}; no file can be used")
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
