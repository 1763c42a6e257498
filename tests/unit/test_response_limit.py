"""Responses that are too large or unpack to too much, over real HTTP, with a small limit."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from ser_bench import response_limit
from ser_bench.config import LlmConfig
from ser_bench.openai_client import openai_client
from ser_bench.response_limit import BoundedDecoder, ResponseRefusedError
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

LIMIT = 100_000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[fake.FakeOpenAI]:
    monkeypatch.setattr(response_limit, "MOST_RESPONSE_BYTES", LIMIT)
    with fake.serve() as running:
        yield running


@pytest.fixture
def cfg(server: fake.FakeOpenAI) -> LlmConfig:
    return LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env=None, timeout_s=5.0, max_concurrency=1,
        price_in_usd=2.5, price_out_usd=10.0,
    )  # fmt: skip


def packed(data: bytes, encoding: str = "gzip", status: int = 200) -> fake.Reply:
    return fake.Reply(gzip.compress(data), status, {"content-encoding": encoding})


LARGE = [
    fake.completion("x" * 2 * LIMIT),
    packed(b" " * 5_000 * LIMIT),
    packed(b" " * 5_000 * LIMIT, status=500),
    packed(json.dumps(fake.label("sad").body).encode(), "br"),
    fake.Reply(gzip.compress(gzip.compress(b"{}")), 200, {"content-encoding": "gzip, gzip"}),
]


@pytest.mark.parametrize("reply", LARGE, ids=["large", "gzip bomb", "gzip bomb with HTTP 500", "br", "gzip twice"])
def test_refused_response_is_a_failure_that_is_paid_and_not_kept(
    server: fake.FakeOpenAI, cfg: LlmConfig, tmp_path: Path, reply: fake.Reply
) -> None:
    server.queue.append(reply)
    client = make_client(cfg, tmp_path)
    bad, good = client.ask(questions(2))
    assert bad.failed and bad.cause == "response refused" and "sends a response" in bad.text and good.label == "happy"
    assert len(server.asked) == 2, "it is not repeated, because the next response may be as large"
    assert client.budget.spent_usd > 16 * 10e-6 + 0.00035
    assert make_client(cfg, tmp_path).ask(questions(2))[0].label == "happy", "it was not stored"


def test_gzip_is_understood_and_damaged_gzip_is_a_broken_connection(
    server: fake.FakeOpenAI, cfg: LlmConfig, tmp_path: Path
) -> None:
    good = packed(json.dumps(fake.label("sad").body).encode())
    server.queue.extend([replace(good, body=b"no gzip at all"), good])
    [answer] = make_client(cfg, tmp_path).ask(questions(1))
    assert (answer.label, answer.retries) == ("sad", 1)
    assert server.headers[0]["accept-encoding"] == "gzip"


def test_long_answer_is_read_whole_and_kept_in_part(server: fake.FakeOpenAI, cfg: LlmConfig, tmp_path: Path) -> None:
    server.queue.append(fake.completion("<think>" + "hm " * 20_000 + '</think>{"emotion":"sad"}'))
    answer, _ = make_client(cfg, tmp_path).ask(questions(2))
    assert answer.label == "sad" and answer.text.startswith("<think>hm hm") and answer.text.endswith("…")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 30_000


def test_unpacking_stops_at_the_limit() -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    tracemalloc.start()
    with pytest.raises(ResponseRefusedError, match="more than"):
        BoundedDecoder("gzip", LIMIT).unpack(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10 * LIMIT
    tracemalloc.stop()
    pieces = zlib.compress(b"a" * LIMIT, wbits=31)
    decoder = BoundedDecoder("gzip", LIMIT)
    assert b"".join(decoder.unpack(pieces[i : i + 7]) for i in range(0, len(pieces), 7)) == b"a" * LIMIT


def test_client_of_embeddings_has_the_same_limit(server: fake.FakeOpenAI) -> None:
    client = openai_client(server.base_url, None, 5.0, 0, group="text")
    server.queue.extend([packed(b" " * 1_000 * LIMIT), fake.label("sad")])
    with pytest.raises(ResponseRefusedError, match="more than"):
        client.post("/chat/completions", body={"messages": []}, cast_to=httpx.Response)
    assert "sad" in client.post("/chat/completions", body={"messages": []}, cast_to=httpx.Response).text
