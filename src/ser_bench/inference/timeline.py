"""The timeline of a long recording: for each window start, end, speech or not, label and probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ser_bench.errors import ConfigError
from ser_bench.inference import input_checks, speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.live import PredictsRecordings
from ser_bench.inference.long_audio import StreamResampler
from ser_bench.inference.recording import Recording
from ser_bench.types import FloatArray

MIN_WINDOW_S = 0.5
"""Shortest window, seconds; below it a predictor reads two syllables at most (`input_checks.SHORT_S`)."""
MIN_SPEECH_S = input_checks.LITTLE_SPEECH_S
"""A window has speech from so many seconds of it, about a syllable."""
BATCH = 16
"""Windows that are predicted together; it bounds the memory."""
TIME_DECIMALS = 3


@dataclass(frozen=True)
class TimelineEntry:
    """One window of a recording.

    Attributes:
        start_s: its start, seconds.
        end_s: its end; the last window may be shorter than the others.
        speech: whether there is speech in it; None where no speech gate is installed.
        speech_s: seconds of speech in it.
        answer: of the predictor; None for a window without speech, which is not predicted.
    """

    start_s: float
    end_s: float
    speech: bool | None
    speech_s: float
    answer: Answer | None

    @property
    def label(self) -> str:
        """The most probable label; "" without speech or after an abstention."""
        return self.answer.label if self.answer else ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: times, speech, and what `Answer.as_dict` has about the answer, or null."""
        record = self.answer.as_dict() if self.answer else {}
        return {
            "start_s": round(self.start_s, TIME_DECIMALS),
            "end_s": round(self.end_s, TIME_DECIMALS),
            "speech": self.speech,
            "speech_s": round(self.speech_s, TIME_DECIMALS),
            "label": self.label,
            "probabilities": record.get("probabilities", {}),
            "status": record.get("status", ""),
            "reason": record.get("reason", ""),
            "flags": record.get("flags", []),
            "transcript": record.get("transcript"),
        }


@dataclass(frozen=True)
class TimelineRegion:
    """Neighbouring windows with one label; regions do not overlap.

    Attributes:
        start_s: start, seconds.
        end_s: end, seconds.
        label: their label.
        probability: mean probability of this label.
    """

    start_s: float
    end_s: float
    label: str
    probability: float


def timeline(
    predictor: PredictsRecordings,
    blocks: Iterable[FloatArray],
    sample_rate_hz: int,
    window_s: float,
    hop_s: float,
    name: str = "recording",
) -> Iterator[TimelineEntry]:
    """Yield one entry per window, in order, while the blocks are read. At most some windows are in memory.

    Windows start every `hop_s`. The last one ends with the recording and may be shorter. A window with less than
    `MIN_SPEECH_S` of speech is not predicted. Where no speech gate is installed, every window is.

    Args:
        predictor: usually an `AudioPredictor`.
        blocks: samples [T] float32, mono, of any lengths (`LongRecording.blocks`).
        sample_rate_hz: their sampling rate.
        window_s: length of a window, seconds.
        hop_s: distance between the starts of windows, seconds.
        name: of the recording; in the names of the answers.

    Raises:
        ConfigError: `window_s` is below `MIN_WINDOW_S`, or `hop_s` is not positive or above `window_s`, which would
            leave out audio.
        SerBenchError: nothing can be predicted; or what reading the blocks raises.
    """
    check_windows(window_s, hop_s)
    return _entries(predictor, _Windows(sample_rate_hz, window_s, hop_s), blocks, name)


def check_windows(window_s: float, hop_s: float, max_duration_s: float = float("inf")) -> None:
    """Check the lengths of windows.

    Raises:
        ConfigError: as `timeline`; or a window is longer than `max_duration_s`, the limit of an utterance.
    """
    if not MIN_WINDOW_S <= window_s <= max_duration_s:
        limit = f" to {max_duration_s:g}" if np.isfinite(max_duration_s) else " or more"
        raise ConfigError(f"--window {window_s:g}: a window has {MIN_WINDOW_S:g}{limit} seconds")
    if not 0.01 <= hop_s <= window_s:
        raise ConfigError(f"--hop {hop_s:g}: windows start every 0.01 to {window_s:g} s (the length of a window)")


def regions(entries: Iterable[TimelineEntry], hop_s: float) -> Iterator[TimelineRegion]:
    """Yield where the label stays the same, in order. Windows without a label leave gaps.

    A window stands for `hop_s` around its middle; the first one also for what is before, the last one for the rest.
    """
    current: list[TimelineEntry] = []
    start_s, before = 0.0, None
    for entry in entries:
        boundary_s = 0.0 if before is None else (entry.start_s + entry.end_s - hop_s) / 2
        if before is not None and entry.end_s - entry.start_s < before.end_s - before.start_s - 1e-9:
            boundary_s = (before.start_s + before.end_s + hop_s) / 2  # the last window is shorter
        if current and entry.label != current[-1].label:
            yield _region(current, start_s, boundary_s)
            current = []
        if entry.label:
            start_s = start_s if current else boundary_s
            current.append(entry)
        before = entry
    if current and before is not None:
        yield _region(current, start_s, before.end_s)


