"""Peak of the resident memory of one run."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

KIB_PER_MIB = 1024
RESET_PEAK = "5"
"""Text that resets VmHWM when it is written to /proc/self/clear_refs; see proc(5)."""


def forget_peak() -> None:
    """Reset the peak where the system allows it (Linux), because the runs of a sweep share one process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def peak_mib() -> float:
    """Return the highest resident memory since `forget_peak` in MiB; outside Linux, since the process started."""
    try:
        status = Path("/proc/self/status").read_text()
        match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    except OSError:
        match = None
    if match:
        return int(match[1]) / KIB_PER_MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / KIB_PER_MIB**2 if sys.platform == "darwin" else peak / KIB_PER_MIB
