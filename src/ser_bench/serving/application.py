"""The FastAPI application: its routes, and their documentation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ser_bench import __version__
from ser_bench.inference.answer import FAILED
from ser_bench.serving import route_schemas as schemas
from ser_bench.serving.api_page import CONTENT_SECURITY_POLICY, reference_html
from ser_bench.serving.limits import RequestRefusedError
from ser_bench.serving.prediction_service import PredictionService, answer_record
from ser_bench.serving.request_guard import INTERNAL, App, RequestGuard, TokenCheck, send_error
from ser_bench.serving.stream_endpoint import serve_stream


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: the secret that requests must carry; None: none is needed.
        hosts: names that the header Host may have; () for any.
        origins: origins of other sites whose pages may ask (CORS).
    """

    token: TokenCheck | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def make_application(service: PredictionService, access: Access = Access()) -> App:
    """Return the application (ASGI) that serves the runs of `service`, and closes it at the end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.close)

    app = FastAPI(
        title="ser-bench",
        version=__version__,
        description=schemas.DESCRIPTION,
        docs_url=None,  # FastAPI's own pages load scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    _add_errors(app, service)
    _add_predictions(app, service, access)
    _add_information(app, service)
    paths = tuple(str(getattr(route, "path", "")) for route in app.routes)
    inner: App = app
    if access.origins:
        inner = CORSMiddleware(
            app,
            allow_origins=access.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return RequestGuard(inner, service.metrics, paths, access.token, access.hosts, access.origins)


def _add_errors(app: FastAPI, service: PredictionService) -> None:
    async def refused(request: Request, error: RequestRefusedError) -> Response:
        service.metrics.errors.labels(error.code).inc()
        return _ErrorResponse(error)

    async def by_status(request: Request, error: HTTPException) -> Response:
        code = {404: "path", 405: "method"}.get(error.status_code, "request")
        return await refused(request, RequestRefusedError(error.status_code, code, str(error.detail)))

    async def failed(request: Request, error: Exception) -> Response:
        return _ErrorResponse(INTERNAL)  # Starlette raises it again, and `RequestGuard` logs and counts it

    app.add_exception_handler(Exception, failed)
    app.add_exception_handler(RequestRefusedError, refused)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, by_status)  # type: ignore[arg-type]


class _ErrorResponse(Response):
    """An error as JSON."""

    def __init__(self, error: RequestRefusedError) -> None:
        super().__init__(status_code=error.status)
        self._error = error

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send_error(send, self._error)


def _add_predictions(app: FastAPI, service: PredictionService, access: Access) -> None:
    @app.post(
        "/v1/predict",
        summary="Predict the emotion of one clip",
        response_model=None,
        responses=schemas.ANSWERS_OF_PREDICT,
        openapi_extra=schemas.body_of(with_model=True),
    )
    async def predict(request: Request) -> Response:
        """The run that `model` names answers; without it the first run that was loaded."""
        ((run, answer),) = await service.answers(request, every_run=False)
        if answer.status == FAILED:
            raise RequestRefusedError(422, "unusable", answer.reason)
        return JSONResponse(answer_record(run, answer))

    @app.post(
        "/v1/compare",
        summary="Ask every loaded run about one clip",
        response_model=None,
        responses=schemas.ANSWERS_OF_COMPARE,
        openapi_extra=schemas.body_of(with_model=False),
    )
    async def compare(request: Request) -> Response:
        """Features that several runs need are computed once. An answer may have the status "failed"."""
        found = await service.answers(request, every_run=True)
        return JSONResponse({"answers": [answer_record(run, answer) for run, answer in found]})

    @app.websocket("/v1/stream")
    async def stream(socket: WebSocket) -> None:
        await serve_stream(socket, service, access.token)


def _add_information(app: FastAPI, service: PredictionService) -> None:
    @app.get("/v1/models", summary="List the loaded runs", response_model=None, responses=schemas.ANSWERS_OF_MODELS)
    async def models() -> Response:
        return JSONResponse(
            {
                "models": [
                    {
                        "run_id": run.run_id,
                        "model": run.model,
                        "name": run.name,
                        "labels": list(run.labels),
                        "max_duration_s": service.max_duration_s([run]),
                    }
                    for run in service.runs.values()
                ]
            }
        )

    @app.get("/health", summary="Say whether the server answers requests", response_model=None)
    async def health() -> Response:
        """The status is 200 if it does, and 503 if it stops or its predictor has ended."""
        status = "ready" if service.batcher.alive else "not ready"
        return JSONResponse({"status": status, "version": __version__}, 200 if service.batcher.alive else 503)

    @app.get("/health/live", summary="Say that the process runs", response_model=None)
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @app.get("/metrics", summary="Metrics in the text format of Prometheus", response_model=None)
    async def metrics() -> Response:
        content, media_type = service.metrics.exposition()
        return Response(content, headers={"content-type": media_type})

    @app.get("/docs", include_in_schema=False, response_model=None)
    async def docs() -> Response:
        page = reference_html(app.openapi())
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_SECURITY_POLICY})

    @app.get("/", include_in_schema=False, response_model=None)
    async def root() -> Response:
        return RedirectResponse("docs")
