"""The manifest of a run's artifacts: their SHA-256, logged at the end of the run and compared with the files later.

The manifest is the artifact `artifacts.json`; its own SHA-256 is the tag `artifacts_sha256`. It shows that a file was
changed, removed or added after the run, by accident or by hand. Whoever can write to the database too can replace both.
Not covered: `audit.json`, which every audit writes again, the MLflow model and traces, which MLflow stores elsewhere,
and what is in the database (tags, metrics, parameters). Runs of older versions have no manifest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ser_bench.config import TrackingConfig
from ser_bench.errors import TrackingError
from ser_bench.redaction import redact
from ser_bench.tracking.run_writer import log_tags, log_text
from ser_bench.tracking.stored_runs import StoredRun, load_run

MANIFEST_FILE = "artifacts.json"
HASH_TAG = "artifacts_sha256"
NOT_COVERED = (MANIFEST_FILE, "audit.json")
LOADED_FOLDER = "predictor/"
"""Files that were added here count too, because a predictor may load whatever is in its folder."""
FORMAT = 1


@dataclass(frozen=True)
class ArtifactCheck:
    """The comparison of a run's files with its manifest.

    Attributes:
        recorded: False if the run has no manifest, because it is older or was not finished; nothing is known then.
        files: number of files that the manifest lists, of those asked for.
        faults: one text per file that was changed, removed or added.
    """

    recorded: bool
    files: int = 0
    faults: tuple[str, ...] = ()


def log_manifest(cfg: TrackingConfig, run_id: str) -> None:
    """Log the SHA-256 of every artifact of a run, and that of this list as a tag; call it after the last artifact.

    Raises:
        TrackingError: the store cannot be read or written.
    """
    stored = load_run(cfg, run_id)  # files that are downloaded from a server last as long as this object
    text, digest = manifest_of(stored.artifact(""))
    log_text(cfg, run_id, text, MANIFEST_FILE)
    log_tags(cfg, run_id, {HASH_TAG: digest})


def manifest_of(folder: Path) -> tuple[str, str]:
    """Return the text of the manifest of a folder of artifacts, and its SHA-256."""
    text = redact(json.dumps({"format": FORMAT, "sha256": _hashes(folder)}, indent=1, ensure_ascii=False))
    return text, hashlib.sha256(text.encode()).hexdigest()


def check_artifacts(stored: StoredRun, *names: str) -> ArtifactCheck:
    """Compare files with the manifest.

    Args:
        stored: the run.
        names: files and folders of artifacts; none: all.

    Raises:
        TrackingError: the artifacts cannot be read.
    """
    root = stored.artifact("")
    manifest = root / MANIFEST_FILE
    logged = stored.tags.get(HASH_TAG)
    if logged is None and not manifest.exists():
        return ArtifactCheck(recorded=False)
    if not manifest.exists():
        return ArtifactCheck(True, 0, (f"{MANIFEST_FILE} was removed",))
    if _sha256(manifest) != logged:
        return ArtifactCheck(True, 0, (f"{MANIFEST_FILE} was changed",))
    recorded: Mapping[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    wanted = {path: digest for path, digest in recorded.items() if _is_asked_for(path, names)}
    present = {path: digest for name in names or ("",) for path, digest in _hashes(root, name).items()}
    faults = [f"{path} was removed" for path in sorted(set(wanted) - set(present))]
    faults += [f"{path} was changed" for path in sorted(wanted) if present.get(path, wanted[path]) != wanted[path]]
    faults += [f"{path} was added" for path in sorted(set(present) - set(wanted)) if path.startswith(LOADED_FOLDER)]
    return ArtifactCheck(True, len(wanted), tuple(faults))


def refuse_changed(stored: StoredRun, *names: str) -> None:
    """Check files before they are used; a run without a manifest passes.

    Raises:
        TrackingError: a file was changed or removed after the run.
    """
    check = check_artifacts(stored, *names)
    if check.faults:
        raise TrackingError(
            f"run {stored.run_id} ({stored.name}): {check.faults[0]} since the run has ended, by {MANIFEST_FILE} in "
            f"{stored.artifact_uri}; restore the file, or carry out the run again with force=true"
        )


def _is_asked_for(path: str, names: tuple[str, ...]) -> bool:
    return not names or any(path == name or path.startswith(f"{name}/") for name in names)


def _hashes(root: Path, name: str = "") -> dict[str, str]:
    """Return path below `root` → SHA-256 of every file of this name, or in this folder, that a manifest covers."""
    top = root / name
    files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
    paths = {file.relative_to(root).as_posix(): file for file in files}
    return {path: _sha256(file) for path, file in paths.items() if path not in NOT_COVERED}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
