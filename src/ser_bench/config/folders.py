"""Folders of the configuration files: those that come with ser_bench, and the user's own in the working directory.

In a checkout of the repository, `conf/` and `experiments/` are top-level folders. The build copies them into the
package, so that an installed ser_bench has them as well.
"""

from __future__ import annotations

from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from ser_bench.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[1]
PROJECT_ROOT = PACKAGE.parents[1]
"""Top folder of the checkout; of an installed package, a folder without meaning."""
INSTALLED = (PACKAGE / "conf").is_dir()
"""True if this is an installed package, False in a checkout of the repository."""
CONF, EXPERIMENTS = ((PACKAGE if INSTALLED else PROJECT_ROOT) / name for name in ("conf", "experiments"))
"""The configuration groups, and the experiments, that come with ser_bench."""
RUN_COMMAND = "ser-bench run" if INSTALLED else "python run.py"
"""The words that start a run, as messages quote them."""


class UserConfigurations(SearchPathPlugin):
    """Let Hydra search the folder `conf/` of the working directory too, after those of ser_bench."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append the folder if there is one."""
        folder = own_folder("conf", CONF)
        if folder is not None:
            search_path.append("ser_bench-user", f"file://{folder}")


def register_search_path() -> None:
    """Register `UserConfigurations` with Hydra, in this process only.

    A plugin that Hydra finds by itself would change the search path of every Hydra program in the environment.
    """
    Plugins.instance().register(UserConfigurations)


def own_folder(name: str, packaged: Path) -> Path | None:
    """Return the user's folder of this name in the working directory; None if there is none.

    Args:
        name: "conf" or "experiments".
        packaged: the folder of this name that comes with ser_bench; it is never the user's own.

    Raises:
        ConfigError: if a file in it has the name of a file of ser_bench, which Hydra would use in its place.
    """
    folder = Path.cwd() / name
    if not folder.is_dir() or folder.samefile(packaged):
        return None
    for path in sorted(packaged.rglob("*.yaml")):
        own = folder / path.relative_to(packaged)
        if own.is_file() and own.read_bytes() != path.read_bytes():
            raise ConfigError(
                f"{own}: ser_bench has a configuration of this name, which would be used in its place; rename your file"
            )
    return folder


def experiment_files() -> list[Path]:
    """Return the experiments of ser_bench and those in `experiments/` of the working directory, sorted by name.

    Raises:
        ConfigError: as in `own_folder`.
    """
    own = own_folder("experiments", EXPERIMENTS)
    files = {path.name: path for folder in (EXPERIMENTS, own) if folder for path in folder.glob("*.yaml")}
    return [files[name] for name in sorted(files)]


def choices(group: str) -> set[str]:
    """Return the choices of a group that have a YAML file, of ser_bench or in `conf/` of the working directory.

    Raises:
        ConfigError: as in `own_folder`.
    """
    return {
        path.stem for folder in (CONF, own_folder("conf", CONF)) if folder for path in folder.glob(f"{group}/*.yaml")
    }
