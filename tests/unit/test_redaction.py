from __future__ import annotations

import base64
from urllib.parse import quote, quote_plus

import pytest
from omegaconf import OmegaConf

from ser_bench.redaction import (
    credentials_of,
    forget_secrets,
    redact,
    redact_message,
    redact_reply,
    redact_value,
    redact_yaml,
    register_secret,
    without_credentials,
)

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


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("http://me:pw@host/v1", "http://***@host/v1"),
        ("https://token@host/v1", "https://***@host/v1"),
        ("http://me:p@ss:w@host/v1", "http://***@host/v1"),
        ("http://me:pa/ss@host/v1", "http://***@host/v1"),
        ("postgresql+psycopg://me:p#w@host:5432/db", "postgresql+psycopg://***@host:5432/db"),
        ("http://host/v1?api-key=12345678&version=2", "http://host/v1?api-key=***&version=2"),
        ("http://host/?a=b&access_token=abc#top", "http://host/?a=b&access_token=***#top"),
        ("https://host/?code=abc", "https://host/?code=***"),
        ("http://host:8000/a@b", "http://host:8000/a@b"),
        ("http://[::1]:80/x@y", "http://[::1]:80/x@y"),
        ("http://host/v1?language_code=en", "http://host/v1?language_code=en"),
        ('{"a": "http://host", "b": "me@host"}', '{"a": "http://host", "b": "me@host"}'),
    ],
)
def test_urls_lose_passwords_and_keys_and_nothing_else(url: str, clean: str) -> None:
    assert without_credentials(url) == clean == without_credentials(clean)
    assert bool(credentials_of(url)) is (url != clean)
    assert not credentials_of(clean)


def test_a_registered_secret_is_removed_in_every_spelling_and_its_pieces_in_messages() -> None:
    secret = "a+b/c=d e&f-0123456789"
    register_secret(secret)
    try:
        encoded = [base64.b64encode(before + secret.encode()).decode() for before in (b"", b"x", b"xy")]
        text = f"{quote(secret)} {quote(secret, safe='')} {quote_plus(secret)} {' '.join(encoded)} {secret}!"
        assert not [form for form in (secret, "0123", quote("+b/c"), encoded[0][:-4]) if form in redact(text)]
        assert redact(text).endswith(" ***!")
        assert redact_message("see ...f-0123456 and f-01234") == "see ...*** and f-01234"
        assert redact("see ...f-0123456") == "see ...f-0123456", "files that are read again lose whole secrets only"
    finally:
        forget_secrets()
    assert redact(secret) == secret


def test_short_values_are_not_registered() -> None:
    register_secret("local")
    register_secret(None)
    assert redact("llm=local") == "llm=local"


def test_values_keep_their_structure() -> None:
    register_secret("12345678")
    try:
        value = {"12345678": [0.12345678, 12345678, None, True, "12345678"]}
        assert redact_value(value) == {"***": [0.12345678, 12345678, None, True, "***"]}
    finally:
        forget_secrets()


def test_the_address_of_the_results_in_mlflow_is_kept() -> None:
    address = "make ui, then http://127.0.0.1:5000/#/experiments/1/runs?workflowType=x&viewStateShareKey=results"
    assert redact(address) == address


def test_yaml_can_be_read_after_a_whole_value_was_removed() -> None:
    register_secret("value-of-a-key")
    try:
        value = {
            "a": {"b": "value-of-a-key"},
            "c": ["value-of-a-key", "it's value-of-a-key"],
            "d": "value-of-a-key's: x",
        }
        clean = redact_yaml(OmegaConf.to_yaml(OmegaConf.create(value)))
        assert OmegaConf.to_container(OmegaConf.create(clean)) == {
            "a": {"b": "***"},
            "c": ["***", "it's ***"],
            "d": "***'s: x",
        }
    finally:
        forget_secrets()
