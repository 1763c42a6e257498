"""Checkpoints on disk: a file is either complete or absent, whatever interrupts the process or the machine."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

PARTIAL = ".partial"
"""Suffix of a checkpoint that is being written. What a killed process leaves of it is replaced by the next one."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint into its folder under a temporary name, flushes it to the disk, and renames it.

    Lightning's own class writes to the folder for temporary files. If that folder is on another file system, moving the
    file is a copy, and a process that is killed meanwhile leaves half a checkpoint under the final name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one checkpoint.

        Raises:
            OSError: the file cannot be written; an earlier checkpoint of this name is unchanged.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + PARTIAL)
        try:
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)  # on a full disk, the store needs the space to close the run
            raise
        _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Flush the folder itself, so that the new name of the file survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
