"""The peak of resident memory of one run."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

KIB_PER_MIB = 1024
RESET_PEAK = "5"
"""What Linux wants written to clear_refs to start VmHWM anew; see proc(5)."""


def forget_peak() -> None:
    """Start measuring anew, where the system can (Linux): runs of one sweep share a process, and its peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)


def peak_mib() -> float:
    """Highest resident memory since `forget_peak`, or since the process began where that is not known; MiB."""
    try:
        status = Path("/proc/self/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    except OSError:
        found = None
    if found:
        return int(found[1]) / KIB_PER_MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / KIB_PER_MIB**2 if sys.platform == "darwin" else peak / KIB_PER_MIB
