"""Figures that other publications claim, read from a YAML file. Reports show them as claimed; they are never tested."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from omegaconf import OmegaConf

from ser_bench.config import CONF
from ser_bench.config.bounded_yaml import load_bounded_yaml
from ser_bench.corpora.names import check_characters, nfc
from ser_bench.errors import ConfigError

DEFAULT_FILE = CONF / "claimed.yaml"
TEXT_FIELDS = ("system", "corpus", "protocol", "source", "note")
"""The fields of a claim that are texts; only the last one may be missing."""


@dataclass(frozen=True)
class Claim:
    """One claimed figure.

    Attributes:
        system: name of the system in its publication.
        corpus: name of the corpus in ser_bench.
        protocol: how the data were split.
        source: where the figure is published.
        uar, accuracy: from 0 to 1; None if not reported.
        note: a remark for the reader, for example on leakage.
    """

    system: str
    corpus: str
    protocol: str
    source: str
    uar: float | None = None
    accuracy: float | None = None
    note: str = ""


def load(path: Path = DEFAULT_FILE) -> list[Claim]:
    """Return every claim of a file, which is a list of mappings with the fields of `Claim`.

    Raises:
        ConfigError: if the file cannot be read, is too large or uses aliases, if a field is unknown, missing or not a
            text, or if a figure is not from 0 to 1.
    """
    try:
        entries = OmegaConf.to_container(load_bounded_yaml(path)) or []
    except Exception as error:  # omegaconf and yaml have no common base class
        raise ConfigError(f"{path}: cannot be read as YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: write a list of claims, each with {_field_names()}")
    return [_claim(path, number, entry) for number, entry in enumerate(entries, start=1)]


def claims_on(corpus: str, path: Path = DEFAULT_FILE) -> list[Claim]:
    """Return the claims on one corpus; [] if the default file does not exist, as in an installed package."""
    return [claim for claim in load(path) if claim.corpus == corpus] if path.exists() or path != DEFAULT_FILE else []


def _claim(path: Path, number: int, entry: object) -> Claim:
    origin = f"{path}: claim {number}"
    if not isinstance(entry, dict):
        raise ConfigError(f"{origin} is not a mapping; give {_field_names()}")
    unknown = sorted(set(map(str, entry)) - {field.name for field in fields(Claim)})
    missing = [name for name in TEXT_FIELDS[:-1] if not entry.get(name)]
    if unknown or missing:
        problem = f"unknown field {unknown[0]}" if unknown else f"the field {missing[0]} is missing"
        raise ConfigError(f"{origin}: {problem}; give {_field_names()}")
    for name in ("uar", "accuracy"):
        value = entry.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            raise ConfigError(f"{origin}: {name} is {value!r}, but must be a number from 0 to 1")
    texts = {name: _text(origin, name, entry.get(name)) for name in TEXT_FIELDS}
    return Claim(**texts, uar=entry.get("uar"), accuracy=entry.get("accuracy"))


def _text(origin: str, name: str, value: object) -> str:
    """Return a text or a number (a year) in NFC, without control characters."""
    if isinstance(value, dict | list):
        raise ConfigError(f"{origin}: {name} is a {type(value).__name__}, but must be a text")
    text = nfc("" if value is None else str(value))
    try:
        check_characters(name, " ".join(text.split()))
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error
    return text


def _field_names() -> str:
    return ", ".join(field.name for field in fields(Claim))
