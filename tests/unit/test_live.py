"""Answers about a stream: when they come, what they are about, and what happens if predictions are slow."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from ser_bench.errors import ConfigError
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.live import FIRST_S, WINDOW_S, LiveAnswer, LiveSession
from ser_bench.inference.recording import Recording
from ser_bench.types import FloatArray

RATE_HZ = 16_000
CHUNK_S = 0.05


class LengthPredictor:
    """Answers with the length of what it was given, and keeps it."""

    def __init__(self) -> None:
        self.given: list[Recording] = []

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        self.given += recordings
        return [Answer(recording.name, "angry", {"angry": 1.0}) for recording in recordings]


class LevelGate:
    """Stands for the speech gate: a frame is speech if it is loud."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def feed(self, samples: FloatArray) -> FloatArray:
        waiting = np.concatenate([self._rest, samples])
        count = len(waiting) // speech_gate.FRAME_SAMPLES
        self._rest = waiting[count * speech_gate.FRAME_SAMPLES :]
        frames = waiting[: count * speech_gate.FRAME_SAMPLES].reshape(count, -1)
        return (np.abs(frames).max(axis=1, initial=0.0) > 0.1).astype(np.float32)


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_gate, "SpeechStream", LevelGate)
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "")


class Clock:
    """Time that passes as samples arrive."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def signal(*parts: tuple[float, bool], rate_hz: int = RATE_HZ) -> FloatArray:
    """Seconds with and without speech."""
    return np.concatenate([np.full(round(s * rate_hz), 0.5 if loud else 0.0, np.float32) for s, loud in parts])


def played(session: LiveSession, samples: FloatArray, clock: Clock | None = None) -> Iterator[LiveAnswer]:
    """Feed chunks of 50 ms and look for an answer after each, as a consumer that is always ready would."""
    size = round(CHUNK_S * session.sample_rate_hz)
    for start in range(0, len(samples), size):
        session.feed(samples[start : start + size])
        if clock is not None:
            clock.now_s += CHUNK_S
        live = session.next_answer(timeout_s=0.0)
        if live is not None:
            yield live
    session.close()
    yield from session.answers()


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_the_first_answer_comes_within_a_second_of_speech_and_then_one_every_half_second(rate_hz: int) -> None:
    predictor = LengthPredictor()
    session = LiveSession(predictor, rate_hz, Clock())
    lives = list(played(session, signal((1.0, False), (2.0, True), (1.5, False), rate_hz=rate_hz)))
    *during, last = lives
    assert during[0].start_s == pytest.approx(0.9, abs=0.05)  # 0.1 s before the speech
    assert 1.0 + FIRST_S - 0.15 <= during[0].end_s <= 1.0 + FIRST_S + 0.1
    assert np.diff([live.end_s for live in during]) == pytest.approx(0.5, abs=1e-9)
    assert len(during) == 4 and not any(live.final for live in during)  # more speech may follow within 0.5 s
    assert last.final and last.end_s == pytest.approx(3.1, abs=0.05) and last.start_s == during[0].start_s
    assert {live.utterance for live in lives} == {0} and session.utterances == 1 and not session.speaking
    assert [len(given.samples) / rate_hz for given in predictor.given] == pytest.approx(
        [live.end_s - live.start_s for live in lives]
    )


def test_times_are_those_of_arrival() -> None:
    clock = Clock()
    first, *_ = played(LiveSession(LengthPredictor(), RATE_HZ, clock), signal((1.0, False), (1.0, True)), clock)
    assert first.latency_s == pytest.approx(CHUNK_S)  # the clock advances after each chunk
    assert first.after_onset_s <= 0.9
    record = first.as_dict()
    assert record["label"] == "angry" and record["utterance"] == 0 and record["latency_s"] == 0.05


def test_an_answer_is_about_the_last_three_seconds_of_one_utterance() -> None:
    predictor = LengthPredictor()
    session = LiveSession(predictor, RATE_HZ, Clock())
    lives = list(played(session, signal((0.5, False), (5.0, True), (1.0, False), (1.2, True))))
    long = [live for live in lives if live.utterance == 0]
    assert max(live.end_s - live.start_s for live in long) == WINDOW_S
    second = [live for live in lives if live.utterance == 1]
    assert all(live.start_s == pytest.approx(6.4, abs=0.05) for live in second) and second[-1].final
    assert session.ended


def test_silence_and_a_click_have_no_answer() -> None:
    samples = signal((1.0, False), (0.04, True), (2.0, False))
    assert not list(played(LiveSession(LengthPredictor(), RATE_HZ, Clock()), samples))


def test_audio_that_nobody_takes_is_dropped_and_counted_and_answers_are_about_the_newest() -> None:
    predictor = LengthPredictor()
    session = LiveSession(predictor, RATE_HZ, Clock(), buffer_s=4.0)
    for _ in range(200):
        session.feed(signal((CHUNK_S, True)))
    assert session.received_s == pytest.approx(10.0) and session.dropped_s == pytest.approx(6.0)
    live = session.next_answer(0.0)
    assert live is not None and live.end_s == pytest.approx(10.0) and live.end_s - live.start_s == WINDOW_S
    assert session.skipped == 6  # due after 0.8 s of the 4 s, and every 0.5 s
    session.lose(800)
    assert session.dropped_s == pytest.approx(6.05)
    assert session._history._held <= 8 * RATE_HZ


def test_dropped_audio_within_an_utterance_ends_it() -> None:
    session = LiveSession(LengthPredictor(), RATE_HZ, Clock(), buffer_s=1.0)
    session.feed(signal((0.9, True)))
    assert session.next_answer(0.0) is not None
    for _ in range(3):
        session.feed(signal((0.9, True)))
    ended = session.next_answer(0.0)
    assert ended is not None and ended.final and ended.end_s <= 0.9 + 1e-6
    session.close()
    (after,) = session.answers()
    assert after.utterance == 1 and after.start_s >= 2.6 - 0.1


def test_a_producer_in_another_thread_is_answered_and_close_ends_the_answers() -> None:
    session = LiveSession(LengthPredictor(), RATE_HZ)
    samples = signal((0.3, False), (2.0, True), (0.8, False))

    def produce() -> None:
        for start in range(0, len(samples), 800):
            session.feed(samples[start : start + 800])
        session.close()
        session.feed(samples)  # has no effect

    thread = threading.Thread(target=produce)
    thread.start()
    lives = list(session.answers())
    thread.join(5)
    assert lives[-1].final and session.received_s == pytest.approx(3.1) and session.next_answer() is None


def test_without_a_gate_everything_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "no gate")
    session = LiveSession(LengthPredictor(), RATE_HZ, Clock())
    lives = list(played(session, signal((4.0, False))))
    assert not session.has_gate and lives[0].end_s == pytest.approx(FIRST_S, abs=CHUNK_S)
    assert lives[-1].final and lives[-1].end_s == 4.0


def test_samples_that_are_none_are_refused() -> None:
    session = LiveSession(LengthPredictor(), RATE_HZ)
    for wrong in (np.zeros((2, 2), np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(ConfigError, match="finite mono samples"):
            session.feed(wrong)
    with pytest.raises(ConfigError, match="positive"):
        LiveSession(LengthPredictor(), 0)
    assert list(itertools.islice(played(session, np.zeros(0, np.float32)), 1)) == []
