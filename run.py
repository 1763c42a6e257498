"""One run, or with -m a sweep:  python run.py model=cnn_text   (see README.md, and --help for every choice)."""

import sys

import hydra
from omegaconf import DictConfig

from ser_bench import config, launcher


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def task(composed: DictConfig) -> None:
    """Carry out one composed run."""
    launcher.carry_out(composed)


if __name__ == "__main__":
    config.register()
    sys.exit(launcher.main(task))
