"""Embeddings: equal texts have equal vectors; languages that the embedder does not support are refused."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench import weights
from ser_bench.cache import Cache
from ser_bench.config import TextConfig
from ser_bench.errors import ConfigError, LanguageError, LLMError, WeightsError
from ser_bench.features import text_embedding

DIM = 5


class Service(BaseHTTPRequestHandler):
    """An embedding service: the vector of a text is its length and its first letters; items come in reverse order."""

    requests: list[dict[str, Any]] = []  # noqa: RUF012
    keys: list[str] = []  # noqa: RUF012
    status = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Service.requests.append(asked)
        Service.keys.append(self.headers["Authorization"])
        data = [
            {"object": "embedding", "index": i, "embedding": _vector(words)} for i, words in enumerate(asked["input"])
        ]
        answer: dict[str, Any] = {"object": "list", "model": asked["model"], "data": data[::-1], "usage": {}}
        if Service.status != 200:
            answer = {"error": {"message": f"bad key {self.headers['Authorization']}"}}
        body = json.dumps(answer).encode()
        self.send_response(Service.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _vector(words: str) -> list[float]:
    return [float(len(words)), *(float(ord(c)) for c in words.ljust(DIM - 1)[: DIM - 1])]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TextConfig]:
    server = HTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Service.requests, Service.keys, Service.status = [], [], 200
    monkeypatch.setenv("TEST_EMBEDDING_KEY", "secret-of-the-test")
    yield TextConfig(
        name="openai",
        model="text-embedding-ada-002",
        dim=DIM,
        batch_size=2,
        api_key_env="TEST_EMBEDDING_KEY",
        base_url=f"http://127.0.0.1:{server.server_port}/v1",
    )
    server.shutdown()


def test_each_distinct_text_is_sent_to_the_service_once(service: TextConfig, tmp_path: Path) -> None:
    texts = ["don't forget", "a jacket", "don't forget", "", "it's eleven"]
    vectors = text_embedding.embed(texts, service, "de", Cache(tmp_path))
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [_vector(words or " ") for words in texts]
    assert [request["input"] for request in Service.requests] == [["don't forget", "a jacket"], [" ", "it's eleven"]]
    assert {request["model"] for request in Service.requests} == {"text-embedding-ada-002"}
    assert set(Service.keys) == {"Bearer secret-of-the-test"}


def test_second_call_reads_the_cache(service: TextConfig, tmp_path: Path) -> None:
    first = text_embedding.embed(["one", "two"], service, "en", Cache(tmp_path))
    again = text_embedding.embed(["two", "three", "one"], service, "en", Cache(tmp_path))
    assert np.array_equal(again[[2, 0]], first)
    assert [request["input"] for request in Service.requests] == [["one", "two"], ["three"]]


def test_vectors_of_another_model_are_not_read_from_the_cache(service: TextConfig, tmp_path: Path) -> None:
    text_embedding.embed(["one"], service, "en", Cache(tmp_path))
    service.model = "another"
    text_embedding.embed(["one"], service, "en", Cache(tmp_path))
    assert [request["model"] for request in Service.requests] == ["text-embedding-ada-002", "another"]


def test_refused_key_is_one_line_without_the_key(service: TextConfig, tmp_path: Path) -> None:
    Service.status = 401
    with pytest.raises(LLMError, match=r"\(401\).*TEST_EMBEDDING_KEY") as caught:
        text_embedding.embed(["one"], service, "en", Cache(tmp_path))
    assert "secret-of-the-test" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_key_names_the_variable_and_the_way_without(
    service: TextConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_EMBEDDING_KEY")
    with pytest.raises(LLMError, match=r"TEST_EMBEDDING_KEY.*text=minilm"):
        text_embedding.embed(["one"], service, "en", Cache(tmp_path))


def test_other_length_than_configured_is_refused(service: TextConfig, tmp_path: Path) -> None:
    service.dim = 7
    with pytest.raises(ConfigError, match=r"text\.dim=7.*set text\.dim=5"):
        text_embedding.embed(["one"], service, "en", Cache(tmp_path))


def test_no_text_is_an_empty_matrix(service: TextConfig, tmp_path: Path) -> None:
    assert text_embedding.embed([], service, "en", Cache(tmp_path)).shape == (0, DIM)
    assert not Service.requests


def _minilm() -> TextConfig:
    return TextConfig(name="minilm", model="all-MiniLM-L6-v2", dim=384, languages=["en"], api_key_env="")


def test_minilm_refuses_german_and_names_the_multilingual_command(tmp_path: Path) -> None:
    with pytest.raises(LanguageError, match=r"'de'.*asr\.model=base text=openai"):
        text_embedding.embed(["Der Lappen liegt auf dem Eisschrank"], _minilm(), "de", Cache(tmp_path))


def test_minilm_refuses_two_languages_of_which_it_supports_one(tmp_path: Path) -> None:
    with pytest.raises(LanguageError, match="'en de'"):
        text_embedding.embed(["one", "eins"], _minilm(), "en de", Cache(tmp_path))


def test_an_embedder_of_both_languages_takes_both(service: TextConfig, tmp_path: Path) -> None:
    service.languages = ["de", "en"]
    assert text_embedding.embed(["one", "eins"], service, "en de", Cache(tmp_path)).shape == (2, DIM)


def test_unknown_embedder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="minilm or openai"):
        text_embedding.embed(["one"], TextConfig(name="word2vec", model="x", dim=3), "en", Cache(tmp_path))


@pytest.mark.slow
def test_minilm_puts_sentences_of_one_meaning_side_by_side(tmp_path: Path) -> None:
    try:
        weights.fetch("all-MiniLM-L6-v2")
    except WeightsError as error:
        pytest.skip(f"needs the real weights: {error}")
    sentences = ["It's eleven o'clock.", "The time is 11 o'clock", "The airplane is almost full.", ""]
    vectors = text_embedding.embed(sentences, _minilm(), "en", Cache(tmp_path))
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.7
    assert far < 0.3
    one_by_one = np.stack(
        [text_embedding.embed([s], _minilm(), "en", Cache(tmp_path / "other"))[0] for s in sentences[:2]]
    )
    assert np.allclose(vectors[:2], one_by_one, atol=1e-5), "a vector must not depend on its batch"
