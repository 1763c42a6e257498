"""`ser-bench serve`: requests, limits, batches, streams and the end; the predictor waits and fails on demand."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import logging
import os
import random
import re
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ser_bench import cli, config, predictors
from ser_bench.errors import LLMError
from ser_bench.features.feature_store import Features
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.serving import uploads, web_server
from ser_bench.serving.application import Access
from ser_bench.serving.batching import Batcher, BatchFacts
from ser_bench.serving.limits import MIB, Limits, RequestRefusedError
from ser_bench.serving.request_guard import TokenCheck
from ser_bench.types import Clip, clean_rows
from tests.support.fake_predictor import FakePredictor, with_each
from tests.support.local_server import LocalServer, serving

RATE_HZ = 16_000
TOKEN = "0123456789abcdef-token"
QUICK = Limits(
    body_bytes=8 * MIB,
    deadline_s=10.0,
    waiting=6,
    batch=4,
    batch_wait_s=0.001,
    streams=1,
    stream_idle_s=0.6,
)


def sound(seconds: float = 0.5, peak: float = 0.75, form: str = "WAV", seed: int = 0) -> bytes:
    """A file of noise."""
    samples = np.random.default_rng(seed).uniform(-peak, peak, round(seconds * RATE_HZ))
    samples[0] = peak
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format=form)
    return file.getvalue()


WAV = sound()
RAW = {"content-type": "audio/wav"}
POST = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\n"


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Status and code of an error, which has one form only."""
    (error,) = response.json().values()
    assert list(error) == ["code", "message"] and error["message"] and "\n" not in error["message"]
    return response.status_code, error["code"]


def assert_it_still_answers(server: LocalServer) -> None:
    response = server.client.post("/v1/predict", content=WAV, headers=RAW)
    assert response.status_code == 200, response.text
    assert response.json()["label"] == "angry"
    assert server.client.get("/health").json()["status"] == "ready"


@pytest.fixture(scope="module")
def fake() -> FakePredictor:
    return FakePredictor()


@pytest.fixture(scope="module")
def server(fake: FakePredictor) -> Iterator[LocalServer]:
    other = FakePredictor("other", "cd" * 16, max_duration_s=5.0)
    with serving([fake, other], QUICK, predict_with_each=with_each) as running:
        yield running


@contextlib.contextmanager
def held_up(fake: FakePredictor) -> Iterator[None]:
    """Let predictions wait during a `with` block."""
    fake.open_gate.clear()
    try:
        yield
    finally:
        fake.open_gate.set()


def wait_until(condition: Any) -> None:
    until_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.005)


# ---- requests


def test_every_way_of_sending_gives_the_answer_of_the_predictor(server: LocalServer, fake: FakePredictor) -> None:
    (expected,) = fake.predict([Recording.from_bytes(WAV, "clip.wav")])
    record = {"run_id": fake.run_id, "model": "fake", **expected.as_dict()}
    encoded = base64.b64encode(WAV).decode()
    sent = {
        "form": {"files": {"audio": ("folder/clip.wav", WAV)}},
        "form, other name": {"files": {"file": ("clip.wav", WAV)}, "data": {"model": "fake"}},
        "json": {"json": {"audio": encoded, "name": "clip.wav", "model": fake.run_id}},
        "raw": {"content": WAV, "headers": RAW, "params": {"name": "clip.wav", "model": "abab"}},
    }
    for way, request in sent.items():
        response = server.client.post("/v1/predict", **request)
        assert (response.status_code, response.json()) == (200, record), way
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64"])
def test_formats(server: LocalServer, form: str) -> None:
    response = server.client.post("/v1/predict", content=sound(form=form), headers=RAW)
    assert response.status_code == 200
    assert response.json()["duration_s"] == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("form", ["VOC", "PVF"])
def test_other_formats_do_not_reach_the_decoder(server: LocalServer, form: str) -> None:
    assert error_of(server.client.post("/v1/predict", content=sound(form=form), headers=RAW)) == (415, "format")


def test_a_comparison_has_the_answer_of_every_run(server: LocalServer) -> None:
    answers = server.client.post("/v1/compare", files={"audio": ("failed.wav", WAV)}).json()["answers"]
    assert [answer["model"] for answer in answers] == ["fake", "other"]
    assert {answer["status"] for answer in answers} == {"failed"}
    (model, _) = server.client.get("/v1/models").json()["models"]
    assert model == {
        "run_id": "ab" * 16, "model": "fake", "name": "fake speaker fold 0", "labels": ["angry", "sad"],
        "max_duration_s": 10.0,
    }  # fmt: skip


