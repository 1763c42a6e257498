from __future__ import annotations

import pytest

from ser_bench import openai_client
from ser_bench.errors import LLMError


@pytest.mark.parametrize(
    ("url", "expected"),
    [("http://127.0.0.1:80/v1", True), ("http://localhost:1/v1", True), ("http://[::1]:1/", True),
     ("https://api.openai.com/v1", False), ("http://10.0.0.1/", False), (None, False)],
)  # fmt: skip
def test_loopback(url, expected):
    assert openai_client.is_loopback(url) is expected


def test_missing_key_names_the_variable(monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY", raising=False)
    with pytest.raises(LLMError, match="SER_BENCH_TEST_KEY"):
        openai_client.openai_client(None, "SER_BENCH_TEST_KEY", 1.0, 0)
    assert openai_client.require_key(None) == openai_client.NO_KEY
