"""A corpus of 24 very short clips that a CSV file lists, for tests of whole commands in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

LABELS = ("angry", "happy", "sad")
SPEAKERS = tuple(f"s{i}" for i in range(8))
CLIPS = {f"{speaker}_{label}": label for speaker in SPEAKERS for label in LABELS}
"""Clip id → label."""


def write_small_table(folder: Path) -> Path:
    """Write the audio and the list, and return the list."""
    (folder / "audio").mkdir(parents=True)
    lines = ["path,emotion,speaker,sex"]
    for number, (name, label) in enumerate(CLIPS.items()):
        samples = 0.1 * np.random.default_rng(number).standard_normal(2_000)
        soundfile.write(folder / "audio" / f"{name}.wav", samples, 8_000)
        speaker = name.partition("_")[0]
        lines.append(f"audio/{name}.wav,{label},{speaker},{('female', 'male')[number // 3 % 2]}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"
