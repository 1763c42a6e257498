"""Prompts of a language model in MLflow's prompt registry: one name per prompt, one version per wording."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ser_bench.config import TrackingConfig
from ser_bench.tracking.mlflow_store import client, errors
from ser_bench.tracking.run_writer import log_tags

PREFIX = "ser_bench-"
DIGEST_TAG, VERSION_TAG = "digest", "version_in_file"
LINK_TAG = "mlflow.linkedPrompts"
PLACEHOLDER = re.compile(r"\$\$|\$\{?(\w+)\}?")


def register_prompt(
    cfg: TrackingConfig, run_id: str, name: str, messages: Sequence[Mapping[str, str]], digest: str, version: str
) -> str:
    """Register a wording unless it is registered already, link it to the run, and return its URI.

    Args:
        cfg: the store.
        run_id: the run that uses the prompt.
        name: of the prompt.
        messages: templates with `$name` placeholders, which are registered as MLflow's `{{name}}`.
        digest: of the wording; wordings with the same digest are one version.
        version: as the file of the prompt states it.

    Returns:
        "prompts:/<name>/<version>".

    Raises:
        TrackingError: the store cannot be written.
    """
    template = [{"role": message["role"], "content": as_registered(message["content"])} for message in messages]
    mlflow, full_name = client(cfg), PREFIX + name
    with errors(cfg):
        prompt = _registered(mlflow, full_name, digest)
        if prompt is None:
            tags = {DIGEST_TAG: digest, VERSION_TAG: version}
            prompt = mlflow.register_prompt(full_name, template, f"version {version} of the file", tags)
    # MLflow's own function for this link looks for the run in the store of its global tracking URI.
    link = json.dumps([{"name": full_name, "version": str(prompt.version)}])
    tags = {LINK_TAG: link, "prompt": f"{full_name}/{prompt.version}", "prompt_digest": digest}
    log_tags(cfg, run_id, tags)
    return f"prompts:/{full_name}/{prompt.version}"


def as_registered(template: str) -> str:
    """Return a template of this package in MLflow's notation.

    >>> as_registered("One of $labels for 5 $$")
    'One of {{labels}} for 5 $'
    """
    return PLACEHOLDER.sub(lambda match: f"{{{{{match[1]}}}}}" if match[1] else "$", template)


def _registered(mlflow: Any, full_name: str, digest: str) -> Any:
    """Return the newest registered version with this digest, or None."""
    latest = mlflow.load_prompt(f"prompts:/{full_name}@latest", allow_missing=True)
    for number in range(int(latest.version) if latest is not None else 0, 0, -1):
        prompt = mlflow.load_prompt(f"prompts:/{full_name}/{number}", allow_missing=True)
        if prompt is not None and prompt.tags.get(DIGEST_TAG) == digest:
            return prompt
    return None
