"""The loaded runs of a server, and the way of a request from its bytes to an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from starlette.requests import Request

from ser_bench.errors import ConfigError, LLMError, SerBenchError
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import predict_with_each
from ser_bench.inference.recording import Recording
from ser_bench.serving import server_metrics as stages
from ser_bench.serving.batching import Batcher
from ser_bench.serving.limits import Limits, MemoryBudget, RequestRefusedError, Reservation, read_body
from ser_bench.serving.server_metrics import ServerMetrics
from ser_bench.serving.uploads import decode_upload, parse_upload

DECODERS = 2
"""Threads that parse bodies and decode audio; a larger number would only hold more memory at the same time."""
SHOWN_ID = 8
"""Digits of a run's id in messages."""


class ServedPredictor(Protocol):
    """What the server needs of `AudioPredictor`."""

    name: str
    run_id: str
    labels: tuple[str, ...]

    @property
    def model(self) -> str:
        """Name that chose the predictor."""

    @property
    def max_duration_s(self) -> float:
        """Longest recording, seconds."""

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        """Return one answer per recording."""


PredictWithEach = Callable[[Sequence[Any], Sequence[Recording]], list[list[Answer]]]


class PredictionService:
    """The loaded runs, with the queue before them. `close` must be called at the end.

    Args:
        predictors: at least one; the first answers where a request names none.
        limits: of the server.
        predict_with_each: gives the answers of several predictors; another one is used in tests.

    Raises:
        ConfigError: no run is given, or one twice.
    """

    def __init__(
        self,
        predictors: Sequence[ServedPredictor],
        limits: Limits,
        predict_with_each: PredictWithEach = predict_with_each,
    ) -> None:
        self.runs = {predictor.run_id: predictor for predictor in predictors}
        if not predictors or len(self.runs) < len(predictors):
            raise ConfigError("the server needs runs to serve, each of them once")
        self.limits = limits
        self.metrics = ServerMetrics()
        self.memory = MemoryBudget(limits.memory_bytes)
        self.open_streams = 0
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")
        self.batcher = Batcher(
            lambda names, recordings: predict_with_each([self.runs[name] for name in names], recordings),
            limits,
            self.metrics.count_batch,
        )
        self.metrics.queue.set_function(lambda: self.batcher.waiting)
        self.metrics.in_progress.set_function(lambda: self.batcher.admitted)
        self.metrics.memory.set_function(lambda: self.memory.used)
        self.metrics.streams.set_function(lambda: self.open_streams)

    def run_of(self, word: str) -> ServedPredictor:
        """Return the run that a request names: by id, first digits of an id, or model; the first run for "".

        Raises:
            RequestRefusedError: 404 there is none, or several.
        """
        runs = list(self.runs.values())
        if not word:
            return runs[0]
        found = [run for run in runs if word in (run.run_id, run.model)]
        found = found or [run for run in runs if run.run_id.startswith(word)]
        if len(found) != 1:
            known = ", ".join(f"{run.run_id[:SHOWN_ID]} ({run.model})" for run in runs)
            raise RequestRefusedError(404, "model", f"'model' names {len(found)} of the loaded runs: {known}")
        return found[0]

    def max_duration_s(self, runs: Sequence[ServedPredictor]) -> float:
        """Return the longest clip that all of these runs take, seconds."""
        return self.limits.duration_s or min(run.max_duration_s for run in runs)

    async def answers(self, request: Request, every_run: bool) -> list[tuple[ServedPredictor, Answer]]:
        """Return the answer of the named run, or of every run, to the clip in a request.

        Raises:
            RequestRefusedError: the request cannot be answered; the status says why.
        """
        self.batcher.refuse_if_full()
        with self.memory.reserved() as held:
            started_s = time.perf_counter()
            stated = request.headers.get("content-length", "")
            length = int(stated) if stated.isascii() and stated.isdigit() else None
            body = await read_body(request.receive, self.limits, held, length)
            self.metrics.stages.labels(stages.READ).observe(time.perf_counter() - started_s)
            with self.batcher.place():
                try:
                    async with asyncio.timeout(self.limits.deadline_s):
                        return await self._answers(request, body, held, every_run)
                except TimeoutError:
                    raise RequestRefusedError(
                        504,
                        "deadline",
                        f"no answer within {self.limits.deadline_s:g} s; try again",
                        self.batcher.retry_after_s(),
                    ) from None

    async def _answers(
        self, request: Request, body: bytes, held: Reservation, every_run: bool
    ) -> list[tuple[ServedPredictor, Answer]]:
        content_type, query = request.headers.get("content-type", ""), dict(request.query_params)

        def prepare() -> tuple[list[ServedPredictor], Recording]:
            started_s = time.perf_counter()
            upload = parse_upload(body, content_type, query)
            runs = list(self.runs.values()) if every_run else [self.run_of(upload.model)]
            recording = decode_upload(upload, self.max_duration_s(runs), held)
            self.metrics.stages.labels(stages.DECODE).observe(time.perf_counter() - started_s)
            return runs, recording

        runs, recording = await asyncio.get_running_loop().run_in_executor(self._decoders, prepare)
        answers = await self.predicted(runs, recording, request.receive)
        return list(zip(runs, answers, strict=True))

    async def predicted(
        self, runs: Sequence[ServedPredictor], recording: Recording, receive: Callable[[], Any] | None = None
    ) -> list[Answer]:
        """Queue a recording and wait for the answers of these runs; a client that has gone is not waited for.

        Raises:
            RequestRefusedError: 499 the client has gone; 502 a service failed; 500 a predictor failed; 503 the server
                stops.
        """
        answers = asyncio.wrap_future(self.batcher.submit([run.run_id for run in runs], recording))
        gone = asyncio.ensure_future(receive()) if receive else None
        try:
            await asyncio.wait([answers, gone] if gone else [answers], return_when=asyncio.FIRST_COMPLETED)
            if not answers.done():
                raise RequestRefusedError(499, "client_gone", "the client closed the connection")
            result = answers.result()
        except (RequestRefusedError, asyncio.CancelledError):
            raise
        except Exception as error:
            raise refusal_of(error) from None
        finally:
            answers.cancel()
            if gone:
                gone.cancel()
        for run, answer in zip(runs, result, strict=True):
            self.metrics.count_answer(run.model, answer)
        return result

    def close(self) -> None:
        """Predict what is in the queue, and end all threads."""
        self.batcher.close(self.limits.deadline_s)
        self._decoders.shutdown(wait=False, cancel_futures=True)


def refusal_of(error: BaseException) -> RequestRefusedError:
    """Return what a client is sent when a prediction failed. The error may name files, so its text is only logged."""
    if isinstance(error, RequestRefusedError):
        return error
    if isinstance(error, LLMError):
        return RequestRefusedError(502, "service", "a language-model service failed; the log says why")
    if isinstance(error, SerBenchError):
        return RequestRefusedError(500, "predictor", "the predictor cannot answer; the log says why")
    return RequestRefusedError(500, "internal", "the predictor failed; the log says why")


def answer_record(run: ServedPredictor, answer: Answer) -> dict[str, Any]:
    """Return what a client is sent: run and model, and the answer as it is everywhere."""
    return {"run_id": run.run_id, "model": run.model, **answer.as_dict()}
