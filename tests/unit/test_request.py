"""Faults of an endpoint and their exact outcome over real HTTP: the table in docs/llm.md as tests."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ser_bench.cache import Cache
from ser_bench.config import AnswerFormat, LlmConfig
from ser_bench.errors import LLMError
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

SAD = fake.label("sad")
NEVER = fake.Reply({}, delay_s=4.0)
AZURE_FILTER = (
    "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
    "Please modify your prompt and retry."
)
ONE_RETRY_S, TIMEOUT_S = 0.5, 1.0


@pytest.fixture
def server():
    with fake.serve() as running:
        yield running


@pytest.fixture
def cfg(server):
    return LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env=None, timeout_s=TIMEOUT_S, max_retries=2,
        max_concurrency=1, price_in_usd=2.5, price_out_usd=10.0,
    )  # fmt: skip


# fault: what the server replies, first to last; then the label, the reason where there is none, requests, retries.
TABLE = {
    "429": ([fake.error(429, "slow"), SAD], "sad", "", 2, 1),
    "429, Retry-After": ([fake.error(429, "slow", headers={"retry-after": "0.3"}), SAD], "sad", "", 2, 1),
    "429, Retry-After in ms": ([fake.error(429, "slow", headers={"retry-after-ms": "9"}), SAD], "sad", "", 2, 1),
    "429 repeatedly": ([fake.error(429, "slow", headers={"retry-after": "0"})] * 3, "", "failed", 3, 2),
    "500": ([fake.error(500, "oops"), SAD], "sad", "", 2, 1),
    "503, Retry-After": ([fake.error(503, "busy", headers={"retry-after": "0.1"}), SAD], "sad", "", 2, 1),
    "500 repeatedly": ([fake.error(500, "oops")] * 3, "", "failed", 3, 2),
    "slow first byte": ([replace(SAD, delay_s=0.5)], "sad", "", 1, 0),
    "slow body": ([replace(SAD, body_delay_s=0.5)], "sad", "", 1, 0),
    "never answers": ([NEVER, SAD], "sad", "", 2, 1),
    "never ends": ([replace(SAD, drip_s=0.1), SAD], "sad", "", 2, 1),
    "headers, then nothing": ([replace(SAD, body_delay_s=4.0), SAD], "sad", "", 2, 1),
    "cut in mid-body": ([fake.Reply({"id": "c"}, cut=True), SAD], "sad", "", 2, 1),
    "cut repeatedly": ([fake.Reply({"id": "c"}, cut=True)] * 3, "", "failed", 3, 2),
    "malformed JSON": ([fake.Reply(b'{"choices": ['), SAD], "sad", "", 2, 1),
    "malformed JSON repeatedly": ([fake.Reply(b'{"choices": [')] * 3, "", "failed", 3, 2),
    "no object": ([fake.Reply(b"[]")] * 3, "", "failed", 3, 2),
    "error in HTTP 200": ([fake.Reply({"error": {"message": "overloaded"}}), SAD], "sad", "", 2, 1),
    "error in HTTP 200 repeatedly": ([fake.Reply({"error": "no capacity"})] * 3, "", "failed", 3, 2),
    "error in HTTP 200, status 429": ([fake.Reply({"error": {"message": "slow", "code": 429}}), SAD], "sad", "", 2, 1),
    "error in a choice": ([fake.failed_choice("upstream timeout"), SAD], "sad", "", 2, 1),
    "outside the labels": ([fake.label("joyful")], "", "not_a_label", 1, 0),
    "no JSON in the answer": ([fake.completion("happy, I think")], "", "bad_json", 1, 0),
    "refusal": ([fake.completion(None, refusal="no")], "", "refusal", 1, 0),
    "content filter": ([fake.completion(None, finish="content_filter")], "", "content_filter", 1, 0),
    "content filter, HTTP 400": ([fake.error(400, AZURE_FILTER, "content_filter")], "", "content_filter", 1, 0),
    "content filter, HTTP 400, inner error": (
        [fake.Reply({"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400)],
        "",
        "content_filter",
        1,
        0,
    ),
    "content filter, HTTP 400, in words": ([fake.error(400, AZURE_FILTER)], "", "content_filter", 1, 0),
    "content filter in HTTP 200": (
        [fake.Reply({"error": {"message": "no", "code": "content_filter"}})],
        "",
        "content_filter",
        1,
        0,
    ),
    "content filter without a message": (
        [fake.Reply({"choices": [{"finish_reason": "content_filter: HATE"}]})],
        "",
        "content_filter",
        1,
        0,
    ),
    "all tokens spent on thinking": ([fake.completion(None, finish="length")], "", "length", 1, 0),
    "all tokens spent on thinking, aloud": ([fake.completion("<think>Hm", finish="length")], "", "thinking", 1, 0),
    "another name of length": ([fake.completion("", finish="max_tokens")], "", "length", 1, 0),
    "finish_reason=length": ([fake.completion('{"emo', finish="length")], "", "length", 1, 0),
    "no choices": ([fake.no_choices(), SAD], "sad", "", 2, 1),
    "no choices repeatedly": ([fake.no_choices()] * 3, "", "failed", 3, 2),
    "a choice without a message": ([fake.Reply({"choices": [{"text": "sad"}]})] * 3, "", "failed", 3, 2),
    "a message that is no text": ([fake.Reply({"choices": [{"message": {"content": 7}}]})] * 3, "", "failed", 3, 2),
    "context too long": ([fake.error(400, "too long", "context_length_exceeded")], "", "too_long", 1, 0),
    "too large": ([fake.error(413, "too large")], "", "too_long", 1, 0),
}


@pytest.mark.parametrize("fault", TABLE)
def test_fault_and_its_outcome(server, cfg, tmp_path, fault):
    replies, label, reason, requests, retries = TABLE[fault]
    server.queue.extend(replies)
    client = make_client(cfg, tmp_path)
    answer, after = client.ask(questions(2))
    assert (answer.label, answer.reason, answer.requests, answer.retries) == (label, reason, requests, retries)
    assert after.label == "happy", "the next question is not affected"
    assert len(server.asked) == requests + 1 == client.counts.requests and client.counts.retried == retries
    assert client.budget.reserved_usd == 0.0
    # An answer is cached; a failure is asked again.
    server.otherwise = lambda body: fake.label("sad")
    again = make_client(cfg, tmp_path).ask(questions(2))
    assert len(server.asked) == requests + 1 + (reason == "failed")
    assert again[1] == after and (again[0] == answer or reason == "failed")


STOPS = {
    "401": (fake.error(401, "bad key", "invalid_api_key"), "llm.api_key_env"),
    "403": (fake.error(403, "not for you"), "llm.api_key_env"),
    "404": (fake.error(404, "no such model", "model_not_found"), "llm.model"),
    "401 in HTTP 200": (fake.Reply({"error": {"message": "bad key", "code": 401}}), "llm.api_key_env"),
    "quota spent in HTTP 200": (
        fake.Reply({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}),
        "quota is spent",
    ),
    "quota spent": (fake.error(429, "You exceeded your quota", "insufficient_quota"), "the quota is spent"),
    "a wait of an hour": (fake.error(429, "daily limit", headers={"retry-after": "3600"}), "3,600 seconds"),
}


@pytest.mark.parametrize("fault", STOPS)
def test_error_that_concerns_all_stops_at_once_and_answers_are_kept(server, cfg, tmp_path, fault):
    reply, message = STOPS[fault]
    server.queue.extend([SAD] * 5 + [reply])
    with pytest.raises(LLMError, match=message) as caught:
        make_client(cfg, tmp_path).ask(questions(9))
    assert len(server.asked) == 6, "the request is not repeated, and no other is sent"
    assert "\n" not in str(caught.value)
    client = make_client(cfg, tmp_path)
    assert [a.label for a in client.ask(questions(9))] == ["sad"] * 5 + ["happy"] * 4
    assert (client.counts.cached, client.counts.requests) == (5, 4)


def test_error_in_a_success_keeps_the_words_of_the_service_on_one_short_line(server, cfg, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "sk-test-Very0Secret1Key2")
    words = "model is loading for sk-test-Very0Secret1Key2\n" + "please wait " * 2_000
    server.queue.extend([fake.Reply({"error": {"message": words}})] * 3)
    answer, _ = make_client(cfg, tmp_path).ask(questions(2))
    assert answer.failed and "model is loading" in answer.text and "HTTP 200" in answer.text
    assert "Secret" not in answer.text and "\n" not in answer.text and len(answer.text) < 500


def test_abstentions_that_older_versions_kept_are_asked_again_and_labels_are_not(server, cfg, tmp_path):
    """They kept an error in HTTP 200 as an abstention "empty", as they did an empty answer."""
    old = {"way": "schema", "tokens_in": 100, "tokens_out": 10, "latency_s": 0.1, "requests": 1, "retries": 0}
    entries = [
        old | {"text": "", "label": "", "reason": "empty", "probabilities": None},
        old | {"text": '{"emotion":"sad"}', "label": "sad", "reason": "", "probabilities": None},
        old | {"text": "no", "label": "", "reason": "refusal", "probabilities": None},
        old | {"text": '{"emotion":"Happy"}', "label": "", "reason": "not_a_label", "probabilities": None},
    ]
    client = make_client(cfg, tmp_path)
    cache = Cache(tmp_path)
    for question, entry in zip(questions(4), entries, strict=True):
        cache.write_json(client._key(question, revision=1), entry)
    answers = client.ask(questions(4))
    assert [a.label or a.reason for a in answers] == ["happy", "sad", "refusal", "happy"]
    assert len(server.asked) == 2 and client.counts.cached == 2
    assert make_client(cfg, tmp_path).ask(questions(4)) == answers and len(server.asked) == 2


@pytest.mark.parametrize("answer_format", AnswerFormat)
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ('{"emotion": "Sad"}', "sad"),
        ('{"emotion": "SAD."}', "sad"),
        ('<think>happy? angry? {"emotion": "happy"}</think>\n\n{"emotion": "sad"}', "sad"),
        ('the tag <think> came with the prompt</think>{"emotion": "sad"}', "sad"),
        ('```json\n{"emotion": "sad"}\n```', "sad"),
        ('<think>\n</think>```JSON\n{"emotion": "Sad"}```', "sad"),
        ('{"emotion": "not sad"}', "not_a_label"),
        ('{"emotion": "sad"} {"emotion": "happy"}', "bad_json"),
        ('<think>a</think><think>b</think>{"emotion": "sad"}', None),
        ('```\n```json\n{"emotion": "sad"}\n```\n```', None),
        ('{"emotion": "sad", "why": "</think>"}', "bad_json"),
    ],
)
def test_case_one_think_block_and_one_fence_are_folded_in_every_format(
    server, cfg, tmp_path, answer_format, text, outcome
):
    server.queue.append(fake.completion(text))
    [answer] = make_client(replace(cfg, answer_format=answer_format), tmp_path).ask(questions(1))
    if outcome is None:
        assert not answer.label and answer.reason in ("bad_json", "not_a_label")
    else:
        assert (answer.label or answer.reason) == outcome
    assert answer.text == text


@pytest.mark.parametrize("text", ["Sad.", "<think>happy?</think> **Sad**", "```\nsad\n```", " 'SAD' "])
def test_bare_label_counts_without_json_only_where_none_was_enforced(server, cfg, tmp_path, text):
    server.otherwise = lambda body: fake.completion(text)
    for answer_format in AnswerFormat:
        [answer] = make_client(replace(cfg, answer_format=answer_format), tmp_path).ask(questions(1))
        assert answer.label == ("sad" if answer_format is AnswerFormat.text else "")


def test_labels_that_differ_only_in_case_are_told_apart(server, cfg, tmp_path):
    server.queue.extend([fake.label("Sad"), fake.label("SAD")])
    client = make_client(replace(cfg, max_concurrency=1), tmp_path, labels=("Sad", "sad", "FR\u00d6HLICH"))
    exact, ambiguous = client.ask(questions(2))
    assert exact.label == "Sad" and (ambiguous.label, ambiguous.reason) == ("", "not_a_label")
    server.queue.append(fake.label("fro\u0308hlich"))  # the same letters in another Unicode form
    assert client.ask(questions(3))[2].label == "FR\u00d6HLICH"


def test_label_in_another_case_has_no_probabilities(server, cfg, tmp_path):
    """The tokens that a server reports then spell other words than the labels."""
    top = [{"token": t, "logprob": -1.0, "bytes": None} for t in ("happy", "sad", "angry", "~")]
    tokens = [
        {"token": '{"emotion":"', "logprob": 0.0, "bytes": None, "top_logprobs": []},
        {"token": "Happy", "logprob": -1.0, "bytes": None, "top_logprobs": top},
    ]
    server.queue.append(fake.completion('{"emotion":"Happy"}', logprobs=tokens))
    [answer] = make_client(cfg, tmp_path).ask(questions(1))
    assert answer.label == "happy" and answer.probabilities is None


def test_filtered_prompt_is_no_error_of_the_run(server, cfg, tmp_path):
    server.otherwise = lambda body: (
        fake.error(400, AZURE_FILTER, "content_filter") if body["messages"][1]["content"] == "1" else SAD
    )
    answers = make_client(replace(cfg, max_concurrency=4), tmp_path).ask(questions(12))
    assert [a.label or a.reason for a in answers] == ["sad", "content_filter", *["sad"] * 10]
    assert "content management policy" in answers[1].text
    assert make_client(cfg, tmp_path).ask(questions(12)) == answers and len(server.asked) == 12


def test_retry_after_delays_all_requests(server, cfg, tmp_path):
    server.queue.extend([SAD, fake.error(429, "slow", headers={"retry-after": "1"})])
    make_client(replace(cfg, max_concurrency=2, timeout_s=9.0), tmp_path).ask(questions(12))
    refused = server.times[1]
    early = [t - refused for t in server.times[2:] if 0.3 < t - refused < 0.95]
    assert not early and server.times[-1] - refused >= 1.0


def test_deadline_of_a_clip_ends_its_retries(server, cfg, tmp_path):
    server.otherwise = lambda body: SAD if body["messages"][1]["content"] == "1" else fake.error(500, "oops")
    began = time.monotonic()
    slow, fast = make_client(replace(cfg, max_retries=19, deadline_s=2.0), tmp_path).ask(questions(2))
    assert slow.failed and 2 <= slow.requests < 8 and time.monotonic() - began < 6.0
    assert fast.label == "sad"


def test_deadline_of_a_clip_cuts_the_last_request(server, cfg, tmp_path):
    server.queue.append(NEVER)
    began = time.monotonic()
    slow, _ = make_client(replace(cfg, timeout_s=60.0, max_retries=0, deadline_s=0.5), tmp_path).ask(questions(2))
    assert slow.failed and time.monotonic() - began < 3.0


def accepts_only(*formats: str):
    """Return a server that accepts only these types of response_format ("" for none) and answers in that form."""

    def otherwise(body):
        kind = body.get("response_format", {}).get("type", "")
        if kind not in formats:
            return fake.error(400, f"response_format '{kind}' is not supported by this model", "invalid_request_error")
        return fake.label("sad") if kind else fake.completion("Sad.")

    return otherwise


@pytest.mark.parametrize(
    ("formats", "response_format", "refused"),
    [(("json_schema",), "schema", 0), (("json_object", ""), "json", 1), (("",), "text", 2)],
)
def test_response_format_falls_back_once_for_all_questions(
    server, cfg, tmp_path, caplog, formats, response_format, refused
):
    server.otherwise = accepts_only(*formats)
    client = make_client(replace(cfg, max_concurrency=8, timeout_s=9.0), tmp_path)
    with caplog.at_level("INFO"):
        answers = client.ask(questions(12))
    assert {(a.label, a.response_format) for a in answers} == {("sad", response_format)}
    assert len(server.asked) == 12 + refused, "only the first question is refused"
    assert client.counts.retried == 0 and client.counts.requests == 12 + refused
    assert caplog.text.count("refuses the response format") == refused
    assert make_client(cfg, tmp_path).ask(questions(12)) == answers and len(server.asked) == 12 + refused


def test_no_fallback_from_a_configured_response_format(server, cfg, tmp_path):
    server.otherwise = accepts_only("")
    with pytest.raises(LLMError, match="response_format"):
        make_client(replace(cfg, answer_format=AnswerFormat.json), tmp_path).ask(questions(3))
    assert len(server.asked) == 1
    answers = make_client(replace(cfg, answer_format=AnswerFormat.text), tmp_path).ask(questions(3))
    assert {a.response_format for a in answers} == {"text"} and all(
        "response_format" not in body for body in server.asked[1:]
    )


def openai_error(param: str | None, message: str, code: str | None = "unsupported_value") -> fake.Reply:
    return fake.Reply({"error": {"message": message, "param": param, "code": code}}, 400)


# what is refused, as several services say it; then the name of the change, and the key that is no longer sent.
REFUSALS = {
    "OpenAI, max_tokens": (
        openai_error(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.",
            "unsupported_parameter",
        ),
        "max_tokens", "max_tokens",
    ),
    "OpenAI, temperature": (
        openai_error("temperature", "'temperature' does not support 0.0 with this model. Only the default (1) is"),
        "temperature", "temperature",
    ),
    "Moonshot, temperature": (
        openai_error(None, "invalid temperature: only 1 is allowed for this model", None), "temperature", "temperature",
    ),
    "Azure, seed": (openai_error(None, "Unrecognized request argument supplied: seed", None), "seed", "seed"),
    "Google, seed": (
        openai_error(None, 'Invalid JSON payload received. Unknown name "seed": Cannot find field.', None),
        "seed", "seed",
    ),
    "Mistral, seed": (
        fake.Reply({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs"}]}, 422),
        "seed", "seed",
    ),
    "Groq, logprobs": (fake.error(400, "`logprobs` is not supported with this model"), "logprobs", "top_logprobs"),
    "OpenAI, logprobs": (
        fake.error(403, "You are not allowed to request logprobs from this model"), "logprobs", "logprobs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("refusal", REFUSALS)
def test_refused_parameter_is_changed_once_for_all_questions_and_said(server, cfg, tmp_path, caplog, refusal):
    reply, name, key = REFUSALS[refusal]
    server.otherwise = lambda body: reply if key in body else SAD
    client = make_client(replace(cfg, max_concurrency=8, timeout_s=9.0), tmp_path)
    with caplog.at_level("INFO"):
        answers = client.ask(questions(12))
    assert {(a.label, a.changes) for a in answers} == {("sad", (name,))}
    assert len(server.asked) == 13 == client.counts.requests, "only the first question is refused"
    assert caplog.text.count("refuses") == 1 and name in caplog.text
    # The answers have the key of what was configured, so that another run finds them without a refusal.
    assert make_client(cfg, tmp_path).ask(questions(12)) == answers and len(server.asked) == 13


def test_all_parameters_of_a_reasoning_model_are_changed_one_after_another(server, cfg, tmp_path):
    def otherwise(body):
        for reply, _, key in REFUSALS.values():
            if key in body:
                return reply
        if body["messages"][0]["role"] == "system":
            message = "Unsupported value: 'messages[0].role' does not support 'system' with this model."
            return openai_error("messages[0].role", message)
        return SAD

    server.otherwise = otherwise
    [answer, _] = make_client(replace(cfg, budget_usd=1.0), tmp_path).ask(questions(2))
    assert answer.label == "sad" and answer.changes == ("max_tokens", "temperature", "seed", "logprobs", "system")
    body = server.asked[-1]
    assert set(body) == {"model", "messages", "response_format", "max_completion_tokens"}
    assert body["max_completion_tokens"] == cfg.max_tokens
    assert body["messages"] == [{"role": "user", "content": "Say.\n\n1"}]


@pytest.mark.parametrize("message", ["System role not supported", "Developer instruction is not enabled for models/x"])
def test_system_message_that_a_template_refuses_becomes_part_of_the_user_message(server, cfg, tmp_path, message):
    server.otherwise = lambda body: fake.error(400, message) if len(body["messages"]) == 2 else SAD
    [answer] = make_client(cfg, tmp_path).ask(questions(1))
    assert answer.changes == ("system",)


@pytest.mark.parametrize(
    "reply",
    [
        openai_error(
            "max_tokens", "'max_tokens' is too large: 99999. This model supports at most 16384", "invalid_value"
        ),
        openai_error("temperature", "temperature must be between 0 and 2", "invalid_value"),
        openai_error("top_logprobs", "top_logprobs must be at most 5", "invalid_value"),
        openai_error("model", "Unsupported model for seed and temperature", "unsupported_value"),
        openai_error(None, "this request is not supported", None),
    ],
)
def test_value_that_is_wrong_stops_the_run_and_is_not_dropped(server, cfg, tmp_path, reply):
    server.otherwise = lambda body: reply
    with pytest.raises(LLMError, match=r"llm\.temperature"):
        make_client(cfg, tmp_path).ask(questions(3))
    assert len(server.asked) == 1


def test_refusal_that_a_change_does_not_help_stops_the_run(server, cfg, tmp_path):
    server.otherwise = lambda body: REFUSALS["Azure, seed"][0]
    with pytest.raises(LLMError, match="seed"):
        make_client(cfg, tmp_path).ask(questions(3))
    assert len(server.asked) == 2


def test_other_errors_do_not_change_the_response_format(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.error(400, "temperature must be 1 for this model")
    with pytest.raises(LLMError, match="temperature"):
        make_client(cfg, tmp_path).ask(questions(3))
    assert len(server.asked) == 1


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to see its memory")
def test_eight_hundred_clips_at_64_at_once_with_a_fifth_of_faults(cfg, server, tmp_path):
    """Every clip is accounted for, memory does not grow, and throughput is close to the server's own limit."""
    clips, per_second = 800, 50.0
    draw, lock = random.Random(0), threading.Lock()
    state = {"level": per_second, "at": time.monotonic(), "limited": 0}
    seen: Counter[str] = Counter()
    memory: list[float] = []
    headers = {"x-ratelimit-limit-requests": f"{per_second * 60:.0f}"}
    faults = [
        fake.error(500, "oops"), fake.error(503, "busy"), fake.Reply({"id": "c"}, cut=True), fake.Reply(b"{"),
        fake.completion("no"), fake.no_choices(), replace(SAD, delay_s=0.5),
    ]  # fmt: skip

    def otherwise(body):
        with lock:
            seen[body["messages"][1]["content"]] += 1
            if len(seen) == 160 and not memory:
                memory.append(resident_mib())
            now = time.monotonic()
            state["level"] = min(per_second, state["level"] + (now - state["at"]) * per_second)
            state["at"] = now
            if state["level"] < 1:
                state["limited"] += 1
                return fake.error(429, "limit", headers=headers | {"retry-after-ms": "200"})
            state["level"] -= 1
            fault = draw.random() < 0.2
            reply = draw.choice(faults) if fault else SAD
        return replace(reply, headers=headers)

    server.otherwise = otherwise
    client = make_client(replace(cfg, max_concurrency=64, max_retries=4, timeout_s=10.0), tmp_path)
    began = time.monotonic()
    answers = client.ask(questions(clips))
    took_s = time.monotonic() - began
    grown_mib = resident_mib() - memory[0]

    labelled = sum(bool(a.label) for a in answers)
    failed = sum(a.failed for a in answers)
    abstained = sum(bool(a.reason) and not a.failed for a in answers)
    assert labelled + failed + abstained == clips == len(answers)
    assert sum(seen.values()) == len(server.asked) == client.counts.requests == sum(a.requests for a in answers)
    assert client.counts.retried == sum(a.retries for a in answers) == client.counts.requests - clips
    assert max(seen.values()) <= 5, "the first request and four retries"
    assert Counter(a.reason for a in answers if a.reason) == client.counts.reasons
    assert abstained > 20 and client.counts.reasons["bad_json"] > 20
    assert server.most_under_way <= 64
    stored = make_client(cfg, tmp_path).stored(questions(clips))
    assert sum(a is not None for a in stored) == clips - failed, "every paid answer is on disk"
    allowed = (len(server.asked) - state["limited"]) / per_second
    print(f"\n{clips} clips, {len(server.asked)} requests, {state['limited']} over the limit, {took_s:.1f} s "
          f"(the limit allows {allowed:.1f} s), {labelled} labelled, {abstained} abstained, {failed} failed, "
          f"{grown_mib:+.1f} MiB since the first 400")  # fmt: skip
    assert took_s <= allowed / 0.8 and state["limited"] < 0.1 * len(server.asked)
    assert grown_mib < 24
