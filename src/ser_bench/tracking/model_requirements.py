"""The packages that a predictor needs on new audio, with the versions that are installed here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata

from ser_bench import predictors
from ser_bench.config import Config
from ser_bench.extras import EXTRAS
from ser_bench.predictors import Need

PACKAGE = "ser-bench"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHECKS = ("faster_whisper", "onnxruntime")
"""For the checks of the input: the speech gate, and the language of the speech."""


def model_requirements(configurations: Sequence[Config]) -> list[str]:
    """Return sorted lines `name==version` for pip.

    They are the dependencies of this package, the packages of extras that the predictors need, and those of the checks
    of the input, of which one that is not installed is left out. This package itself is not among them: its source is
    part of the model. The local part of a version ("+cpu") is left out, because package indices do not have it.

    Args:
        configurations: of the predictor, and of the members of a fusion.

    Raises:
        PackageNotFoundError: this package runs from its source and is not installed.
    """
    names = {_name(line) for line in metadata.requires(PACKAGE) or () if "extra ==" not in line}
    modules = {*CHECKS, *(module for cfg in configurations for module in _modules(cfg))}
    of_module = {module: package for extra in EXTRAS.values() for module, package in extra.modules.items()}
    names |= {of_module.get(module, module) for module in modules}
    for cfg in configurations:
        names |= _distributions_of(predictors.predictor_class(cfg.model.name).__module__)
    found = []
    for name in sorted(names):
        try:
            found.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            continue
    return found


def _modules(cfg: Config) -> list[str]:
    """Return the import names of the packages of extras that one predictor needs."""
    kind = predictors.predictor_class(cfg.model.name)
    modules = []
    if Need.transcript in kind.needs:
        modules += ["jiwer", "whisper" if cfg.asr.name == "whisper" else "faster_whisper"]
    if "text" in kind.groups:
        modules.append("openai" if cfg.text.name == "openai" else "sentence_transformers")
    if Need.f0 in kind.needs:
        modules.append("parselmouth")
    if "llm" in kind.groups:
        modules += ["openai", *(["xllamacpp"] if cfg.llm.local else [])]
    if kind.name == "llm_lora":
        modules += ["peft", "transformers", "gguf"]
    own = {"egemaps": "opensmile", "ssl_probe": "transformers", "whisper_probe": "faster_whisper"}
    return [*modules, own[kind.name]] if kind.name in own else modules


def _distributions_of(module: str) -> set[str]:
    """Return the name of the distribution that brings a predictor which is not part of this package."""
    top = module.partition(".")[0]
    if top == __name__.partition(".")[0]:
        return set()
    return set(metadata.packages_distributions().get(top, ()))


def _name(line: str) -> str:
    found = NAME.match(line)
    return found.group() if found else ""
