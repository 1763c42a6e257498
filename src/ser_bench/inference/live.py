"""Answers about speech while it arrives, from a microphone, a WebSocket, or a file that is played in real time."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ser_bench.errors import ConfigError
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.long_audio import StreamResampler
from ser_bench.inference.recording import Recording
from ser_bench.types import FloatArray

WINDOW_S = 3.0
"""Longest section that an answer is about, seconds; it is the length of an utterance in the corpora."""
HOP_S = 0.5
"""Time between answers, seconds of audio."""
FIRST_S = 0.8
"""Length of the section of the first answer, seconds, of which `PAD_S` is before the speech. Together with the time of
the gate and of the prediction it is below one second; networks that leave out the first 0.6 s still read something."""
ONSET_FRAMES = 3
"""Frames in succession that begin speech: 0.1 s (`speech_gate.MIN_SPEECH_S`)."""
END_S = 0.5
"""Silence that ends an utterance, seconds; pauses within a sentence are shorter."""
PAD_S = speech_gate.PAD_S
"""An utterance begins and ends so many seconds before and after what the gate reports."""
BUFFER_S = 10.0
"""Audio that may wait for a prediction, seconds; what does not fit is dropped and counted."""

ARRIVALS_S = 60.0
"""The times of arrival of the last so many seconds are kept."""


class PredictsRecordings(Protocol):
    """What a session needs of `AudioPredictor`."""

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        """Return one answer per recording."""


@dataclass(frozen=True)
class LiveAnswer:
    """An answer about a section of a stream.

    Attributes:
        utterance: number of the utterance in the stream, from 0.
        start_s: start of the section, seconds since the first sample of the stream.
        end_s: its end.
        final: whether the utterance has ended; no further answer is about it.
        answer: label, probabilities, flags and seconds per stage.
        latency_s: from the arrival of the section's last sample to the answer, seconds of the clock.
        after_onset_s: from the arrival of the first sample of speech to the answer, seconds of the clock.
    """

    utterance: int
    start_s: float
    end_s: float
    final: bool
    answer: Answer
    latency_s: float
    after_onset_s: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values: the times, and the keys of `Answer.as_dict`."""
        times = {"start_s": self.start_s, "end_s": self.end_s, "latency_s": self.latency_s}
        return {
            "utterance": self.utterance,
            **{name: round(value, 3) for name, value in times.items()},
            "final": self.final,
            **self.answer.as_dict(),
        }


@dataclass(frozen=True)
class _Due:
    """A section that is to be predicted: its samples [T], and positions in the stream."""

    utterance: int
    onset: int
    start: int
    end: int
    final: bool
    samples: FloatArray


