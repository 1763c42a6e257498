"""A bundle: a folder that holds one trained predictor and all that loading it needs, without the store of its run.

    bundle.json          format, name and id of the run, labels, length of its longest clip, names of its members
    config.yaml          the configuration of the run, without the keys that belong to a machine, and without secrets
    predictor/           what `Predictor.save` wrote
    calibration.json     if the run has a calibration
    model_card.md        if one was given
    members/0/, 1/ …     for a fusion: the bundles of the runs that it combines

Pretrained weights (Whisper, MiniLM) are not part of it. They are fetched into the user's cache on first use.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from ser_bench import __version__
from ser_bench.config import Config, model_schemas, to_config, to_plain
from ser_bench.config.bounded_yaml import load_bounded_yaml
from ser_bench.config.keys import ROLE, KeyRole
from ser_bench.errors import ArtifactError, SerBenchError, one_line
from ser_bench.evaluation.calibration import CALIBRATION_FILE
from ser_bench.file_access import access_errors
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.redaction import redact_files
from ser_bench.tracking.model_card import CARD_FILE

FORMAT = 1
"""Version of the layout; raised when an older program can no longer read it."""
BUNDLE_FILE = "bundle.json"
CONFIG_FILE = "config.yaml"
PREDICTOR_FOLDER, MEMBERS_FOLDER = "predictor", "members"


def write_bundle(files: PredictorFiles, folder: Path, card: str | None = None) -> None:
    """Write the files of a trained predictor as a bundle.

    Args:
        files: of the predictor, and of its members.
        folder: of the bundle; it is created.
        card: the model card of the run, Markdown; None: the bundle has none.

    Raises:
        FileAccessError: the folder cannot be written.
    """
    described = {
        "format": FORMAT,
        "ser_bench": __version__,
        "name": files.name,
        "run_id": files.run_id,
        "labels": files.labels,
        "longest_s": files.longest_s,
        "members": list(files.members),
    }
    with access_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / BUNDLE_FILE).write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        text = OmegaConf.to_yaml(OmegaConf.create(to_plain(without_machine_keys(files.cfg))))
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8")
        shutil.copytree(files.folder, folder / PREDICTOR_FOLDER)
        if files.calibration is not None:
            shutil.copyfile(files.calibration, folder / CALIBRATION_FILE)
        if card is not None:
            (folder / CARD_FILE).write_text(card, encoding="utf-8")
    for number, member in enumerate(files.members.values()):
        write_bundle(member, folder / MEMBERS_FOLDER / str(number))
    redact_files(folder)


def read_bundle(folder: Path) -> PredictorFiles:
    """Return the files of the predictor in a bundle, and of its members.

    Raises:
        ArtifactError: the folder is no bundle, a file is missing or damaged, or another version of this package wrote
            it with other keys.
    """
    try:
        described = json.loads((folder / BUNDLE_FILE).read_text(encoding="utf-8"))
        if described["format"] != FORMAT:
            raise ArtifactError(
                f"{folder / BUNDLE_FILE}: format {described['format']} of ser_bench {described.get('ser_bench')}; this "
                f"is ser_bench {__version__}, which reads format {FORMAT}. Use the version that wrote it"
            )
        calibration = folder / CALIBRATION_FILE
        return PredictorFiles(
            name=str(described["name"]),
            run_id=str(described["run_id"]),
            cfg=_read_configuration(folder / CONFIG_FILE),
            labels=tuple(map(str, described["labels"])),
            folder=folder / PREDICTOR_FOLDER,
            calibration=calibration if calibration.exists() else None,
            longest_s=float(described["longest_s"]),
            members={
                str(name): read_bundle(folder / MEMBERS_FOLDER / str(number))
                for number, name in enumerate(described["members"])
            },
        )
    except SerBenchError:
        raise
    except Exception as error:  # a damaged file can raise any exception, and those of OmegaConf have no common class
        raise ArtifactError(
            f"{folder}: not a bundle of ser_bench {__version__}, or a file in it is damaged ({one_line(error)}); write "
            "it again, from the run"
        ) from error


def without_machine_keys(cfg: Config) -> Config:
    """Return the configuration with the default of every key of role `machine`, such as paths and devices.

    A key without a default becomes "" if it is a text.
    """
    neutral: Config = _without_machine_keys(cfg)
    return neutral


def _without_machine_keys(node: Any) -> Any:
    changes: dict[str, Any] = {}
    for item in fields(node):
        value = getattr(node, item.name)
        if item.metadata.get(ROLE) is KeyRole.machine:
            default = item.default_factory() if item.default_factory is not NO_DEFAULT else item.default
            changes[item.name] = "" if default == MISSING else default
        elif is_dataclass(value):
            changes[item.name] = _without_machine_keys(value)
    return replace(node, **changes)


def _read_configuration(path: Path) -> Config:
    plain = load_bounded_yaml(path)
    plain.model = OmegaConf.merge(OmegaConf.structured(model_schemas()[str(plain.model.name)]), plain.model)
    composed = OmegaConf.merge(OmegaConf.structured(Config), plain)
    assert isinstance(composed, DictConfig)  # for mypy: two mappings merge into a mapping
    return to_config(composed)
