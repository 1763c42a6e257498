"""No byte that is written or shown holds an API key, whatever a server sends back."""

from __future__ import annotations

import base64
import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ser_bench import redaction, tracking
from ser_bench.config import LlmConfig, TrackingConfig
from ser_bench.errors import LLMError
from ser_bench.tracking import mlflow_store, run_writer, traces
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

KEY = "Zq7+xW2/vB9=kT4-mN8_pL3.yH6"
"""Looks like no pattern of a known service; some characters change in a URL."""
ERROR_IN_200 = -200
VARIABLE = "OPENAI"
"""A name that does not look like that of a secret."""


def forms(key: str) -> set[str]:
    """The key and its pieces as they are, in a URL, and in base64 at the three positions in a group of bytes."""
    pieces = {key[i : i + 8] for i in range(len(key) - 7)}
    in_base64 = {base64.b64encode(b"0" * i + key.encode()).decode()[4:-4] for i in range(3)}
    return pieces | {quote(key, safe=""), quote(key, safe="").lower()} | in_base64


def assert_no_key_in(raw: bytes, where: object) -> None:
    shown = [form for form in forms(KEY) if form.encode() in raw]
    assert not shown, f"{where} holds {shown}"


def assert_no_key_in_files(folder: Path) -> None:
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        assert_no_key_in(path.read_bytes(), path)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(VARIABLE, KEY)
    yield KEY
    redaction.forget_secrets()


def repeating(key: str) -> str:
    """What a careless server says: the key whole, cut off, in a URL, in base64."""
    in_base64 = [base64.b64encode(b"u:"[:i] + key.encode()).decode() for i in range(3)]
    return f"{key} {key[:12]}... ...{key[-12:]} {quote(key, safe='')} {' '.join(in_base64)} Bearer {key}"


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrackingConfig, str]:
    """A store and the id of an experiment in it."""
    cfg = TrackingConfig(dir=str(tmp_path_factory.mktemp("store") / "mlruns"), experiment="secrets", trace_share=1.0)
    tracking.open_store(cfg)
    return cfg, mlflow_store.experiment_id(cfg, "secrets")


@pytest.mark.parametrize(
    ("status", "key_header"),
    [(200, None), (ERROR_IN_200, None), (401, None), (500, None), (200, "api-key"), (401, "api-key")],
)
def test_a_key_that_a_server_repeats_is_nowhere(
    status: int,
    key_header: str | None,
    key: str,
    where: tuple[TrackingConfig, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cfg, experiment = where
    run_id = mlflow_store.client(cfg).create_run(experiment).info.run_id
    text = repeating(key)
    reply = fake.completion(json.dumps({"emotion": text})) if status == 200 else fake.error(status, text, code=text)
    if status == ERROR_IN_200:
        reply = fake.error(200, text, code=text)
    with fake.serve(lambda body: reply) as server, caplog.at_level(logging.DEBUG):
        llm = LlmConfig(
            name="fake", model="fake", base_url=server.base_url, api_key_env=VARIABLE, max_retries=0,
            key_header=key_header, api_version=None if key_header is None else "2024-10-21",
        )  # fmt: skip
        client = make_client(llm, tmp_path / "cache")
        with tracking.traced(cfg, run_id):
            try:
                shown = " ".join(answer.text for answer in client.ask(questions(3)))
            except LLMError as error:
                shown = str(error)
        header = server.headers[0]
        sent = header["authorization"] if key_header is None else header[key_header]
        assert sent == (f"Bearer {key}" if key_header is None else key), "the test asks with this key"
        assert key_header is None or "authorization" not in header
    found = [
        trace
        for trace in mlflow_store.client(cfg).search_traces(locations=[experiment], max_results=100)
        if trace.info.trace_metadata.get("mlflow.sourceRun") == run_id
    ]
    assert found, "requests that fail are traced as well"
    if status in (401, 500):
        assert "exception.stacktrace" in found[0].to_json()
    assert_no_key_in(shown.encode(), "the message")
    assert_no_key_in("".join(trace.to_json() for trace in found).encode(), "a trace")
    assert_no_key_in_files(Path(cfg.dir))
    assert_no_key_in_files(tmp_path)
    assert_no_key_in("".join(capfd.readouterr()).encode(), "the console")
    assert_no_key_in("\n".join(record.getMessage() for record in caplog.records).encode(), "the log")


def test_a_span_that_cannot_be_cleaned_is_stored_empty(
    key: str, where: tuple[TrackingConfig, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(value: Any) -> Any:
        raise ZeroDivisionError

    cfg, experiment = where
    run_id = mlflow_store.client(cfg).create_run(experiment).info.run_id
    monkeypatch.setattr(traces, "redact_value", fails)
    reply = fake.completion(json.dumps({"emotion": repeating(key)}))
    with fake.serve(lambda body: reply) as server, tracking.traced(cfg, run_id):
        llm = LlmConfig(name="fake", model="fake", base_url=server.base_url, api_key_env=VARIABLE, max_retries=0)
        make_client(llm, tmp_path / "cache").ask(questions(1))
    assert_no_key_in_files(Path(cfg.dir))


def test_everything_that_is_written_to_a_run_is_redacted(
    key: str, where: tuple[TrackingConfig, str], tmp_path: Path
) -> None:
    cfg, experiment = where
    redaction.register_secret(key)
    run_id = mlflow_store.client(cfg).create_run(experiment).info.run_id
    text = json.dumps({"a": key, "b": quote(key, safe="")})
    run_writer.log_tags(cfg, run_id, {"tag": text})
    run_writer.log_text(cfg, run_id, text, "text.json")
    run_writer.describe_run(cfg, run_id, text)
    run_writer.log_written_file(cfg, run_id, "file.json", lambda path: path.write_text(text))
    run_writer.log_written_folder(cfg, run_id, "folder", lambda path: (path / "settings.json").write_text(text))
    run_writer.log_files(cfg, run_id, [])
    assert_no_key_in_files(Path(cfg.dir))
    stored = [path for path in Path(cfg.dir).rglob("*.json") if run_id in str(path)]
    assert {path.name for path in stored} >= {"text.json", "file.json", "settings.json"}
    for path in stored:
        json.loads(path.read_text())


def test_logs_hold_no_key_in_messages_arguments_or_tracebacks(key: str, tmp_path: Path) -> None:
    redaction.register_secret(key)
    logger, handler = logging.getLogger("a.library"), logging.FileHandler(tmp_path / "run.log")
    logger.addHandler(handler)
    try:
        logger.warning("message %s", key)
        logger.warning("pieces %(a)s", {"a": key[:9]})
        try:
            try:
                raise ValueError(key)
            except ValueError as error:
                raise LLMError("later") from error
        except LLMError:
            logger.exception("failed with %d", 3)
    finally:
        logger.removeHandler(handler)
        handler.close()
    text = (tmp_path / "run.log").read_text()
    assert_no_key_in(text.encode(), "the log")
    assert "message ***" in text and "failed with 3" in text and "ValueError: ***" in text


def test_an_error_and_its_causes_lose_the_key(key: str) -> None:
    redaction.register_secret(key)
    try:
        try:
            raise KeyError(key, 3)
        except KeyError as error:
            error.add_note(f"sent {key}")
            raise RuntimeError(f"because of {key}") from error
    except RuntimeError as error:
        redaction.redact_error(error)
        shown = "".join(traceback.format_exception(error))
    assert_no_key_in(shown.encode(), "the traceback")
    assert "RuntimeError: because of ***" in shown and "KeyError: ('***', 3)" in shown