class LiveSession:
    """A stream of samples that one thread feeds, and another one gets answers about.

        session = LiveSession(predictor, 16_000)
        session.feed(samples)              # as often as samples arrive, in the thread or callback of the microphone
        for live in session.answers():     # in another thread: waits for the next answer, ends after `close`
            print(live.start_s, live.answer.label)
        session.close()                    # no more samples

    The speech gate decides where speech begins and ends. The first answer follows `first_s` after the begin, then one
    every `hop_s`, and a last one (`final`) when the speech has ended. Each is about the last `window_s` at most, since
    the speech began. Where the speech gate is not installed (`has_gate`), all audio counts as speech.

    If predictions take longer than `hop_s`, answers are left out (`skipped`), so that an answer is always about the
    newest audio. At most `buffer_s` of audio wait; older samples are dropped and counted (`dropped_s`). The session
    keeps no other samples.

    `feed` and the counters may be used from any thread. `next_answer` and `answers` belong to one thread.

    Args:
        predictor: usually an `AudioPredictor`.
        sample_rate_hz: of the stream.
        clock: seconds since any moment; it never goes back.
        window_s: longest section of an answer.
        hop_s: time between answers.
        first_s: speech before the first answer.
        buffer_s: audio that may wait.

    Raises:
        ConfigError: the rate or a time is not positive.
    """

    def __init__(
        self,
        predictor: PredictsRecordings,
        sample_rate_hz: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        window_s: float = WINDOW_S,
        hop_s: float = HOP_S,
        first_s: float = FIRST_S,
        buffer_s: float = BUFFER_S,
    ) -> None:
        if min(sample_rate_hz, window_s, hop_s, first_s, buffer_s) <= 0:
            raise ConfigError("a stream needs a positive sampling rate and positive times")
        self.sample_rate_hz = sample_rate_hz
        self._predictor = predictor
        self._clock = clock
        self._window, self._hop = self._samples(window_s), self._samples(hop_s)
        self._first, self._buffer_size = self._samples(first_s), self._samples(buffer_s)
        self._condition = threading.Condition()
        self._waiting: deque[FloatArray] = deque()
        self._waiting_count = 0
        self._arrivals: deque[tuple[int, float]] = deque()
        """(position after a chunk, time of its arrival) of the last `ARRIVALS_S`."""
        self._received = self._dropped = 0
        self._closed = False
        self._history = _History(self._window + self._buffer_size + self._samples(END_S + 2 * PAD_S))
        self.has_gate = not speech_gate.reason_unavailable()
        self._detector: _Detector = _UtteranceDetector(sample_rate_hz) if self.has_gate else _EverythingIsSpeech()
        self._utterance = -1
        self._answered_onset = -1
        self._next_due = 0
        self._skipped = 0

    @property
    def received_s(self) -> float:
        """Audio that was fed, seconds."""
        return self._received / self.sample_rate_hz

    @property
    def dropped_s(self) -> float:
        """Audio that was dropped because predictions were too slow, or that `lose` reported, seconds."""
        return self._dropped / self.sample_rate_hz

    @property
    def skipped(self) -> int:
        """Answers that were left out because the prediction before took too long."""
        return self._skipped

    @property
    def speaking(self) -> bool:
        """Whether the newest audio that was looked at belongs to an utterance."""
        return self._detector.onset is not None

    @property
    def utterances(self) -> int:
        """Number of utterances that were answered."""
        return self._utterance + 1

    def feed(self, samples: npt.NDArray[Any]) -> None:
        """Add samples [T], mono, full scale ±1. It never waits for a prediction. After `close` it has no effect.

        Raises:
            ConfigError: the array is not one-dimensional, or holds NaN or infinite numbers.
        """
        chunk: FloatArray = np.array(samples, dtype=np.float32)
        if chunk.ndim != 1 or not np.isfinite(chunk).all():
            raise ConfigError(f"a stream takes finite mono samples [T]; got shape {chunk.shape}, or NaN or infinity")
        with self._condition:
            if self._closed or not len(chunk):
                return
            self._waiting.append(chunk)
            self._waiting_count += len(chunk)
            self._received += len(chunk)
            self._arrivals.append((self._received, self._clock()))
            while self._arrivals[0][0] < self._received - ARRIVALS_S * self.sample_rate_hz:
                self._arrivals.popleft()
            while self._waiting_count > self._buffer_size:
                surplus = self._waiting_count - self._buffer_size
                oldest = self._waiting.popleft()
                if len(oldest) > surplus:
                    self._waiting.appendleft(oldest[surplus:])
                lost = min(surplus, len(oldest))
                self._waiting_count -= lost
                self._dropped += lost
            self._condition.notify_all()

    def lose(self, count: int) -> None:
        """Count samples that were lost before they could be fed, for example because the device reports an overflow."""
        with self._condition:
            self._dropped += count

    def close(self) -> None:
        """End the stream. What was fed is still answered; then `answers` ends."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def answers(self) -> Iterator[LiveAnswer]:
        """Yield each answer when it is there. The iterator ends when the stream was closed and all is answered.

        Raises:
            SerBenchError: nothing can be predicted.
        """
        while not self.ended:
            live = self.next_answer()
            if live is not None:
                yield live

    @property
    def ended(self) -> bool:
        """Whether the stream was closed and all that was fed is answered."""
        with self._condition:
            return self._closed and not self._waiting and self._detector.onset is None

    def next_answer(self, timeout_s: float | None = None) -> LiveAnswer | None:
        """Wait for the next answer and return it; None if there is none in time, or the stream has ended.

        Args:
            timeout_s: longest wait for audio; the prediction itself takes longer.

        Raises:
            SerBenchError: nothing can be predicted.
        """
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._condition:
                while not self._waiting and not self._closed:
                    rest = None if limit is None else limit - time.monotonic()
                    if rest is not None and rest <= 0:
                        return None
                    self._condition.wait(rest)
                chunks = list(self._waiting)
                self._waiting.clear()
                self._waiting_count = 0
                position, closed = self._received, self._closed
            due = self._advance(chunks, position, closed)
            if due is not None:
                return self._predicted(due)
            if closed:
                return None

    def _samples(self, seconds: float) -> int:
        return max(1, round(seconds * self.sample_rate_hz))

    def _advance(self, chunks: list[FloatArray], position: int, closed: bool) -> _Due | None:
        """Take in new samples that end at `position`, and return the newest section that is due."""
        interrupted: _Due | None = None
        if chunks:
            samples = np.concatenate(chunks)
            if position - len(samples) != self._history.end:  # samples between were dropped
                self._detector.restart(position - len(samples))
                interrupted = self._ended(closed=False)
            self._history.append(samples, position)
            self._detector.feed(samples)
        ended = interrupted or self._ended(closed)
        if ended is not None:
            return ended
        onset = self._detector.onset
        if onset is None:
            return None
        if onset != self._answered_onset:
            first = onset + self._first
            if position < first:
                return None
            self._skipped += (position - first) // self._hop
        elif position < self._next_due:
            return None
        else:
            self._skipped += (position - self._next_due) // self._hop
        self._next_due = position + self._hop
        return self._section(onset, position, final=False)

    def _ended(self, closed: bool) -> _Due | None:
        ended = self._detector.take_ended(closed)
        if ended is None:
            return None
        return self._section(ended[0], min(ended[1], self._history.end), final=True)

    def _section(self, onset: int, end: int, final: bool) -> _Due:
        if onset != self._answered_onset:
            self._utterance += 1
            self._answered_onset = onset
        samples, start = self._history.section(max(onset, end - self._window), end)
        return _Due(self._utterance, onset, start, end, final, samples)

    def _predicted(self, due: _Due) -> LiveAnswer:
        name = f"utterance {due.utterance}"
        (answer,) = self._predictor.predict([Recording.from_samples(due.samples, self.sample_rate_hz, name)])
        now = self._clock()
        return LiveAnswer(
            due.utterance,
            due.start / self.sample_rate_hz,
            due.end / self.sample_rate_hz,
            due.final,
            answer,
            latency_s=now - self._arrival(due.end),
            after_onset_s=now - self._arrival(due.onset + 1),
        )

    def _arrival(self, position: int) -> float:
        """Return when the sample before `position` arrived, or the oldest one whose arrival is still known."""
        with self._condition:
            return next((moment for after, moment in self._arrivals if after >= position), self._arrivals[-1][1])


class _History:
    """The newest samples of a stream, at least `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._chunks: deque[FloatArray] = deque()
        self._held = 0
        self.end = 0
        """Position after the newest sample."""

    def append(self, samples: FloatArray, end: int) -> None:
        """Add samples that end at position `end`; what is before a gap is forgotten."""
        if end - len(samples) != self.end:
            self._chunks.clear()
            self._held = 0
        self._chunks.append(samples)
        self._held += len(samples)
        self.end = end
        while self._held - len(self._chunks[0]) >= self._size:
            self._held -= len(self._chunks.popleft())

    def section(self, start: int, end: int) -> tuple[FloatArray, int]:
        """Return the samples between two positions, as far as they are held, and the position of the first one."""
        held = np.concatenate(self._chunks)
        first = self.end - len(held)
        begin = min(max(start, first), self.end - 1)
        return held[begin - first : max(begin + 1, end) - first], begin


class _Detector(Protocol):
    """Begin and end of utterances, in positions of the stream."""

    onset: int | None
    """Position at which the current utterance began; None while there is none."""

    def restart(self, position: int) -> None:
        """Begin anew at a position, because the samples before it are missing."""

    def feed(self, samples: FloatArray) -> None:
        """Look at the next samples."""

    def take_ended(self, closed: bool) -> tuple[int, int] | None:
        """Return begin and end of an utterance that has ended since the last call, or that ends with the stream."""


class _UtteranceDetector:
    """A detector that uses the speech gate."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._rate = sample_rate_hz
        self._gate = speech_gate.SpeechStream()
        self.onset: int | None = None
        self._ended: deque[tuple[int, int]] = deque(maxlen=1)
        self.restart(0)

    def restart(self, position: int) -> None:
        """Begin anew at a position, because the samples before it are missing."""
        self._gate.reset()
        self._resampler = StreamResampler(self._rate, speech_gate.SAMPLE_RATE_HZ)
        self._origin = position
        self._frames = 0
        self._loud = 0
        self._last_speech = 0
        if self.onset is not None:
            self._ended.append((self.onset, position))
            self.onset = None

    def feed(self, samples: FloatArray) -> None:
        """Look at the next samples."""
        for probability in self._gate.feed(self._resampler.feed(samples)).tolist():
            self._frames += 1
            if probability >= speech_gate.THRESHOLD:
                self._loud += 1
            elif self.onset is None or probability < speech_gate.THRESHOLD - speech_gate.HYSTERESIS:
                self._loud = 0
            if self._loud:
                self._last_speech = self._frames
            if self.onset is None and self._loud >= ONSET_FRAMES:
                self.onset = max(self._origin, self._position(self._frames - self._loud, -PAD_S))
            elif self.onset is not None and (self._frames - self._last_speech) * speech_gate.FRAME_S >= END_S:
                self._ended.append((self.onset, self._position(self._last_speech, PAD_S)))
                self.onset = None

    def take_ended(self, closed: bool) -> tuple[int, int] | None:
        """Return begin and end of an utterance that has ended since the last call, or that ends with the stream."""
        if not self._ended and closed and self.onset is not None:
            self._ended.append((self.onset, self._position(max(self._frames, self._last_speech), PAD_S)))
            self.onset = None
        return self._ended.popleft() if self._ended else None

    def _position(self, frames: int, pad_s: float) -> int:
        return self._origin + round((frames * speech_gate.FRAME_S + pad_s) * self._rate)


class _EverythingIsSpeech:
    """Stands for the detector where no speech gate is installed: one utterance, as long as the stream."""

    def __init__(self) -> None:
        self.onset: int | None = None
        self._end = 0

    def restart(self, position: int) -> None:
        """Begin anew at a position."""
        self._end = position

    def feed(self, samples: FloatArray) -> None:
        """Count the samples."""
        self.onset = 0 if self.onset is None else self.onset
        self._end += len(samples)

    def take_ended(self, closed: bool) -> tuple[int, int] | None:
        """Return the whole stream when it has ended."""
        if not closed or self.onset is None:
            return None
        self.onset = None
        return 0, self._end
