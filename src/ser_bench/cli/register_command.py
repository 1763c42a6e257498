"""`ser-bench register`: a run as a version of a named model in MLflow's registry."""

from __future__ import annotations

from collections.abc import Sequence

from ser_bench import tracking
from ser_bench.config import compose
from ser_bench.errors import ConfigError
from ser_bench.inference.model_logging import log_audio_model
from ser_bench.tracking import model_registry
from ser_bench.tracking.model_card import CARD_FILE


def run(overrides: Sequence[str], words: Sequence[str], alias: str | None) -> None:
    """Register the predictor of a run, and print the version.

    A run that has no MLflow model that takes audio, because of `tracking.log_model=false` or an older version, gets one
    first.

    Args:
        overrides: Hydra overrides; `tracking` decides the store.
        words: id of the run or its first letters, and the name of the registered model.
        alias: of the version; None: none is set.

    Raises:
        ConfigError: run or name is missing, MLflow does not take a name, the run is not finished, or its predictor
            cannot predict new audio.
        RunNotFoundError: the run is not in the store.
        TrackingError: the store cannot be written, or files of the run were changed.
    """
    if len(words) != 2:
        raise ConfigError(f"give a run and a name, not {len(words)} words: ser-bench register RUN NAME")
    run_id, name = words
    model_registry.check_names(name, alias)
    cfg = compose(list(overrides))
    stored = tracking.load_run(cfg.tracking, run_id)
    if stored.status != "FINISHED":
        raise ConfigError(f"run {stored.run_id} ({stored.name}) is {stored.status}; only finished runs are registered")
    if model_registry.audio_model_of(stored) is None:
        names = stored.artifact_names()
        card = None
        if CARD_FILE in names:
            card = stored.artifact(CARD_FILE).read_text(encoding="utf-8")
        if not log_audio_model(stored, card):
            raise ConfigError(
                f"run {stored.run_id} ({stored.name}) has no model that takes audio: it needs votes of listeners, or a "
                "line above says why; choose another run"
            )
    version = model_registry.register_run(stored, name, alias)
    print(f"run      {stored.run_id} ({stored.name})")
    print(f"model    models:/{name}/{version}")
    if alias:
        print(f"alias    models:/{name}@{alias}")
