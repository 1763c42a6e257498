"""`ser-bench listen`: answers about speech from the microphone, or from a file that is played in real time."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ser_bench import extras, tracking
from ser_bench.cli.result_file import json_line
from ser_bench.cli.terminal_tables import note, print_bytes
from ser_bench.config import compose
from ser_bench.durations import format_duration
from ser_bench.errors import ConfigError, SerBenchError, one_line
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.live import LiveAnswer, LiveSession
from ser_bench.inference.long_audio import LongRecording

CHUNK_S = 0.05
"""Length of the chunks that a file is played in, seconds; microphones give similar ones."""
REFRESH_S = 0.2
"""Longest time between two updates of the line in a terminal."""
MICROPHONE_RATE_HZ = 16_000
"""Rate that is asked for first; else the device's own."""
MAX_LATENCIES = 100_000
"""Of the summary: 14 hours of speech."""
BAR = 20
"""Characters of the bar in a terminal."""


@dataclass(frozen=True)
class ListenOptions:
    """What the command line says beside run and overrides.

    Attributes:
        file: a file that is played instead of the microphone.
        speed: how many times faster than real time it is played.
        device: number or part of the name of the microphone; None: the system's.
        as_json: print one JSON object per answer.
        limit_s: end after so many seconds of audio; None: at Ctrl-C, or at the end of the file.
    """

    file: Path | None = None
    speed: float = 1.0
    device: str | None = None
    as_json: bool = False
    limit_s: float | None = None


class _Source(Protocol):
    """What feeds a session."""

    name: str
    sample_rate_hz: int

    def start(self, session: LiveSession) -> None:
        """Begin to feed, in another thread."""

    def stop(self) -> None:
        """End feeding; no thread of the source is left."""


def run(overrides: Sequence[str], words: Sequence[str], options: ListenOptions) -> None:
    """Answer until the file ends, or until Ctrl-C, and print a summary.

    Args:
        overrides: Hydra overrides; they decide the store, the device and the services that may be asked.
        words: the run's id or its first letters.
        options: of the command line.

    Raises:
        ConfigError: not exactly one run is named, a number is not positive, or there is no microphone.
        BadClipError: the file cannot be used.
        SerBenchError: nothing can be predicted.
    """
    if len(words) != 1:
        raise ConfigError("listen takes one run: ser-bench listen RUN, with the id that the run printed")
    if not 0 < options.speed <= 1000 or (options.limit_s is not None and options.limit_s <= 0):
        raise ConfigError("--speed and --seconds are positive, --speed is at most 1000")
    cfg = compose(list(overrides))
    source: _Source = _FilePlayer(options.file, options.speed) if options.file else _Microphone(options.device)
    predictor = AudioPredictor.from_run(tracking.load_run(cfg.tracking, words[0]), cfg)
    predictor.warm_up()
    session = LiveSession(predictor, source.sample_rate_hz)
    display: _Display = _JsonDisplay() if options.as_json else _LineDisplay(session, predictor.labels)
    note(f"listening to {source.name} with {predictor.name}; Ctrl-C ends it")
    if not session.has_gate:
        note("note     no speech gate: all audio counts as speech")
    summary = Summary()
    with display:
        source.start(session)
        try:
            for live in _updates(session, options.limit_s, display.refresh):
                summary.add(live)
                display.show(live)
        except KeyboardInterrupt:
            pass
        finally:
            source.stop()
    note(summary.text(session))


def _updates(session: LiveSession, limit_s: float | None, refresh: Callable[[], None]) -> Iterator[LiveAnswer]:
    """Yield each answer, and call `refresh` while there is none."""
    while not session.ended:
        live = session.next_answer(REFRESH_S)
        if live is not None:
            yield live
        else:
            refresh()
        if limit_s is not None and session.received_s >= limit_s:
            session.close()


class Summary:
    """Counts for the last line."""

    def __init__(self) -> None:
        self._labels: Counter[str] = Counter()
        self._answers = 0
        self._latencies_s: list[float] = []

    def add(self, live: LiveAnswer) -> None:
        """Count an answer; the final one of an utterance gives its label."""
        self._answers += 1
        if not live.final and len(self._latencies_s) < MAX_LATENCIES:  # a final answer waits for the end of the speech
            self._latencies_s.append(live.latency_s)
        if live.final:
            self._labels[live.answer.label or f"({live.answer.status})"] += 1

    def text(self, session: LiveSession) -> str:
        """Return what was heard, answered and dropped, in one line."""
        parts = [f"ended    {format_duration(session.received_s)} of audio", f"{self._answers} answers"]
        if self._labels:
            total = sum(self._labels.values())
            named = ", ".join(f"{label} {count}" for label, count in self._labels.most_common())
            parts.append(f"{total} utterance{'s' * (total > 1)} ({named})")
        if self._latencies_s:
            p50, p95 = np.percentile(self._latencies_s, [50, 95]) * 1000
            parts.append(f"{p50:.0f} ms from sample to answer (95 %: {p95:.0f} ms)")
        parts.append(f"{session.dropped_s:.1f} s dropped")
        if session.skipped:
            parts.append(f"{session.skipped} answers left out because predictions take too long")
        return ", ".join(parts)


class _Display(contextlib.AbstractContextManager[Any], Protocol):
    def show(self, live: LiveAnswer) -> None:
        """Show an answer."""

    def refresh(self) -> None:
        """Show what has changed since."""


class _JsonDisplay(contextlib.nullcontext[None]):
    """One JSON object per answer."""

    def show(self, live: LiveAnswer) -> None:
        """Print it."""
        print_bytes(json_line(live.as_dict()))

    def refresh(self) -> None:
        """Do nothing."""


