"""The role of each configuration key: whether it decides a result, and where else it counts.

A role is stated once, in the metadata of the key's dataclass field (`key`). The run key, the run groups, the names of
sweeps and the restoring of a run on another machine all read it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, get_type_hints

from omegaconf import MISSING


class KeyRole(Enum):
    """What a configuration key decides.

    Attributes:
        scientific: it decides the result. It is part of the run key and tells run groups apart. The default.
        pooled: as scientific, but runs that differ in nothing else are one run group: the fold and the seed.
        label: the name of a choice whose other keys decide the result. It names run groups, and nothing else.
        neutral: it changes how a result is computed, not which result.
        machine: neutral, and it belongs to the machine that computes. A restored run takes it from that machine.
    """

    scientific = "scientific"
    pooled = "pooled"
    label = "label"
    neutral = "neutral"
    machine = "machine"

    @property
    def decides_result(self) -> bool:
        """True where another value may give another result."""
        return self in (KeyRole.scientific, KeyRole.pooled)


ROLE, PATH, ADDED = "role", "path", "added"
CONTENT_GROUPS = ("corpus", "split")
"""Groups that enter the run key by what they give (digests of the clips and of the rows), not by their keys."""


def key(
    role: KeyRole,
    default: Any = MISSING,
    factory: Callable[[], Any] | None = None,
    *,
    path: bool = False,
    added: bool = False,
) -> Any:
    """A dataclass field with this role; fields without it are scientific.

    Args:
        role: what the key decides.
        default: the value without a setting.
        factory: returns the default, in place of `default`.
        path: its value is a file or folder.
        added: the key came after the first runs, and its default is what they did. With this default, the key enters
            neither run keys nor run groups, so that those of earlier runs remain.
    """
    metadata = {ROLE: role, PATH: path, ADDED: added}
    return field(metadata=metadata, default_factory=factory) if factory else field(metadata=metadata, default=default)


@dataclass(frozen=True)
class Key:
    """One leaf of the configuration: its path ("features.pitch.floor_hz"), its role, its default, what it holds."""

    path: str
    role: KeyRole
    default: Any
    holds_text: bool = False
    holds_file: bool = False
    added: bool = False

    @property
    def group(self) -> str:
        """The configuration group, or "" for a key at the top."""
        return self.path.partition(".")[0] if "." in self.path else ""


def leaves(schema: type, prefix: str = "") -> Iterator[Key]:
    """Every leaf of a configuration dataclass, nested ones included, in the order of the fields."""
    hints = get_type_hints(schema)
    for item in fields(schema):
        path, role = f"{prefix}{item.name}", item.metadata.get(ROLE, KeyRole.scientific)
        if is_dataclass(hints[item.name]):
            yield from leaves(hints[item.name], f"{path}.")
        else:
            default = _default_of(item)
            holds_text = hints[item.name] in (str, str | None)
            yield Key(path, role, default, holds_text, item.metadata.get(PATH, False), item.metadata.get(ADDED, False))


def _default_of(item: Field[Any]) -> Any:
    return item.default_factory() if item.default_factory is not NO_DEFAULT else item.default


def roles(config: type, model: type) -> dict[str, KeyRole]:
    """Path of every key of one composed run → its role.

    Args:
        config: the dataclass of a run.
        model: the dataclass of its group `model`.
    """
    found = {leaf.path: leaf.role for leaf in leaves(config) if leaf.group != "model"}
    return found | {leaf.path: leaf.role for leaf in leaves(model, "model.")}


def plain_default(default: Any) -> Any:
    """Return a default as `to_plain` writes it: an enum by its name."""
    return default.name if isinstance(default, Enum) else default


def scientific_part(plain: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """The entries of one configuration group, nested dicts of plain values, that decide a result.

    An entry that `schema` does not have counts as scientific. An added key (see `key`) with its default is left out.
    """
    hints = get_type_hints(schema)
    known = {item.name: item.metadata.get(ROLE, KeyRole.scientific) for item in fields(schema)}
    added = {item.name: plain_default(_default_of(item)) for item in fields(schema) if item.metadata.get(ADDED)}
    kept: dict[str, Any] = {}
    for name, value in plain.items():
        if name in added and value == added[name]:
            continue
        if is_dataclass(hints.get(name)) and isinstance(value, Mapping):
            kept[name] = scientific_part(value, hints[name])
        elif known.get(name, KeyRole.scientific).decides_result:
            kept[name] = value
    return kept


def named_overrides(words: Sequence[str], role_of: Mapping[str, KeyRole], groups: Sequence[str]) -> list[str]:
    """The command-line overrides that say what a run or a sweep is about.

    Left out are Hydra's own settings, keys that decide nothing, and choices of groups in which no key decides anything
    (`tracking=`).

    Args:
        words: overrides as typed, "key=value".
        role_of: path → role.
        groups: names of the configuration groups.
    """
    deciding = {path.partition(".")[0] for path, role in role_of.items() if role.decides_result}
    kept = []
    for word in words:
        path = word.partition("=")[0].lstrip("+~")
        if path.startswith(("hydra.", "hydra/")):
            continue
        if path in deciding if path in groups else role_of.get(path, KeyRole.scientific).decides_result:
            kept.append(word)
    return kept
