"""The WebSocket of a stream: samples in, an answer about the last seconds every half a second out."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from ser_bench.errors import BadClipError, SerBenchError
from ser_bench.inference import input_checks, speech_gate
from ser_bench.inference.recording import Recording
from ser_bench.serving.limits import MAX_RATE_HZ, MIN_RATE_HZ, RequestRefusedError
from ser_bench.serving.prediction_service import PredictionService, ServedPredictor, answer_record
from ser_bench.serving.request_guard import INTERNAL_ERROR, POLICY_VIOLATION, TRY_AGAIN_LATER, TokenCheck
from ser_bench.types import FloatArray

log = logging.getLogger(__name__)

WINDOW_S = 3.0
"""An answer is about the last seconds, at most so many."""
HOP_S = 0.5
"""An answer follows each time when so many seconds of audio have arrived."""
FORMATS: dict[str, np.dtype[Any]] = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4")}
MAX_MESSAGE_BYTES = 1 << 20
START_S = 5.0
"""Longest time in which the first message must arrive, seconds; it does not count as a stream yet."""


class StreamWindow:
    """The last seconds of a stream; older samples are forgotten. Not thread-safe.

    Samples that leave the window before an answer was about them are dropped, and counted: the client sends faster than
    the predictor answers.

    Args:
        sample_rate_hz: of the stream.
        window_s: length of the window, seconds.
        hop_s: time between answers, seconds of audio.
    """

    def __init__(self, sample_rate_hz: int, window_s: float = WINDOW_S, hop_s: float = HOP_S) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._size = round(window_s * sample_rate_hz)
        self._hop = round(hop_s * sample_rate_hz)
        self._chunks: deque[FloatArray] = deque()
        self._held = 0
        self._count = 0
        self._answered = 0
        self._dropped = 0

    @property
    def received_s(self) -> float:
        """Length of all that was fed, seconds."""
        return self._count / self.sample_rate_hz

    @property
    def due(self) -> bool:
        """Whether the next answer is due: `hop_s` of audio have arrived since the last one."""
        return self._count - self._answered >= self._hop

    @property
    def new(self) -> bool:
        """Whether samples have arrived since the last answer."""
        return self._count > self._answered

    def feed(self, samples: FloatArray) -> None:
        """Add samples [T], mono, full scale ±1."""
        samples = samples[-self._size :] if len(samples) > self._size else samples
        self._chunks.append(samples)
        self._held += len(samples)
        while self._held - len(self._chunks[0]) >= self._size:
            self._held -= len(self._chunks.popleft())

    def count(self, samples: int) -> None:
        """Count received samples, of which `feed` may have kept a part."""
        self._count += samples

    def take(self) -> tuple[FloatArray, float, float]:
        """Return the window [T], its start in the stream, seconds, and the seconds that were dropped before it."""
        window = np.concatenate(self._chunks)[-self._size :]
        start = self._count - len(window)
        dropped = max(0, start - self._answered)
        self._answered = self._count
        self._dropped += dropped
        return window, start / self.sample_rate_hz, dropped / self.sample_rate_hz


async def serve_stream(socket: WebSocket, service: PredictionService, token: TokenCheck | None) -> None:
    """Answer one WebSocket until the client ends it, is silent for too long, or sends what cannot be read."""
    await socket.accept()
    try:
        await _Stream(socket, service, token).serve()
    except RequestRefusedError as error:
        service.metrics.errors.labels(error.code).inc()
        code = TRY_AGAIN_LATER if error.status == 503 else INTERNAL_ERROR if error.status >= 500 else POLICY_VIOLATION
        await _end(socket, {"type": "error", **error.as_dict()}, code, error.code)
    except WebSocketDisconnect:
        pass


async def _end(socket: WebSocket, last: dict[str, Any], code: int, reason: str) -> None:
    """Send the last message and close; the client may have gone."""
    try:
        await socket.send_json(last)
        await socket.close(code, reason)
    except (WebSocketDisconnect, RuntimeError):
        pass


class _Stream:
    """One stream. Its messages are received in one task and answered in another, so that neither waits long."""

    def __init__(self, socket: WebSocket, service: PredictionService, token: TokenCheck | None) -> None:
        self._socket = socket
        self._service = service
        self._token = token
        self._arrived = asyncio.Event()
        self._format, self._window = FORMATS["pcm16"], StreamWindow(MIN_RATE_HZ)
        self._ended = False
        self._rest = b""

    async def serve(self) -> None:
        """Receive the first message, then samples.

        Raises:
            RequestRefusedError: a message cannot be used, or nothing can be predicted.
            WebSocketDisconnect: the client has gone.
        """
        run = await self._start()
        service = self._service
        if service.open_streams >= service.limits.streams:
            raise RequestRefusedError(503, "streams", f"{service.limits.streams} streams are open; try again", 1)
        service.open_streams += 1
        try:
            await self._run(run)
        finally:
            service.open_streams -= 1

    async def _run(self, run: ServedPredictor) -> None:
        await self._socket.send_json(
            {
                "type": "ready",
                "run_id": run.run_id,
                "model": run.model,
                "labels": list(run.labels),
                "window_s": WINDOW_S,
                "hop_s": HOP_S,
            }
        )
        answering = asyncio.create_task(self._answer(run))
        receiving = asyncio.create_task(self._receive())
        try:
            done, _ = await asyncio.wait([answering, receiving], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            answering.cancel()
            receiving.cancel()
            await asyncio.gather(answering, receiving, return_exceptions=True)
        await _end(self._socket, {"type": "end", "received_s": round(self._window.received_s, 3)}, 1000, "end")

    async def _start(self) -> ServedPredictor:
        message = await self._message(min(START_S, self._service.limits.stream_idle_s))
        if not isinstance(message, dict):
            raise RequestRefusedError(400, "start", 'the first message is JSON: {"sample_rate_hz": 16000}')
        headers = self._socket.headers
        if self._token and not (
            self._token.accepts_headers(headers) or self._token.accepts(str(message.get("token", "")))
        ):
            raise RequestRefusedError(401, "token", 'the first message needs the token: {"token": …}')
        rate, form, model = (message.get(key) for key in ("sample_rate_hz", "format", "model"))
        if type(rate) is not int or not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise RequestRefusedError(400, "start", f"'sample_rate_hz' is a number from {MIN_RATE_HZ} to {MAX_RATE_HZ}")
        form = "pcm16" if form is None else form
        if not isinstance(form, str) or form not in FORMATS:
            raise RequestRefusedError(400, "start", f"'format' is {' or '.join(FORMATS)}")
        run = self._service.run_of(str(model or ""))
        self._format = FORMATS[form]
        self._window = StreamWindow(rate)
        return run

    async def _message(self, timeout_s: float) -> Any:
        """Return the next message: bytes, or the value of a JSON text."""
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._socket.receive()
        except TimeoutError:
            raise RequestRefusedError(408, "stream_idle", f"no message within {timeout_s:g} s") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        if message.get("bytes") is not None:
            return message["bytes"]
        try:
            return json.loads(message["text"])
        except (ValueError, RecursionError):
            raise RequestRefusedError(400, "json", "a text message is not JSON") from None

    async def _receive(self) -> None:
        while True:
            message = await self._message(self._service.limits.stream_idle_s)
            if isinstance(message, bytes):
                self._feed(message)
            elif isinstance(message, dict) and message.get("type") == "end":
                self._ended = True
            else:
                raise RequestRefusedError(400, "message", 'send samples in binary messages, and {"type": "end"}')
            self._arrived.set()
            if self._ended:
                return

    def _feed(self, message: bytes) -> None:
        content = self._rest + message
        whole = len(content) - len(content) % self._format.itemsize
        self._rest = content[whole:]
        values = np.frombuffer(content[:whole], self._format)
        samples: FloatArray = (values / 32768 if self._format.kind == "i" else values).astype(np.float32)
        if not np.isfinite(samples).all():
            raise RequestRefusedError(422, "audio", "samples are not numbers (NaN or infinite)")
        if len(samples):
            self._window.feed(samples)
            self._window.count(len(samples))

    async def _answer(self, run: ServedPredictor) -> None:
        while not self._ended or self._window.new:
            if not (self._window.due or (self._ended and self._window.new)):
                await self._arrived.wait()
                self._arrived.clear()
                continue
            window, start_s, dropped_s = self._window.take()
            times = {"start_s": round(start_s, 3), "end_s": round(self._window.received_s, 3)}
            if dropped_s:
                self._service.metrics.dropped.inc(dropped_s)
                dropped = {"type": "dropped", "seconds": round(dropped_s, 3), "before_s": times["start_s"]}
                await self._socket.send_json(dropped)
            began_s = time.perf_counter()
            speech, recording = await asyncio.get_running_loop().run_in_executor(
                None, _checked, window, self._window.sample_rate_hz
            )
            record: dict[str, Any] = {"label": ""}
            if speech is not False:
                (answer,) = await self._service.predicted([run], recording)
                record = answer_record(run, answer)
            facts = {"speech": speech, "latency_s": round(time.perf_counter() - began_s, 4)}
            await self._socket.send_json({"type": "answer", **times, **facts, **record})


def _checked(window: FloatArray, sample_rate_hz: int) -> tuple[bool | None, Recording]:
    """Return whether there is speech in a window (None if no gate is installed), and the window as a recording."""
    try:
        recording = Recording.from_samples(window, sample_rate_hz, "stream")
        if speech_gate.reason_unavailable():
            return None, recording
        probabilities = speech_gate.speech_probabilities(input_checks.at_gate_rate(window, sample_rate_hz))
    except BadClipError as error:
        raise RequestRefusedError(422, "audio", str(error)) from None
    except SerBenchError as error:
        log.error("%s", error)
        raise RequestRefusedError(500, "predictor", "the server cannot check for speech; its log says why") from None
    speech_s = float((probabilities >= speech_gate.THRESHOLD).sum()) * speech_gate.FRAME_S
    return speech_s >= input_checks.NO_SPEECH_S, recording
