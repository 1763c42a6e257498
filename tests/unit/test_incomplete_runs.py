"""Runs of a language model in which requests failed: they are not done, and the same command completes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ser_bench import audit, corpora, pipeline, predictions, tracking
from ser_bench.comparison import report_tables
from ser_bench.comparison.paired import compare
from ser_bench.config import Config
from ser_bench.errors import ConfigError, IncompleteRunError
from ser_bench.evaluation import metrics
from ser_bench.tracking.run_writer import log_metrics
from ser_bench.types import Corpus, Predictions, Row
from tests.fixtures.spoken import Spoken
from tests.support import fake_openai as fake
from tests.support.fake_inputs import FakeInputs
from tests.support.stored_runs import make_clips, predict, store
from tests.support.tracked_runs import compose_config, make_corpus


class SpokenFeatures(Spoken, FakeInputs):
    """Features of a corpus whose audio is never read."""

    def __init__(self, cfg: Config, clips: Any, language: str, combined: Sequence[Any] = ()) -> None:
        super().__init__()
        self._clips = clips
        self.labels_read: set[Row] = set()

    def clips(self, rows: Sequence[Row]) -> list[Any]:
        return [self._clips[row.clip_id] for row in rows]

    def truth(self, rows: Sequence[Row]) -> list[str]:
        return [self._clips[row.clip_id].emotion for row in rows]

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        return [row.clip_id for row in rows]

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        return [None for _ in rows]

    def votes(self, rows: Sequence[Row]) -> list[Any]:
        raise ConfigError("this corpus has no votes of listeners")

    def word_error_rate(self) -> float | None:
        return None


@pytest.fixture
def corpus(monkeypatch: pytest.MonkeyPatch) -> Corpus:
    made = make_corpus()
    monkeypatch.setattr(corpora, "load", lambda cfg: made)
    monkeypatch.setattr(pipeline, "Features", SpokenFeatures)
    monkeypatch.setattr(audit, "audit_and_log", lambda *_: SimpleNamespace(verdict="not the subject"))
    return made


def test_run_with_failed_requests_is_not_done_and_the_same_command_completes_it(corpus: Corpus, tmp_path: Path) -> None:
    def limited(body: dict[str, Any]) -> fake.Reply:
        text = body["messages"][1]["content"]
        if "_sad" in text:
            return fake.error(429, "slow down")
        if "seed" in body:
            return fake.error(400, "seed is not supported")
        return fake.completion("no idea") if "_neutral" in text else fake.label("angry")

    with fake.serve(limited) as server:
        cfg = compose_config(
            tmp_path, "model=llm", "llm=gpt4o", f"llm.base_url={server.base_url}", "llm.api_key_env=null",
            "llm.max_retries=0", "llm.max_concurrency=1", "split.folds=2", f"cache_dir={tmp_path}/cache",
            "tracking.trace_share=0",
        )  # fmt: skip
        with pytest.raises(IncompleteRunError, match="6 rows: 2 answered, 2 abstained, 2 failed") as stop:
            pipeline.run(cfg)
        assert "(HTTP 429: 2)" in str(stop.value) and "slow down" in str(stop.value)
        assert "same command" in str(stop.value) and "\n" not in str(stop.value)
        (first,) = tracking.search(cfg.tracking)
        assert first.tags["llm_changed_parameters"] == "seed left out"
        assert first.status == "FAILED" and "HTTP 429" in first.tags["error"]
        counts = {name: first.metrics[f"llm/{name}"] for name in ("asked", "answered", "abstained", "failed")}
        assert counts == {"asked": 6, "answered": 2, "abstained": 2, "failed": 2}
        assert not [name for name in first.metrics if name.startswith("test/")], "an incomplete run has no score"
        table = first.frame()
        assert set(zip(table["truth"], table["status"], table["reason"], strict=True)) == {
            ("sad", "failed", "HTTP 429"), ("neutral", "abstained", "bad_json"), ("angry", "answered", ""),
        }  # fmt: skip

        asked = len(server.asked)
        server.otherwise = lambda body: fake.label("sad")
        outcome = pipeline.run(cfg)
        assert len(server.asked) == asked + 2, "only the failed clips are asked again"
        (run,) = tracking.search(cfg.tracking)
        assert (run.run_id, run.status, outcome.skipped) == (first.run_id, "FINISHED", False)
        assert (run.metrics["llm/failed"], run.metrics["llm/answered"]) == (0, 4) and "error" not in run.tags
        assert run.metrics["test/uar"] == pytest.approx(2 / 3)
        assert run.predictions().status.count("abstained") == 2 and not run.predictions().failed.any()
        assert pipeline.run(cfg).skipped and len(server.asked) == asked + 2

        # Earlier versions marked such runs as finished, and logged how many requests had failed.
        log_metrics(cfg.tracking, run.run_id, {"llm/failed": 2})
        assert tracking.find_finished(cfg, run.tags["key"]) is None
        assert tracking.newest(cfg.tracking, model="llm") == []


def made(causes: tuple[str, ...] = ("", "", "timeout")) -> Predictions:
    return Predictions(
        rows=(Row("a"), Row("b"), Row("c")),
        truth=("sad", "angry", "angry"),
        labels=("angry", "sad"),
        probabilities=np.array([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5]], dtype=np.float32),
        abstained=np.array([False, True, True]),
        latency_s=np.zeros(3, np.float32),
        cost_usd=np.zeros(3, np.float32),
        notes=("sad", "no", "too slow"),
        reasons=("", "refusal", ""),
        causes=causes,
    )


def test_status_of_each_row() -> None:
    assert made().status == ("answered", "abstained", "failed") and made().failed.tolist() == [False, False, True]
    assert made(()).status == ("answered", "abstained", "abstained")
    taken = made().take([2, 0])
    assert taken.status == ("failed", "answered") and taken.causes == ("timeout", "") and taken.reasons == ("", "")
    joined = predictions.concatenate(made().take([2]), made(()).take([0, 1]))
    assert joined.status == ("failed", "answered", "abstained") and joined.reasons == ("", "", "refusal")
    with pytest.raises(ValueError, match="cause"):
        made(("timeout", "", ""))


def test_report_keeps_the_failures_of_an_earlier_version_apart_from_abstentions(tmp_path: Path) -> None:
    """Its table of predictions does not tell them apart; its metric does."""
    clips = make_clips(speakers=8)
    old = store(tmp_path, "llm", predict(clips, 0.5, 0, abstain=6), clips)
    runs = [store(tmp_path, "cnn", predict(clips, 0.5, 1), clips), replace(old, metrics={"llm/failed": 4.0})]
    headings, rows = report_tables.main_table(compare(runs))
    cells = {row[0].text: row[headings.index("abstentions")] for row in rows}
    assert cells["cnn"].whole == "0" and cells["llm"].text == "2" and "4 failed requests" in cells["llm"].detail


def test_no_score_where_a_request_failed() -> None:
    with pytest.raises(IncompleteRunError, match=r"1 answered, 1 abstained, 1 failed \(timeout: 1"):
        metrics.score(made())
    assert metrics.score(made(()))["test/rows"] == 3
