"""Everything that a service may do, and the exact outcome: the table of docs/llm.md as tests, over real HTTP."""

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
from ser_bench.predictors.llm import endpoint
from ser_bench.predictors.llm.batch import Batch
from ser_bench.predictors.llm.prompting.question import Question
from tests.support import fake_openai as fake

LABELS = ("angry", "happy", "sad")
SAD = fake.label("sad")
NEVER = fake.Reply({}, delay_s=4.0)
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


def make(cfg: LlmConfig, folder) -> Batch:
    return Batch(cfg, LABELS, Cache(folder), endpoint.identity(cfg), "p", lambda: endpoint.open_service(cfg))


def questions(count: int) -> list[Question]:
    return [
        Question(({"role": "system", "content": "Say."}, {"role": "user", "content": str(n)})) for n in range(count)
    ]


# fault: what the server replies, first to last; then the label, the reason where there is none, requests, retries.
TABLE = {
    "429": ([fake.error(429, "slow"), SAD], "sad", "", 2, 1),
    "429, Retry-After": ([fake.error(429, "slow", headers={"retry-after": "0.3"}), SAD], "sad", "", 2, 1),
    "429, Retry-After in ms": ([fake.error(429, "slow", headers={"retry-after-ms": "9"}), SAD], "sad", "", 2, 1),
    "429 for ever": ([fake.error(429, "slow", headers={"retry-after": "0"})] * 3, "", "failed", 3, 2),
    "500": ([fake.error(500, "oops"), SAD], "sad", "", 2, 1),
    "503, Retry-After": ([fake.error(503, "busy", headers={"retry-after": "0.1"}), SAD], "sad", "", 2, 1),
    "500 for ever": ([fake.error(500, "oops")] * 3, "", "failed", 3, 2),
    "slow first byte": ([replace(SAD, delay_s=0.5)], "sad", "", 1, 0),
    "slow body": ([replace(SAD, body_delay_s=0.5)], "sad", "", 1, 0),
    "never answers": ([NEVER, SAD], "sad", "", 2, 1),
    "never ends": ([replace(SAD, drip_s=0.1), SAD], "sad", "", 2, 1),
    "headers, then nothing": ([replace(SAD, body_delay_s=4.0), SAD], "sad", "", 2, 1),
    "cut in mid-body": ([fake.Reply({"id": "c"}, cut=True), SAD], "sad", "", 2, 1),
    "cut for ever": ([fake.Reply({"id": "c"}, cut=True)] * 3, "", "failed", 3, 2),
    "malformed JSON": ([fake.Reply(b'{"choices": [')], "", "failed", 1, 0),
    "no object": ([fake.Reply(b"[]")], "", "failed", 1, 0),
    "outside the labels": ([fake.label("joyful")], "", "not_a_label", 1, 0),
    "no JSON in the answer": ([fake.completion("happy, I think")], "", "bad_json", 1, 0),
    "refusal": ([fake.completion(None, refusal="no")], "", "refusal", 1, 0),
    "content filter": ([fake.completion(None, finish="content_filter")], "", "content_filter", 1, 0),
    "finish_reason=length": ([fake.completion('{"emo', finish="length")], "", "length", 1, 0),
    "no choices": ([fake.no_choices()], "", "empty", 1, 0),
    "context too long": ([fake.error(400, "too long", "context_length_exceeded")], "", "too_long", 1, 0),
    "too large": ([fake.error(413, "too large")], "", "too_long", 1, 0),
}


@pytest.mark.parametrize("fault", TABLE)
def test_fault_and_its_outcome(server, cfg, tmp_path, fault):
    replies, label, reason, requests, retries = TABLE[fault]
    server.queue.extend(replies)
    batch = make(cfg, tmp_path)
    found, after = batch.ask(questions(2))
    assert (found.label, found.reason, found.requests, found.retries) == (label, reason, requests, retries)
    assert after.label == "happy", "the next question is not concerned"
    assert len(server.asked) == requests + 1 == batch.tally.requests and batch.tally.retried == retries
    assert batch._purse._held_usd == 0.0
    # What was answered is kept, what was not is asked again: by nobody twice.
    server.otherwise = lambda body: fake.label("sad")
    again = make(cfg, tmp_path).ask(questions(2))
    assert len(server.asked) == requests + 1 + (reason == "failed")
    assert again[1] == after and (again[0] == found or reason == "failed")


STOPS = {
    "401": (fake.error(401, "bad key", "invalid_api_key"), "llm.api_key_env"),
    "403": (fake.error(403, "not for you"), "llm.api_key_env"),
    "404": (fake.error(404, "no such model", "model_not_found"), "llm.model"),
    "quota spent": (fake.error(429, "You exceeded your quota", "insufficient_quota"), "the quota is spent"),
    "a rest of an hour": (fake.error(429, "daily limit", headers={"retry-after": "3600"}), "3,600 seconds"),
}


@pytest.mark.parametrize("fault", STOPS)
def test_what_concerns_all_stops_in_the_middle_at_once_and_keeps_what_was_answered(server, cfg, tmp_path, fault):
    reply, said = STOPS[fault]
    server.queue.extend([SAD] * 5 + [reply])
    with pytest.raises(LLMError, match=said) as caught:
        make(cfg, tmp_path).ask(questions(9))
    assert len(server.asked) == 6, "not repeated, and nobody asks after it"
    assert "\n" not in str(caught.value)
    batch = make(cfg, tmp_path)
    assert [a.label for a in batch.ask(questions(9))] == ["sad"] * 5 + ["happy"] * 4
    assert (batch.tally.cached, batch.tally.requests) == (5, 4)


