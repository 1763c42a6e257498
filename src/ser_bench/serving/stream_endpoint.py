"""The WebSocket of a stream: samples in, answers about the speech in them every half a second out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from ser_bench.inference.answer import Answer
from ser_bench.inference.live import HOP_S, WINDOW_S, LiveSession
from ser_bench.inference.recording import Recording
from ser_bench.serving.limits import MAX_RATE_HZ, MIN_RATE_HZ, RequestRefusedError
from ser_bench.serving.prediction_service import PredictionService, ServedPredictor, refusal_of
from ser_bench.serving.request_guard import INTERNAL_ERROR, POLICY_VIOLATION, TRY_AGAIN_LATER, TokenCheck
from ser_bench.types import FloatArray

log = logging.getLogger(__name__)

FORMATS: dict[str, np.dtype[Any]] = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4")}
MAX_MESSAGE_BYTES = 1 << 20
START_S = 5.0
"""Longest time in which the first message must arrive, seconds; it does not count as a stream yet."""
MAX_UNREAD = 64
"""Messages that a client may leave unread before its stream is ended."""
REPORTED_DROP_S = 0.5
"""Dropped audio is reported when so much of it has come together, and with the next answer."""


class _QueuedPredictor:
    """Puts the recordings of a stream into the queue of the server; used by the thread of one stream."""

    def __init__(self, service: PredictionService, run: ServedPredictor) -> None:
        self._service = service
        self._run = run
        self.stopped = False

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        """Return one answer per recording.

        Raises:
            RequestRefusedError: the stream or the server has ended.
        """
        if self.stopped:
            raise RequestRefusedError(499, "client_gone", "the stream has ended")
        queued = [self._service.batcher.submit([self._run.run_id], recording) for recording in recordings]
        answers = [future.result()[0] for future in queued]
        for answer in answers:
            self._service.metrics.count_answer(self._run.model, answer)
        return answers


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
    """One stream: a task receives samples, a thread predicts, and a task sends what the thread has found."""

    def __init__(self, socket: WebSocket, service: PredictionService, token: TokenCheck | None) -> None:
        self._socket = socket
        self._service = service
        self._token = token
        self._format = FORMATS["pcm16"]
        self._rest = b""
        self._found: asyncio.Queue[dict[str, Any] | BaseException | None] = asyncio.Queue()
        self._reported_s = 0.0

    async def serve(self) -> None:
        """Receive the first message, then samples.

        Raises:
            RequestRefusedError: a message cannot be used, or nothing can be predicted.
            WebSocketDisconnect: the client has gone.
        """
        run, rate_hz = await self._start()
        service = self._service
        if service.open_streams >= service.limits.streams:
            raise RequestRefusedError(503, "streams", f"{service.limits.streams} streams are open; try again", 1)
        service.open_streams += 1
        try:
            await self._run(run, rate_hz)
        finally:
            service.open_streams -= 1

    async def _start(self) -> tuple[ServedPredictor, int]:
        """Receive the first message, and return the run and the sampling rate that it names."""
        message = await self._message(min(START_S, self._service.limits.stream_idle_s))
        if not isinstance(message, dict):
            raise RequestRefusedError(400, "start", 'the first message is JSON: {"sample_rate_hz": 16000}')
        if self._token and not (
            self._token.accepts_headers(self._socket.headers) or self._token.accepts(str(message.get("token", "")))
        ):
            raise RequestRefusedError(401, "token", 'the first message needs the token: {"token": …}')
        rate, form, model = (message.get(key) for key in ("sample_rate_hz", "format", "model"))
        if type(rate) is not int or not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
            raise RequestRefusedError(400, "start", f"'sample_rate_hz' is a number from {MIN_RATE_HZ} to {MAX_RATE_HZ}")
        form = "pcm16" if form is None else form
        if not isinstance(form, str) or form not in FORMATS:
            raise RequestRefusedError(400, "start", f"'format' is {' or '.join(FORMATS)}")
        self._format = FORMATS[form]
        return self._service.run_of(str(model or "")), rate

    async def _run(self, run: ServedPredictor, rate_hz: int) -> None:
        predictor = _QueuedPredictor(self._service, run)
        try:
            session = await asyncio.get_running_loop().run_in_executor(None, LiveSession, predictor, rate_hz)
        except Exception as error:
            log.error("%s", error)
            raise refusal_of(error) from None
        named = {"run_id": run.run_id, "model": run.model}
        times = {"window_s": WINDOW_S, "hop_s": HOP_S, "speech_gate": session.has_gate}
        await self._socket.send_json({"type": "ready", **named, "labels": list(run.labels), **times})
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._predict, args=(session, named, loop), name="stream", daemon=True).start()
        receiving = asyncio.create_task(self._receive(session))
        sending = asyncio.create_task(self._send(session))
        try:
            done, _ = await asyncio.wait([receiving, sending], return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            predictor.stopped = True
            session.close()
            receiving.cancel()
            sending.cancel()
            await asyncio.gather(receiving, sending, return_exceptions=True)
        facts = {"received_s": round(session.received_s, 3), "dropped_s": round(session.dropped_s, 3)}
        await _end(self._socket, {"type": "end", **facts, "skipped": session.skipped}, 1000, "end")

    def _predict(self, session: LiveSession, named: dict[str, str], loop: asyncio.AbstractEventLoop) -> None:
        """Find the answers, in a thread of its own; None comes after the last one."""
        last: BaseException | None = None
        try:
            for live in session.answers():
                loop.call_soon_threadsafe(self._found.put_nowait, {"type": "answer", **named, **live.as_dict()})
        except Exception as error:
            last = error
        with contextlib.suppress(RuntimeError):  # the server has ended
            loop.call_soon_threadsafe(self._found.put_nowait, last)

    async def _send(self, session: LiveSession) -> None:
        while True:
            found = await self._found.get()
            if isinstance(found, BaseException):
                raise refusal_of(found)
            await self._report_dropped(session, 0.0)
            if found is None:
                return
            await self._socket.send_json(found)

    async def _receive(self, session: LiveSession) -> None:
        while True:
            message = await self._message(self._service.limits.stream_idle_s)
            if isinstance(message, bytes):
                session.feed(self._samples(message))
                await self._report_dropped(session, REPORTED_DROP_S)
            elif isinstance(message, dict) and message.get("type") == "end":
                session.close()
                return
            else:
                raise RequestRefusedError(400, "message", 'send samples in binary messages, and {"type": "end"}')
            if self._found.qsize() > MAX_UNREAD:
                raise RequestRefusedError(408, "unread", "the client does not read the answers")

    async def _report_dropped(self, session: LiveSession, least_s: float) -> None:
        new_s = session.dropped_s - self._reported_s
        if new_s > least_s:
            self._reported_s += new_s
            self._service.metrics.dropped.inc(new_s)
            total_s = round(self._reported_s, 3)
            await self._socket.send_json({"type": "dropped", "seconds": round(new_s, 3), "total_s": total_s})

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

    def _samples(self, message: bytes) -> FloatArray:
        """Return the whole samples of a message; the bytes of one that is cut are kept for the next message."""
        content = self._rest + message
        whole = len(content) - len(content) % self._format.itemsize
        self._rest = content[whole:]
        values = np.frombuffer(content[:whole], self._format)
        samples: FloatArray = (values / 32768 if self._format.kind == "i" else values).astype(np.float32)
        if not np.isfinite(samples).all():
            raise RequestRefusedError(422, "audio", "samples are not numbers (NaN or infinite)")
        return samples
