"""`ser-bench predict`: the model of a stored run applied to new audio files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_bench import tracking
from ser_bench.cli.terminal_tables import print_json, print_table
from ser_bench.config import OnBadClip, compose
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference.answer import DECIMALS, FAILED, Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording
from ser_bench.new_audio import HOW_TO_SKIP, clips_of

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
    predictor = AudioPredictor.from_run(tracking.load_run(cfg.tracking, run_id), cfg, store_features=True)
    skipped: dict[str, str] | None = {} if cfg.on_bad_clip is OnBadClip.skip else None
    clips = clips_of([Path(path) for path in paths], predictor.max_duration_s, skipped)
    answers = predictor.predict([Recording.from_file(path, predictor.max_duration_s) for path in clips])
    refused = [answer for answer in answers if answer.status == FAILED and not answer.probabilities]
    if refused and skipped is None:
        raise BadClipError(f"{refused[0].reason} ({HOW_TO_SKIP})")
    if len(refused) == len(answers):
        raise BadClipError(f"{refused[0].reason}; no file can be used")
    records = [record_of(answer) for answer in answers if answer not in refused]
    if as_json:
        print_json(records)
    else:
        print_table(("file", "emotion", *predictor.labels), [list(record.values()) for record in records])
    for reason in [*(skipped or {}).values(), *(answer.reason for answer in refused)]:
        log.warning("skipped  %s", reason)
    if skipped is not None and (count := len(skipped) + len(refused)):
        log.warning("skipped  %d of %d files (on_bad_clip=skip)", count, count + len(records))


def record_of(answer: Answer) -> dict[str, Any]:
    """Return `file`, `emotion`, and the probability of each label, rounded to four decimals."""
    probabilities = {label: round(p, DECIMALS) for label, p in answer.probabilities.items()}
    return {"file": answer.name, "emotion": answer.label or f"({answer.status})", **probabilities}