def _region(entries: Sequence[TimelineEntry], start_s: float, end_s: float) -> TimelineRegion:
    label = entries[0].label
    values = [entry.answer.probabilities.get(label, 0.0) for entry in entries if entry.answer]
    return TimelineRegion(start_s, end_s, label, sum(values) / len(values))


def _entries(
    predictor: PredictsRecordings, windows: _Windows, blocks: Iterable[FloatArray], name: str
) -> Iterator[TimelineEntry]:
    waiting: list[tuple[TimelineEntry, FloatArray]] = []
    for cut in windows.cut(blocks):
        waiting.append(cut)
        if len(waiting) == BATCH:
            yield from _answered(predictor, waiting, windows.sample_rate_hz, name)
            waiting = []
    yield from _answered(predictor, waiting, windows.sample_rate_hz, name)


def _answered(
    predictor: PredictsRecordings, cuts: Sequence[tuple[TimelineEntry, FloatArray]], sample_rate_hz: int, name: str
) -> Iterator[TimelineEntry]:
    """Predict the windows that are not without speech."""
    asked = [
        Recording.from_samples(samples, sample_rate_hz, f"{name} {entry.start_s:.2f}-{entry.end_s:.2f} s")
        for entry, samples in cuts
        if entry.speech is not False
    ]
    answers = iter(predictor.predict(asked) if asked else ())
    for entry, _ in cuts:
        answer = next(answers) if entry.speech is not False else None
        yield TimelineEntry(entry.start_s, entry.end_s, entry.speech, entry.speech_s, answer)


class _Windows:
    """Cuts blocks into windows, and looks for speech in the whole stream once."""

    def __init__(self, sample_rate_hz: int, window_s: float, hop_s: float) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._window_s, self._hop_s = window_s, hop_s
        self._size = round(window_s * sample_rate_hz)
        self._held = np.zeros(0, np.float32)
        self._held_from = 0
        self._number = 0
        has_gate = not speech_gate.reason_unavailable()
        self._gate = speech_gate.SpeechStream() if has_gate else None
        self._resampler = StreamResampler(sample_rate_hz, speech_gate.SAMPLE_RATE_HZ)
        self._speech = np.zeros(0, bool)
        self._speech_from = 0

    def cut(self, blocks: Iterable[FloatArray]) -> Iterator[tuple[TimelineEntry, FloatArray]]:
        """Yield each window as an entry without an answer, and its samples."""
        for block in blocks:
            self._take(block, last=False)
            while self._ready(self._start + self._size):
                yield self._next(self._start + self._size)
        self._take(np.zeros(0, np.float32), last=True)
        end = self._held_from + len(self._held)
        covered = self._number > 0 and self._before + self._size >= end
        while not covered and self._start < end:
            stop = min(self._start + self._size, end)
            yield self._next(stop)
            covered = stop >= end

    @property
    def _start(self) -> int:
        """First sample of the next window."""
        return round(self._number * self._hop_s * self.sample_rate_hz)

    @property
    def _before(self) -> int:
        """First sample of the window before."""
        return round((self._number - 1) * self._hop_s * self.sample_rate_hz)

    def _take(self, block: FloatArray, last: bool) -> None:
        self._held = np.concatenate([self._held, block])
        if self._gate is None:
            return
        resampled = self._resampler.feed(block, last)
        if last:  # the gate waits for whole frames
            resampled = np.concatenate([resampled, np.zeros(speech_gate.FRAME_SAMPLES - 1, np.float32)])
        found = self._gate.feed(resampled) >= speech_gate.THRESHOLD
        self._speech = np.concatenate([self._speech, found])

    def _ready(self, end: int) -> bool:
        """Whether all samples before a position are there, and the gate has seen them."""
        if end > self._held_from + len(self._held):
            return False
        return self._gate is None or self._frame(end) <= self._speech_from + len(self._speech)

    def _frame(self, position: int) -> int:
        return int(position / self.sample_rate_hz / speech_gate.FRAME_S)

    def _next(self, end: int) -> tuple[TimelineEntry, FloatArray]:
        start = self._start
        samples = self._held[start - self._held_from : end - self._held_from].copy()
        speech, speech_s = None, 0.0
        if self._gate is not None:
            first, after = self._frame(start), max(self._frame(end), self._frame(start) + 1)
            frames = self._speech[first - self._speech_from : after - self._speech_from]
            speech_s = float(frames.sum()) * speech_gate.FRAME_S
            speech = speech_s >= MIN_SPEECH_S
        self._number += 1
        self._forget(self._start)
        entry = TimelineEntry(start / self.sample_rate_hz, end / self.sample_rate_hz, speech, speech_s, None)
        return entry, samples

    def _forget(self, before: int) -> None:
        """Forget samples and frames before a position."""
        count = min(before - self._held_from, len(self._held))
        self._held, self._held_from = self._held[count:], self._held_from + count
        frames = min(self._frame(before) - self._speech_from, len(self._speech))
        self._speech, self._speech_from = self._speech[frames:], self._speech_from + frames
