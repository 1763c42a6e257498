"""The settings of `conf/llm/` for several services: what is sent, and what an answer becomes."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import config, redaction
from ser_bench.config import AnswerFormat, AudioForm, LlmApi, LlmConfig
from ser_bench.errors import ConfigError, LLMError
from ser_bench.predictors.llm import endpoint, llm_predictions, request_body, responses_api
from ser_bench.predictors.llm.parsing.completion import ErrorReply, read_body
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.prompting.question import AudioPart, Question
from tests.support import fake_openai as fake
from tests.support import fake_providers as providers
from tests.support.llm_clients import make_client, question, questions

KEY = "a-key-of-the-tests-1234"
CHAT, LOGPROBS = "/v1/chat/completions", {"logprobs", "top_logprobs"}
COMMON = {"model", "messages"}
# llm= → (the service, the path, the keys beside `COMMON` that are sent, are there probabilities)
SETTINGS = {
    "openai_reasoning": (
        providers.reasoning, CHAT, {"response_format", "max_completion_tokens", "seed", "reasoning_effort"}, False,
    ),
    "responses": (
        providers.responses, "/v1/responses",
        {"input", "store", "text", "max_output_tokens", "temperature", "include", "top_logprobs"} - {"messages"}, True,
    ),
    "vllm": (providers.vllm, CHAT, {"response_format", "max_tokens", "temperature", "seed"} | LOGPROBS, True),
    "ollama": (providers.ollama, CHAT, {"response_format", "max_tokens", "temperature", "seed"} | LOGPROBS, False),
    "lmstudio": (providers.lmstudio, CHAT, {"response_format", "max_tokens", "temperature", "seed"}, False),
    "azure": (
        providers.azure, "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        {"response_format", "max_tokens", "temperature", "seed"} | LOGPROBS, True,
    ),
    "gemini": (
        providers.gemini, CHAT, {"response_format", "max_tokens", "temperature", "reasoning_effort"}, False,
    ),
    "anthropic": (providers.anthropic, CHAT, {"max_tokens", "temperature"}, False),
}  # fmt: skip


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "GEMINI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    yield
    redaction.forget_secrets()


def setting(name: str, server: fake.FakeOpenAI, *words: str) -> LlmConfig:
    """Return `llm=NAME` at the address of a server."""
    url = server.base_url.removesuffix("/v1") + "/openai/deployments/mine" if name == "azure" else server.base_url
    cfg = config.compose(["model=llm", f"llm={name}", f"llm.base_url={url}", *words]).llm
    return replace(cfg, max_retries=0, timeout_s=9.0)


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_sends_what_its_service_refuses(name: str, tmp_path: Path) -> None:
    reply, path, sent, has_probabilities = SETTINGS[name]
    with fake.serve(reply) as server:
        cfg = setting(name, server)
        client = make_client(cfg, tmp_path)
        answers = client.ask(questions(3))
        assert make_client(cfg, tmp_path).ask(questions(3)) == answers
    assert [a.label for a in answers] == ["sad"] * 3 and len(server.asked) == 3, "no request was refused or repeated"
    assert set(server.paths) == {path}
    assert set(server.asked[0]) - COMMON == sent
    assert {bool(a.probabilities) for a in answers} == {has_probabilities}
    assert not llm_predictions.changes_in_words(answers, cfg)
    header = server.headers[0]
    if name == "azure":
        assert header["api-key"] == KEY and "authorization" not in header
    else:
        asks_with = KEY if cfg.api_key_env else "no-key-needed"
        assert header["authorization"] == f"Bearer {asks_with}" and "api-key" not in header


@pytest.mark.parametrize(
    ("reply", "changes"),
    [
        (
            providers.reasoning,
            ["max_tokens sent as max_completion_tokens", "temperature left out", "logprobs left out"],
        ),
        (providers.gemini, ["seed left out", "logprobs left out"]),
    ],
)
def test_what_a_service_refuses_is_found_without_a_setting_and_stated(
    reply: Any, changes: list[str], tmp_path: Path
) -> None:
    with fake.serve(reply) as server:
        cfg = setting("gpt4o", server, "llm.thinking_tokens=200")
        answers = make_client(cfg, tmp_path).ask(questions(3))
        assert [a.label for a in answers] == ["sad"] * 3 and len(server.asked) == 3 + len(changes)
        assert llm_predictions.changes_in_words(answers, cfg) == changes


def test_lm_studio_has_no_json_mode(tmp_path: Path) -> None:
    with fake.serve(providers.lmstudio) as server:
        cfg = setting("lmstudio", server)
        with pytest.raises(LLMError, match="must be 'json_schema' or 'text'"):
            make_client(replace(cfg, answer_format=AnswerFormat.json), tmp_path).ask(questions(1))


def test_ollama_needs_the_tag_of_a_model(tmp_path: Path) -> None:
    with fake.serve(providers.ollama) as server, pytest.raises(LLMError, match=r"try pulling it first.*llm\.model"):
        make_client(setting("ollama", server, "llm.model=qwen2.5"), tmp_path).ask(questions(1))


def test_more_logprobs_than_vllm_allows_stop_the_run(tmp_path: Path) -> None:
    with fake.serve(providers.vllm) as server, pytest.raises(LLMError, match="greater than max allowed"):
        make_client(setting("vllm", server, "llm.top_logprobs=1000"), tmp_path).ask(questions(1))


def test_thinking_in_its_own_field_that_left_no_answer_is_counted_as_thinking(tmp_path: Path) -> None:
    reply = fake.completion(None, finish="length")
    reply.body["choices"][0]["message"]["reasoning_content"] = "The pitch is high, so"
    with fake.serve(lambda body: reply) as server:
        client = make_client(setting("vllm", server), tmp_path)
        assert client.ask(questions(1))[0].reason == "thinking" and client.counts.reasons == {"thinking": 1}


@pytest.mark.parametrize(("name", "extra"), [("openai_reasoning", ()), ("responses", ("llm.reasoning_effort=low",))])
def test_answers_whose_budget_was_spent_on_thinking_are_counted_named_and_paid(
    name: str, extra: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with fake.serve(SETTINGS[name][0]) as server:
        cfg = setting(name, server, "llm.thinking_tokens=34", *extra)
        client = make_client(cfg, tmp_path)
        answers = client.ask(questions(2))
    assert [(a.label, a.reason) for a in answers] == [("", "thinking")] * 2
    assert client.counts.reasons == {"thinking": 2}
    assert [(a.tokens_out, a.tokens_thinking) for a in answers] == [(50, 50)] * 2, "16 + 34 allowed, all of it thinking"
    assert client.counts.paid_usd == pytest.approx(2 * (100 * cfg.price_in_usd + 50 * cfg.price_out_usd) / 1e6)
    assert "llm.thinking_tokens=34" in caplog.text and "llm.thinking_tokens=1024" in caplog.text
    figures = llm_predictions.logged_figures(answers, "one_hot", client.counts, ("angry", "happy", "sad"), cfg)
    assert figures["llm/reason/thinking"] == 2 and figures["llm/tokens_thinking"] == 100


def test_thinking_that_only_the_total_counts_is_paid(tmp_path: Path) -> None:
    with fake.serve(providers.gemini) as server:
        cfg = setting("gemini", server, "llm.reasoning_effort=low", "llm.thinking_tokens=200")
        [answer] = make_client(cfg, tmp_path).ask(questions(1))
    assert answer.label == "sad" and answer.tokens_out == 10 + providers.THOUGHTS


def test_a_prompt_that_azure_filters_is_an_abstention(tmp_path: Path) -> None:
    with fake.serve(providers.azure) as server:
        answers = make_client(setting("azure", server), tmp_path).ask([question("violent"), question("calm")])
    assert [a.label or a.reason for a in answers] == ["content_filter", "sad"]


def test_the_address_of_the_example_is_never_asked(tmp_path: Path) -> None:
    cfg = config.compose(["model=llm", "llm=azure"]).llm
    with pytest.raises(LLMError, match=r"set llm\.base_url to the address of your own"):
        endpoint.check_endpoint(cfg)
    with pytest.raises(LLMError, match="is an example"):
        make_client(cfg, tmp_path).ask(questions(1))


def test_a_key_in_place_of_the_name_of_a_header_is_refused_and_not_shown(tmp_path: Path) -> None:
    with fake.serve() as server, pytest.raises(LLMError, match=r"llm\.key_header takes the name") as caught:
        make_client(setting("azure", server, f"llm.key_header={KEY}"), tmp_path).ask(questions(1))
    assert KEY not in str(caught.value) and not server.asked


def test_a_key_that_google_refuses_is_named_on_one_line(tmp_path: Path) -> None:
    error = {"code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}
    with (
        fake.serve(lambda body: fake.Reply([{"error": error}], 400)) as server,
        pytest.raises(LLMError, match=r"HTTP 400: API key not valid\. Please pass a valid API key\.\)") as caught,
    ):
        make_client(setting("gemini", server), tmp_path).ask(questions(2))
    assert "\n" not in str(caught.value) and len(server.asked) == 1


def test_a_newer_claude_refuses_a_temperature(tmp_path: Path) -> None:
    with fake.serve(providers.anthropic) as server:
        cfg = setting("anthropic", server, "llm.model=claude-new")
        answers = make_client(cfg, tmp_path).ask(questions(2))
    assert [a.label for a in answers] == ["sad"] * 2 and len(server.asked) == 3
    assert llm_predictions.changes_in_words(answers, cfg) == ["temperature left out"]


def test_what_only_some_answers_were_asked_with_is_stated_as_such() -> None:
    cfg = LlmConfig(name="a", model="m")
    refused, plain = ModelAnswer("", "sad", changes=("seed",), response_format="json"), ModelAnswer("", "sad")
    plain = replace(plain, response_format="schema")
    assert llm_predictions.changes_in_words([refused, refused], cfg) == ["seed left out", "response format json"]
    assert llm_predictions.changes_in_words([refused, plain], cfg) == [
        "seed left out in some answers", "response format json in some answers",
    ]  # fmt: skip
    assert llm_predictions.changes_in_words([refused], replace(cfg, unsupported=["seed"])) == ["response format json"]


def test_unsupported_takes_known_names_only() -> None:
    request_body.check_keys(LlmConfig(name="a", model="m", unsupported=["system", "seed"]))
    with pytest.raises(ConfigError, match="top_p is none of max_tokens"):
        request_body.check_keys(LlmConfig(name="a", model="m", unsupported=["top_p"]))
    with pytest.raises(ConfigError, match="thinking_tokens=-1"):
        request_body.check_keys(LlmConfig(name="a", model="m", thinking_tokens=-1))


# The Responses API.


def translated(reply: dict[str, Any]) -> Any:
    return read_body(json.dumps(reply), responses_api.to_completion)


def reply_of(*content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"status": "completed", "output": [{"type": "message", "content": list(content)}]} | fields


def test_refusal_filter_and_failure_of_a_response() -> None:
    refusal = translated(reply_of({"type": "refusal", "refusal": "I will not judge a voice"}))
    assert refusal["choices"][0]["message"] == {
        "role": "assistant", "content": None, "refusal": "I will not judge a voice",
    }  # fmt: skip
    filtered = translated(reply_of(status="incomplete", incomplete_details={"reason": "content_filter"}))
    assert filtered["choices"][0]["finish_reason"] == "content_filter"
    failed = translated({"status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "slow"}})
    assert isinstance(failed, ErrorReply) and (failed.text, failed.status) == ("slow", 429)


@pytest.mark.parametrize(
    "reply",
    [
        {}, {"output": None}, {"output": [], "error": "no"}, {"output": 7}, [], "text", 3, None,
        {"choices": [], "object": "chat.completion"},
    ],
)  # fmt: skip
def test_what_is_no_response_is_an_error(reply: Any) -> None:
    assert isinstance(translated(reply), ErrorReply)


@pytest.mark.parametrize(
    "output", [[None], ["x"], [{}], [{"type": "message", "content": [None, {"type": "output_text"}]}]]
)
def test_an_output_of_another_form_is_an_empty_answer(output: Any, tmp_path: Path) -> None:
    with fake.serve(lambda body: fake.Reply({"status": "completed", "output": output, "usage": 5})) as server:
        [answer] = make_client(setting("responses", server), tmp_path).ask(questions(1))
    assert answer.reason == "empty" and answer.usage_estimated


def test_a_service_with_responses_only_names_the_parameter_that_it_refuses(tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> fake.Reply:
        if "include" in body:
            return providers.refused("include", "Unsupported include: logprobs are not supported with this model.")
        if "reasoning" in body:
            return providers.refused("reasoning.effort", "Unsupported parameter: 'reasoning.effort' is not supported")
        if body["text"]["format"]["type"] == "json_schema":
            message = "Invalid parameter: 'text.format' of type 'json_schema' is not supported with this model."
            return providers.refused("text.format", message)
        return providers.responses(body)

    with fake.serve(reply) as server:
        cfg = setting("responses", server, "llm.reasoning_effort=low")
        answers = make_client(cfg, tmp_path).ask(questions(2))
    assert [a.label for a in answers] == ["sad"] * 2 and len(server.asked) == 5
    assert llm_predictions.changes_in_words(answers, cfg) == [
        "logprobs left out", "reasoning effort left out", "response format json",
    ]  # fmt: skip


def test_answers_of_two_interfaces_are_not_mixed_in_the_cache(tmp_path: Path) -> None:
    with fake.serve(lambda b: providers.responses(b) if "input" in b else fake.label("happy")) as server:
        cfg = setting("responses", server)
        assert make_client(cfg, tmp_path).ask(questions(1))[0].label == "sad"
        chat = replace(cfg, api=LlmApi.chat)
        assert make_client(chat, tmp_path).ask(questions(1))[0].label == "happy"


# Models that hear.


def recorded(folder: Path) -> Question:
    path = folder / "clip.wav"
    soundfile.write(path, np.sin(np.arange(1_600) / 9).astype(np.float32), 16_000)
    return replace(question("Which emotion?"), recording=AudioPart(path, "digest", 0.1))


def test_a_server_that_hears_gets_the_recording_in_the_configured_form(tmp_path: Path) -> None:
    asked = recorded(tmp_path)
    with fake.serve(providers.hearing) as server:
        cfg = setting("audio_server", server)
        assert cfg.prompt == "audio" and cfg.api_key_env is None
        assert make_client(cfg, tmp_path / "cache").ask([asked])[0].label == "sad"
        as_url = replace(cfg, audio_form=AudioForm.audio_url)
        assert make_client(as_url, tmp_path / "cache").ask([asked])[0].label == "happy", "another key of the cache"
    text, sound = server.asked[1]["messages"][-1]["content"]
    raw = base64.b64decode(sound["audio_url"]["url"].partition(",")[2])
    samples, rate = soundfile.read(io.BytesIO(raw))
    assert rate == 16_000 and len(samples) == 1_600 and text["text"] == "Which emotion?"
    data = server.asked[0]["messages"][-1]["content"][1]["input_audio"]["data"]
    assert base64.b64decode(data) == raw


def test_a_server_without_input_audio_says_which_key_to_set(tmp_path: Path) -> None:
    with fake.serve(providers.without_input_audio) as server:
        cfg = setting("audio_server", server)
        with pytest.raises(LLMError, match=r"llm\.audio_form=audio_url"):
            make_client(cfg, tmp_path / "cache").ask([recorded(tmp_path)])
        as_url = setting("audio_server", server, "llm.audio_form=audio_url")
        assert make_client(as_url, tmp_path / "cache").ask([recorded(tmp_path)])[0].label == "happy"


def test_no_setting_holds_a_key() -> None:
    for path in (config.CONF / "llm").glob("*.yaml"):
        assert os.environ["OPENAI_API_KEY"] not in path.read_text() and "sk-" not in path.read_text(), path
