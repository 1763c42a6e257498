"""A local server with the protocols of corpus hosts, which can be told to fail."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import time
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import soundfile

Trouble = Callable[[BaseHTTPRequestHandler, bytes], None]
"""A failing response; it receives the content of the correct response."""


class Forge:
    """Contents by path, failures to come by path, and the number of requests by path."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Callable[[bytes], bytes]] = {}
        self.troubles: dict[str, list[Trouble]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, Mapping[str, str]] = {}
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        path = handler.path
        with self.lock:
            self.asked[path] += 1
            self.headers[path] = dict(handler.headers)
            trouble = self.troubles[path].pop(0) if self.troubles[path] else None
        made = self.answers.get(path)
        if made is None:
            return status(404)(handler, b"")
        content = made(body) if callable(made) else made
        (trouble or _send)(handler, content)

    def always(self, path: str, trouble: Trouble) -> None:
        self.troubles[path] = [trouble] * 1000


@contextmanager
def running() -> Iterator[Forge]:
    """Run a server; its address is in `url`."""
    forge = Forge()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            forge.answer(self, b"")

        def do_POST(self) -> None:
            forge.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, *_args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    forge.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _send(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def status(code: int, message: str = "", **headers: str) -> Trouble:
    """An error status with a message in JSON."""

    def trouble(handler: BaseHTTPRequestHandler, _content: bytes) -> None:
        body = json.dumps({"message": message}).encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return trouble


def cut(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """State the full length, send half of the content, and close the connection."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 2])
    handler.wfile.flush()
    handler.connection.close()


def short(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send half of the content as if it were complete."""
    _send(handler, content[: len(content) // 2])


def wrong(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send other content of the same length."""
    _send(handler, bytes(len(content)))


def silent(handler: BaseHTTPRequestHandler, _content: bytes) -> None:
    """Accept the connection and send nothing."""
    time.sleep(1.0)


def trickling(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send single bytes with pauses, without ever finishing."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    try:
        for i in range(200):
            handler.wfile.write(content[i : i + 1])
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass


def endless(handler: BaseHTTPRequestHandler, _content: bytes, code: int = 200) -> None:
    """Send spaces in gzip without an end; 1 kB of the transfer is 1 MB of content."""
    handler.send_response(code)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    packer = zlib.compressobj(9, wbits=31)
    try:
        for _ in range(2000):
            handler.wfile.write(packer.compress(b" " * 100_000) + packer.flush(zlib.Z_SYNC_FLUSH))
    except OSError:
        pass


def endless_error(handler: BaseHTTPRequestHandler, content: bytes) -> None:
    """Send an error message without an end."""
    endless(handler, content, 404)


def clip(seed: int) -> bytes:
    """A short WAV file that differs for every seed."""
    buffer = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal(800)
    soundfile.write(buffer, noise, 16_000, format="WAV")
    return buffer.getvalue()


def pointer(content: bytes) -> bytes:
    """The Git LFS pointer of a file."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n".encode()


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """A tar.gz archive of a repository."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def serve_git_lfs(forge: Forge, repository: str, audio: Mapping[str, bytes], tables: Mapping[str, bytes]) -> None:
    """Add a repository to the server: its archive with pointers, the batch API, and the objects."""
    files = {f"repo-main/AudioWAV/{name}": pointer(content) for name, content in audio.items()}
    files |= {f"repo-main/{name}": content for name, content in tables.items()}
    files["repo-main/AudioMP3/1001_DFA_ANG_XX.mp3"] = pointer(b"mp3")
    forge.answers[f"/{repository}/archive.tar.gz"] = tar_gz(files)
    by_oid = {hashlib.sha256(content).hexdigest(): content for content in audio.values()}

    def batch(body: bytes) -> bytes:
        wanted = json.loads(body)
        assert wanted["operation"] == "download"
        objects = []
        for item in wanted["objects"]:
            oid = item["oid"]
            if oid in by_oid:
                assert item["size"] == len(by_oid[oid])
                action = {"href": f"{forge.url}/{repository}/objects/{oid}", "header": {"X-Token": "abc"}}
                objects.append({"oid": oid, "size": item["size"], "actions": {"download": action}})
            else:
                objects.append({"oid": oid, "size": 0, "error": {"code": 404, "message": "no such object"}})
        return json.dumps({"transfer": "basic", "objects": objects}).encode()

    forge.answers[f"/{repository}.git/info/lfs/objects/batch"] = batch
    for oid, content in by_oid.items():
        forge.answers[f"/{repository}/objects/{oid}"] = content
