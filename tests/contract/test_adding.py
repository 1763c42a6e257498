"""The page docs/adding.md: its predictor, added by exactly the edits that the page names, works like any other."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ser_bench import predictors
from ser_bench.config import PROJECT_ROOT, Config, compose
from ser_bench.predictors import registry
from ser_bench.types import Predictions
from tests.support.fake_inputs import LABELS, FakeInputs, accuracy_of, rows

PAGE = (PROJECT_ROOT / "docs" / "adding.md").read_text(encoding="utf-8")
TRAIN, TEST = rows(0, 60), rows(200, 30)


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The package and the YAML file in folders of their own, which are searched after the real ones."""
    (tmp_path / "predictors" / "centroid").mkdir(parents=True)
    (tmp_path / "predictors" / "centroid" / "__init__.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "centroid.yaml").write_text(block("yaml"), encoding="utf-8")
    monkeypatch.setattr(predictors, "__path__", [*predictors.__path__, str(tmp_path / "predictors")])
    monkeypatch.chdir(tmp_path)
    registry._discover.cache_clear()
    yield compose(["experiment=none", "model=centroid", "model.temperature=0.2"])
    for table in (registry._REGISTERED, registry._CONFIGS):
        table.pop("centroid", None)
    sys.modules.pop("ser_bench.predictors.centroid", None)
    registry._discover.cache_clear()


def test_the_example_is_registered_trained_stored_and_restored(added: Config, tmp_path: Path) -> None:
    assert "centroid" in predictors.names()
    assert added.model.temperature == 0.2  # type: ignore[attr-defined]
    predictor = predictors.build(added, LABELS, FakeInputs(), tmp_path, lambda epoch, metrics: None)
    predictor.fit(TRAIN, ())
    predictions = predictor.predict(TEST)
    assert accuracy_of(predictions) > 0.8
    predictor.save(tmp_path / "stored")
    restored: Predictions = predictors.load(tmp_path / "stored", added, LABELS, FakeInputs()).predict(TEST)
    np.testing.assert_array_equal(restored.probabilities, predictions.probabilities)
    assert predictors.has_capability("centroid", predictors.ScalesFeatures)


def test_a_name_is_registered_once(added: Config) -> None:
    with pytest.raises(ValueError, match="centroid"):
        registry.register("centroid")(type("Other", (), {}))


def test_unknown_names_are_refused_with_those_that_exist() -> None:
    with pytest.raises(Exception, match=r"'centroids' is not known.*cnn"):
        predictors.predictor_class("centroids")
