"""Start one run (`python run.py model=cnn_text`) or a sweep (`-m`); see README.md, and --help for all options."""

import sys

import hydra
from omegaconf import DictConfig

from ser_bench import config, launcher


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def task(composed: DictConfig) -> None:
    """Carry out the run of one composed configuration."""
    launcher.carry_out(composed)


if __name__ == "__main__":
    config.register()
    sys.exit(launcher.main(task))
