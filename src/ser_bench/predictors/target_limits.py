"""Predictors and heads that only some values of `corpus.target` allow; a run checks them before it reads any audio."""

from __future__ import annotations

from ser_bench.config import Config, Target
from ser_bench.errors import ConfigError
from ser_bench.predictors.capabilities import HasPrompt
from ser_bench.predictors.registry import Need, predictor_class

ORDINAL = "ordinal"


def check_target(cfg: Config) -> None:
    """Check that predictor and head can predict the labels of `corpus.target`.

    Raises:
        ConfigError: if levels of intensity are asked of a predictor whose prompt or votes are about emotions, or if
            `head=ordinal` would order emotions.
    """
    kind = predictor_class(cfg.model.name)
    intensity = cfg.corpus.target is Target.intensity
    if intensity and (issubclass(kind, HasPrompt) or Need.votes in kind.needs):
        subject = "its prompts ask" if issubclass(kind, HasPrompt) else "its votes are"
        raise ConfigError(
            f"model={cfg.model.name} cannot predict corpus.target=intensity: {subject} about emotions; choose "
            "another predictor, for example model=whisper_probe head=ordinal"
        )
    if not intensity and "head" in kind.groups and ORDINAL in cfg.head.members:
        raise ConfigError(
            f"head={cfg.head.name} has the member {ORDINAL}, which needs ordered labels; emotions have no order: add "
            "corpus.target=intensity, or choose another head"
        )
