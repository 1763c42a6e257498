"""Requests to a language model as MLflow traces: prompt, answer, tokens and time of a sample of clips.

`mlflow.openai.autolog` knows only MLflow's global state, so that is set here for the length of a `with` block, and put
back. The sample is drawn by MLflow. What stands in a trace passes `secrets.redact`; reported logprobs and recordings
are left out, because a thousand alternatives for every token would fill the store.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ser_bench.config import TrackingConfig
from ser_bench.errors import ConfigError
from ser_bench.redaction import redact
from ser_bench.tracking.mlflow_store import client, errors, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import LiveSpan

RUN_OF_A_TRACE = "mlflow.sourceRun"
RATIO = "MLFLOW_TRACE_SAMPLING_RATIO"
LEFT_OUT = {"logprobs", "data"}
"""Fields of an answer and of an `input_audio` part."""


@contextlib.contextmanager
def traced(cfg: TrackingConfig, run_id: str) -> Iterator[None]:
    """Keep a share of the requests made inside as traces of this run; none where `tracking.trace_share` is 0.

    Raises:
        ConfigError: the share is not within 0 and 1.
        TrackingError: the store refuses.
    """
    if not 0.0 <= cfg.trace_share <= 1.0:
        raise ConfigError(f"tracking.trace_share={cfg.trace_share:g}: a share lies between 0 (no traces) and 1 (all)")
    if cfg.trace_share == 0.0:
        yield
        return
    import mlflow
    from mlflow.entities.trace_location import MlflowExperimentLocation

    reset: Callable[[], None] = mlflow.tracing.reset  # so that the ratio is read
    with errors(cfg):
        experiment = client(cfg).get_run(run_id).info.experiment_id
    uri, ratio = mlflow.get_tracking_uri(), os.environ.get(RATIO)
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
        mlflow.set_tracking_uri(uri)


def clean(span: LiveSpan) -> None:
    """Take secrets, logprobs and recordings out of a span before it is stored."""
    span.set_inputs(_cleaned(span.inputs))
    span.set_outputs(_cleaned(span.outputs))
    for name, value in span.attributes.items():
        if name not in ("mlflow.spanInputs", "mlflow.spanOutputs"):
            cleaned = _cleaned(value)
            if cleaned != value:
                span.set_attribute(name, cleaned)


def _cleaned(value: Any) -> Any:
    """The same JSON-able value without what does not belong there."""
    plain = json.loads(json.dumps(value, default=str))
    return json.loads(redact(json.dumps(_without(plain), ensure_ascii=False)))


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without(one) for key, one in value.items() if key not in LEFT_OUT}
    return [_without(one) for one in value] if isinstance(value, list) else value
