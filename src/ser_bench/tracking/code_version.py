"""Which code made a run: the commit, and whether the code had been changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ser_bench.config import PROJECT_ROOT

UNKNOWN = "unknown"
GIT_TIMEOUT_S = 10.0
CODE = ("src", "conf", "experiments", "run.py", "pyproject.toml")
"""What decides a result: a stray file elsewhere in the checkout does not make a run dirty."""


def commit(root: Path = PROJECT_ROOT) -> dict[str, str]:
    """`commit` (40 hexadecimal digits) and `dirty` ("true" or "false"); "unknown" where git or a checkout is absent."""
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie inside somebody else's checkout, whose commit says nothing about it.
    if top is None or Path(top).resolve() != root.resolve():
        return {"commit": UNKNOWN, "dirty": UNKNOWN}
    head = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", *(name for name in CODE if (root / name).exists()))
    return {
        "commit": head or UNKNOWN,
        "dirty": UNKNOWN if changed is None else str(bool(changed)).lower(),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
