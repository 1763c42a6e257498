"""The batch API: one submission whatever happens, the same answers as online, half the price."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ser_bench import redaction
from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import ConfigError, InterruptedRunError, LLMError, LLMStoppedError
from ser_bench.predictors.llm import batches, client, cost_estimate, request_body
from ser_bench.predictors.llm.batches import BatchState
from ser_bench.predictors.llm.budget import LEDGER_FILE, Budget
from ser_bench.predictors.llm.client import LlmClient
from ser_bench.predictors.llm.cost_estimate import estimate_cost, token_counter
from tests.support import fake_batches, fake_providers
from tests.support import fake_openai as fake
from tests.support.fake_batches import DropConnectionError, FakeBatchService
from tests.support.llm_clients import LABELS, make_client, questions

CLIPS, SMALLEST = 9, 4
LINE_USD = (100 * 2.0 + 10 * 8.0) / 1e6


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SMALLEST_BATCH", SMALLEST)
    monkeypatch.setattr(cost_estimate, "SMALLEST_BATCH", SMALLEST)


@pytest.fixture
def service() -> Iterator[FakeBatchService]:
    with fake_batches.serve() as running:
        yield running


@pytest.fixture
def cfg(service: FakeBatchService) -> LlmConfig:
    return LlmConfig(
        name="fake", model="m", base_url=service.base_url, api_key_env=None, max_retries=0, batch=True,
        batch_poll_s=0.01, price_in_usd=2.0, price_out_usd=8.0, timeout_s=9.0,
    )  # fmt: skip


def client_of(cfg: LlmConfig, folder: Path) -> LlmClient:
    """Return a client with its cache and its work folder in this folder."""
    return make_client(cfg, folder / "cache", ledger=folder / LEDGER_FILE)


def texts_of(service: FakeBatchService) -> list[str]:
    """Texts of the questions of all batches."""
    return [line["body"]["messages"][1]["content"] for line in service.lines]


def test_all_but_the_first_question_go_into_one_batch_at_half_the_price(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asking = client_of(cfg, tmp_path)
    with caplog.at_level(logging.INFO):
        answers = asking.ask(questions(CLIPS))
    assert [a.label for a in answers] == ["sad"] * CLIPS
    assert len(service.online) == 1 and len(service.batches) == 1 and len(service.lines) == CLIPS - 1
    assert sorted(a.batched for a in answers) == [False] + [True] * (CLIPS - 1)
    assert asking.counts.paid_usd == pytest.approx(LINE_USD * (1 + (CLIPS - 1) / 2))
    assert asking.budget.spent_usd == pytest.approx(asking.counts.paid_usd) and asking.budget.reserved_usd == 0
    assert Budget(None, tmp_path / LEDGER_FILE).spent_usd == pytest.approx(asking.counts.paid_usd)
    line = service.lines[0]
    assert line["method"] == "POST" and line["url"] == "/v1/chat/completions" and len(line["custom_id"]) <= 64
    assert set(line["body"]) == set(service.online[0]), "a line is the body of a request"
    assert "in_progress" in caplog.text and "completed" in caplog.text
    assert set(service.deleted) == {"file-1", "file-2"} and not service.files, "the files were deleted"
    # Another process finds all answers, knows which were half the price, and asks nothing.
    calls = len(service.calls)
    again = client_of(cfg, tmp_path)
    assert again.ask(questions(CLIPS)) == answers and len(service.calls) == calls and again.counts.paid_usd == 0


def test_answers_of_a_batch_are_read_like_online_ones(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> fake.Reply:
        kind = int(body["messages"][1]["content"]) % 5
        return [
            fake.completion('{"emotion":"sad"}', logprobs=fake_providers.SAD_TOKENS),
            fake.completion("happy, I think"),
            fake.completion(None, refusal="no"),
            fake.error(400, "The response was filtered", "content_filter"),
            fake.completion('{"emo', finish="length"),
        ][kind]

    service.answer = answer
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    in_batches = client_of(cfg, tmp_path / "a").ask(questions(CLIPS))
    online = client_of(replace(cfg, batch=False), tmp_path / "b").ask(questions(CLIPS))
    same = [replace(a, batched=False, latency_s=0.0, requests=0, text="") for a in in_batches]
    wanted = [replace(a, latency_s=0.0, requests=0, text="") for a in online]
    assert same == wanted and {a.reason for a in same} == {"", "bad_json", "refusal", "content_filter", "length"}
    assert in_batches[5].probabilities and [a.text for a in in_batches][:3] == [a.text for a in online][:3]


def interrupt_at(service: FakeBatchService, call: str, after: bool) -> None:
    """Close the connection once, before or after the service carries out a call."""

    def hook(name: str) -> None:
        if name == call:
            service.before = service.after = lambda name: None
            raise DropConnectionError

    if after:
        service.after = hook
    else:
        service.before = hook


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("call", "after"),
    [("POST /files", False), ("POST /files", True), ("POST /batches", False), ("POST /batches", True)],
)
def test_nothing_is_submitted_twice(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, call: str, after: bool, lost: bool
) -> None:
    interrupt_at(service, call, after)
    with pytest.raises(LLMError, match="cannot be reached"):
        client_of(cfg, tmp_path).ask(questions(CLIPS))
    if lost:
        (tmp_path / batches.STATE_FILE).unlink()
    asking = client_of(cfg, tmp_path)
    assert [a.label for a in asking.ask(questions(CLIPS))] == ["sad"] * CLIPS
    assert len(service.batches) == 1 and len(set(texts_of(service))) == len(service.lines)
    if not lost:
        assert len(service.lines) == CLIPS - 1 and len(service.online) == 1
        assert service.calls.count("POST /files") == (2 if (call, after) == ("POST /files", False) else 1)
        assert asking.budget.spent_usd == pytest.approx(LINE_USD * (1 + (CLIPS - 1) / 2)), "nothing stays reserved"


@pytest.mark.parametrize("after", [False, True])
def test_a_request_whose_answer_was_lost_is_not_repeated_blindly(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "backoff_s", lambda retry: 0.0)
    interrupt_at(service, "POST /batches", after)
    answers = client_of(replace(cfg, max_retries=2), tmp_path).ask(questions(CLIPS))
    assert [a.label for a in answers] == ["sad"] * CLIPS and len(service.batches) == 1


def test_a_killed_process_leaves_a_batch_that_the_same_command_continues(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    service.polls = 10**6
    child = os.fork()
    if child == 0:
        try:
            client_of(cfg, tmp_path).ask(questions(CLIPS))
        finally:
            os._exit(1)
    deadline = time.monotonic() + 20
    while not any(batch["asked"] for batch in service.batches.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    [identifier] = BatchState(tmp_path).ids.values()
    assert list(service.batches) == [identifier]
    before = client_of(cfg, tmp_path)
    assert before.budget.spent_usd > LINE_USD * CLIPS / 2, "the batch counts with the most that it can cost"
    service.polls = 0
    asking = client_of(cfg, tmp_path)
    assert [a.label for a in asking.ask(questions(CLIPS))] == ["sad"] * CLIPS
    assert len(service.batches) == 1 and len(service.online) == 1
    assert asking.budget.spent_usd == pytest.approx(LINE_USD * (1 + (CLIPS - 1) / 2))


def test_ctrl_c_and_the_deadline_of_a_run_leave_the_batch_running(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.polls = 10**6
    with pytest.raises(LLMStoppedError, match=r"run_deadline_s=0\.3.*batch_1 goes on at the service"):
        client_of(replace(cfg, run_deadline_s=0.3), tmp_path).ask(questions(CLIPS))

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(InterruptedRunError, match="same command"):
        patch.setattr(batches.time, "sleep", interrupted)
        client_of(cfg, tmp_path).ask(questions(CLIPS))
    service.polls = 0
    assert [a.label for a in client_of(cfg, tmp_path).ask(questions(CLIPS))] == ["sad"] * CLIPS
    assert len(service.batches) == 1


def test_lines_that_expired_are_asked_in_a_second_batch_and_a_few_online(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    tries: dict[str, int] = {}

    def answer(body: dict[str, Any]) -> fake.Reply | None:
        text = body["messages"][1]["content"]
        tries[text] = tries.get(text, 0) + 1
        if tries[text] == 1 and int(text) >= 5:
            return None if int(text) % 2 else fake.error(500, "oops")
        return None if tries[text] == 2 and int(text) in (11, 12) else fake.label("sad")

    service.ends = "expired"
    service.answer = answer
    count = 20
    asking = client_of(replace(cfg, max_retries=1), tmp_path)
    for asked in questions(count):
        if asking._key(asked) == min(map(asking._key, questions(count))):
            tries[asked.messages[1]["content"]] = 5  # it is asked online, and has its answer at once
    answers = asking.ask(questions(count))
    assert [a.label for a in answers] == ["sad"] * count
    assert len(service.batches) == 2 and 2 <= len(service.online) <= 3
    assert asking.counts.unanswered_lines == sum(number > 1 for number in tries.values() if number < 5) + sum(
        tries[text] == 3 for text in ("11", "12")
    )
    assert asking.budget.spent_usd == pytest.approx(asking.counts.paid_usd)


def test_lines_that_never_get_an_answer_have_failed_and_cost_nothing(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    first: list[str] = []

    def answer(body: dict[str, Any]) -> fake.Reply | None:
        first.append(body["messages"][1]["content"])
        return fake.label("sad") if body["messages"][1]["content"] == first[0] else None

    service.answer = answer
    asking = client_of(cfg, tmp_path)
    answers = asking.ask(questions(CLIPS))
    assert sum(a.failed for a in answers) == CLIPS - 1 and {a.cause for a in answers} == {"", "unanswered in a batch"}
    assert len(service.batches) == batches.MOST_ROUNDS and len(service.online) == 1
    assert asking.budget.spent_usd == pytest.approx(LINE_USD)
    service.answer = lambda body: fake.label("sad")
    assert not any(a.failed for a in client_of(cfg, tmp_path).ask(questions(CLIPS))), "the next run asks again"


def test_a_refused_batch_stops_the_run_with_the_reason(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    service.ends = "failed"
    with pytest.raises(LLMError, match=r"refuses the batch batch_1 \(Enqueued token limit reached") as caught:
        client_of(cfg, tmp_path).ask(questions(CLIPS))
    assert "\n" not in str(caught.value)
    service.ends = "completed"
    asking = client_of(cfg, tmp_path)
    assert [a.label for a in asking.ask(questions(CLIPS))] == ["sad"] * CLIPS and len(service.batches) == 2
    assert asking.budget.spent_usd <= LINE_USD * (2 + CLIPS / 2), "nothing was paid for the refused one"


def test_an_error_that_concerns_every_line_stops_the_run_after_the_others_are_kept(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> fake.Reply:
        failing = texts_of(service)[:1] == [body["messages"][1]["content"]]  # a line, not the first question
        return fake.error(404, "no such model", "model_not_found") if failing else fake.label("sad")

    service.answer = answer
    with pytest.raises(LLMError, match=r"llm\.model"):
        client_of(cfg, tmp_path).ask(questions(CLIPS))
    asking = client_of(cfg, tmp_path)
    service.answer = lambda body: fake.label("sad")
    asking.ask(questions(CLIPS))
    assert asking.counts.cached >= CLIPS - 1 and len(service.batches) == 1


def test_a_batch_that_could_exceed_the_budget_is_not_submitted(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    with pytest.raises(LLMStoppedError, match=r"the batch could exceed it"):
        client_of(replace(cfg, budget_usd=0.0008), tmp_path).ask(questions(CLIPS))
    assert not service.batches and not service.files
    assert client_of(replace(cfg, budget_usd=1.0), tmp_path).ask(questions(CLIPS))[3].label == "sad"


def test_a_few_questions_and_a_stored_predictor_ask_online(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    client_of(cfg, tmp_path).ask(questions(SMALLEST - 1))
    make_client(cfg, tmp_path / "other").ask(questions(CLIPS))
    assert not service.batches and len(service.online) == SMALLEST - 1 + CLIPS


def test_what_the_endpoint_refuses_is_found_by_one_question_and_holds_for_the_batch(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path
) -> None:
    service.answer = fake_providers.gemini
    answers = client_of(cfg, tmp_path).ask(questions(CLIPS))
    assert {(a.label, tuple(sorted(a.changes))) for a in answers} == {("sad", ("logprobs", "seed"))}
    assert len(service.online) == 3 and all("seed" not in line["body"] for line in service.lines)


def test_large_batches_are_split_and_a_split_one_continues(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_LINES", 5)
    created: list[str] = []

    def after(call: str) -> None:
        created.extend([call] if call == "POST /batches" else [])
        if len(created) == 2:
            created.append("")
            raise DropConnectionError

    service.after = after
    with pytest.raises(LLMError):
        client_of(cfg, tmp_path).ask(questions(16))
    answers = client_of(cfg, tmp_path).ask(questions(16))
    assert [a.label for a in answers] == ["sad"] * 16
    assert len(service.lines) == len(set(texts_of(service))) and max(
        batch["request_counts"]["total"] for batch in service.batches.values()
    ) == 5


def test_an_endpoint_without_batches_is_named(cfg: LlmConfig, tmp_path: Path) -> None:
    with fake_batches.serve() as service:
        service.handle = lambda method, path, raw, kind: (  # type: ignore[method-assign]
            fake.label("sad") if path == "/chat/completions" else fake.error(404, "Not Found")
        )
        with pytest.raises(LLMError, match=r"has no batch API \(HTTP 404\): set llm\.batch=false"):
            client_of(replace(cfg, base_url=service.base_url), tmp_path).ask(questions(CLIPS))


def test_the_key_is_in_no_file_of_the_work_folder(
    service: FakeBatchService, cfg: LlmConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    key = "Zq7+xW2/vB9=kT4-mN8"
    monkeypatch.setenv("SOME_VARIABLE", key)
    azure = replace(cfg, api_key_env="SOME_VARIABLE", key_header="api-key")
    with caplog.at_level(logging.DEBUG):
        client_of(azure, tmp_path).ask(questions(CLIPS))
    redaction.forget_secrets()
    assert {header.get("api-key") for header in service.headers} == {key}
    assert all("authorization" not in header for header in service.headers)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        assert key not in path.read_text(errors="replace"), path
    assert key not in caplog.text and key not in json.dumps(service.lines)


def test_damaged_state_and_results_are_left_out(tmp_path: Path) -> None:
    state = BatchState(tmp_path)
    state.note("d", reserved_usd=2.0, format="schema", changes=["seed"])
    state.note("d", id="batch_1")
    with (tmp_path / batches.STATE_FILE).open("a") as file:
        file.write('\n{"digest": "d", "ended": "bat')
    again = BatchState(tmp_path)
    assert (again.ids, again.reserved_usd, again.plans) == ({"d": "batch_1"}, {"d": 2.0}, {"d": ("schema", ("seed",))})
    again.note("d", ended="batch_1")
    assert not BatchState(tmp_path).ids and BatchState(tmp_path).ended == {"batch_1"}
    for line in ("", "{", "[]", "3", '{"custom_id": "a", "response": {"status_code": "x"}}'):
        assert batches._result(line) is None


def test_the_estimate_states_half_the_price_and_a_day(cfg: LlmConfig) -> None:
    counter, asked = token_counter("m"), questions(CLIPS)
    whole = estimate_cost(asked, [None] * CLIPS, LABELS, False, replace(cfg, batch=False), counter)
    half = estimate_cost(asked, [None] * CLIPS, LABELS, False, cfg, counter)
    assert half.usd == pytest.approx(whole.usd / 2) and half.usd_most == pytest.approx(whole.usd_most / 2)
    text = "\n".join(half.lines(cfg))
    assert "50% of these prices" in text and "batch API may take" in text and half.seconds == 24 * 3600


def test_keys_that_exclude_a_batch_are_refused(cfg: LlmConfig) -> None:
    with pytest.raises(ConfigError, match="local server has no batch API"):
        request_body.check_keys(LlmConfig(name="local", model="m", local=True, batch=True))
    with pytest.raises(ConfigError, match=r"llm\.batch=true needs llm\.cache=readwrite"):
        request_body.check_keys(replace(cfg, cache=CacheMode.off))
    request_body.check_keys(cfg)
