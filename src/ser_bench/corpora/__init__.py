"""Corpora of emotional speech.

- `sheets/`: the data sheets, one module per corpus (`docs/corpora.md` describes how to add one);
- `data_sheet`: the fields of a data sheet;
- `loading`: from the configuration to a `Corpus`, also of two corpora (`split=cross_corpus`);
- `labels`: canonical labels, their order, and what a label may be;
- `names`: normal form of names, and names that look alike;
- `csv_tables`: the strict reader of CSV tables;
- `listener_votes`: votes of listeners as labels (`corpus.target=votes`) and as soft targets;
- `intensity_levels`: ordered levels of intensity as labels (`corpus.target=intensity`);
- `audio_files`: search and check of audio files;
- `download/`: `ser-bench corpora prepare` and `verify`;
- `demo_speech/`: generator of the synthetic demo corpus.
"""

from ser_bench.corpora.audio_files import default_root
from ser_bench.corpora.data_sheet import DataSheet, Fields, Host, Remote
from ser_bench.corpora.download.downloader import prepare
from ser_bench.corpora.download.verification import Inventory, verify
from ser_bench.corpora.intensity_levels import heard_intensity_of
from ser_bench.corpora.listener_votes import votes_of
from ser_bench.corpora.loading import load, root_of
from ser_bench.corpora.sheets import SHEETS, sheet_of

__all__ = [
    "SHEETS",
    "DataSheet",
    "Fields",
    "Host",
    "Inventory",
    "Remote",
    "default_root",
    "heard_intensity_of",
    "load",
    "prepare",
    "root_of",
    "sheet_of",
    "verify",
    "votes_of",
]
