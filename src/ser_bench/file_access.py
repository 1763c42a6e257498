"""Files and folders that cannot be used: full disks, read-only folders, missing permissions; as errors of one line."""

from __future__ import annotations

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ser_bench.errors import FileAccessError, SerBenchError

FULL = (errno.ENOSPC, errno.EDQUOT)
DENIED = (errno.EROFS, errno.EACCES, errno.EPERM)
NO_SPACE = "No space left on device"
ALMOST_NOTHING = 2**16
"""Free bytes below which a disk counts as full."""


def is_file_access(error: OSError) -> bool:
    """Return whether a user can correct the error: a full disk, a read-only folder, or missing permissions."""
    return error.errno in (*FULL, *DENIED)


def explanation(error: OSError, path: Path | None = None) -> str:
    """Return the file, what is wrong and what to do, in one line.

    Args:
        error: an error for which `is_file_access` is true.
        path: the file, for errors that do not name it; None: the full folders among the usual ones are named.
    """
    name = path or (Path(str(error.filename)) if error.filename else None)
    if error.errno in DENIED:
        return f"{name or 'a file'}: {error.strerror}; change its permissions or those of its folder, or choose another"
    where = str(name) if name else " and ".join(full_folders()) or "a disk"
    return f"{where}: {error.strerror}; free some space and run the same command again, or choose another folder"


def full_folders() -> list[str]:
    """Return those of the working directory and the folder for temporary files (TMPDIR) whose disk is full."""
    return [folder for folder in dict.fromkeys((str(Path.cwd()), tempfile.gettempdir())) if is_full(Path(folder))]


def is_full(path: Path) -> bool:
    """Return whether the disk of a file or folder, which need not exist, is full."""
    existing = next((folder for folder in (path, *path.absolute().parents) if folder.exists()), None)
    return existing is not None and shutil.disk_usage(existing).free < ALMOST_NOTHING


@contextlib.contextmanager
def access_errors(path: Path | None = None) -> Iterator[None]:
    """Convert a full disk, a read-only folder or missing permissions inside the `with` block to an error of one line.

    Args:
        path: what the block writes; None: the file that the error names, or the disks that are full.

    Raises:
        FileAccessError: a file cannot be used.
    """
    try:
        yield
    except OSError as error:
        if not is_file_access(error):
            raise
        raise FileAccessError(explanation(error, path)) from error
    except SerBenchError:
        raise
    except Exception as error:
        # The writers of safetensors and PyTorch are not in Python, and raise errors of their own on a full disk.
        if NO_SPACE not in str(error) and not (path is not None and is_full(path)):
            raise
        raise FileAccessError(explanation(OSError(errno.ENOSPC, NO_SPACE), path)) from error