@pytest.mark.parametrize("model", ["nothing", "cdcd0", "x" * 5000])
def test_a_run_that_is_not_loaded(server: LocalServer, model: str) -> None:
    response = server.client.post("/v1/predict", files={"audio": ("a.wav", WAV)}, data={"model": model})
    assert error_of(response) == (404, "model") and "abababab (fake), cdcdcdcd (other)" in response.text


def test_failures_of_the_predictor(server: LocalServer, fake: FakePredictor, caplog: Any) -> None:
    def post(name: str) -> tuple[int, str]:
        return error_of(server.client.post("/v1/predict", files={"audio": (name, WAV)}))

    assert post("failed.wav") == (422, "unusable")
    assert post("crash.wav") == (500, "internal")
    fake.crash = LLMError("http://somewhere:1 refuses")
    assert post("crash.wav") == (502, "service")
    assert "somewhere" in caplog.text
    fake.crash = ValueError("a fault of the predictor")
    assert_it_still_answers(server)


def test_paths_and_methods(server: LocalServer) -> None:
    assert error_of(server.client.get("/nothing")) == (404, "path")
    assert error_of(server.client.get("/v1/predict")) == (405, "method")
    assert server.client.get("/health/live").json() == {"status": "live"}


# ---- what cannot be used


def bad_requests() -> dict[str, dict[str, Any]]:
    encoded = base64.b64encode(WAV).decode()
    deep = "[" * 100_000
    boundary = {"content-type": "multipart/form-data; boundary=b"}
    head = b'--b\r\nContent-Disposition: form-data; name="audio"\r\n\r\n'
    as_json = {"content-type": "application/json"}
    return {
        "nothing": {},
        "empty audio": {"content": b"", "headers": RAW},
        "text": {"content": b"hello", "headers": {"content-type": "text/plain"}},
        "long content type": {"content": WAV, "headers": {"content-type": "x" * 4000}},
        "html as audio": {"content": b"<html></html>", "headers": RAW},
        "not json": {"content": b"{", "headers": as_json},
        "deep json": {"content": deep.encode(), "headers": as_json},
        "long number": {"content": b'{"audio": ' + b"9" * 10_000 + b"}", "headers": as_json},
        "bad unicode": {"content": b'{"audio": "\xff"}', "headers": as_json},
        "json list": {"json": [encoded]},
        "json without audio": {"json": {"model": "fake"}},
        "json audio number": {"json": {"audio": 3}},
        "json model number": {"json": {"audio": encoded, "model": 3}},
        "not base64": {"json": {"audio": encoded[:-5] + "*" + encoded[-4:]}},
        "not ascii base64": {"json": {"audio": "äöü"}},
        "form without boundary": {"content": head, "headers": {"content-type": "multipart/form-data"}},
        "form cut off": {"content": head + WAV[:50], "headers": boundary},
        "form of noise": {"content": random.Random(0).randbytes(500), "headers": boundary},
        "form without audio": {"files": {"x": WAV}},
        "form of many parts": {"files": [(f"x{i}", WAV[:9]) for i in range(50)]},
        "form, audio twice": {"files": [("audio", WAV), ("audio", WAV)]},
        "form of long headers": {
            "content": b"--b\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\nz\r\n--b--\r\n",
            "headers": boundary,
        },
        "rate of 1 Hz": {"content": with_rate(1), "headers": RAW},
        "rate of 4 GHz": {"content": with_rate(2**32 - 1), "headers": RAW},
    }


def with_rate(rate_hz: int) -> bytes:
    return WAV[:24] + rate_hz.to_bytes(4, "little") + WAV[28:]


@pytest.mark.parametrize("name", list(bad_requests()))
def test_bad_requests_are_refused(server: LocalServer, name: str) -> None:
    status, code = error_of(server.client.post("/v1/predict", **bad_requests()[name]))
    assert 400 <= status < 500 and code


def test_random_bytes_and_truncated_files_are_refused(server: LocalServer) -> None:
    drawn = random.Random(1)
    files = [drawn.randbytes(drawn.randrange(1, 3000)) for _ in range(20)]
    for form in ("WAV", "FLAC", "OGG", "MP3"):
        whole = sound(form=form)
        files += [whole[: drawn.randrange(1, round(0.9 * len(whole)))] for _ in range(10)]
        files += [whole[:4] + drawn.randbytes(400) for _ in range(5)]
    for content in files:
        status, code = error_of(server.client.post("/v1/predict", content=content, headers=RAW))
        assert status in (415, 422, 413), (content[:8], len(content), code)
    assert_it_still_answers(server)