class _LineDisplay:
    """In a terminal one line that changes, and one that stays for each utterance; elsewhere one line per answer."""

    def __init__(self, session: LiveSession, labels: Sequence[str]) -> None:
        self._session = session
        self._width = max(len(label) for label in labels)
        self._live: Any = None
        self._last: LiveAnswer | None = None

    def __enter__(self) -> _LineDisplay:
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live("", console=Console(), refresh_per_second=1 / REFRESH_S, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, live: LiveAnswer) -> None:
        """Show an answer."""
        line = self.line_of(live)
        if self._live is None:
            print(line, flush=True)
        elif live.final:
            from rich.text import Text

            self._live.console.print(Text(line))
        self._last = None if live.final else live
        self.refresh()

    def refresh(self) -> None:
        """Show the state of the stream, and the newest answer about an utterance that goes on."""
        if self._live is None:
            return
        from rich.text import Text

        session = self._session
        dropped = f"  {session.dropped_s:.1f} s dropped" if session.dropped_s else ""
        state = self.line_of(self._last) if self._last else "speech" if session.speaking else "no speech"
        self._live.update(Text(f"{session.received_s:7.1f} s  {state}{dropped}"))

    def line_of(self, live: LiveAnswer) -> str:
        """Return times, label, probability, and why the answer is unsure."""
        answer = live.answer
        probability = max(answer.probabilities.values(), default=0.0)
        filled = round(probability * BAR)
        label = (answer.label or f"({answer.status})").ljust(self._width)
        why = " ".join(flag.code for flag in answer.flags) or answer.reason
        dropped = f"  {self._session.dropped_s:.1f} s dropped" if self._session.dropped_s and self._live is None else ""
        text = (
            f"{live.start_s:7.2f} to {live.end_s:7.2f} s  {label}  {probability:4.0%}  {'#' * filled:<{BAR}}  "
            f"{'end' if live.final else '   '}  {live.latency_s * 1000:4.0f} ms  {why}"
        )
        return f"{text.rstrip()}{dropped}"


class _FilePlayer:
    """Feeds a file at the speed of its clock, as a microphone would."""

    def __init__(self, path: Path, speed: float) -> None:
        self._long = LongRecording.open(path)
        self._speed = speed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._play, name="file player", daemon=True)
        self._session: LiveSession | None = None
        self.fault: SerBenchError | None = None
        self.name = str(path) if speed == 1 else f"{path} at {speed:g} times its speed"
        self.sample_rate_hz = self._long.sample_rate_hz

    def start(self, session: LiveSession) -> None:
        """Begin to play."""
        self._session = session
        self._thread.start()

    def stop(self) -> None:
        """End playing.

        Raises:
            BadClipError: the file could not be read to its end.
        """
        self._stopped.set()
        self._thread.join()
        if self.fault is not None:
            raise self.fault

    def _play(self) -> None:
        if self._session is None:
            return
        started, played = time.monotonic(), 0
        try:
            for block in self._long.blocks(CHUNK_S):
                played += len(block)
                due = started + played / self.sample_rate_hz / self._speed  # as a microphone
                if self._stopped.wait(max(0.0, due - time.monotonic())):
                    return
                self._session.feed(block)
        except SerBenchError as error:
            self.fault = error
        finally:
            self._session.close()


class _Microphone:
    """Feeds what PortAudio records."""

    def __init__(self, device: str | None) -> None:
        extras.require("sounddevice", "ser-bench listen")
        import sounddevice

        self._sounddevice = sounddevice
        self._device = int(device) if device is not None and device.isdecimal() else device
        try:
            found = sounddevice.query_devices(self._device, "input")
            self.sample_rate_hz = self._rate(float(found["default_samplerate"]))
        except (sounddevice.PortAudioError, ValueError) as error:
            known = ", ".join(
                f"{i} {entry['name']}"
                for i, entry in enumerate(sounddevice.query_devices())
                if entry["max_input_channels"] > 0
            )
            raise ConfigError(
                f"no microphone ({one_line(error)}); --device is one of: {known or 'none is connected'}. "
                "--from-file FILE plays a file instead"
            ) from error
        self.name = f"microphone {found['name']}"
        self._stream: Any = None

    def _rate(self, own_hz: float) -> int:
        try:
            self._sounddevice.check_input_settings(
                device=self._device, channels=1, dtype="float32", samplerate=MICROPHONE_RATE_HZ
            )
        except self._sounddevice.PortAudioError:
            return round(own_hz)
        return MICROPHONE_RATE_HZ

    def start(self, session: LiveSession) -> None:
        """Begin to record.

        Raises:
            ConfigError: the device cannot be opened.
        """

        def receive(samples: Any, frames: int, _time: Any, status: Any) -> None:
            if status.input_overflow:  # the system does not say how much is missing: at least one chunk
                session.lose(frames)
            session.feed(samples[:, 0])

        try:
            self._stream = self._sounddevice.InputStream(
                samplerate=self.sample_rate_hz,
                blocksize=round(CHUNK_S * self.sample_rate_hz),
                device=self._device,
                channels=1,
                dtype="float32",
                callback=receive,
                finished_callback=session.close,
            )
            self._stream.start()
        except self._sounddevice.PortAudioError as error:
            raise ConfigError(f"{self.name}: cannot be opened ({one_line(error)})") from error

    def stop(self) -> None:
        """End recording."""
        if self._stream is not None:
            self._stream.close()
