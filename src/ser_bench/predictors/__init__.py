"""The predictors. Each subpackage holds one family: classes, their configuration keys, and their registration.

- `registry`: `@register`, and building or loading a predictor by name; `capabilities`: what some of them offer;
- `base`: what predictors without a network share; `network_predictor`: what those with one share;
- `cnn`, `crnn`, `embeddings`, `fusion`, `baselines`, `llm`, `imported`: the predictors;
  `heads`: light classifiers for probes.

docs/adding.md shows how to add one.
"""

from ser_bench.predictors.capabilities import (
    AdaptsToSpeaker,
    AnswersFromFile,
    CombinesRuns,
    GivesVectors,
    HasNetwork,
    HasPrompt,
    PredictsHeldOut,
    ScalesFeatures,
    StatesTrainingData,
    UsesLicensedParts,
)
from ser_bench.predictors.registry import (
    Need,
    build,
    config_classes,
    has_capability,
    load,
    names,
    predictor_class,
    register,
    require_capability,
)

__all__ = [
    "AdaptsToSpeaker",
    "AnswersFromFile",
    "CombinesRuns",
    "GivesVectors",
    "HasNetwork",
    "HasPrompt",
    "Need",
    "PredictsHeldOut",
    "ScalesFeatures",
    "StatesTrainingData",
    "UsesLicensedParts",
    "build",
    "config_classes",
    "has_capability",
    "load",
    "names",
    "predictor_class",
    "register",
    "require_capability",
]