def test_changed_files_never_make_the_server_fail(server: LocalServer) -> None:
    drawn = random.Random(2)
    for form in ("WAV", "FLAC", "OGG", "MP3"):
        whole = sound(0.2, form=form)
        for _ in range(15):
            changed = bytearray(whole)
            for _ in range(drawn.randrange(1, 12)):
                changed[drawn.randrange(min(len(changed), drawn.choice([64, 10**6])))] = drawn.randrange(256)
            response = server.client.post("/v1/predict", content=bytes(changed), headers=RAW)
            assert response.status_code in (200, 413, 415, 422), response.text
    assert server.service.memory.used == 0
    assert_it_still_answers(server)


def test_a_body_is_counted_while_it_arrives(server: LocalServer) -> None:
    def zeros() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(MIB)

    highest, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            highest.append(server.service.memory.used)
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    response = server.client.post("/v1/predict", content=zeros(), headers=RAW)
    ended.set()
    watcher.join()
    assert error_of(response) == (413, "body_too_large")
    assert max(highest) <= QUICK.body_bytes
    assert b"413" in ask_raw(server, POST + b"Content-Length: 99999999999\r\n\r\n")
    assert_it_still_answers(server)


def test_a_small_file_with_hours_of_audio_is_refused_before_it_is_decoded(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8000, 1, format="FLAC") as flac:
        for _ in range(60):
            flac.write(np.zeros(60 * 8000, np.int16))
    bomb = file.getvalue()
    assert len(bomb) < MIB
    monkeypatch.setattr(uploads.Recording, "from_bytes", lambda *_: pytest.fail("it was decoded"))
    response = server.client.post("/v1/predict", content=bomb, headers=RAW)
    assert error_of(response) == (413, "audio_too_long")
    assert "3600.0 s" in response.json()["error"]["message"]
    monkeypatch.setattr(uploads, "MAX_UPLOAD_SAMPLES", 5000)
    response = server.client.post("/v1/predict", content=WAV, headers=RAW)
    assert error_of(response) == (413, "audio_too_long")
    monkeypatch.undo()
    unknown = bomb[:21] + bytes([bomb[21] & 0xF0, 0, 0, 0, 0]) + bomb[26:]  # the header states no length
    status, _ = error_of(server.client.post("/v1/predict", content=unknown, headers=RAW))
    assert status in (413, 422)
    assert_it_still_answers(server)


def test_a_clip_may_be_as_long_as_each_run_that_answers_takes(server: LocalServer) -> None:
    long = sound(6.0)
    assert server.client.post("/v1/predict", content=long, headers=RAW).status_code == 200
    assert error_of(server.client.post("/v1/compare", content=long, headers=RAW)) == (413, "audio_too_long")


