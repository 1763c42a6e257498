"""The program behind `python run.py` and `ser-bench run`: Hydra composes a configuration, `launcher` carries it out."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from ser_bench import config, launcher
from ser_bench.errors import ConfigError


@hydra.main(version_base="1.3", config_path=str(config.CONF), config_name="config")
def task(composed: DictConfig) -> None:
    """Carry out the run of one composed configuration."""
    launcher.carry_out(composed)


def main() -> int:
    """Start a run, or a sweep with `-m`, from the words of this process's command line; return the exit status."""
    try:
        config.register()
    except ConfigError as error:
        print(f"error    {error}", file=sys.stderr)
        return launcher.EXIT_FAILED
    return launcher.main(task)
