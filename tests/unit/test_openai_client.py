"""The client of OpenAI-compatible endpoints: keys, addresses, proxies, redirects, and errors in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from ser_bench import openai_client, redaction
from ser_bench.config import LlmConfig
from ser_bench.errors import LLMError
from tests.support import fake_openai as fake
from tests.support.llm_clients import make_client, questions

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take proxies and the address of a service out of the environment, and forget the keys of a test."""
    for name in (*PROXIES, "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    yield
    redaction.forget_secrets()


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:80/v1", True), ("http://localhost:1/v1", True), ("http://[::1]:1/", True),
     ("http://LOCALHOST./v1", True), ("http://127.1:8000/v1", True), ("http://0.0.0.0:8000/v1", True),
     ("http://[::ffff:127.0.0.1]/v1", True), ("http://me.localhost/v1", True), ("http://me:pw@127.0.0.1/v1", True),
     ("https://api.openai.com/v1", False), ("http://10.0.0.1/", False), (None, False),
     ("http://127.0.0.1.example.org/", False), ("http://localhost.example.org/", False)],
)  # fmt: skip
def test_loopback(url: str | None, expected: bool) -> None:
    assert openai_client.is_loopback(url) is expected


def test_loopback_is_judged_by_the_effective_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8000/v1")
    assert openai_client.is_loopback(None)
    assert not openai_client.is_loopback("https://api.openai.com/v1")


@pytest.mark.parametrize("by_variable", [False, True], ids=["base_url", "OPENAI_BASE_URL"])
def test_a_server_on_this_machine_is_asked_without_the_proxy(
    by_variable: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with fake.serve() as server, fake.serve(lambda body: fake.error(502, "the proxy")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        if by_variable:
            monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        address = None if by_variable else server.base_url
        llm = LlmConfig(name="fake", model="fake", base_url=address, api_key_env=None, max_retries=0)
        answers = make_client(llm, tmp_path, labels=("happy", "sad")).ask(questions(1))
    assert answers[0].label == "happy" and len(server.asked) == 1 and not proxy.asked


def test_missing_key_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SER_BENCH_TEST_KEY", raising=False)
    with pytest.raises(LLMError, match="SER_BENCH_TEST_KEY"):
        openai_client.openai_client(None, "SER_BENCH_TEST_KEY", 1.0, 0)
    assert openai_client.require_key(None) == openai_client.NO_KEY


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\u201csk-abcdefgh12345678\u201d", "outside ASCII"),
        ("sk-abcdefgh\u201312345678", "outside ASCII"),
        ("sk-abcdefgh\n12345678", "line break"),
        ("sk-abcdefgh\r\nX-Header: 12345678", "line break"),
        ("sk-abcdefgh 12345678", "space"),
        ("sk-abcdefgh\x7f12345678", "control character"),
        ("'sk-abcdefgh12345678'", "quotation mark"),
    ],
)
def test_a_value_that_cannot_be_a_key_is_refused_without_any_part_of_it(
    value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_BENCH_TEST_KEY", value)
    for make in (openai_client.openai_client, openai_client.async_client):
        with pytest.raises(LLMError, match=reason) as error:
            make(None, "SER_BENCH_TEST_KEY", 1.0, *([0] if make is openai_client.openai_client else []))
        message = str(error.value)
        assert "SER_BENCH_TEST_KEY" in message and "\n" not in message
        assert not [value[i : i + 4] for i in range(len(value) - 3) if value[i : i + 4] in message]


def test_white_space_around_a_key_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SER_BENCH_TEST_KEY", "  sk-abcdefgh12345678\n")
    assert openai_client.require_key("SER_BENCH_TEST_KEY") == "sk-abcdefgh12345678"


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
def test_a_socks_proxy_without_its_package_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "socks5://me:Geheim-Wort-1@10.0.0.1:1080")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    for client in (lambda: openai_client.openai_client(None, None, 1.0, 0),
                   lambda: openai_client.async_client(None, None, 1.0)):  # fmt: skip
        with pytest.raises(LLMError, match=f"{name}.*pip install socksio.*unset {name}") as error:
            client()
        assert "\n" not in str(error.value) and "Geheim" not in str(error.value)


def test_a_proxy_that_no_client_accepts_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "ftp://me:Geheim-Wort-1@10.0.0.1:21")
    with pytest.raises(LLMError, match="ALL_PROXY") as error:
        openai_client.async_client(None, None, 1.0)
    assert "\n" not in str(error.value) and "Geheim" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "http://host:port/v1", "http:///v1", "http://[::1/v1", "http://a b/v1", "ftp://h/v1"]
)
def test_an_address_that_is_none_is_refused_in_one_line(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LLMError, match=r"^base_url=.*is not the address of a service"):
        openai_client.async_client(url, None, 1.0)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(LLMError, match=r"^OPENAI_BASE_URL=.*is not the address of a service"):
        openai_client.openai_client(None, None, 1.0, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_carries_a_prompt_to_another_address(status: int, tmp_path: Path) -> None:
    with fake.serve() as other:
        moved = fake.Reply({}, status, {"location": f"{other.base_url}/chat/completions?api-key=12345678"})
        with fake.serve(lambda body: moved) as server:
            llm = LlmConfig(name="fake", model="fake", base_url=server.base_url, api_key_env=None, max_retries=0)
            with pytest.raises(LLMError, match=r"Redirects are not followed.*llm.base_url") as error:
                make_client(llm, tmp_path).ask(questions(3))
            assert len(server.asked) == 1, "the redirect applies to all questions"
            assert other.base_url.removesuffix("/v1") in str(error.value) and "12345678" not in str(error.value)

            client = openai_client.openai_client(server.base_url, None, 5.0, 0)
            with pytest.raises(openai.APIStatusError):
                client.embeddings.create(model="m", input=["words"])
    assert not other.asked


def test_the_account_at_openai_is_not_shown_to_other_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-mine")
    with fake.serve() as server:

        async def ask() -> None:
            async with openai_client.async_client(server.base_url, None, 5.0) as client:
                await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])

        asyncio.run(ask())
    assert "mine" not in str(server.headers)
    assert openai_client.async_client(None, None, 1.0).organization == "org-mine"
