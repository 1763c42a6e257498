"""MLflow's model registry: versions of a named model, each made by one run, with aliases such as `champion`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ser_bench.config import TrackingConfig
from ser_bench.errors import ConfigError, RunNotFoundError
from ser_bench.tracking.audio_model import MODEL_NAME
from ser_bench.tracking.logged_models import finished_model
from ser_bench.tracking.mlflow_store import client, errors, tracking_uri
from ser_bench.tracking.model_card import CARD_FILE

if TYPE_CHECKING:
    from ser_bench.tracking.stored_runs import StoredRun

MODELS_PREFIX = "models:/"
"""How MLflow writes the address of a version of a registered model."""

REGISTERED_NAME = re.compile(r"[\w][\w .-]*")
ALIAS = re.compile(r"[A-Za-z][\w-]*")
VERSION_ALIAS = re.compile(r"(v\d+|latest)", re.IGNORECASE)
"""Aliases that MLflow refuses, because they look like versions."""


def audio_model_of(stored: StoredRun) -> str | None:
    """Return the id of the run's MLflow model that takes audio; None if there is none.

    Raises:
        TrackingError: the store cannot be read.
    """
    return finished_model(stored.tracking, stored.run_id, MODEL_NAME)


def register_run(stored: StoredRun, name: str, alias: str | None = None) -> str:
    """Register the run's MLflow model "audio_model" under a name and return the version.

    A run that has a version under this name already keeps it. An alias moves to this version from any other.

    Args:
        stored: the run.
        name: of the registered model; it is created if it does not exist.
        alias: for example "champion"; None: none is set.

    Raises:
        ConfigError: MLflow does not take the name or the alias, or the run has no such model.
        TrackingError: the store cannot be written.
    """
    check_names(name, alias)
    model_id = audio_model_of(stored)
    if model_id is None:
        raise ConfigError(f"run {stored.run_id} ({stored.name}) has no MLflow model {MODEL_NAME}")
    mlflow = client(stored.tracking)
    with errors(stored.tracking):
        experiment = mlflow.get_run(stored.run_id).info.experiment_id
        card = f"#/experiments/{experiment}/runs/{stored.run_id}/artifacts/{CARD_FILE}"
        text = f"Emotion in speech, by ser_bench. Latest version: {stored.name}, [model card]({card})."
        if not any(model.name == name for model in mlflow.search_registered_models(f"name = '{name}'")):
            mlflow.create_registered_model(name, description=text)
        earlier = [v for v in mlflow.search_model_versions(f"name = '{name}'") if v.run_id == stored.run_id]
        if earlier:
            version = str(earlier[0].version)
        else:
            description = f"{stored.name}, run {stored.run_id}. [Model card]({card})."
            # MLflow looks up "models:/<id>" in its global store, which is never set here; a server looks in its own.
            on_server = tracking_uri(stored.tracking).startswith("http")
            source = f"{MODELS_PREFIX}{model_id}" if on_server else mlflow.get_logged_model(model_id).artifact_location
            created = mlflow.create_model_version(
                name, source, stored.run_id, description=description, model_id=model_id
            )
            version = str(created.version)
            mlflow.update_registered_model(name, text)
        if alias:
            mlflow.set_registered_model_alias(name, alias, version)
    return version


def check_names(name: str, alias: str | None) -> None:
    """Check the name of a registered model and of an alias.

    Raises:
        ConfigError: MLflow does not take it.
    """
    if not REGISTERED_NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a registered model: use letters, digits, spaces, _ - and .")
    if alias is not None and (not ALIAS.fullmatch(alias) or VERSION_ALIAS.fullmatch(alias)):
        raise ConfigError(f"--alias {alias}: use letters, digits, _ and -, and no number of a version")


def run_of_registered(cfg: TrackingConfig, address: str) -> str:
    """Return the id of the run that made a version of a registered model.

    Args:
        cfg: the store.
        address: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        RunNotFoundError: there is no such model, alias or version, or no run made it.
    """
    from mlflow.exceptions import MlflowException

    name, alias, version = _parts(address)
    mlflow = client(cfg)
    with errors(cfg):
        try:
            found = mlflow.get_model_version_by_alias(name, alias) if alias else mlflow.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise RunNotFoundError(
                f"no registered model {address} in {cfg.uri or cfg.dir}; ser-bench register RUN {name} --alias NAME "
                "makes one"
            ) from error
    if not found.run_id:
        raise RunNotFoundError(f"{address}: no run of ser_bench made this version")
    return str(found.run_id)


def _parts(address: str) -> tuple[str, str, str]:
    """Return name, alias and version of an address; one of the last two is "".

    >>> _parts("models:/ser@champion"), _parts("models:/ser/3")
    (('ser', 'champion', ''), ('ser', '', '3'))
    """
    rest = address.removeprefix(MODELS_PREFIX)
    name, at, alias = rest.partition("@")
    if not at:
        name, _, version = rest.rpartition("/")
        if name and version.isdigit():
            return name, "", version
    elif name and alias:
        return name, alias, ""
    raise RunNotFoundError(f"{address}: write models:/NAME@ALIAS or models:/NAME/VERSION")
