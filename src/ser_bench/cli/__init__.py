"""The command line `ser-bench`: describe, corpora, weights, compare, audit, predict, doctor."""

from ser_bench.cli.app import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_LEAK, main

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_LEAK", "main"]
