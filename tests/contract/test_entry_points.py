"""Another distribution adds a predictor by an entry point, as docs/adding.md describes."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from ser_bench import predictors
from ser_bench.config import PROJECT_ROOT, compose
from ser_bench.errors import ConfigError
from ser_bench.predictors import registry

PAGE = (PROJECT_ROOT / "docs" / "adding.md").read_text(encoding="utf-8")


def install(site: Path, module: str) -> None:
    """Write what an installation of the page's distribution leaves: a package and its metadata."""
    [declared] = re.findall(r'\[project\.entry-points\."(.*?)"\]\n(.*?)\n```', PAGE, re.DOTALL)
    group, line = declared
    name, target = (part.strip().strip('"') for part in line.split("="))
    package, _, submodule = target.partition(".")
    (site / package).mkdir(parents=True)
    (site / package / "__init__.py").write_text("")
    (site / package / f"{submodule}.py").write_text(module, encoding="utf-8")
    info = site / "my_predictors-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-predictors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {target}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages; what is registered from it is forgotten at the end."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    registry._discover.cache_clear()
    yield tmp_path / "site"
    for table in (registry._REGISTERED, registry._CONFIGS):
        table.pop("centroid", None)
    for name in ("my_predictors", "my_predictors.centroid"):
        sys.modules.pop(name, None)
    ConfigStore.instance().repo["model"].pop("centroid.yaml", None)
    registry._discover.cache_clear()


def test_a_predictor_of_another_distribution_is_found_and_needs_no_yaml(site: Path) -> None:
    [module] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    install(site, module)
    assert "centroid" in predictors.names()
    cfg = compose(["experiment=none", "model=centroid", "model.temperature=0.3"])
    assert (cfg.model.name, cfg.model.temperature) == ("centroid", 0.3)  # type: ignore[attr-defined]


def test_one_that_cannot_be_imported_is_named_with_its_distribution(site: Path) -> None:
    install(site, "import a_module_that_is_absent\n")
    with pytest.raises(ConfigError, match=r"my-predictors: its predictor 'centroid'.*a_module_that_is_absent"):
        predictors.names()
