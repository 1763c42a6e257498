"""The budget that no run exceeds, prices, and the time limit of a run."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ser_bench.config import CacheMode, LlmConfig
from ser_bench.errors import ConfigError, LLMStoppedError
from ser_bench.predictors.llm.budget import Budget, check_prices
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

PRICES = {"price_in_usd": 2.5, "price_out_usd": 10.0, "price_date": "2024-10"}
PAID_USD = 100 * 2.5e-6 + 10 * 10e-6
"""What one answer of the fake server costs."""


@pytest.fixture
def server():
    with fake.serve() as running:
        yield running


@pytest.fixture
def cfg(server):
    return LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env=None, timeout_s=5.0, max_retries=0,
        max_concurrency=4, **PRICES,
    )  # fmt: skip


def test_budget_is_never_exceeded_and_answers_are_kept(server, cfg, tmp_path):
    tight = replace(cfg, budget_usd=10 * PAID_USD)
    with pytest.raises(LLMStoppedError) as caught:
        make_client(tight, tmp_path).ask(questions(50))
    asked = len(server.asked)
    assert 5 <= asked <= 10
    message = str(caught.value)
    assert f"{asked} of 50 clips were answered" in message and "llm.budget_usd" in message and "are kept" in message
    assert message.count("US$") == 2 and "\n" not in message
    # The same command with more money asks only for the rest.
    client = make_client(replace(cfg, budget_usd=100 * PAID_USD), tmp_path)
    assert len(client.ask(questions(50))) == 50 and len(server.asked) == 50
    assert client.counts.paid_usd == pytest.approx((50 - asked) * PAID_USD)


def test_budget_of_zero_sends_no_request_but_uses_cached_answers(server, cfg, tmp_path):
    make_client(cfg, tmp_path).ask(questions(3))
    without_money = replace(cfg, budget_usd=0.0)
    assert len(make_client(without_money, tmp_path).ask(questions(3))) == 3 == len(server.asked)
    with pytest.raises(LLMStoppedError, match="3 of 4 clips"):
        make_client(without_money, tmp_path).ask(questions(4))
    assert len(server.asked) == 3


def test_message_states_that_answers_are_lost_without_a_cache(server, cfg, tmp_path):
    with pytest.raises(LLMStoppedError, match=r"lost, because llm\.cache"):
        make_client(replace(cfg, budget_usd=3 * PAID_USD, cache=CacheMode.off), tmp_path).ask(questions(9))


def test_lost_answer_counts_with_its_highest_possible_cost(server, cfg, tmp_path):
    server.queue.extend([fake.Reply({}, cut=True)] * 3)
    client = make_client(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    client.ask(questions(5))
    assert client.counts.paid_usd == pytest.approx(2 * PAID_USD)
    assert client.budget.spent_usd > 3 * 16 * 10e-6 + 2 * PAID_USD, "three lost answers at their highest possible cost"
    assert client.budget.reserved_usd == 0.0


def test_refused_request_is_not_charged(server, cfg, tmp_path):
    server.queue.extend([fake.error(500, "oops")] * 3)
    client = make_client(replace(cfg, max_concurrency=1, budget_usd=1.0), tmp_path)
    client.ask(questions(5))
    assert client.budget.spent_usd == pytest.approx(2 * PAID_USD)


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": -100, "completion_tokens": -10},
        {"prompt_tokens": "100", "completion_tokens": "10"},
        {"prompt_tokens": 100.5, "completion_tokens": 9.5},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": None, "completion_tokens": float("nan")},
        {"prompt_tokens": 10**30, "completion_tokens": 10**30},
    ],
)
def test_unknown_usage_costs_the_most_it_can(server, cfg, tmp_path, usage):
    server.otherwise = lambda body: fake.with_usage(fake.label("sad"), usage)
    client = make_client(replace(cfg, budget_usd=0.004, max_concurrency=8), tmp_path)
    with pytest.raises(LLMStoppedError):
        client.ask(questions(60))
    assert 0.002 < client.budget.spent_usd <= 0.004 and 2 < len(server.asked) < 20
    assert client.counts.paid_usd == pytest.approx(client.budget.spent_usd)
    [stored] = [answer for answer in make_client(cfg, tmp_path).stored(questions(1)) if answer]
    assert stored.usage_estimated and stored.tokens_out == cfg.max_tokens and stored.tokens_in > 100


def test_known_usage_is_what_it_costs_with_hidden_tokens(server, cfg, tmp_path):
    usages = [
        {"prompt_tokens": 100.0, "completion_tokens": 10},
        {"prompt_tokens": 100, "completion_tokens": 4, "total_tokens": 110},  # six tokens of thinking
        {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": "?"},
    ]
    server.queue.extend([fake.with_usage(fake.label("sad"), usage) for usage in usages])
    client = make_client(replace(cfg, max_concurrency=1), tmp_path)
    answers = client.ask(questions(3))
    assert client.budget.spent_usd == pytest.approx(3 * PAID_USD)
    assert not any(answer.usage_estimated for answer in answers)


def test_server_that_ignores_the_length_is_reserved_for_with_what_it_wrote(server, cfg, tmp_path):
    usage = {"prompt_tokens": 100, "completion_tokens": 7 * cfg.max_tokens}
    long = replace(fake.with_usage(fake.label("sad"), usage), delay_s=0.05)
    server.otherwise = lambda body: long
    one_usd = 100 * 2.5e-6 + 7 * cfg.max_tokens * 10e-6
    client = make_client(replace(cfg, budget_usd=10 * one_usd, max_concurrency=8), tmp_path)
    with pytest.raises(LLMStoppedError):
        client.ask(questions(60))
    assert 2 <= len(server.asked) <= 10 and client.budget.spent_usd <= 10 * one_usd


def test_budget_is_that_of_the_run_however_often_it_is_started(server, cfg, tmp_path):
    ledger = tmp_path / "spending.jsonl"
    tight = replace(cfg, budget_usd=10 * PAID_USD, max_concurrency=1)
    for _ in range(3):
        with pytest.raises(LLMStoppedError, match=r"US\$ 0\.00\d+ spent"):
            make_client(tight, tmp_path / "cache", ledger=ledger).ask(questions(50))
    assert 5 <= len(server.asked) <= 10
    client = make_client(replace(tight, budget_usd=20 * PAID_USD), tmp_path / "cache", ledger=ledger)
    with pytest.raises(LLMStoppedError):
        client.ask(questions(50))
    assert 15 <= len(server.asked) <= 20 and client.budget.spent_usd == pytest.approx(len(server.asked) * PAID_USD)


def test_request_under_way_when_a_process_was_killed_counts_with_its_highest_cost(tmp_path):
    ledger = tmp_path / "spending.jsonl"
    killed = Budget(1.0, ledger)
    asyncio.run(killed.reserve(0.25))
    assert Budget(1.0, ledger).spent_usd == pytest.approx(0.25)
    killed.settle(0.25, 0.25, 0.1)
    with ledger.open("a") as file:
        file.write('\n{"usd": 0.7')  # the kill cut the line
    resumed = Budget(1.0, ledger)
    assert resumed.spent_usd == pytest.approx(0.1)
    asyncio.run(resumed.reserve(0.3))
    assert Budget(1.0, ledger).spent_usd == pytest.approx(0.4), "a line after the cut one counts"


def test_budget_without_prices_is_refused(cfg):
    with pytest.raises(ConfigError, match=r"llm\.price_in_usd"):
        check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0))
    with pytest.raises(ConfigError, match="0 or more"):
        check_prices(replace(cfg, budget_usd=-1.0))
    check_prices(replace(cfg, budget_usd=1.0))
    check_prices(replace(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0, local=True))


def test_run_deadline_stops_and_keeps(server, cfg, tmp_path):
    server.otherwise = lambda body: replace(fake.label("sad"), delay_s=0.3)
    with pytest.raises(LLMStoppedError, match=r"llm\.run_deadline_s=1: .*are kept"):
        make_client(replace(cfg, run_deadline_s=1.0), tmp_path).ask(questions(60))
    asked = len(server.asked)
    assert 1 < asked < 40
    server.otherwise = lambda body: fake.label("sad")
    client = make_client(cfg, tmp_path)
    client.ask(questions(60))
    assert client.counts.cached == asked, "answers that were under way when the time was up are kept too"
