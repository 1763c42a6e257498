"""The command line `ser-bench`: describe, corpora, weights, compare, audit, predict, doctor."""
