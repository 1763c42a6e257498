"""The batch API (`llm.batch=true`): many questions in one file, answered within 24 hours at half price.

A batch is a JSONL file with one request per line, under the key that its answer has in the cache. It is uploaded, a
batch is created from it, and its state is asked until it has ended. The answers then pass the same parsing and the same
cache as online ones.

Nothing is submitted twice. The batch carries the digest of its keys as metadata, and its file has the digest as its
name. Before a batch is created, the run looks for its id in the work folder, then for a batch with this digest at the
service, then for an uploaded file with this name. A process that is killed at any point therefore continues where it
was. What was reserved of the budget is noted in the work folder as well.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

import openai

from ser_bench import openai_client
from ser_bench.config import LlmApi, LlmConfig
from ser_bench.errors import LLMError, LLMStoppedError
from ser_bench.predictors.llm.rate_limiter import backoff_s
from ser_bench.redaction import redact_reply
from ser_bench.types import digest_of

log = logging.getLogger(__name__)

STATE_FILE = "llm_batches.jsonl"
MOST_ROUNDS = 2
"""Lines that failed or expired are asked again in a second batch."""
MOST_LINES, MOST_BYTES = 5_000, 150 * 2**20
"""Largest batch. OpenAI's limits are 50,000 lines and 200 MB; smaller ones keep the file of answers small as well."""
MOST_RESULT_BYTES = 512 * 2**20
"""Longest file of answers that is read."""
WINDOW: Final = "24h"
ENDED = ("completed", "failed", "expired", "cancelled")
LISTED = 1_000
"""This many of the latest batches and files of the account are searched."""
DIGEST, FORMAT, CHANGES = "ser_bench", "ser_bench_format", "ser_bench_changes"
"""Keys of the metadata: digest of the lines, response format, `request_body.CHANGES` that they were made with."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of a batch.

    Attributes:
        key: key of its answer in the cache.
        body: arguments of the client's `create`.
    """

    key: str
    body: Mapping[str, Any]

    def to_json(self, url: str) -> str:
        """Return the line of the file."""
        sent = {name: value for name, value in self.body.items() if name != "extra_body"}
        sent |= self.body.get("extra_body", {})
        return json.dumps({"custom_id": self.key, "method": "POST", "url": url, "body": sent}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class LineResult:
    """What a batch gave for one line.

    Attributes:
        key: key of its answer in the cache.
        status: HTTP status; 0 if the line was not carried out.
        body: the body of the response, or the error.
    """

    key: str
    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class BatchLineResponse:
    """What an error of the `openai` client needs of the response of one line."""

    status_code: int
    request: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_redirect: bool = False

    def error(self, body: Any) -> openai.APIStatusError:
        """Return the error that the client raises for this response when it is asked online."""
        inner = body.get("error", body) if isinstance(body, dict) else body
        message = inner.get("message") if isinstance(inner, dict) else inner
        return openai.APIStatusError(str(message), response=cast("Any", self), body=inner)


class BatchState:
    """What a run knows about its batches, one event per line of a file in its work folder.

    Args:
        folder: the work folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATE_FILE
        self.reserved_usd: dict[str, float] = {}
        """Digest → US dollars that are reserved in the ledger of the budget."""
        self.plans: dict[str, tuple[str, tuple[str, ...]]] = {}
        """Digest → response format and changes of a batch that was about to be created."""
        self.ids: dict[str, str] = {}
        """Digest → id, of batches that have not been read to their end."""
        self.ended: set[str] = set()
        """Ids of batches that were read to their end."""
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        for line in text.splitlines():
            try:
                event = json.loads(line)
                self._apply(str(event["digest"]), event)
            except (ValueError, TypeError, KeyError):
                continue  # a kill cut this line

    def note(self, digest: str, **event: Any) -> None:
        """Store an event: `reserved_usd` with `format` and `changes`, `id`, or `ended` of the batch with this digest.

        Raises:
            LLMError: if the file cannot be written.
        """
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" + json.dumps({"digest": digest} | event))
        except OSError as error:
            raise LLMError(
                f"{self._path}: cannot note the state of a batch ({error.strerror}), so it could be paid twice. Free "
                "some space, or choose another tracking.dir"
            ) from error
        self._apply(digest, event)

    def _apply(self, digest: str, event: Mapping[str, Any]) -> None:
        if "reserved_usd" in event:
            self.reserved_usd[digest] = float(event["reserved_usd"])
            self.plans[digest] = str(event["format"]), tuple(event["changes"])
        if "id" in event:
            self.ids[digest] = str(event["id"])
        if "ended" in event:
            self.ended.add(str(event["ended"]))
            self.ids.pop(digest, None)
            self.reserved_usd.pop(digest, None)
            self.plans.pop(digest, None)


def made_with(batch: Any) -> tuple[str, tuple[str, ...]]:
    """Return the response format and the changes with which the lines of a batch were made."""
    metadata = batch.metadata or {}
    return str(metadata.get(FORMAT, "")), tuple(name for name in metadata.get(CHANGES, "").split(",") if name)


def seconds_per_line(batch: Any, lines: int) -> float:
    """Return the time from the creation of a batch to its end, divided among its lines."""
    ended = batch.completed_at or batch.expired_at or batch.cancelled_at or batch.created_at
    return max(0.0, float(ended - batch.created_at)) / max(1, lines)


class Batches:
    """Submits batches, waits for them and reads their results.

    Args:
        connection: a client of the service.
        cfg: interface, time between two polls, limit on the time of a run.
        state: what the run knows about its batches.
        name: name of the service in messages.
        key: the API key, which must not appear in messages.
    """

    def __init__(
        self, connection: openai.OpenAI, cfg: LlmConfig, state: BatchState, name: str, key: str | None
    ) -> None:
        self._connection, self._cfg, self._state = connection, cfg, state
        self._name, self._key = name, key
        self._ends_at = None if cfg.run_deadline_s is None else time.monotonic() + cfg.run_deadline_s

    @property
    def url(self) -> str:
        """Path that the lines are sent to."""
        return "/v1/responses" if self._cfg.api is LlmApi.responses else "/v1/chat/completions"

    def known(self) -> dict[str, Any]:
        """Return digest → batch for all batches of the run that were not read to their end."""
        return {digest: self._connection.batches.retrieve(id_) for digest, id_ in self._state.ids.items()}

    def at_service(self, keys: Sequence[str]) -> dict[str, Any]:
        """Return digest → batch for batches of exactly these keys that another process has created."""
        digest = digest_of(sorted(keys))
        batch = self._with_digest(digest)
        if batch is None:
            return {}
        self._state.note(digest, id=batch.id)
        log.info("batch    %s continues: %s has it already", batch.id, self._name)
        return {digest: batch}

    def submit(self, lines: Sequence[BatchLine], response_format: str, changes: Sequence[str]) -> dict[str, Any]:
        """Upload lines and create a batch; return digest → batch. The caller has noted what it reserved."""
        digest = digest_of(sorted(line.key for line in lines))
        name = f"ser_bench-{digest}.jsonl"
        data = "\n".join(line.to_json(self.url) for line in lines).encode()
        file_id = self._uploaded(name, len(data))
        if file_id is None:
            file_id = self._connection.files.create(file=(name, data), purpose="batch").id
        metadata = {DIGEST: digest, FORMAT: response_format, CHANGES: ",".join(changes)}
        batch = self._created(file_id, metadata)
        self._state.note(digest, id=batch.id)
        log.info("batch    %s created: %d prompts, answers within %s", batch.id, len(lines), WINDOW)
        return {digest: batch}

    def wait(self, batches: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield (digest, batch) for each batch as soon as it has ended. Its state is logged when it changes.

        Raises:
            LLMStoppedError: if the time of the run is up; the batches go on at the service.
        """
        running, shown = dict(batches), dict[str, str]()
        while running:
            for digest, batch in list(running.items()):
                self._show(batch, shown)
                if batch.status in ENDED:
                    del running[digest]
                    yield digest, batch
            if not running:
                return
            if self._ends_at is not None and time.monotonic() + self._cfg.batch_poll_s > self._ends_at:
                raise LLMStoppedError(
                    f"llm.run_deadline_s={self._cfg.run_deadline_s:g}: the time of this run is up, and "
                    f"{', '.join(batch.id for batch in running.values())} goes on at the service"
                )
            time.sleep(self._cfg.batch_poll_s)
            running = {digest: self._connection.batches.retrieve(b.id) for digest, b in running.items()}

    def results(self, batch: Any) -> list[LineResult]:
        """Return what a batch that has ended gave for its lines; lines that expired may be missing.

        Raises:
            LLMError: if the service refused the batch as a whole.
        """
        if batch.status == "failed":
            reasons = [str(error.message) for error in (batch.errors.data if batch.errors else None) or ()]
            text = " ".join(redact_reply("; ".join(reasons[:3]) or "no reason given", self._key).split())
            raise LLMError(
                f"{self._name} refuses the batch {batch.id} ({text[:300]}). Nothing of it was asked. Run the same "
                "command again later, with a smaller llm.limit, or with llm.batch=false"
            )
        results = []
        for file_id in (batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                results += [result for line in self._text(file_id).splitlines() if (result := _result(line))]
        return results

    def close(self, digest: str, batch: Any) -> None:
        """Note that a batch was read to its end, and delete its files at the service as far as it allows this."""
        self._state.note(digest, ended=batch.id)
        for file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            if file_id is not None:
                try:
                    self._connection.files.delete(file_id)
                except openai.APIError:
                    log.info("batch    the file %s could not be deleted at %s", file_id, self._name)

    def _created(self, file_id: str, metadata: dict[str, str]) -> Any:
        """Create a batch. The client repeats nothing here: a request whose answer was lost may have created it."""
        once = self._connection.with_options(max_retries=0)
        retry = 0
        while True:
            try:
                return once.batches.create(
                    input_file_id=file_id, endpoint=cast("Any", self.url), completion_window=WINDOW, metadata=metadata
                )
            except openai.APIError as error:
                retry += 1
                if retry > self._cfg.max_retries or not openai_client.is_transient(error):
                    raise
            time.sleep(backoff_s(retry))
            batch = self._with_digest(metadata[DIGEST])
            if batch is not None:
                return batch

    def _with_digest(self, digest: str) -> Any:
        """Return the latest batch with this digest that this run has not read to its end, or None."""
        for batch in islice(self._connection.batches.list(limit=100), LISTED):
            if (batch.metadata or {}).get(DIGEST) == digest and batch.id not in self._state.ended:
                return batch
        return None

    def _uploaded(self, name: str, size: int) -> str | None:
        """Return the id of a file that an earlier process uploaded whole."""
        for file in islice(self._connection.files.list(purpose="batch"), LISTED):
            if file.filename == name and file.bytes == size:
                return file.id
        return None

    def _text(self, file_id: str) -> str:
        try:
            return self._connection.files.content(file_id).text
        except openai.NotFoundError:
            return ""  # another process has read and deleted it

    def _show(self, batch: Any, shown: dict[str, str]) -> None:
        counts = batch.request_counts
        state = str(batch.status)
        if counts is not None:
            state += f", {counts.completed:,} of {counts.total:,} answered, {counts.failed:,} failed"
        if shown.get(batch.id) != state:
            shown[batch.id] = state
            log.info("batch    %s %s", batch.id, state)


def parts(keys: Sequence[str], line_bytes: int) -> list[list[str]]:
    """Return the keys of each batch: sorted, because the digest of a batch must not depend on their order.

    Args:
        keys: keys of all questions.
        line_bytes: length of the longest line.

    >>> parts(["b", "a"], 100)
    [['a', 'b']]
    """
    most = max(1, min(MOST_LINES, MOST_BYTES // max(1, line_bytes)))
    ordered = sorted(keys)
    return [ordered[i : i + most] for i in range(0, len(ordered), most)]


def _result(line: str) -> LineResult | None:
    """Return the result in a line of a file, or None if it is none."""
    try:
        value = json.loads(line)
        response = value.get("response")
        if isinstance(response, dict) and not value.get("error"):
            return LineResult(str(value["custom_id"]), int(response["status_code"]), response.get("body"))
        return LineResult(str(value["custom_id"]), 0, value.get("error"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