def ask_raw(server: LocalServer, *chunks: bytes, wait_s: float = 4.0) -> bytes:
    """Send bytes with pauses, and return what the server sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as connection:
        for chunk in chunks:
            connection.sendall(chunk)
            time.sleep(0.1 if chunk is not chunks[-1] else 0.0)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(4096):
                received += chunk
        return received


def test_slow_clients_are_refused_and_others_are_served_meanwhile() -> None:
    began = POST + b"Content-Type: audio/wav\r\nContent-Length: 9999\r\n\r\nRIFF"
    limits = Limits(body_timeout_s=0.5, header_timeout_s=0.5)
    with serving([FakePredictor()], limits, predict_with_each=with_each) as server, ThreadPoolExecutor(40) as pool:
        bodies = [pool.submit(ask_raw, server, began) for _ in range(20)]
        headers = [pool.submit(ask_raw, server, b"POST /v1/pre") for _ in range(20)]
        second = pool.submit(ask_raw, server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET")
        time.sleep(0.1)
        assert_it_still_answers(server)
        assert all(b"HTTP/1.1 408" in body.result() and b"body_timeout" in body.result() for body in bodies)
        assert all(header.result() == b"" for header in headers)
        assert second.result().count(b"HTTP/1.1 200") == 1


# ---- queue


def test_a_full_queue_answers_503_and_loses_nothing(server: LocalServer, fake: FakePredictor) -> None:
    with ThreadPoolExecutor(10) as pool:
        with held_up(fake):
            waiting = [
                pool.submit(server.client.post, "/v1/predict", content=WAV, headers=RAW) for _ in range(QUICK.waiting)
            ]
            wait_until(lambda: server.service.batcher.admitted == QUICK.waiting)
            refused = server.client.post("/v1/predict", content=WAV, headers=RAW)
            assert error_of(refused) == (503, "queue_full")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
            assert server.client.get("/health").status_code == 200
            assert "requests_in_progress 6.0" in server.client.get("/metrics").text
        assert [response.result().status_code for response in waiting] == [200] * QUICK.waiting
    assert 1 < max(map(len, fake.batches)) <= QUICK.batch


def test_memory_for_bodies_is_limited() -> None:
    limits = Limits(memory_bytes=len(WAV) // 2)
    with serving([FakePredictor()], limits, predict_with_each=with_each) as server:
        refused = server.client.post("/v1/predict", content=WAV, headers=RAW)
        assert error_of(refused) == (503, "overloaded") and refused.headers["retry-after"] == "1"


def test_a_deadline_ends_a_request_but_not_the_server() -> None:
    fake = FakePredictor()
    with serving([fake], Limits(deadline_s=0.2), predict_with_each=with_each) as server:
        with held_up(fake):
            first = server.client.post("/v1/predict", files={"audio": ("a.wav", WAV)})
            second = server.client.post("/v1/predict", files={"audio": ("b.wav", WAV)})
            assert error_of(first) == error_of(second) == (504, "deadline")
        assert_it_still_answers(server)
        assert ["b.wav"] not in fake.batches, "a request that nobody waits for is not predicted"
        assert server.service.memory.used == server.service.batcher.admitted == 0


def test_a_client_that_has_gone_is_not_predicted_for(server: LocalServer, fake: FakePredictor) -> None:
    with held_up(fake), ThreadPoolExecutor(1) as pool:
        before = len(fake.batches)
        first = pool.submit(server.client.post, "/v1/predict", content=WAV, headers=RAW)
        wait_until(lambda: len(fake.batches) > before)
        head = POST.replace(b"predict", b"predict?name=gone") + b"Content-Type: audio/wav\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(WAV) + WAV)
            wait_until(lambda: server.service.batcher.waiting == 1)
        wait_until(lambda: server.service.batcher.admitted == 1)
        fake.open_gate.set()
        assert first.result().status_code == 200
    assert_it_still_answers(server)
    assert not any("gone" in batch for batch in fake.batches)


def test_accepted_requests_are_answered_before_the_end() -> None:
    fake = FakePredictor()
    with serving([fake], QUICK, predict_with_each=with_each) as server, ThreadPoolExecutor(4) as pool:
        with held_up(fake):
            waiting = [pool.submit(httpx.post, f"{server.url}/v1/predict", content=WAV, headers=RAW) for _ in range(4)]
            wait_until(lambda: server.service.batcher.admitted == 4)
            server.server.should_exit = True
            wait_until(lambda: not can_connect(server.port))
        assert [response.result().status_code for response in waiting] == [200] * 4
        server.thread.join(10)
        assert not server.service.batcher.alive
        with pytest.raises(RequestRefusedError, match="stops"):
            server.service.batcher.submit(["ab" * 16], Recording.from_bytes(WAV, "a"))


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_clips_that_wait_together_are_predicted_together() -> None:
    fake, facts = FakePredictor(), list[BatchFacts]()
    limits = Limits(batch=4, batch_wait_s=0.0)
    batcher = Batcher(lambda runs, recordings: with_each([fake] * len(runs), recordings), limits, facts.append)
    clips = {name: Recording.from_bytes(sound(peak=0.1 * i + 0.1, seed=i), name) for i, name in enumerate("abcdef")}
    long = Recording.from_samples(np.zeros(61 * 4000), 4000, "long")
    with held_up(fake):
        first = batcher.submit(["one"], clips["a"])
        wait_until(lambda: fake.batches == [["a"]])
        later = [batcher.submit(["two"] if name == "c" else ["one"], clip) for name, clip in list(clips.items())[1:]]
        later += [batcher.submit(["one"], long), batcher.submit(["one"], clips["a"])]
        later[2].cancel()
    batcher.close()
    assert fake.batches == [["a"], ["b", "e", "f"], ["c"], ["long"], ["a"]]
    assert [fact.clips for fact in facts] == [1, 3, 1, 1, 1]
    assert all(fact.waited_s[0] >= 0 for fact in facts) and len(facts[1].waited_s) == 3
    probabilities = [future.result()[0].probabilities["angry"] for future in [first, *later[:2], *later[3:5]]]
    assert probabilities == pytest.approx([0.1, 0.2, 0.3, 0.5, 0.6], abs=1e-3)


def test_a_clip_that_makes_a_batch_fail_fails_alone() -> None:
    fake = FakePredictor()
    batcher = Batcher(lambda runs, recordings: [fake.predict(recordings)], Limits())
    with held_up(fake):
        futures = [batcher.submit(["one"], Recording.from_bytes(WAV, name)) for name in ("a", "b", "crash", "c")]
    batcher.close()
    assert [bool(future.exception()) for future in futures] == [False, False, True, False]


# ---- who may ask


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalServer]:
    access = Access(TokenCheck(TOKEN), ("127.0.0.1", "localhost"), ("https://example.org",))
    with serving([FakePredictor()], QUICK, access, with_each) as running:
        yield running


def test_a_token_is_needed_where_there_is_one(guarded: LocalServer, caplog: Any) -> None:
    for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN}, {"authorization": f"Basic {TOKEN}"}):
        for path in ("/v1/models", "/metrics", "/docs", "/openapi.json", "/"):
            refused = guarded.client.get(path, headers=given)
            assert error_of(refused) == (401, "token") and refused.headers["www-authenticate"] == "Bearer"
        assert error_of(guarded.client.post("/v1/predict", content=WAV, headers=RAW | given)) == (401, "token")
        assert guarded.client.get("/health", headers=given).status_code == 200
    right = RAW | {"authorization": f"bearer {TOKEN}"}
    assert guarded.client.post("/v1/predict", content=WAV, headers=right).status_code == 200
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(vars(TokenCheck(TOKEN)))


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost@evil.example", "[::1", "a b"]
)
def test_the_host_must_be_this_machine(server: LocalServer, host: str) -> None:
    assert error_of(server.client.get("/health", headers={"host": host})) == (421, "host")
    assert server.client.get("/health", headers={"host": f"LOCALHOST:{server.port}"}).status_code == 200


def test_pages_of_other_sites_may_not_ask_unless_they_are_allowed(server: LocalServer, guarded: LocalServer) -> None:
    def status(of: LocalServer, **headers: str) -> int:
        given = RAW | {name.replace("_", "-"): value for name, value in headers.items()}
        return of.client.post("/v1/predict", content=WAV, headers=given).status_code

    assert status(server, origin="https://example.org") == status(server, origin="null") == 403
    assert status(server, sec_fetch_site="cross-site") == 403
    assert status(server, origin=server.url) == 200
    token = f"Bearer {TOKEN}"
    assert status(guarded, origin="https://evil.example", authorization=token) == 403
    assert status(guarded, origin="https://example.org", authorization=token, sec_fetch_site="cross-site") == 200
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
    allowed = guarded.client.options("/v1/predict", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "access-control-allow-origin" not in server.client.options("/v1/predict", headers=asked).headers
    with pytest.raises(Exception, match=r"403|1008"), stream_of(server, origin="https://evil.example"):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], r"open to other machines, and there is no token"),
        (["--host", "::"], r"open to other machines"),
        (["--token-env", "SER_TEST_TOKEN"], r"SER_TEST_TOKEN needs a token of 16 characters"),
        (["--token-env", "secret value"], r"the name of an environment variable"),
        (["--queue", "0"], r"--queue must be positive, not 0"),
        (["--deadline", "nan"], r"--deadline must be positive"),
        (["--port", "70000"], r"--port=70000 is not from 0"),
        (["--streams", "-1"], r"--streams must not be negative"),
        (["--host", "192.0.2.1", "--token-env", "SER_TEST_LONG"], r"--host=192.0.2.1 .*annot assign"),
    ],
)
def test_the_command_refuses_unsafe_addresses(
    words: list[str], said: str, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_TEST_TOKEN", "too short")
    monkeypatch.setenv("SER_TEST_LONG", TOKEN)
    assert cli.main(["serve", "8b97", *words]) == cli.EXIT_FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error ") and re.search(said, line)
    assert "too short" not in line and TOKEN not in line


def test_the_command_says_that_a_port_is_in_use(server: LocalServer, capsys: Any, tmp_path: Path) -> None:
    words = ["serve", "8b97", "--port", str(server.port), f"tracking.dir={tmp_path}"]
    assert cli.main(words) == cli.EXIT_FAILED
    assert "Address already in use" in capsys.readouterr().err


# ---- what is kept and shown


def test_nothing_of_the_audio_is_stored_or_logged(
    server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    opening = tempfile.SpooledTemporaryFile.rollover
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", lambda file: (opened.append("file"), opening(file)))
    large = sound(9.9, form="AU") * 1
    assert len(large) < 2 * MIB
    wide = io.BytesIO()
    soundfile.write(
        wide, np.tile(np.linspace(-0.6, 0.6, 96_000)[:, None], (1, 4)), 48_000, format="WAV", subtype="FLOAT"
    )
    with caplog.at_level(logging.DEBUG):
        for content in (large, wide.getvalue()):
            response = server.client.post("/v1/predict", files={"audio": ("my private name.wav", content)})
            assert response.status_code == 200
        server.client.post("/v1/predict", files={"audio": ("my private name.wav", WAV[:2000])})
        with stream_of(server) as stream:
            stream.send(np.zeros(RATE_HZ, np.int16).tobytes())
            stream.send(json.dumps({"type": "end"}))
            assert messages(stream)[-1]["type"] == "end"
    assert len(wide.getvalue()) > MIB, "more than libraries keep in memory"
    assert not list(tmp_path.iterdir()) and not opened
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "websockets"))]
    assert not [record for record in ours if "private" in record.getMessage()]


def test_the_page_of_the_interface_needs_no_other_host(server: LocalServer) -> None:
    response = server.client.get("/", follow_redirects=True)
    page = response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "<script" not in page and "http://" not in page and "https://" not in page
    description = server.client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/compare", "/v1/models", "/health", "/metrics"} <= set(description["paths"])
    assert all(f"POST {path}" in page or f"GET {path}" in page for path in description["paths"])
    assert "/v1/stream" in page
    stated = description["paths"]["/v1/predict"]["post"]["responses"]
    schema = stated["200"]["content"]["application/json"]["schema"]
    keys = {"run_id", "model", *Answer("a").as_dict()}
    assert keys == set(schema["properties"]) == set(schema["example"])
    assert {"401", "408", "413", "415", "422", "503", "504"} <= set(stated)


def test_metrics_count_requests_errors_stages_and_batches() -> None:
    with serving([FakePredictor()], QUICK, predict_with_each=with_each) as server:
        for content in (WAV, WAV, b"no audio"):
            server.client.post("/v1/predict", content=content, headers=RAW)
        server.client.get("/secret-path-1")
        response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if line[0] != "#")
    expected = {
        'requests_total{path="/v1/predict",status="200"}': 2,
        'requests_total{path="/v1/predict",status="415"}': 1,
        'requests_total{path="other",status="404"}': 1,
        'errors_total{code="format"}': 1,
        'request_seconds_count{path="/v1/predict"}': 3,
        'stage_seconds_count{stage="read"}': 3,
        'stage_seconds_count{stage="decode"}': 2,
        'stage_seconds_count{stage="queue"}': 2,
        'predictor_seconds_count{model="fake",stage="total"}': 2,
        "batch_clips_count": 2,
        "audio_seconds_total": 1,
        "queue_length": 0,
        "held_bytes": 0,
    }
    assert {name: float(values[f"ser_bench_{name}"]) for name in expected} == expected
    assert "secret-path" not in response.text


def trained(folder: Path) -> PredictorFiles:
    """The files of a predictor that tells high tones from low ones."""
    pytest.importorskip("opensmile")
    cfg = config.compose(["experiment=none", "model=egemaps", "head=logistic", f"cache_dir={folder}/cache"])
    clips: dict[str, Clip] = {}
    for number in range(12):
        path, label = folder / f"{number}.wav", ("angry", "sad")[number % 2]
        soundfile.write(path, tone(150.0 if number % 2 else 400.0, 0.2 + 0.02 * number), RATE_HZ)
        clips[str(number)] = Clip(str(number), path, label, f"s{number // 4}", duration_s=0.5)
    rows = clean_rows(clips)
    predictor = predictors.build(cfg, ("angry", "sad"), Features(cfg, clips, "en"), folder, lambda epoch, values: None)
    predictor.fit(rows[:8], rows[8:])
    predictor.save(folder / "predictor")
    return PredictorFiles("egemaps speaker fold 0", "ef" * 16, cfg, ("angry", "sad"), folder / "predictor")


def tone(frequency_hz: float, amplitude: float = 0.3) -> np.ndarray:
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def test_a_trained_predictor_answers_alike_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    files = trained(tmp_path)
    cache, temporary = tmp_path / "own cache", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    predictor = AudioPredictor(files, config.compose([f"cache_dir={cache}"]))
    contents = {}
    for name, frequency_hz in (
        ("low.wav", 150.0),
        ("high.wav", 400.0),
        ("again.wav", 150.0),
        ("other.wav", 250.0),
    ):
        file = io.BytesIO()
        soundfile.write(file, tone(frequency_hz), RATE_HZ, format="WAV")
        contents[name] = file.getvalue()
    alone = {
        name: predictor.predict([Recording.from_bytes(content, name)])[0].as_dict()
        for name, content in contents.items()
    }
    with serving([predictor], QUICK) as server, ThreadPoolExecutor(4) as pool, caplog.at_level(logging.DEBUG):
        asked = {
            name: pool.submit(server.client.post, "/v1/predict", files={"audio": (name, content)})
            for name, content in contents.items()
        }
        answers = {name: response.result().json() for name, response in asked.items()}
        (compared,) = server.client.post("/v1/compare", files={"audio": contents["low.wav"]}).json()["answers"]
    assert [answers[name]["label"] for name in ("low.wav", "high.wav", "again.wav")] == ["sad", "angry", "sad"]
    for name, answer in answers.items():
        assert answer["probabilities"] == pytest.approx(alone[name]["probabilities"], abs=2e-4)
        assert answer["seconds"].keys() == alone[name]["seconds"].keys() and answer["run_id"] == "ef" * 16
        assert {key: answer[key] for key in ("name", "status", "flags", "duration_s", "calibrated")} == {
            key: alone[name][key] for key in ("name", "status", "flags", "duration_s", "calibrated")
        }
    assert compared["probabilities"] == pytest.approx(alone["low.wav"]["probabilities"], abs=2e-4)
    assert not [path for folder in (cache, temporary) for path in folder.rglob("*") if path.is_file()]
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert not [record for record in ours if ".wav" in record.getMessage()]


# ---- streams


@contextlib.contextmanager
def stream_of(server: LocalServer, start: Any = None, **headers: str) -> Iterator[ClientConnection]:
    """A stream whose first message was sent and answered."""
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    with connect(url, additional_headers=headers, proxy=None, open_timeout=5) as connection:
        connection.send(json.dumps({"sample_rate_hz": RATE_HZ} if start is None else start))
        first = json.loads(connection.recv(5))
        if first["type"] == "error":
            with pytest.raises(ConnectionClosed):
                connection.recv(5)
            raise RequestRefusedError(400, first["error"]["code"], first["error"]["message"])
        assert first["type"] == "ready" and first["hop_s"] == 0.5 and first["labels"] == ["angry", "sad"]
        yield connection


def messages(connection: ClientConnection) -> list[dict[str, Any]]:
    """All messages until the server closes."""
    found = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            found.append(json.loads(connection.recv(5)))
    return found


@pytest.fixture
def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is no speech."""
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "none")


