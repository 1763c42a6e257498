"""Corpora of emotional speech: one data sheet each, read alike."""

from ser_bench.corpora.catalogue import SHEETS, default_root, sheet_of
from ser_bench.corpora.cross_corpus import load
from ser_bench.corpora.data_sheet import Fields, Host, Remote, Sheet
from ser_bench.corpora.download import prepare
from ser_bench.corpora.inventory import Inventory, verify
from ser_bench.corpora.reader import root_of, votes_of

__all__ = [
    "SHEETS",
    "Fields",
    "Host",
    "Inventory",
    "Remote",
    "Sheet",
    "default_root",
    "load",
    "prepare",
    "root_of",
    "sheet_of",
    "verify",
    "votes_of",
]