def test_retry_after_holds_everybody(server, cfg, tmp_path):
    server.queue.extend([SAD, fake.error(429, "slow", headers={"retry-after": "1"})])
    make(replace(cfg, max_concurrency=2, timeout_s=9.0), tmp_path).ask(questions(12))
    refused = server.times[1]
    early = [t - refused for t in server.times[2:] if 0.3 < t - refused < 0.95]
    assert not early and server.times[-1] - refused >= 1.0


def test_deadline_of_a_clip_ends_its_retries(server, cfg, tmp_path):
    server.otherwise = lambda body: SAD if body["messages"][1]["content"] == "1" else fake.error(500, "oops")
    began = time.monotonic()
    slow, fast = make(replace(cfg, max_retries=19, deadline_s=2.0), tmp_path).ask(questions(2))
    assert slow.failed and 2 <= slow.requests < 8 and time.monotonic() - began < 6.0
    assert fast.label == "sad"


def test_deadline_of_a_clip_cuts_the_last_request(server, cfg, tmp_path):
    server.queue.append(NEVER)
    began = time.monotonic()
    slow, _ = make(replace(cfg, timeout_s=60.0, max_retries=0, deadline_s=0.5), tmp_path).ask(questions(2))
    assert slow.failed and time.monotonic() - began < 3.0


def knows(*formats: str):
    """A server that accepts these kinds of response_format alone ("" for none) and answers in that form."""

    def otherwise(body):
        kind = body.get("response_format", {}).get("type", "")
        if kind not in formats:
            return fake.error(400, f"response_format '{kind}' is not supported by this model", "invalid_request_error")
        return fake.label("sad") if kind else fake.completion("Sad.")

    return otherwise


@pytest.mark.parametrize(
    ("formats", "way", "refused"),
    [(("json_schema",), "schema", 0), (("json_object", ""), "json", 1), (("",), "text", 2)],
)
def test_form_steps_down_once_for_all_questions(server, cfg, tmp_path, caplog, formats, way, refused):
    server.otherwise = knows(*formats)
    batch = make(replace(cfg, max_concurrency=8, timeout_s=9.0), tmp_path)
    with caplog.at_level("INFO"):
        found = batch.ask(questions(12))
    assert {(a.label, a.way) for a in found} == {("sad", way)}
    assert len(server.asked) == 12 + refused, "the first question alone finds out"
    assert batch.tally.retried == 0 and batch.tally.requests == 12 + refused
    assert caplog.text.count("asking with") == refused
    assert make(cfg, tmp_path).ask(questions(12)) == found and len(server.asked) == 12 + refused


def test_no_step_down_where_the_way_was_chosen(server, cfg, tmp_path):
    server.otherwise = knows("")
    with pytest.raises(LLMError, match="response_format"):
        make(replace(cfg, answer_format=AnswerFormat.json), tmp_path).ask(questions(3))
    assert len(server.asked) == 1
    found = make(replace(cfg, answer_format=AnswerFormat.text), tmp_path).ask(questions(3))
    assert {a.way for a in found} == {"text"} and all("response_format" not in body for body in server.asked[1:])


def test_other_errors_do_not_step_down(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.error(400, "temperature must be 1 for this model")
    with pytest.raises(LLMError, match="temperature"):
        make(cfg, tmp_path).ask(questions(3))
    assert len(server.asked) == 1


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc to see its memory")
def test_two_thousand_clips_at_64_at_once_with_a_fifth_of_faults(cfg, server, tmp_path):
    """All accounted for, memory flat, and the throughput that the server's own limit allows."""
    clips, per_second = 2_000, 50.0
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
            if len(seen) == 400 and not memory:
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
    batch = make(replace(cfg, max_concurrency=64, max_retries=4, timeout_s=10.0), tmp_path)
    began = time.monotonic()
    found = batch.ask(questions(clips))
    took_s = time.monotonic() - began
    grown_mib = resident_mib() - memory[0]

    labelled = sum(bool(a.label) for a in found)
    failed = sum(a.failed for a in found)
    abstained = sum(bool(a.reason) and not a.failed for a in found)
    assert labelled + failed + abstained == clips == len(found)
    assert sum(seen.values()) == len(server.asked) == batch.tally.requests == sum(a.requests for a in found)
    assert batch.tally.retried == sum(a.retries for a in found) == batch.tally.requests - clips
    assert max(seen.values()) <= 5, "the first request and four retries"
    assert Counter(a.reason for a in found if a.reason) == batch.tally.reasons
    assert abstained > 50 and batch.tally.reasons["empty"] > 20 and batch.tally.reasons["bad_json"] > 20
    assert server.most_under_way <= 64
    kept = make(cfg, tmp_path).stored(questions(clips))
    assert sum(a is not None for a in kept) == clips - failed, "all that was paid for is on disk"
    allowed = (len(server.asked) - state["limited"]) / per_second
    print(f"\n{clips} clips, {len(server.asked)} requests, {state['limited']} over the limit, {took_s:.1f} s "
          f"(the limit allows {allowed:.1f} s), {labelled} labelled, {abstained} abstained, {failed} failed, "
          f"{grown_mib:+.1f} MiB since the first 400")  # fmt: skip
    assert took_s <= allowed / 0.8 and state["limited"] < 0.1 * len(server.asked)
    assert grown_mib < 24
