"""The command line `ser-bench`; `app` has its commands."""

from ser_bench.cli.app import EXIT_DIFFERS, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_LEAK, EXIT_UNMET, main

__all__ = ["EXIT_DIFFERS", "EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_LEAK", "EXIT_UNMET", "main"]
