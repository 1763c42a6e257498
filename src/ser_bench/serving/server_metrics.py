"""What a server counts and measures, in the text format of Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ser_bench.inference.answer import TOTAL, Answer
from ser_bench.serving.batching import BatchFacts

PREFIX = "ser_bench"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of times, seconds."""
CLIPS = (1, 2, 4, 8, 16, 32, 64)
READ, DECODE, QUEUE, PREDICT = "read", "decode", "queue", "predict"
"""Stages of a request. Those of a prediction have the names of `Answer.seconds`."""


class ServerMetrics:
    """Counters and histograms of one server, in a registry of their own. Nothing of a clip is in them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            f"{PREFIX}_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.errors = Counter(f"{PREFIX}_errors", "Errors by their code.", ["code"], registry=self.registry)
        self.seconds = Histogram(
            f"{PREFIX}_request_seconds", "Time of requests.", ["path"], buckets=SECONDS, registry=self.registry
        )
        self.stages = Histogram(
            f"{PREFIX}_stage_seconds",
            "Time of the stages of a request: read, decode, queue, predict (of the whole batch).",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.features = Histogram(
            f"{PREFIX}_predictor_seconds",
            "Time per clip of a predictor and of each feature.",
            ["model", "stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            f"{PREFIX}_batch_clips", "Clips that were predicted together.", buckets=CLIPS, registry=self.registry
        )
        self.audio = Counter(f"{PREFIX}_audio_seconds", "Seconds of audio that were predicted.", registry=self.registry)
        self.dropped = Counter(
            f"{PREFIX}_stream_dropped_seconds", "Seconds of audio that streams dropped.", registry=self.registry
        )
        self.queue = Gauge(f"{PREFIX}_queue_length", "Clips that wait for a predictor.", registry=self.registry)
        self.in_progress = Gauge(
            f"{PREFIX}_requests_in_progress", "Requests whose clip is decoded, waits or is predicted.",
            registry=self.registry,
        )  # fmt: skip
        self.memory = Gauge(f"{PREFIX}_held_bytes", "Bytes of bodies and samples in memory.", registry=self.registry)
        self.streams = Gauge(f"{PREFIX}_streams", "Open streams.", registry=self.registry)

    def count_batch(self, facts: BatchFacts) -> None:
        """Count one batch."""
        self.batches.observe(facts.clips)
        self.stages.labels(PREDICT).observe(facts.spent_s)
        for waited_s in facts.waited_s:
            self.stages.labels(QUEUE).observe(waited_s)

    def count_answer(self, model: str, answer: Answer) -> None:
        """Count the stages of one answer."""
        for stage, spent_s in answer.seconds.items():
            self.features.labels(model, stage).observe(spent_s)
        if TOTAL in answer.seconds:
            self.audio.inc(answer.duration_s)

    def exposition(self) -> tuple[bytes, str]:
        """Return all values as text, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4
