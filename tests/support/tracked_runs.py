"""A small corpus, a split of it, and a configuration with a store of its own, for tests that log runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ser_bench.config import Config, compose
from ser_bench.types import Clip, Corpus, Row, Split, clean_rows

LABELS = ("angry", "neutral", "sad")


def compose_config(folder: Path, *overrides: str) -> Config:
    """A configuration whose store lies in `folder`."""
    return compose([f"tracking.dir={folder}", *overrides])


def make_corpus(**changes: Any) -> Corpus:
    clips = tuple(
        Clip(f"s{s}_{label}", Path(f"s{s}_{label}.wav"), label, f"s{s}", "DFA", duration_s=2.0, digest="00")
        for s in range(4)
        for label in LABELS
    )
    values = {"name": "demo", "clips": clips, "labels": LABELS, "language": "en", "synthetic": True}
    return Corpus(**(values | changes))


def make_split(corpus: Corpus) -> Split:
    rows = clean_rows(clip.id for clip in corpus.clips)
    noisy = tuple(Row(row.clip_id, "noise") for row in rows[:6])
    return Split("speaker", 0, 2, rows[:6] + noisy, rows[6:8], rows[8:])