@pytest.mark.usefixtures("no_gate")
@pytest.mark.parametrize("form", ["pcm16", "float32"])
def test_a_stream_answers_every_half_second(server: LocalServer, form: str) -> None:
    times = np.arange(2 * RATE_HZ) / RATE_HZ
    wave = 0.75 * np.sin(2 * np.pi * 200 * times)
    content = (np.round(wave * 32768).astype("<i2") if form == "pcm16" else wave.astype("<f4")).tobytes()
    with stream_of(server, {"sample_rate_hz": RATE_HZ, "format": form, "model": "other"}) as stream:
        answers = []
        bounds = [0, *(round(len(content) * k / 4) + 1 for k in (1, 2, 3)), len(content)]  # in the middle of samples
        for start, end in pairwise(bounds):
            stream.send(content[start:end])
            if start:  # an answer needs 0.6 s
                answers.append(json.loads(stream.recv(5)))
        stream.send(json.dumps({"type": "end"}))
        *last, ended = messages(stream)
    answers += last
    assert [(answer["type"], answer["end_s"], answer["final"]) for answer in answers] == [
        ("answer", 1.0, False), ("answer", 1.5, False), ("answer", 2.0, False), ("answer", 2.0, True),
    ]  # fmt: skip
    assert {answer["start_s"] for answer in answers} == {0.0}
    assert {(answer["model"], answer["run_id"], answer["label"]) for answer in answers} == {
        ("other", "cd" * 16, "angry")
    }
    assert answers[1]["probabilities"]["angry"] == pytest.approx(0.75, abs=1e-3)
    assert ended == {"type": "end", "received_s": 2.0, "dropped_s": 0.0, "skipped": 0}
    assert server.service.open_streams == 0


