"""A service with chat completions and a batch API on loopback, as OpenAI's documentation describes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support import fake_openai as fake

Body = dict[str, Any]
EXPIRED = {"code": "batch_expired", "message": "This request could not be executed before the completion window."}


class DropConnectionError(Exception):
    """A hook raises this to close the connection without an answer."""


class FakeBatchService:
    """Answers lines when their batch has been asked for `polls` times.

    Attributes:
        answer: body of a line → the reply; None: the line expires.
        polls: how often the state of a batch is asked before it ends.
        ends: state in which batches end.
        before, after: called with "POST /batches" and the like, before and after the request is carried out.
        files: id → (name, content).
        batches: id → batch.
        online: bodies of chat completions.
        calls: "POST /batches" and the like, in order.
        headers: of these calls.
        deleted: ids of deleted files.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Body], fake.Reply | None] = lambda body: fake.label("sad")
        self.polls = 2
        self.ends = "completed"
        self.before: Callable[[str], None] = lambda call: None
        self.after: Callable[[str], None] = lambda call: None
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, Body] = {}
        self.online: list[Body] = []
        self.calls: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.deleted: list[str] = []
        self.lock = threading.RLock()
        self.base_url = ""

    @property
    def lines(self) -> list[Body]:
        """Every line of every batch that was created."""
        return [json.loads(line) for batch in self.batches.values() for line in batch["sent"].decode().splitlines()]

    def handle(self, method: str, path: str, raw: bytes, content_type: str) -> fake.Reply:
        """Return the reply to one request; `path` begins after /v1 and has no query."""
        parts = path.strip("/").split("/")
        if path == "/chat/completions":
            self.online.append(json.loads(raw))
            return self.answer(json.loads(raw)) or fake.error(500, "no answer")
        if parts[0] == "files":
            return self._files(method, parts, raw, content_type)
        if method == "POST":
            return fake.Reply(self._create(json.loads(raw)))
        if len(parts) == 1:
            return fake.Reply({"object": "list", "data": [shown(b) for b in self.batches.values()], "has_more": False})
        return fake.Reply(shown(self._poll(self.batches[parts[1]])))

    def _files(self, method: str, parts: list[str], raw: bytes, content_type: str) -> fake.Reply:
        if method == "POST":
            form = BytesParser(policy=HTTP).parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + raw)
            assert isinstance(form, EmailMessage)
            [file] = [part for part in form.iter_parts() if part.get_filename()]
            assert isinstance(file, EmailMessage)
            return fake.Reply(self._file(self._store(str(file.get_filename()), file.get_payload(decode=True))))
        if len(parts) == 1:
            data = [self._file(file_id) for file_id in self.files]
            return fake.Reply({"object": "list", "data": data, "has_more": False})
        if parts[1] not in self.files:
            return fake.error(404, f"No such File object: {parts[1]}")
        if method == "DELETE":
            del self.files[parts[1]]
            self.deleted.append(parts[1])
            return fake.Reply({"id": parts[1], "object": "file", "deleted": True})
        return fake.Reply(self.files[parts[1]][1])

    def _store(self, name: str, content: Any) -> str:
        file_id = f"file-{len(self.files) + len(self.deleted) + 1}"
        self.files[file_id] = (name, content)
        return file_id

    def _file(self, file_id: str) -> Body:
        name, content = self.files[file_id]
        return {
            "id": file_id, "object": "file", "bytes": len(content), "created_at": 0, "filename": name,
            "purpose": "batch", "status": "processed",
        }  # fmt: skip

    def _create(self, body: Body) -> Body:
        batch_id = f"batch_{len(self.batches) + 1}"
        sent = self.files[body["input_file_id"]][1]
        total = len(sent.splitlines())
        self.batches[batch_id] = body | {
            "id": batch_id, "object": "batch", "status": "validating", "created_at": 1_000, "sent": sent, "asked": 0,
            "request_counts": {"total": total, "completed": 0, "failed": 0},
        }  # fmt: skip
        return shown(self.batches[batch_id])

    def _poll(self, batch: Body) -> Body:
        batch["asked"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["asked"] > self.polls:
                self._end(batch)
        return batch

    def _end(self, batch: Body) -> None:
        batch |= {"status": self.ends, "completed_at": 1_000 + 60}
        if self.ends == "failed":
            data = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached for m"}]
            batch["errors"] = {"object": "list", "data": data}
            return
        good, bad = [], []
        for line in map(json.loads, batch["sent"].decode().splitlines()):
            reply = self.answer(line["body"])
            result: Body = {"id": "r", "custom_id": line["custom_id"], "response": None, "error": None}
            if reply is None:
                bad.append(result | {"error": EXPIRED})
                continue
            response = {"status_code": reply.status, "request_id": "q", "body": reply.body}
            (good if reply.status == 200 else bad).append(result | {"response": response})
        for name, results in (("output_file_id", good), ("error_file_id", bad)):
            if results:
                batch[name] = self._store(name, "\n".join(map(json.dumps, reversed(results))).encode())
        batch["request_counts"] |= {"completed": len(good), "failed": len(bad)}


def shown(batch: Body) -> Body:
    """Return a batch without what only this fake knows."""
    return {name: value for name, value in batch.items() if name not in ("sent", "asked")}


@contextmanager
def serve() -> Iterator[FakeBatchService]:
    """Run the service for a `with` block; `base_url` is its address."""
    service = FakeBatchService()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def carry_out(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.partition("?")[0].removeprefix("/v1")
            call = f"{self.command} /{path.split('/')[1]}"
            try:
                with service.lock:
                    service.calls.append(call)
                    service.headers.append({name.lower(): value for name, value in self.headers.items()})
                    service.before(call)
                    reply = service.handle(self.command, path, raw, self.headers.get("content-type", ""))
                    service.after(call)
            except DropConnectionError:
                self.close_connection = True
                return
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self.carry_out()

        def do_POST(self) -> None:
            self.carry_out()

        def do_DELETE(self) -> None:
            self.carry_out()

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    service.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
