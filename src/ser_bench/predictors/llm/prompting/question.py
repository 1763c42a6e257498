"""One question about one clip: the messages, and the recording if the model accepts audio."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ser_bench import audio

Message = dict[str, Any]
"""A chat message: `role` and `content`."""

INPUT_AUDIO, AUDIO_URL = "input_audio", "audio_url"
"""Types of the part of a message that holds a recording."""
RECORDING_RATE_HZ = 16_000
RECORDING_FORMAT = "wav 16 kHz mono PCM16"
"""Part of the keys of the answer cache."""
AUDIO_TOKENS_PER_S = 10
"""What OpenAI charges for a second of audio (600 tokens a minute)."""


@dataclass(frozen=True, slots=True)
class AudioPart:
    """The recording of a clip. The file is read only when it is sent, so that a corpus need not fit into memory.

    Attributes:
        path: the audio file.
        digest: digest of its bytes.
        duration_s: length, seconds.
    """

    path: Path
    digest: str
    duration_s: float

    @property
    def tokens(self) -> int:
        """The usual number of tokens that an endpoint counts for it."""
        return math.ceil(self.duration_s * AUDIO_TOKENS_PER_S)

    @property
    def encoded_bytes(self) -> int:
        """About the length of the recording in Base64, bytes."""
        return math.ceil(self.duration_s * RECORDING_RATE_HZ * 2 * 4 / 3) + 100

    def message_part(self, form: str = INPUT_AUDIO) -> dict[str, Any]:
        """Return the part of a message that holds the recording: WAV, 16 kHz, mono, 16 bits, in Base64.

        Args:
            form: `INPUT_AUDIO`, or `AUDIO_URL` for a data URL.

        Raises:
            BadClipError: if the file cannot be read.
        """
        import soundfile

        samples = audio.load(self.path, RECORDING_RATE_HZ)
        buffer = io.BytesIO()
        soundfile.write(buffer, samples.clip(-1.0, 1.0), RECORDING_RATE_HZ, format="WAV", subtype="PCM_16")
        data = base64.b64encode(buffer.getvalue()).decode()
        if form == AUDIO_URL:
            return {"type": AUDIO_URL, AUDIO_URL: {"url": f"data:audio/wav;base64,{data}"}}
        return {"type": INPUT_AUDIO, INPUT_AUDIO: {"data": data, "format": "wav"}}


@dataclass(frozen=True, slots=True)
class Question:
    """One question about one clip, independent of the endpoint and of its response format.

    Attributes:
        messages: system message, examples if any, user message; their content is text.
        order: the labels in the order of the prompt; () if it is the order of the corpus.
        sample: 0 for the first answer to this question; 1, 2, … for repeated answers (`llm.samples`).
        recording: the recording of the clip, if the prompt sends it.
    """

    messages: tuple[Message, ...]
    order: tuple[str, ...] = ()
    sample: int = 0
    recording: AudioPart | None = None

    def identity(self) -> dict[str, Any]:
        """Return everything of the question that affects the answer, for the cache key; defaults are left out."""
        sound = "" if self.recording is None else f"{RECORDING_FORMAT} {self.recording.digest}"
        optional = {"order": self.order, "sample": self.sample, "sound": sound}
        return {"messages": list(self.messages)} | {name: value for name, value in optional.items() if value}

    def to_send(self, audio_form: str = INPUT_AUDIO) -> list[Message]:
        """Return the messages, with the recording, if any, in the last one as a part of this type.

        Raises:
            BadClipError: if the recording cannot be read.
        """
        if self.recording is None:
            return list(self.messages)
        *first, last = self.messages
        text = {"type": "text", "text": last["content"]}
        return [*first, last | {"content": [text, self.recording.message_part(audio_form)]}]
