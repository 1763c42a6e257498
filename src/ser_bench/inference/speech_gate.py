"""Where a recording contains speech: probabilities per 32 ms by Silero VAD, and sections made of them.

The network is Silero VAD 6 (Silero Team 2024, github.com/snakers4/silero-vad, MIT) as an ONNX file, which the package
faster-whisper contains and onnxruntime computes; both come with the extra `asr`. Neither faster-whisper nor its own
dependencies are imported. The network has a recurrent state, so a recording gives the same probabilities whether it is
given as a whole or in chunks of any length (`SpeechStream`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import extras
from ser_bench.errors import SerBenchError, one_line
from ser_bench.types import FloatArray

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
FRAME_SAMPLES = 512
"""New samples per probability: 32 ms."""
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
CONTEXT_SAMPLES = 64
"""Samples before each frame that the network reads too."""
STATE_SHAPE = (1, 1, 128)
"""Of the two arrays of the recurrent state."""
BATCH_FRAMES = 2_048
"""Frames per call of the network, 65 s: bounds the memory of long recordings."""
THRESHOLD = 0.5
"""Speech begins at this probability; Silero's own default."""
HYSTERESIS = 0.15
"""Speech ends this far below the threshold; Silero's own default."""
MIN_SPEECH_S = 0.1
"""Shorter sections are no speech: a click or a musical note may reach the threshold for a few frames."""
MIN_SILENCE_S = 0.3
"""Shorter pauses do not end a section; the closures of plosives last up to 0.2 s."""
PAD_S = 0.1
"""Sections are longer by this at both ends, because the network reports the onset of soft consonants late."""
INPUTS = {"input", "h", "c"}
"""Names of the inputs that this module gives; files of other versions of Silero VAD have others."""


def speech_probabilities(samples: FloatArray) -> FloatArray:
    """Return the probability of speech, in [0, 1], of each 32 ms.

    Args:
        samples: [T] mono at 16 kHz, full scale ±1. The last frame is padded with zeros.

    Returns:
        [ceil(T / 512)] float32.

    Raises:
        SerBenchError: as `SpeechStream`.
    """
    stream = SpeechStream()
    padding = -len(samples) % FRAME_SAMPLES
    return stream.feed(np.pad(samples, (0, padding)) if padding else samples)


class SpeechStream:
    """Probabilities of speech of a recording that arrives in chunks; one object per recording, not thread-safe.

    Raises:
        SerBenchError: the gate is not available; the message is that of `reason_unavailable`.
    """

    def __init__(self) -> None:
        reason = reason_unavailable()
        if reason:
            raise SerBenchError(reason)
        self._session: Any = _session()
        self.reset()

    def reset(self) -> None:
        """Forget all that was fed, as at the start of a new recording."""
        self._state = (np.zeros(STATE_SHAPE, np.float32), np.zeros(STATE_SHAPE, np.float32))
        self._context = np.zeros(CONTEXT_SAMPLES, np.float32)
        self._rest = np.zeros(0, np.float32)

    def feed(self, samples: FloatArray) -> FloatArray:
        """Return the probabilities [frames] of the frames that these samples complete; the rest is kept.

        Args:
            samples: [T] the next samples, mono at 16 kHz, full scale ±1.
        """
        waiting = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        count = len(waiting) // FRAME_SAMPLES
        self._rest = waiting[count * FRAME_SAMPLES :]
        frames = waiting[: count * FRAME_SAMPLES].reshape(count, FRAME_SAMPLES)
        parts = [self._probabilities(frames[i : i + BATCH_FRAMES]) for i in range(0, count, BATCH_FRAMES)]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _probabilities(self, frames: FloatArray) -> FloatArray:
        """Return the probabilities [n] of frames [n, 512], and advance the state; n is at least 1."""
        before = np.concatenate([self._context[None], frames[:-1, -CONTEXT_SAMPLES:]])
        inputs = np.concatenate([before, frames], axis=1)
        h, c = self._state
        found, h, c = self._session.run(None, {"input": inputs, "h": h, "c": c})
        self._state, self._context = (h, c), frames[-1, -CONTEXT_SAMPLES:]
        probabilities: FloatArray = np.asarray(found, dtype=np.float32).reshape(-1)
        return probabilities


def speech_sections(
    probabilities: FloatArray | Sequence[float],
    threshold: float = THRESHOLD,
    min_speech_s: float = MIN_SPEECH_S,
    min_silence_s: float = MIN_SILENCE_S,
    pad_s: float = PAD_S,
    frame_s: float = FRAME_S,
) -> list[tuple[float, float]]:
    """Return the start and end of each section of speech, seconds, in order and without overlap.

    A section begins at a frame of `threshold` or more and ends before frames below `threshold` − 0.15 that last
    `min_silence_s`. Sections shorter than `min_speech_s` are dropped, then each is extended by `pad_s` at both ends,
    at most to the ends of the recording; sections that then overlap are joined.

    >>> speech_sections([0.1, 0.9, 0.9, 0.1], min_speech_s=0, min_silence_s=0, pad_s=0, frame_s=1)
    [(1, 3)]
    """
    values = np.asarray(probabilities, dtype=np.float64)
    found: list[tuple[int, int]] = []
    start: int | None = None
    last = 0
    # `last` is the first frame after the latest one that counts as speech.
    for i, value in enumerate(values.tolist()):
        if value >= threshold or (start is not None and value >= threshold - HYSTERESIS):
            start = i if start is None else start
            last = i + 1
        elif start is not None and (i + 1 - last) * frame_s >= min_silence_s:
            found.append((start, last))
            start = None
    if start is not None:
        found.append((start, last))
    end_s = len(values) * frame_s
    sections: list[tuple[float, float]] = []
    for first, after in found:
        if (after - first) * frame_s < min_speech_s:
            continue
        low, high = max(0, first * frame_s - pad_s), min(end_s, after * frame_s + pad_s)
        if sections and low <= sections[-1][1]:
            low = sections.pop()[0]
        sections.append((low, high))
    return sections


@cache
def reason_unavailable() -> str:
    """Return why there is no gate, with the command that installs it; "" if there is one. It is logged once."""
    reason = _reason()
    if reason:
        log.warning("note     no speech gate: %s", reason)
    return reason


def _reason() -> str:
    needed = [name for name in ("faster_whisper", "onnxruntime") if not extras.is_installed(name)]
    if needed:
        return f"the speech gate needs {' and '.join(needed)}, not installed: {extras.install_command('asr')}"
    if _model_file() is None:
        return "the installed faster-whisper has no file silero_vad_*.onnx: pip install -U faster-whisper"
    try:
        given = {item.name for item in _session().get_inputs()}
    except Exception as error:  # a damaged file, or a shared library that is missing
        return f"{_model_file()}: cannot be loaded by onnxruntime ({one_line(error)}); install faster-whisper again"
    if given != INPUTS:
        return f"{_model_file()}: has the inputs {', '.join(sorted(given))}: pip install -U faster-whisper"
    return ""


def _model_file() -> Path | None:
    """Return the newest version of the network in faster-whisper; None if there is none. Nothing is imported."""
    spec = util.find_spec("faster_whisper")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    files = [path for folder in folders for path in (Path(folder) / "assets").glob("silero_vad*.onnx")]
    return max(files, default=None)


@cache
def _session() -> Any:
    """Return the loaded network, which threads may share. It uses one, because a frame is too small to be divided."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4  # fatal errors only; the others are raised as exceptions as well
    return onnxruntime.InferenceSession(str(_model_file()), options, providers=["CPUExecutionProvider"])
