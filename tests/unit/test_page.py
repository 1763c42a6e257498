"""The page: what it shows, and that it asks no other host and keeps nothing. test_app.py opens it in a browser."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from ser_bench import config, extras
from ser_bench.config import PitchConfig
from ser_bench.errors import BadClipError, ConfigError, SerBenchError
from ser_bench.inference import speech_gate
from ser_bench.inference.recording import Recording
from ser_bench.inference.timeline import TimelineEntry
from ser_bench.webpage import page, page_answers, page_figures, page_server, quick_training
from ser_bench.webpage.page_answers import LoadedRuns
from tests.support import stored_runs
from tests.support.page_runs import RATE_HZ, ConstantPredictor, flags, write_speech
from tests.support.signals import voice_like


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        page_answers, "predict_with_each", lambda predictors, recordings: [p.predict(recordings) for p in predictors]
    )
    monkeypatch.setattr(page_answers, "pitch_html", lambda recording: "")  # a figure takes longer than the rest


@pytest.fixture
def clip(tmp_path: Path) -> Recording:
    return page_answers.read_recording(str(write_speech(tmp_path / "clip.wav")))


def loaded(folder: Path, *predictors: ConstantPredictor, **tags: str) -> LoadedRuns:
    """Runs with these predictors; their stored predictions are right with probability .9, .6, …"""
    runs = LoadedRuns(config.compose([]))
    clips = stored_runs.make_clips(8)
    for i, predictor in enumerate(predictors):
        predictions = stored_runs.predict(clips, 0.9 - 0.3 * i, seed=i)
        stored = stored_runs.store(folder / "store", f"model{i}", predictions, clips, **tags)
        runs.add(stored, cast(Any, predictor))
    return runs


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


def test_cards_have_label_bars_transcript_time_and_flags(tmp_path: Path, clip: Recording) -> None:
    predictor = ConstantPredictor("sad", transcript="<b>it is eleven</b>", flags=flags())
    html = page_answers.answers_html(loaded(tmp_path, predictor), clip)
    assert html.count("<article") == 1 and '<p class="ser-label">sad</p>' in html
    assert html.count('class="ser-bar"') == 3 and "width:80.0%" in html and "80 %" in html
    assert "&lt;b&gt;it is eleven" in html and "<b>it" not in html
    assert "noise &lt;as loud&gt; as speech" in html
    assert "all 500 ms: classifier 2 ms" in html and "not calibrated" in html
    assert "disagree" not in html


def test_a_failed_answer_has_its_reason_and_no_bars(tmp_path: Path, clip: Recording) -> None:
    predictor = ConstantPredictor("", status="failed", reason="too <short>", probabilities={})
    html = page_answers.answers_html(loaded(tmp_path, predictor), clip)
    assert "too &lt;short&gt;" in html and "ser-bar" not in html


def test_a_disagreement_states_how_often_each_was_right(tmp_path: Path, clip: Recording) -> None:
    runs = loaded(tmp_path, ConstantPredictor("sad"), ConstantPredictor("happy"))
    text = text_of(page_answers.answers_html(runs, clip))
    first, second = (run.stored.predictions() for run in runs)
    differ = np.array(first.predicted) != np.array(second.predicted)
    right = int((np.array(first.predicted) == np.array(first.truth))[differ].sum())
    assert "model0 says sad, model1 says happy" in text
    assert f"On {differ.sum()} of 96 test clips of unseen speakers they disagreed" in text
    assert f"model0 {right} of {differ.sum()}" in text
    seen = loaded(tmp_path / "2", ConstantPredictor("sad"), ConstantPredictor("happy"), protocol="clip")
    assert "speakers who were in training too" in page_answers.answers_html(seen, clip)


def test_why_the_rate_is_not_known_is_said(tmp_path: Path, clip: Recording) -> None:
    runs = loaded(tmp_path, ConstantPredictor("sad"))
    clips = stored_runs.make_clips(8)
    other = stored_runs.store(
        tmp_path / "store", "other", stored_runs.predict(clips, 0.5, 3), clips, partition="elsewhere"
    )
    runs.add(other, cast(Any, ConstantPredictor("happy")))
    assert "is not known: other and model0 were tested on different splits" in page_answers.answers_html(runs, clip)


def test_runs_of_one_model_have_different_names(tmp_path: Path) -> None:
    runs = loaded(tmp_path, ConstantPredictor("sad"))
    stored = next(iter(runs)).stored
    runs.add(stored, cast(Any, ConstantPredictor("sad")))
    assert [run.title.name for run in runs] == ["model0", f"model0 ({stored.run_id[:8]})"]


def test_the_title_states_corpus_protocol_and_chance_level(tmp_path: Path) -> None:
    stored = next(iter(loaded(tmp_path, ConstantPredictor("sad"), synthetic="true"))).stored
    stored.metrics["test/uar"] = 0.7214
    assert page_answers.result_sentence(stored) == (
        "Trained on tiny (SYNTHETIC speech), split=speaker: UAR .721 on unseen speakers (chance level .333)"
    )
    stored.params["adapt.name"] = "speaker_stats"
    stored.tags["protocol"] = "clip"
    assert "speakers who were in training too, adapted to each of them" in page_answers.result_sentence(stored)
    stored.params["corpus.target"] = "intensity"
    assert page_answers.result_sentence(stored).startswith("Intensity that the actor was asked for. Trained on tiny")


def test_enrolment_answers_before_and_after(tmp_path: Path, clip: Recording) -> None:
    adapting, fixed = ConstantPredictor("sad", adapted="happy"), ConstantPredictor("sad")
    runs = loaded(tmp_path, adapting, fixed)
    files = [str(write_speech(tmp_path / f"{i}.wav", seed=i)) for i in range(2)]
    assert runs.adapt and page_answers.enrol(runs, files, "me") == 1
    assert adapting.enrolled == {"me": 2} and fixed.enrolled == {}
    mine = page_answers.read_recording(files[0], "me")
    text = text_of(page_answers.answers_html(runs, mine, enrolled=True))
    before, after = text.index("before enrolment sad"), text.index("after enrolment happy")
    assert before < after and text.count("before enrolment") == 1
    assert "model0 says happy, model1 says sad" in text
    with pytest.raises(ConfigError, match="at least one sentence"):
        page_answers.enrol(runs, [], "me")
    with pytest.raises(ConfigError, match="adapt=speaker_stats"):
        page_answers.enrol(loaded(tmp_path / "2", fixed), files, "me")


def test_the_f0_curve_has_the_pitch_of_the_tone_and_its_axes() -> None:
    tone = 0.4 * np.sin(2 * np.pi * 220.0 * np.arange(RATE_HZ) / RATE_HZ)
    recording = Recording.from_samples(tone, RATE_HZ)
    times_s, f0_hz = page_figures.f0_curve(recording, PitchConfig())
    assert np.median(f0_hz[f0_hz > 0]) == pytest.approx(220.0, rel=0.01)
    assert times_s[0] + times_s[-1] == pytest.approx(recording.duration_s, abs=1e-6)  # as Praat centres its frames
    svg = page_figures.f0_html(recording, PitchConfig())
    assert "F0 (Hz)" in svg and "time (s)" in svg
    assert 'role="img" aria-label="Fundamental frequency (F0). Median F0 2' in svg
    silent = Recording.from_samples(np.zeros(RATE_HZ, np.float32), RATE_HZ)
    assert "no voiced sound" in page_figures.f0_html(silent, PitchConfig())


def test_a_long_recording_has_a_timeline_of_every_predictor(
    tmp_path: Path, clip: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "replaced")  # every window is predicted
    predictor, other = ConstantPredictor("sad"), ConstantPredictor("happy")
    runs = loaded(tmp_path, predictor, other)
    shares: list[float] = []
    long = Recording.from_samples(voice_like(20 * RATE_HZ), RATE_HZ)
    html = page_answers.timelines_html(runs, long, 3.0, 1.0, lambda share, _: shares.append(share))
    assert len(predictor.asked) == len(other.asked) == 18
    assert {round(part.duration_s, 3) for part in predictor.asked} == {3.0}
    assert "Timeline of model0" in html and "probability" in html
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)
    text = text_of(html)
    assert text.index("0.0 20.0 sad 80 %") < text.index("0.0 20.0 happy 80 %") and "not known" in text
    assert page_answers.timelines_html(runs, clip, 3.0, 1.0, lambda *_: None) == ""
    for window_s, hop_s in ((0.1, 0.1), (3.0, 0.0), (float("nan"), 1.0), (1.0, 2.0)):
        with pytest.raises(ConfigError, match="at least"):
            page_answers.timelines_html(runs, long, window_s, hop_s, lambda *_: None)


def test_windows_without_speech_are_gaps_for_every_predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [cast(Any, SimpleNamespace(predictor=ConstantPredictor(label))) for label in ("sad", "happy")]
    asked = page_answers._AllPredictors(runs)
    first, second = asked.predict([Recording.from_samples(np.ones(9, np.float32), RATE_HZ)] * 2)
    entries = [
        TimelineEntry(0, 3, True, 2.0, first), TimelineEntry(1, 4, False, 0.0, None),
        TimelineEntry(2, 5, True, 2.0, second),
    ]  # fmt: skip
    labels = [[entry.label for entry in of_run] for of_run in asked.timelines(entries)]
    assert labels == [["sad", "", "sad"], ["happy", "", "happy"]]
    assert page_figures.speech_words(entries) == "2 of 3 windows have speech; the others are not predicted."


def test_an_unusable_file_is_one_line_without_the_temporary_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.wav").write_text("not audio")
    with pytest.raises(BadClipError) as error:
        page_answers.read_recording(str(tmp_path / "notes.wav"))
    assert str(error.value).startswith("notes.wav") and str(tmp_path) not in str(error.value)
    with pytest.raises(ConfigError, match="Record or upload"):
        page_answers.read_recording(None)


def test_the_report_is_the_newest_one_in_a_sandbox(tmp_path: Path) -> None:
    runs = loaded(tmp_path, ConstantPredictor("sad"), ConstantPredictor("happy"))
    made = page_answers.report_page(runs, tmp_path / "none")
    assert "made now" in made and "Predictors side by side" in made
    for age, name in enumerate(("new", "old")):
        (tmp_path / "compare" / name).mkdir(parents=True)
        file = tmp_path / "compare" / name / "comparison.html"
        file.write_text(f'<p class="{name}">')
        os.utime(file, (1000 - age, 1000 - age))
    found = page_answers.report_page(runs, tmp_path / "compare")
    assert "&lt;p class=&quot;new&quot;&gt;" in found and "old" not in found
    assert 'sandbox="allow-scripts"' in found  # not allow-same-origin: the report cannot reach the page
    assert "no comparison" in page_answers.report_page(loaded(tmp_path / "2"), tmp_path / "none")


def test_the_chosen_training_is_one_that_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    has = {"opensmile", "espeakng_loader", "faster_whisper"}
    monkeypatch.setattr(extras, "is_installed", lambda module: module in has)
    monkeypatch.setattr(quick_training.weights, "find", lambda name: Path("found"))
    assert quick_training.choose_model() == "whisper_probe"
    monkeypatch.setattr(quick_training.weights, "find", lambda name: None)
    assert quick_training.choose_model() == "egemaps"
    has.remove("opensmile")
    assert quick_training.choose_model() == "cnn"
    for model in quick_training.CHOICES:
        cfg = config.compose(quick_training.training_words(model, ["seed=3"]))
        assert (cfg.model.name, cfg.corpus.name, cfg.seed, cfg.experiment_name) == (model, "demo", 3, "")


def test_a_training_gives_its_log_and_its_run_or_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(cfg: config.Config, parent: None) -> Any:
        import logging

        logging.getLogger("ser_bench.pipeline").info("corpus   %s", cfg.corpus.name)
        if cfg.seed:
            raise SerBenchError("no space")
        return type("Result", (), {"run_id": "abc"})

    monkeypatch.setattr(quick_training.pipeline, "run", run)
    training = quick_training.QuickTraining(quick_training.training_words("cnn", []))
    assert [line for line in training.lines() if line] == ["corpus   demo"] and training.run_id == "abc"
    with pytest.raises(SerBenchError, match="no space"):
        list(quick_training.QuickTraining(quick_training.training_words("cnn", ["seed=1"])).lines())


def test_the_folder_for_recordings_is_private_and_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with page_server.private_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == folder
        assert stat.S_IMODE(Path(folder).stat().st_mode) == 0o700
        Path(folder, "voice.wav").write_text("secret")
    assert not Path(folder).exists() and os.environ["GRADIO_TEMP_DIR"] == "before"


def test_a_taken_or_impossible_port_is_one_line() -> None:
    with page_server.bound_socket(0) as taken:
        assert taken.getsockname()[0] == "127.0.0.1"
        with pytest.raises(ConfigError, match="--port"):
            page_server.bound_socket(taken.getsockname()[1])
    with pytest.raises(ConfigError, match="--port"):
        page_server.bound_socket(70_000)


@pytest.fixture(scope="module")
def application() -> Iterator[Any]:
    pytest.importorskip("gradio", reason="the extra app is not installed")
    with pytest.MonkeyPatch.context() as environment, page_server.private_folder():
        for name in page_server.OFFLINE:
            environment.setenv(name, "")
        yield page_server.page_application(LoadedRuns(config.compose([])))


def test_only_the_loopback_name_is_answered_and_other_hosts_are_refused_by_the_policy(application: Any) -> None:
    from starlette.testclient import TestClient

    client = TestClient(application, base_url="http://127.0.0.1:7860")
    answer = client.get("/")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and not re.search(r"https?:|\*", policy)
    loads = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="(https?:)?//[^"]*"', answer.text)
    assert not loads
    assert client.get("/", headers={"host": "attacker.example"}).status_code == 400
    assert client.get("/docs").status_code != 200
    for origin, status in (("https://attacker.example", 403), ("null", 403), ("http://127.0.0.1:7860", 200)):
        assert client.get("/config", headers={"origin": origin}).status_code == status


def test_the_page_without_a_run_offers_a_training_and_keeps_no_event_public(application: Any) -> None:
    from starlette.testclient import TestClient

    shown = TestClient(application, base_url="http://127.0.0.1:7860").get("/config").json()
    values = " ".join(str(c["props"].get("value", "")) for c in shown["components"])
    assert "SYNTHETIC" in values and "ser-bench app RUN" in values and page.TITLE in values
    assert {event["api_visibility"] for event in shown["dependencies"]} == {"private"}