@pytest.mark.usefixtures("no_gate")
def test_audio_that_comes_faster_than_answers_is_dropped_and_counted(server: LocalServer, fake: FakePredictor) -> None:
    second = np.full(RATE_HZ, 16_384, "<i2").tobytes()
    with stream_of(server) as stream:
        with held_up(fake):
            before = len(fake.batches)
            stream.send(second)
            wait_until(lambda: len(fake.batches) > before)
            for _ in range(14):
                stream.send(second)
            dropped = [json.loads(stream.recv(5)) for _ in range(4)]
        stream.send(json.dumps({"type": "end"}))
        found = messages(stream)
    assert dropped == [{"type": "dropped", "seconds": 1.0, "total_s": float(i)} for i in range(1, 5)]
    _, newest, *_ = (message for message in found if message["type"] == "answer")
    assert (newest["start_s"], newest["end_s"]) == (12.0, 15.0)
    assert found[-1]["dropped_s"] == 4.0
    assert "stream_dropped_seconds_total 4.0" in server.client.get("/metrics").text


@pytest.mark.skipif(bool(speech_gate.reason_unavailable()), reason="the speech gate is not installed")
def test_silence_in_a_stream_has_no_answer(server: LocalServer) -> None:
    with stream_of(server) as stream:
        for _ in range(3):
            stream.send(np.zeros(RATE_HZ, "<i2").tobytes())
        stream.send(json.dumps({"type": "end"}))
        (end,) = messages(stream)
    assert (end["type"], end["received_s"]) == ("end", 3.0)


