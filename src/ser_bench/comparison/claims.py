"""Figures that others report, from a small YAML file: shown as claimed, beside what was measured, never tested."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import OmegaConf

from ser_bench.config import PROJECT_ROOT
from ser_bench.errors import ConfigError

DEFAULT_FILE = PROJECT_ROOT / "conf" / "claimed.yaml"


@dataclass(frozen=True)
class Claim:
    """One figure as its authors report it.

    Attributes:
        system: what they call it.
        corpus: our name of the corpus.
        protocol: how they say they split, in their words or ours.
        source: where it is published.
        uar, accuracy: shares, None where not reported.
        note: what a reader should know, such as what leaks.
    """

    system: str
    corpus: str
    protocol: str
    source: str
    uar: float | None = None
    accuracy: float | None = None
    note: str = ""


def load(path: Path = DEFAULT_FILE) -> list[Claim]:
    """Every claim of the file: a list of mappings with the fields of `Claim`.

    Raises:
        ConfigError: the file cannot be read, a field is unknown or missing, or a figure is no share.
    """
    try:
        entries = OmegaConf.to_container(OmegaConf.load(path)) or []
    except Exception as error:  # omegaconf and yaml have no common base
        raise ConfigError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: write a list of claims, each with {_names()}")
    return [_claim(path, number, entry) for number, entry in enumerate(entries, start=1)]


def claims_on(corpus: str, path: Path = DEFAULT_FILE) -> list[Claim]:
    """The claims about one corpus; none where the default file is not there (an installed package)."""
    return [claim for claim in load(path) if claim.corpus == corpus] if path.exists() or path != DEFAULT_FILE else []


def _claim(path: Path, number: int, entry: object) -> Claim:
    where = f"{path}: claim {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} is no mapping; give {_names()}")
    unknown = sorted(set(map(str, entry)) - {field.name for field in fields(Claim)})
    missing = [name for name in ("system", "corpus", "protocol", "source") if not entry.get(name)]
    if unknown or missing:
        raise ConfigError(f"{where}: {'unknown ' + unknown[0] if unknown else 'no ' + missing[0]}; give {_names()}")
    shares = {name: entry.get(name) for name in ("uar", "accuracy")}
    for name, value in shares.items():
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise ConfigError(f"{where}: {name} is {value!r}, and must be a share from 0 to 1")
    return Claim(**{str(name): value for name, value in entry.items()})


def _names() -> str:
    return ", ".join(field.name for field in fields(Claim))
