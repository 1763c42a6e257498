from __future__ import annotations

import pytest

from ser_bench.redaction import redact, redact_reply

KEY = "abc"
"""Too short to be found as the value of an environment variable."""


@pytest.mark.parametrize("clean", [redact, redact_reply])
def test_every_kind_of_secret_is_removed(monkeypatch, clean):
    monkeypatch.setenv("SERVICE_TOKEN", "value-of-a-token")
    text = clean(f"{KEY}, value-of-a-token, https://me:password@host/x", KEY)
    assert text == "***, ***, https://***@host/x"


@pytest.mark.parametrize("text", ["Incorrect API key provided: sk-ab****cdef", "key-0123456789", "(pk-a_b-c_d-e)"])
def test_only_replies_of_servers_lose_what_looks_like_a_key(text):
    assert "***" in redact_reply(text) and len(redact_reply(text)) < len(text)
    assert redact(text) == text, "a path or a run name may look like a key"


def test_ordinary_text_is_unchanged(monkeypatch):
    monkeypatch.setenv("SHORT_KEY", "emotion")
    text = 'the key of "emotion" is {"emotion": "sad"}; ask-me, monkey-business'
    assert redact_reply(text) == redact(text, None) == text
