"""Many questions at once against a real HTTP server that misbehaves: answers, errors, cache, and interruption."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ser_bench.cache import Cache
from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import InterruptedRunError, LLMError
from ser_bench.predictors.llm import client as llm_client
from ser_bench.predictors.llm import endpoint
from ser_bench.predictors.llm.budget import cost_usd
from ser_bench.predictors.llm.client import LlmClient, RequestCounts, RequestProgress
from ser_bench.predictors.llm.parsing.model_answer import ModelAnswer
from ser_bench.predictors.llm.prompting.question import Question
from tests.support import fake_openai as fake
from tests.support.llm_clients import LABELS, make_client, question, questions

KEY = "sk-test-Very0Secret1Key2"


@pytest.fixture
def server():
    with fake.serve() as running:
        yield running


@pytest.fixture
def cfg(server, monkeypatch):
    monkeypatch.setenv("SER_BENCH_TEST_KEY", KEY)
    return LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env="SER_BENCH_TEST_KEY", timeout_s=2.0,
        max_retries=2, max_concurrency=2, price_in_usd=2.5, price_out_usd=10.0,
    )  # fmt: skip


def questions_of(*texts: str) -> list[Question]:
    return [question(text) for text in texts]


def ask_one(server, cfg, folder, *replies: fake.Reply) -> tuple[ModelAnswer, LlmClient]:
    server.queue.extend(replies)
    client = make_client(cfg, folder)
    [answer] = client.ask(questions_of("clip"))
    return answer, client


def test_asks_for_one_of_the_labels_with_logprobs(server, cfg, tmp_path):
    answer, _ = ask_one(server, cfg, tmp_path, fake.label("sad"))
    assert (answer.label, answer.reason, answer.tokens_in, answer.tokens_out) == ("sad", "", 100, 10)
    [body] = server.asked
    schema = body["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"]["emotion"]["enum"] == list(LABELS)
    assert schema["schema"]["additionalProperties"] is False
    assert body["logprobs"] is True and body["top_logprobs"] == 20 and body["temperature"] == 0.0
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_no_logprobs_are_asked_for_where_switched_off(server, cfg, tmp_path):
    ask_one(server, replace(cfg, top_logprobs=0), tmp_path)
    assert "logprobs" not in server.asked[0] and "top_logprobs" not in server.asked[0]


def test_probabilities_come_from_logprobs(server, cfg, tmp_path):
    def token(text, **top):
        entries = [{"token": k, "logprob": v, "bytes": list(k.encode())} for k, v in top.items()]
        return {"token": text, "logprob": top.get(text, -9.0), "bytes": None, "top_logprobs": entries}

    tokens = [
        token('{"'),
        token("emotion"),
        token('":"'),
        token("happy", **{"happy": -1.0, "s": -1.0, "ang": -2.0, "~": -20.0}),
        token('"}'),
    ]
    answer, _ = ask_one(server, cfg, tmp_path, fake.completion('{"emotion":"happy"}', logprobs=tokens))
    assert answer.probabilities == pytest.approx((0.155362, 0.422319, 0.422319), abs=1e-6)


@pytest.mark.parametrize(
    ("reply", "reason", "text"),
    [
        (fake.completion("The speaker is happy."), "bad_json", "The speaker is happy."),
        (fake.completion('{"emotion": "happy"'), "bad_json", '{"emotion": "happy"'),
        (fake.completion('{"emotion": ["happy"]}'), "bad_json", '{"emotion": ["happy"]}'),
        (fake.completion('"happy"'), "bad_json", '"happy"'),
        (fake.completion('{"emotion": "happy", "sure": true}'), "bad_json", '{"emotion": "happy", "sure": true}'),
        (fake.completion('{"emotion": "joyful"}'), "not_a_label", '{"emotion": "joyful"}'),
        (fake.completion(None, refusal="I cannot judge people."), "refusal", "I cannot judge people."),
        (fake.completion(None, finish="content_filter"), "content_filter", ""),
        (fake.completion('{"emotion": "ha', finish="length"), "length", '{"emotion": "ha'),
        (fake.completion(""), "empty", ""),
        (fake.error(400, "maximum context length is 8", "context_length_exceeded"), "too_long", None),
    ],
)
def test_answer_without_a_label_is_an_abstention_with_its_reason(server, cfg, tmp_path, reply, reason, text):
    answer, client = ask_one(server, cfg, tmp_path, reply)
    assert (answer.label, answer.reason, answer.probabilities) == ("", reason, None)
    assert text is None or answer.text == text
    assert not answer.failed and client.counts.reasons == {reason: 1}
    assert len(server.asked) == 1


def test_complete_object_counts_although_the_length_was_spent(server, cfg, tmp_path):
    answer, _ = ask_one(server, cfg, tmp_path, fake.completion('{"emotion": "sad"}   ', finish="length"))
    assert answer.label == "sad"


@pytest.mark.parametrize(
    "fault",
    [
        fake.error(429, "slow down"),
        fake.error(500, "oops"),
        fake.error(503, "overloaded"),
        fake.Reply({}, cut=True),
        fake.Reply({}, delay_s=3.0),
    ],
)
def test_passing_fault_is_retried_and_counted(server, cfg, tmp_path, fault):
    answer, client = ask_one(server, replace(cfg, timeout_s=1.0), tmp_path, fault, fake.label("sad"))
    assert (answer.label, answer.requests, answer.retries) == ("sad", 2, 1)
    assert (client.counts.requests, client.counts.retried, len(server.asked)) == (2, 1, 2)


def test_retry_after_is_obeyed(server, cfg, tmp_path):
    answer, _ = ask_one(server, cfg, tmp_path, fake.error(429, "slow", headers={"retry-after": "1.5"}))
    assert answer.label == "happy"
    assert server.times[1] - server.times[0] >= 1.5


def test_no_more_requests_than_retries_allow(server, cfg, tmp_path):
    server.queue.extend([fake.error(500, "oops")] * 3)
    client = make_client(replace(cfg, max_concurrency=1), tmp_path)
    failed, answered = client.ask(questions_of("bad", "good"))
    assert (failed.reason, failed.requests, failed.retries) == ("failed", 3, 2)
    assert "HTTP 500" in failed.text and answered.label == "happy"
    assert len(server.asked) == 4 == client.counts.requests
    # A failure is not cached and is asked again; the answer is cached.
    again = make_client(cfg, tmp_path).ask(questions_of("bad", "good"))
    assert [a.label for a in again] == ["happy", "happy"] and len(server.asked) == 5


@pytest.mark.parametrize(
    "body",
    [b"{not json", b"[1, 2", b"<html>please log in</html>", b'{"error": "no capacity"}', b'{"choices": []}'],
)
def test_body_that_is_no_completion_is_a_failure(server, cfg, tmp_path, body):
    server.queue.append(fake.Reply(body))
    bad, good = make_client(replace(cfg, max_concurrency=1, max_retries=0), tmp_path).ask(questions_of("a", "b"))
    assert bad.failed and good.label == "happy"


@pytest.mark.parametrize(
    ("reply", "next_step"),
    [
        (fake.error(401, f"Incorrect API key provided: {KEY}", "invalid_api_key"), "llm.api_key_env"),
        (fake.error(403, f"{KEY} may not"), "llm.api_key_env"),
        (fake.error(404, "The model `m` does not exist", "model_not_found"), "llm.model"),
        (fake.error(429, "You exceeded your current quota", "insufficient_quota"), "run the same command again"),
        (fake.error(400, "top_logprobs must be at most 5"), "llm.top_logprobs"),
    ],
)
def test_error_that_concerns_every_request_stops_the_run_at_once(server, cfg, tmp_path, reply, next_step, caplog):
    server.otherwise = lambda body: reply
    texts = [str(i) for i in range(50)]
    with caplog.at_level(logging.DEBUG), pytest.raises(LLMError) as caught:
        make_client(replace(cfg, max_retries=0), tmp_path).ask(questions_of(*texts))
    message = str(caught.value)
    assert next_step in message and "\n" not in message and len(message) < 500
    assert len(server.asked) <= 2 * cfg.max_concurrency
    assert KEY not in message + caplog.text + repr(caught.value.__cause__)


def test_answers_before_the_stop_are_kept(server, cfg, tmp_path):
    server.queue.extend([fake.label("sad"), fake.label("sad"), fake.error(401, "no")])
    serial = replace(cfg, max_concurrency=1)
    with pytest.raises(LLMError):
        make_client(serial, tmp_path).ask(questions_of("a", "b", "c", "d"))
    client = make_client(serial, tmp_path)
    assert [a.label for a in client.ask(questions_of("a", "b", "c", "d"))] == ["sad", "sad", "happy", "happy"]
    assert (client.counts.cached, client.counts.requests) == (2, 2)


def test_answers_under_way_are_kept_when_another_request_stops_the_run(server, cfg, tmp_path):
    slow = replace(fake.label("sad"), delay_s=0.6)
    server.otherwise = lambda body: slow if body["messages"][1]["content"] == "slow" else fake.error(401, "no")
    with pytest.raises(LLMError):
        make_client(cfg, tmp_path).ask(questions_of("slow", "bad"))
    server.otherwise = lambda body: fake.label("happy")
    assert [a.label for a in make_client(cfg, tmp_path).ask(questions_of("slow", "bad"))] == ["sad", "happy"]


def test_endpoint_that_fails_repeatedly_stops_the_run(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.error(500, "down")
    with pytest.raises(LLMError, match="HTTP 500"):
        make_client(replace(cfg, max_retries=0), tmp_path).ask(questions(200))
    assert len(server.asked) <= llm_client.FAILURES_IN_A_ROW + cfg.max_concurrency


def test_refused_connection_is_one_line(cfg, tmp_path):
    with fake.serve() as gone:
        url = gone.base_url
    with pytest.raises(LLMError, match=r"cannot be reached .*llm\.base_url") as caught:
        make_client(replace(cfg, base_url=url, max_retries=0), tmp_path).ask(questions_of("a", "b"))
    assert "\n" not in str(caught.value)


def test_missing_key_names_the_variable_and_the_command_without_key(cfg, monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    with pytest.raises(LLMError, match=r"SER_BENCH_TEST_KEY.*python run\.py model=llm llm=local"):
        endpoint.check_endpoint(cfg)
    endpoint.check_endpoint(replace(cfg, api_key_env=None))


def test_second_run_asks_nothing_and_returns_the_same(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.label(LABELS[len(body["messages"][1]["content"]) % 3])
    server.queue.extend([fake.completion("no json"), fake.completion("")])
    prompts = questions_of("a", "bb", "ccc", "dddd", "a")
    first = make_client(cfg, tmp_path).ask(prompts)
    assert len(server.asked) == 4
    client = make_client(cfg, tmp_path)
    assert client.ask(prompts) == first
    assert len(server.asked) == 4
    assert (client.counts.cached, client.counts.requests, client.counts.paid_usd) == (4, 0, 0.0)


def test_second_run_needs_neither_server_nor_key(server, cfg, tmp_path, monkeypatch):
    first = make_client(cfg, tmp_path).ask(questions_of("a"))
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    assert make_client(cfg, tmp_path).ask(questions_of("a")) == first


@pytest.mark.parametrize(
    "other",
    [{"model": "n"}, {"temperature": 0.5}, {"max_tokens": 9}, {"seed": 1}, {"top_logprobs": 5}],
)
def test_other_parameters_are_other_questions(server, cfg, tmp_path, other):
    make_client(cfg, tmp_path).ask(questions_of("a"))
    make_client(replace(cfg, **other), tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 2


def test_other_prompt_labels_or_endpoint_are_other_questions(server, cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions_of("a"))
    make_client(cfg, tmp_path, prompt_digest="other").ask(questions_of("a"))
    make_client(cfg, tmp_path, labels=("happy", "sad")).ask(questions_of("a"))
    make_client(replace(cfg, base_url=cfg.base_url + "/"), tmp_path).ask(questions_of("a"))  # the same endpoint
    assert len(server.asked) == 3
    with fake.serve() as elsewhere:
        make_client(replace(cfg, base_url=elsewhere.base_url), tmp_path).ask(questions_of("a"))
        assert len(elsewhere.asked) == 1


def test_limits_do_not_change_the_question(server, cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions_of("a"))
    make_client(replace(cfg, max_concurrency=9, timeout_s=5.0, max_retries=0, limit=3), tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 1


def test_cache_modes(server, cfg, tmp_path):
    make_client(replace(cfg, cache=CacheMode.read), tmp_path).ask(questions_of("a"))
    make_client(cfg, tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 2  # reading alone had kept nothing
    make_client(replace(cfg, cache=CacheMode.read), tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 2
    make_client(replace(cfg, cache=CacheMode.off), tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 3


def test_no_key_in_the_cache_even_if_the_model_repeats_it(server, cfg, tmp_path):
    answer, _ = ask_one(server, cfg, tmp_path, fake.completion(f"your key is {KEY}"))
    assert "***" in answer.text and KEY not in answer.text
    stored = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert stored and all(KEY.encode() not in blob and b"uthorization" not in blob for blob in stored)


def test_cost_of_tokens(server, cfg, tmp_path):
    answer, client = ask_one(server, cfg, tmp_path)
    assert cost_usd(answer, cfg) == pytest.approx(100 * 2.5e-6 + 10 * 10e-6)
    assert client.counts.paid_usd == pytest.approx(0.00035)


def test_concurrency_is_used_and_limited(server, cfg, tmp_path):
    server.otherwise = lambda body: replace(fake.label("sad"), delay_s=0.3)
    answers = make_client(replace(cfg, max_concurrency=8, timeout_s=30.0), tmp_path).ask(questions(24))
    assert len(answers) == 24 and {a.label for a in answers} == {"sad"}
    assert 4 <= server.most_under_way <= 8


def test_every_answer_goes_to_its_own_prompt(server, cfg, tmp_path):
    def otherwise(body):
        number = int(body["messages"][1]["content"])
        return replace(fake.label(LABELS[number % 3]), delay_s=0.02 * (number % 5))

    server.otherwise = otherwise
    answers = make_client(replace(cfg, max_concurrency=16, timeout_s=30.0), tmp_path).ask(questions(60))
    assert [a.label for a in answers] == [LABELS[i % 3] for i in range(60)]


def test_ctrl_c_cancels_pending_requests_and_keeps_answers(server, cfg, tmp_path):
    def otherwise(body):
        number = int(body["messages"][1]["content"])
        return replace(fake.label("sad"), delay_s=0.0 if number < 5 else 60.0)

    server.otherwise = otherwise

    def press():
        while len(server.asked) < 7:
            time.sleep(0.02)
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(InterruptedRunError, match="5 of 40"):
        make_client(replace(cfg, timeout_s=90.0), tmp_path).ask(questions(40))
    assert time.monotonic() - started < 20
    server.otherwise = lambda body: fake.label("happy")
    client = make_client(cfg, tmp_path)
    labels = [a.label for a in client.ask(questions(40))]
    assert labels == ["sad"] * 5 + ["happy"] * 35
    assert client.counts.requests == 35


def test_two_clients_that_ask_the_same_at_once_use_one_answer(server, cfg, tmp_path):
    both_here, lock, given = threading.Barrier(2), threading.Lock(), iter(["sad", "happy"])

    def otherwise(body):
        both_here.wait(20)
        with lock:
            return fake.label(next(given))

    server.otherwise = otherwise
    with ThreadPoolExecutor(2) as pool:
        clients = [make_client(cfg, tmp_path), make_client(cfg, tmp_path)]
        one, other = pool.map(lambda client: client.ask(questions_of("a")), clients)
    assert len(server.asked) == 2 and one == other
    assert make_client(cfg, tmp_path).ask(questions_of("a")) == one and len(server.asked) == 2


def test_answers_of_another_process_are_not_asked_again(server, cfg, tmp_path):
    def otherwise(body):
        if body["messages"][1]["content"] == "a" and len(server.asked) == 1:
            make_client(replace(cfg, seed=cfg.seed), tmp_path).ask(questions_of("b"))
        return fake.label("sad")

    server.otherwise = otherwise
    client = make_client(replace(cfg, max_concurrency=1), tmp_path)
    assert [answer.label for answer in client.ask(questions_of("a", "b"))] == ["sad", "sad"]
    assert len(server.asked) == 2
    assert (client.counts.cached, client.counts.requests, client.counts.paid_usd) == (1, 1, pytest.approx(0.00035))


def test_damaged_entry_is_asked_for_again(server, cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions_of("a"))
    [entry] = [path for path in tmp_path.rglob("*") if path.is_file()]
    entry.write_bytes(entry.read_bytes()[:-3])
    make_client(cfg, tmp_path).ask(questions_of("a"))
    assert len(server.asked) == 2


def test_more_logprobs_are_requested_only_if_the_endpoint_allows_it(server, cfg, tmp_path):
    def otherwise(body):
        top = [{"token": "happy", "logprob": -1.0, "bytes": None}]
        if body["top_logprobs"] >= 200:
            top += [{"token": t, "logprob": -2.0, "bytes": None} for t in ("sad", "ang")]
            top.append({"token": "~", "logprob": -20.0, "bytes": None})
        tokens = [
            {"token": '{"emotion":"', "logprob": 0.0, "bytes": None, "top_logprobs": []},
            {"token": "happy", "logprob": -1.0, "bytes": None, "top_logprobs": top},
        ]
        return fake.completion('{"emotion":"happy"}', logprobs=tokens)

    server.otherwise = otherwise
    [unknown] = make_client(cfg, tmp_path).ask(questions_of("a"))
    assert unknown.label == "happy" and unknown.probabilities is None and len(server.asked) == 1
    generous = endpoint.Endpoint("here", cfg.base_url, cfg.api_key_env, most_logprobs=1_000)
    opened = contextlib.nullcontext(generous)
    [known] = LlmClient(cfg, LABELS, Cache(tmp_path), "elsewhere", "p", lambda: opened).ask(questions_of("a"))
    assert known.probabilities is not None and known.requests == 2
    assert [body["top_logprobs"] for body in server.asked[1:]] == [20, 200]


def test_loopback_is_not_sent_through_a_proxy_of_the_environment(server, cfg, tmp_path, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    answer, _ = ask_one(server, cfg, tmp_path)
    assert answer.label == "happy"


def test_answer_survives_json_under_the_stored_keys():
    answer = ModelAnswer("t", "sad", "", (0.25, 0.75), 1, 2, 0.5, 3, 2, "schema", 4, True, ("seed",))
    stored = answer.to_json()
    assert ModelAnswer.from_json(json.loads(json.dumps(stored))) == answer
    assert list(stored) == [
        "text", "label", "reason", "probabilities", "tokens_in", "tokens_out", "latency_s", "requests", "retries",
        "way", "tokens_audio", "usage_estimated", "changes",
    ]  # fmt: skip
    assert stored["way"] == "schema"


def test_progress_line_counts_and_estimates_the_rest():
    with RequestProgress(total=100, done=20) as progress:
        counts = RequestCounts(cached=20, retried=3, paid_usd=0.214, reasons=Counter(refusal=2, failed=1))
        for _ in range(40):
            progress.update(counts)
        line = progress.line(counts, elapsed_s=80.0)
    assert line == (
        "60 of 100 (20 from the cache): 57 answered, 2 abstained, 1 failed, 3 retried, US$ 0.21 so far, about 80 s left"
    )
