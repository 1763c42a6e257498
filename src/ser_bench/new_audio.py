"""A stored predictor applied to new audio: files, folders, or samples in memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from ser_bench import predictors, stored_predictors, tracking
from ser_bench.audio import AudioInfo
from ser_bench.config import Config
from ser_bench.config.services import only_own_services
from ser_bench.corpora.audio_files import level_warnings, probe_each, search_folder
from ser_bench.corpora.names import existing_form
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.features.feature_store import Features
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, Predictions, clean_rows

log = logging.getLogger(__name__)

HOW_TO_SKIP = "on_bad_clip=skip leaves out and lists such files"

Prediction = TypeVar("Prediction")


class NewAudioPredictor:
    """The predictor of a stored run, which computes every feature of new clips that it needs.

    Args:
        stored: the run.
        here: the user's own configuration, which decides the cache and the services that may be asked.

    Raises:
        TrackingError: the predictor or the configuration of the run was changed after it had ended.
    """

    def __init__(self, stored: StoredRun, here: Config) -> None:
        tracking.refuse_changed(stored, "config.yaml", "predictor", "predictions.parquet")
        self.run = stored
        self.labels = stored.predictions().labels
        self._here = here
        self._cfg = stored.config()
        self._cfg.cache_dir = here.cache_dir

    @property
    def max_duration_s(self) -> float:
        """Longest clip that can be used, seconds."""
        return self._cfg.corpus.max_duration_s

    def predict(self, clips: Mapping[str, Clip], skipped: dict[str, str] | None = None) -> Predictions:
        """Return one prediction per clip, in the order of the clips.

        Args:
            clips: id → clip; the id is the path.
            skipped: receives path → reason of each clip that a feature refuses; None: such a clip is an error.

        Raises:
            BadClipError: a clip is refused and `skipped` is None, or all clips are refused.
            LLMError: the run asks a service that the user's own configuration does not name.
        """
        with only_own_services(self._here):
            stored_predictors.check_services(self._cfg)
            return without_refused(self._predict, clips, skipped)

    def _predict(self, clips: Mapping[str, Clip]) -> Predictions:
        cfg, language = self._cfg, self._cfg.corpus.language
        combined = stored_predictors.restore(self.run.members(), cfg, clips, language, self.labels, new_audio=True)
        features = Features(cfg, clips, language, combined)
        predictor = predictors.load(self.run.artifact("predictor"), cfg, self.labels, features)
        return predictor.predict(clean_rows(clips))


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