@pytest.mark.usefixtures("no_gate")
def test_a_failure_of_the_predictor_ends_a_stream(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakePredictor, "predict", lambda *_: (_ for _ in ()).throw(LLMError("refused")))
    with stream_of(server) as stream:
        stream.send(np.zeros(RATE_HZ, "<i2").tobytes())
        (error,) = messages(stream)
    assert error["error"]["code"] == "service"


@pytest.mark.parametrize(
    ("start", "code"),
    [
        ([], "start"),
        ({}, "start"),
        ({"sample_rate_hz": "16000"}, "start"),
        ({"sample_rate_hz": True}, "start"),
        ({"sample_rate_hz": 10**9}, "start"),
        ({"sample_rate_hz": 16000, "format": "mp3"}, "start"),
        ({"sample_rate_hz": 16000, "format": []}, "start"),
        ({"sample_rate_hz": 16000, "model": "nothing"}, "model"),
    ],
)
def test_a_stream_that_begins_wrongly_is_refused(server: LocalServer, start: Any, code: str) -> None:
    with pytest.raises(RequestRefusedError) as refused, stream_of(server, start):
        pass
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "json"),
        ("[" * 100_000, "json"),
        ('{"type": "other"}', "message"),
        (np.full(9, np.nan, "<f4").tobytes(), "audio"),
        (None, "stream_idle"),
    ],
    ids=["half json", "deep json", "other", "nan", "idle"],
)
def test_a_stream_that_goes_wrong_is_ended(server: LocalServer, message: Any, code: str) -> None:
    with stream_of(server, {"sample_rate_hz": RATE_HZ, "format": "float32"}) as stream:
        if message is not None:
            stream.send(message)
        (error,) = messages(stream)
    assert (error["type"], error["error"]["code"]) == ("error", code)
    wait_until(lambda: server.service.open_streams == 0)


