"""One thread that predicts, and the bounded queue before it: clips that wait together are predicted together."""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from ser_bench.errors import SerBenchError
from ser_bench.inference.answer import Answer
from ser_bench.inference.recording import Recording
from ser_bench.serving.limits import Limits, RequestRefusedError

log = logging.getLogger(__name__)

BATCH_AUDIO_S = 60.0
"""Clips are added to a batch while they have so many seconds of audio together, which bounds its memory."""
MAX_RETRY_AFTER_S = 60
SMOOTHING = 0.2
"""Weight of the newest batch in the mean time per clip, from which Retry-After is estimated."""

Predict = Callable[[Sequence[str], Sequence[Recording]], list[list[Answer]]]
"""Takes names of runs and recordings; returns the answers of each run."""


@dataclass(frozen=True)
class _WaitingClip:
    runs: tuple[str, ...]
    recording: Recording
    answers: Future[list[Answer]] = field(default_factory=Future)
    since_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class BatchFacts:
    """What is known about a batch when it is done.

    Attributes:
        clips: number of clips.
        waited_s: time that each of them waited, seconds.
        spent_s: time of the prediction, seconds.
    """

    clips: int
    waited_s: tuple[float, ...]
    spent_s: float


class Batcher:
    """The queue and its thread. `close` must be called at the end.

    Args:
        predict: called in the thread; it may raise.
        limits: `waiting`, `batch` and `batch_wait_s` are used.
        report: called after each batch, in the thread.
    """

    def __init__(
        self, predict: Predict, limits: Limits, report: Callable[[BatchFacts], None] = lambda facts: None
    ) -> None:
        self._predict = predict
        self._limits = limits
        self._report = report
        self._jobs: deque[_WaitingClip] = deque()
        self._changed = threading.Condition()
        self._admitted = 0
        self._closing = False
        self._clip_s = 0.0
        self._thread = threading.Thread(target=self._work, name="predictions", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of clips in the queue."""
        return len(self._jobs)

    @property
    def admitted(self) -> int:
        """Number of requests that are decoded, wait, or are predicted."""
        return self._admitted

    @property
    def alive(self) -> bool:
        """Whether clips are predicted: the thread runs and `close` was not called."""
        return self._thread.is_alive() and not self._closing

    def refuse_if_full(self) -> None:
        """Raise where `admitted` would raise now.

        Raises:
            RequestRefusedError: 503, the queue is full or the server stops.
        """
        if self._closing:
            raise RequestRefusedError(503, "stopping", "the server stops", 1)
        if self._admitted >= self._limits.waiting:
            raise RequestRefusedError(
                503, "queue_full", f"{self._limits.waiting} requests wait already; try again", self.retry_after_s()
            )

    def retry_after_s(self) -> int:
        """Return the time in which the requests of now will be answered, whole seconds from 1 to 60."""
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(self._admitted * self._clip_s)))

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for one clip in the queue during a `with` block.

        Raises:
            RequestRefusedError: 503, there is none.
        """
        with self._changed:
            self.refuse_if_full()
            self._admitted += 1
        try:
            yield
        finally:
            with self._changed:
                self._admitted -= 1
                self._changed.notify_all()

    def submit(self, runs: Sequence[str], recording: Recording) -> Future[list[Answer]]:
        """Queue one clip. The result has one answer per run; cancelling it removes the clip from the queue."""
        job = _WaitingClip(tuple(runs), recording)
        with self._changed:
            if self._closing:
                raise RequestRefusedError(503, "stopping", "the server stops", 1)
            self._jobs.append(job)
            self._changed.notify_all()
        return job.answers

    def close(self, timeout_s: float | None = None) -> None:
        """Predict what is in the queue, and end the thread; wait at most `timeout_s` seconds for that."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        while batch := self._next_batch():
            started_s = time.monotonic()
            self._answer(batch)
            spent_s = time.monotonic() - started_s
            newest_s = spent_s / len(batch)
            self._clip_s += SMOOTHING * (newest_s - self._clip_s) if self._clip_s else newest_s
            self._report(BatchFacts(len(batch), tuple(started_s - job.since_s for job in batch), spent_s))

    def _next_batch(self) -> list[_WaitingClip]:
        """Wait for clips, and return those that can be predicted together; [] at the end."""
        while True:
            with self._changed:
                while not self._jobs:
                    if self._closing:
                        return []
                    self._changed.wait()
                until_s = time.monotonic() + self._limits.batch_wait_s
                while len(self._jobs) < min(self._limits.batch, self._admitted) and not self._closing:
                    left_s = until_s - time.monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        break
                batch = self._taken()
            running = [job for job in batch if job.answers.set_running_or_notify_cancel()]
            if running:
                return running

    def _taken(self) -> list[_WaitingClip]:
        """Remove the oldest clip and those that go with it from the queue; the order of the others stays."""
        taken: list[_WaitingClip] = []
        audio_s, rest = 0.0, deque[_WaitingClip]()
        for job in self._jobs:
            if job.answers.cancelled():
                continue
            audio_s += job.recording.duration_s
            same = not taken or (job.runs == taken[0].runs and audio_s <= BATCH_AUDIO_S)
            (taken if same and len(taken) < self._limits.batch else rest).append(job)
        self._jobs = rest
        return taken

    def _answer(self, batch: list[_WaitingClip]) -> None:
        """Predict a batch. After an unexpected error each clip is predicted alone, so that one clip fails alone."""
        try:
            by_run = self._predict(batch[0].runs, [job.recording for job in batch])
        except SerBenchError as error:  # it would be the same for each clip: missing weights, an unreachable service
            log.error("%s", error)
            for job in batch:
                job.answers.set_exception(error)
            return
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._answer([job])
                return
            log.exception("error    a prediction failed")
            batch[0].answers.set_exception(error)
            return
        for job, answers in zip(batch, zip(*by_run, strict=True), strict=True):
            job.answers.set_result(list(answers))
