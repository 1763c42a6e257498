"""The page in headless Chromium, with a microphone that plays a made clip."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ser_bench import config
from ser_bench.pipeline import RunResult
from ser_bench.webpage import page_answers, page_server, quick_training
from ser_bench.webpage.page_answers import LoadedRuns
from tests.support import stored_runs
from tests.support.chromium import Chromium, find_chromium
from tests.support.page_runs import trained_predictor, write_speech

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="Chromium is not installed")

CARDS = "#answers .ser-card"
CLIP_S = 2.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> LoadedRuns:
    """Two trained predictors, one of which adapts; their stored predictions are made up."""
    pytest.importorskip("opensmile", reason="the extra egemaps is not installed")
    folder = tmp_path_factory.mktemp("runs")
    loaded = LoadedRuns(config.compose([]))
    clips = stored_runs.make_clips(8)
    for i, words in enumerate(((), ("adapt=speaker_stats",))):
        stored = stored_runs.store(folder / "store", f"model{i}", stored_runs.predict(clips, 0.9 - 0.3 * i, i), clips)
        loaded.add(stored, trained_predictor(folder / str(i), *words))
    return loaded


@pytest.fixture(scope="module")
def address(runs: LoadedRuns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page with these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_answers, "REPORTS", tmp_path_factory.mktemp("no reports"))
        with serving(runs) as where:
            yield where


@contextmanager
def serving(runs: LoadedRuns) -> Iterator[str]:
    """Serve a page in this process, and give its address."""
    pytest.importorskip("gradio", reason="the extra app is not installed")
    import uvicorn

    with pytest.MonkeyPatch.context() as patch, page_server.private_folder() as kept:
        for name in page_server.OFFLINE:
            patch.setenv(name, "")
        with closing(page_server.bound_socket(0)) as bound:
            app = page_server.page_application(runs)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
            thread.start()
            yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
            server.should_exit = True
            thread.join(timeout=20)
    assert not Path(kept).exists()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile", write_speech(tmp_path / "voice.wav", CLIP_S)) as chromium:
        yield chromium


def record(browser: Chromium, box: str, seconds: float = CLIP_S) -> None:
    browser.press(f"{box} .record-button")
    browser.wait_for(f"!!document.querySelector('{box} .stop-button')?.offsetParent")
    time.sleep(seconds)
    browser.press(f"{box} .stop-button")


def press_text(browser: Chromium, selector: str, text: str) -> None:
    browser.evaluate(f"[...document.querySelectorAll('{selector}')].find(b => b.innerText.includes({text!r})).click()")


def test_record_an_answer_enrol_and_read_the_report(browser: Chromium, address: str) -> None:
    browser.open(address)
    record(browser, "#recording")
    browser.wait_for(f"document.querySelectorAll('{CARDS}').length == 2", 60)
    text = browser.evaluate("document.querySelector('#answers').innerText")
    assert "Median F0" in text and "model0" in text and "classifier" in text
    labels = browser.evaluate("[...document.querySelectorAll('.ser-label')].map(e => e.innerText)")
    assert set(labels) <= set(stored_runs.LABELS) and len(labels) == 2
    assert ("The predictors disagree" in text) is (labels[0] != labels[1])

    press_text(browser, "button", "Adapt to your voice")
    for count in (1, 2):
        record(browser, "#sentence", 1.0)
        browser.wait_for(f"document.querySelector('#enrolment').innerText.includes('{count} recorded')")
        browser.wait_for("!!document.querySelector('#sentence .record-button')?.offsetParent")
    browser.press("#adapt")
    browser.wait_for("document.querySelector('#answers').innerText.includes('after enrolment')")
    assert "2 of your recordings: 1 of 2" in browser.evaluate("document.querySelector('#enrolment').innerText")

    press_text(browser, "button[role=tab]", "Last comparison")
    browser.wait_for("!!document.querySelector('#report iframe')", 60)
    assert "Predictors side by side" in browser.evaluate("document.querySelector('#report iframe').srcdoc")

    for width in (1280, 390):
        browser.resize(width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.problems == []
    local = (address, f"blob:{address}", "data:")
    assert [request for request in browser.requests if not request.startswith(local)] == []


def test_every_control_has_a_name(browser: Chromium, address: str) -> None:
    browser.open(address)
    browser.wait_for("!!document.querySelector('#recording .record-button')?.offsetParent")
    browser.call("Accessibility.enable")
    nodes: list[dict[str, Any]] = browser.call("Accessibility.getFullAXTree")["nodes"]
    controls = [n for n in nodes if n.get("role", {}).get("value") in ("button", "tab", "textbox", "combobox", "img")]
    assert len(controls) >= 6
    assert [n for n in controls if not n["ignored"] and not n.get("name", {}).get("value")] == []
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_without_a_run_the_page_trains_one_and_then_asks_it(
    browser: Chromium, runs: LoadedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run itself is replaced here; whole runs are in test_demo.py."""
    lines = logging.getLogger("ser_bench.pipeline")

    def run(cfg: config.Config, parent: None) -> RunResult:
        lines.info("corpus   %s (SYNTHETIC speech)", cfg.corpus.name)
        time.sleep(1.0)
        return RunResult("trained", {})

    def load(self: LoadedRuns, run_id: str) -> None:
        assert run_id == "trained"
        first = next(iter(runs))
        self.add(first.stored, first.predictor)

    monkeypatch.setattr(quick_training.pipeline, "run", run)
    monkeypatch.setattr(LoadedRuns, "load", load)
    with serving(LoadedRuns(config.compose([]))) as where:
        browser.open(where)
        browser.press("#train")
        printed = "document.querySelector('#training').innerText"
        browser.wait_for(f"{printed}.includes('corpus   demo (SYNTHETIC speech)')", 240)
        record(browser, "#recording")
        browser.wait_for(f"document.querySelectorAll('{CARDS}').length == 1", 240)
        browser.open(where)  # opened again, the page asks the trained predictor
        browser.wait_for("!!document.querySelector('#recording .record-button')?.offsetParent")
        assert not browser.evaluate("!!document.querySelector('#train')?.offsetParent")
        assert browser.problems == []