def test_the_number_of_streams_is_limited(server: LocalServer) -> None:
    with stream_of(server):
        with pytest.raises(RequestRefusedError, match="1 streams are open"), stream_of(server):
            pass
        assert_it_still_answers(server)


def test_a_stream_needs_the_token_in_a_header_or_in_its_first_message(guarded: LocalServer) -> None:
    start = {"sample_rate_hz": RATE_HZ}
    for given in ({}, {"token": "wrong"}, {"token": [TOKEN]}):
        with pytest.raises(RequestRefusedError, match="token"), stream_of(guarded, start | given):
            pass
    with stream_of(guarded, start | {"token": TOKEN}):
        pass
    wait_until(lambda: guarded.service.open_streams == 0)
    with stream_of(guarded, start, authorization=f"Bearer {TOKEN}"):
        pass


def test_a_server_is_announced_when_a_client_can_connect() -> None:
    """An address printed before is one at which a fast client is refused."""
    connected: list[bool] = []

    def try_to_connect() -> None:
        with socket.socket() as client:
            connected.append(client.connect_ex(bound.getsockname()) == 0)
        os.kill(os.getpid(), signal.SIGTERM)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Nobody asks it."""

    with web_server.bind("127.0.0.1", 0) as bound:
        web_server.serve(app, bound, Limits(), try_to_connect)
    assert connected == [True]
