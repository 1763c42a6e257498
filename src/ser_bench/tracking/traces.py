"""Traces of requests to a language model: prompt, answer, tokens and time of a sample of clips.

`mlflow.openai.autolog` reads MLflow's global state. `traced` sets that state for the length of a `with` block and then
restores it. MLflow draws the sample. Everything in a trace is redacted. Logprobs and recordings are left out, because
the alternatives of every token would fill the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ser_bench.config import TrackingConfig
from ser_bench.errors import ConfigError
from ser_bench.redaction import redact_reply, redact_value
from ser_bench.tracking.mlflow_store import client, errors, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import LiveSpan

RUN_OF_A_TRACE = "mlflow.sourceRun"
RATIO = "MLFLOW_TRACE_SAMPLING_RATIO"
LEFT_OUT = {"logprobs", "data", "audio_url"}
"""Fields of an answer, and of a part that holds a recording, which are not stored."""


@contextlib.contextmanager
def traced(cfg: TrackingConfig, run_id: str) -> Iterator[None]:
    """Log a share of the requests made inside the `with` block as traces of this run.

    Args:
        cfg: the store; `trace_share` is the share of requests, 0 (no traces) to 1 (all).
        run_id: the run.

    Raises:
        ConfigError: the share is not within 0 and 1.
        TrackingError: the store cannot be read.
    """
    if not 0.0 <= cfg.trace_share <= 1.0:
        raise ConfigError(f"tracking.trace_share={cfg.trace_share:g}: a share lies between 0 (no traces) and 1 (all)")
    if cfg.trace_share == 0.0:
        yield
        return
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation
    from mlflow.tracking import is_tracking_uri_set

    reset: Callable[[], None] = mlflow.tracing.reset  # MLflow reads the sampling ratio after a reset
    with errors(cfg):
        experiment = client(cfg).get_run(run_id).info.experiment_id
    # `get_tracking_uri` returns a default in the working directory if none is set; it must not become the set one.
    is_uri_set: Callable[[], bool] = is_tracking_uri_set
    uri = mlflow.get_tracking_uri() if is_uri_set() else None
    ratio = os.environ.get(RATIO)
    os.environ[RATIO] = str(cfg.trace_share)
    try:
        mlflow.set_tracking_uri(tracking_uri(cfg))
        reset()
        mlflow.tracing.set_destination(MlflowExperimentLocation(experiment))
        mlflow.openai.autolog(silent=True)
        with mlflow.tracing.configure(span_processors=[clean]), mlflow.tracing.context({RUN_OF_A_TRACE: run_id}):
            yield
    finally:
        mlflow.openai.autolog(disable=True, silent=True)
        mlflow.flush_trace_async_logging()
        if ratio is None:
            del os.environ[RATIO]
        else:
            os.environ[RATIO] = ratio
        reset()
        mlflow.set_tracking_uri(uri)  # type: ignore[arg-type]  # None: none is set, nor MLFLOW_TRACKING_URI


def clean(span: LiveSpan) -> None:
    """Remove secrets, logprobs and recordings from a span before it is stored.

    MLflow stores a span as it is if this function fails, so a span that cannot be cleaned is emptied instead.
    """
    try:
        _clean(span)
    except Exception:
        span.set_inputs(None)
        span.set_outputs(None)
        span._span._attributes, span._span._events = {}, []
        raise
    finally:
        span._attachments.clear()  # MLflow takes recordings out of the prompt and would store them as files


def _clean(span: LiveSpan) -> None:
    span.set_inputs(_cleaned(span.inputs))
    span.set_outputs(_cleaned(span.outputs))
    for name, value in span.attributes.items():
        if name not in ("mlflow.spanInputs", "mlflow.spanOutputs"):
            cleaned = _cleaned(value)
            if cleaned != value:
                span.set_attribute(name, cleaned)
    # The exception of a failed request, whose message is the body of the response, is an event. MLflow has no function
    # that changes an event, a name or the text of a status, so these are replaced in OpenTelemetry's span.
    inner: Any = span._span
    inner._name = redact_reply(inner.name)
    inner._status = type(inner.status)(inner.status.status_code, redact_reply(inner.status.description or "") or None)
    events = list(inner.events)
    inner._events = inner._new_events()
    inner._events.extend([_cleaned_event(event) for event in events])


def _cleaned_event(event: Any) -> Any:
    """Return an event of OpenTelemetry with redacted attributes."""
    return type(event)(event.name, _cleaned(dict(event.attributes or {})), event.timestamp)


def _cleaned(value: Any) -> Any:
    """Return the value as plain JSON types, redacted and without the fields `LEFT_OUT`."""
    return redact_value(_without(json.loads(json.dumps(value, default=str))))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(item) for key, item in value.items() if key not in LEFT_OUT}
    return [_without(item) for item in value] if isinstance(value, list) else value
