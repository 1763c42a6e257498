"""Descriptions of bodies and answers in the OpenAPI document of the server."""

from __future__ import annotations

from typing import Any

DESCRIPTION = """Predict emotion in speech with trained runs of ser-bench.

Nothing of the audio is stored or logged. Errors are JSON: {"error": {"code": …, "message": …}}.

WebSocket /v1/stream: send one JSON message, {"sample_rate_hz": 16000, "format": "pcm16" or "float32", "model": RUN},
then binary messages with mono samples (little-endian). The server sends JSON messages with the key "type": "ready",
"answer" (every half a second while somebody speaks, and one with "final": true after it), "dropped", "error", "end".
Send {"type": "end"} to get the last answer. A browser cannot send the header Authorization; its first message has the
key "token".
"""

ANSWER_EXAMPLE: dict[str, Any] = {
    "run_id": "8b9797dc0123456789abcdef01234567",
    "model": "cnn_text",
    "name": "clip.wav",
    "label": "happy",
    "status": "answered",
    "reason": "",
    "probabilities": {"angry": 0.1, "happy": 0.7, "neutral": 0.2},
    "calibrated": True,
    "flags": [],
    "duration_s": 2.5,
    "transcript": "it's eleven o'clock",
    "seconds": {"transcript": 0.2, "spectral": 0.006, "embedding": 0.01, "classify": 0.002, "total": 0.218},
}
_DESCRIBED = {
    "run_id": ("string", "id of the run"),
    "model": ("string", "name of the predictor"),
    "name": ("string", "name of the file, or 'audio'"),
    "label": ("string", "the most probable label; empty if there is none"),
    "status": ("string", "answered, abstained or failed"),
    "reason": ("string", "of an abstention or a failure"),
    "probabilities": ("object", "label and probability, in the order of the run's labels"),
    "calibrated": ("boolean", "whether the probabilities were calibrated on validation speakers"),
    "flags": ("array", "why the answer is unsure: objects with 'code' and 'text'"),
    "duration_s": ("number", "length of the clip, seconds"),
    "transcript": (["string", "null"], "the recognised words; null if the predictor uses none"),
    "seconds": ("object", "stage and time, seconds; those of a batch are divided evenly"),
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {name: {"type": kind, "description": text} for name, (kind, text) in _DESCRIBED.items()},
    "required": list(_DESCRIBED),
    "example": ANSWER_EXAMPLE,
}
ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
            "description": "'code' names the kind of error, 'message' is one sentence",
        }
    },
    "example": {"error": {"code": "audio_too_long", "message": "clip.wav: its header states 75.0 s"}},
}
ERRORS: dict[int | str, str] = {
    400: "the body does not fit its content type",
    401: "the token is missing or wrong",
    403: "a page of another site sent the request",
    404: "no loaded run has this name",
    408: "the body did not arrive in time",
    413: "the body or the audio is too large",
    415: "the content type or the format of the audio is not supported",
    422: "the audio cannot be used",
    500: "the predictor failed",
    502: "a language-model service failed",
    503: "the queue is full; Retry-After says when to try again",
    504: "no answer before the deadline",
}
_ERROR_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": ERROR if status == 413 else {}}}}
    for status, text in ERRORS.items()
}


def _json(description: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": description, "content": {"application/json": {"schema": schema}}}}


ANSWERS_OF_PREDICT = _json("the answer", ANSWER) | _ERROR_ANSWERS
ANSWERS_OF_COMPARE = (
    _json(
        "one answer per run, in the order in which they were loaded",
        {"type": "object", "properties": {"answers": {"type": "array", "items": ANSWER, "description": "one per run"}}},
    )
    | _ERROR_ANSWERS
)
ANSWERS_OF_MODELS = _json(
    "id, model, name, labels and the longest clip of each run",
    {"type": "object", "properties": {"models": {"type": "array", "items": {"type": "object"}}}},
)


def body_of(with_model: bool) -> dict[str, Any]:
    """Return the request body of a route that takes a clip, and the parameters of its URL.

    Args:
        with_model: whether the request may choose a run.
    """
    chosen = {"type": "string", "description": "id, first digits of an id, or model of a run"}
    model = {"model": chosen} if with_model else {}
    binary = {"type": "string", "format": "binary"}
    encoded = {"type": "string", "format": "byte", "description": "base64 of the file"}
    name = {"name": {"type": "string", "description": "name in the answer"}}
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"audio": binary | {"description": "the file"}} | model,
                        "required": ["audio"],
                    }
                },
                "application/json": {
                    "schema": {"type": "object", "properties": {"audio": encoded} | model | name, "required": ["audio"]}
                },
                "audio/*": {"schema": binary},
            },
        },
        "parameters": [
            {"name": key, "in": "query", "schema": {"type": "string"}, "description": value["description"]}
            for key, value in (model | name).items()
        ],
    }
