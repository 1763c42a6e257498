"""A recording as a model that hears gets it: WAV, 16 kHz, mono, 16 bits."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_bench import audio

RATE_HZ = 16_000
FORM = "wav 16 kHz mono PCM16"
"""Part of the cache's keys."""
TOKENS_PER_S = 10
"""What OpenAI counts for a second of sound (600 a minute)."""


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording that is read when it is sent, so that a corpus need not fit into memory.

    Attributes:
        path: the file.
        digest: of its bytes.
        duration_s: its length.
    """

    path: Path
    digest: str
    duration_s: float

    @property
    def tokens(self) -> int:
        """About how many tokens a service counts."""
        return math.ceil(self.duration_s * TOKENS_PER_S)

    def part(self) -> dict[str, Any]:
        """The `input_audio` part of a message.

        Raises:
            BadClipError: the file cannot be read.
        """
        import soundfile

        samples = audio.load(self.path, RATE_HZ)
        buffer = io.BytesIO()
        soundfile.write(buffer, samples.clip(-1.0, 1.0), RATE_HZ, format="WAV", subtype="PCM_16")
        data = base64.b64encode(buffer.getvalue()).decode()
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
