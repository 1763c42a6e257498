"""The prompts of a language model in MLflow's prompt registry: one name a prompt, one version a wording."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from ser_bench.config import TrackingConfig
from ser_bench.tracking.mlflow_store import client, errors

PREFIX = "ser_bench-"
DIGEST_TAG, VERSION_TAG = "digest", "version_in_file"
LINK_TAG = "mlflow.linkedPrompts"
PLACEHOLDER = re.compile(r"\$\$|\$\{?(\w+)\}?")


def register_prompt(
    cfg: TrackingConfig, run_id: str, name: str, messages: Sequence[Mapping[str, str]], digest: str, version: str
) -> str:
    """Register this wording unless it is already, link it to the run, and return its URI ("prompts:/name/version").

    Args:
        cfg: the store.
        run_id: the run that asks with it.
        name: of the prompt.
        messages: templates with `$name` placeholders, registered with MLflow's `{{name}}`.
        digest: of the wording; two wordings with the same digest are one version.
        version: as the prompt's file states it.

    Raises:
        TrackingError: the store refuses.
    """
    template = [{"role": one["role"], "content": as_registered(one["content"])} for one in messages]
    mlflow, full_name = client(cfg), PREFIX + name
    with errors(cfg):
        found = None
        latest = mlflow.load_prompt(f"prompts:/{full_name}@latest", allow_missing=True)
        for number in range(int(latest.version) if latest is not None else 0, 0, -1):
            known = mlflow.load_prompt(f"prompts:/{full_name}/{number}", allow_missing=True)
            if known is not None and known.tags.get(DIGEST_TAG) == digest:
                found = known
                break
        if found is None:
            tags = {DIGEST_TAG: digest, VERSION_TAG: version}
            found = mlflow.register_prompt(full_name, template, f"version {version} of the file", tags)
        # MLflow's own call for it looks for the run in the store of its global URI.
        mlflow.set_tag(run_id, LINK_TAG, json.dumps([{"name": full_name, "version": str(found.version)}]))
        mlflow.set_tag(run_id, "prompt", f"{full_name}/{found.version}")
        mlflow.set_tag(run_id, "prompt_digest", digest)
    return f"prompts:/{full_name}/{found.version}"


def as_registered(template: str) -> str:
    """A template of this package in MLflow's notation.

    >>> as_registered("One of $labels for 5 $$")
    'One of {{labels}} for 5 $'
    """
    return PLACEHOLDER.sub(lambda found: f"{{{{{found[1]}}}}}" if found[1] else "$", template)
