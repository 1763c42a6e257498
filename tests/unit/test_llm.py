from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import predictions as stored_predictions
from ser_bench.config import CacheMode, Config, LabelCorrection, LlmConfig, TrainerConfig
from ser_bench.errors import ConfigError, LLMError, LLMStoppedError
from ser_bench.features.prosody import NO_PROSODY, Pitch, Prosody
from ser_bench.predictors.llm.audio_llm import AudioLlm
from ser_bench.predictors.llm.llm import SETTINGS_FILE, Llm
from ser_bench.predictors.llm.parsing.model_answer import stated_reason
from ser_bench.predictors.llm.prompting import prompt_template
from ser_bench.types import Clip, FloatArray, Row, clean_rows
from tests.support import fake_openai as fake

KEY = "sk-test-Very0Secret1Key2"
LABELS = ("angry", "happy", "sad")
PITCH = Pitch(210.0, 205.0, 35.0, 120.0, 330.0, 17.5, 0.6)


def clip(label: str, number: int, speakers: int = 4) -> Clip:
    return Clip(
        f"{label}-{number}", Path(f"{label}-{number}.wav"), label, f"s{number % speakers}", text=f"Words {number}."
    )


CLIPS = {c.id: c for c in (clip(label, n) for label in LABELS for n in range(8))}


class Inputs:
    """Transcripts are "<label> <number>", so that a server recognises the clip."""

    def __init__(self, silent: frozenset[str] = frozenset()) -> None:
        self.silent = silent

    def truth(self, rows: Sequence[Row]) -> list[str]:
        return [CLIPS[row.clip_id].emotion for row in rows]

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        return [CLIPS[row.clip_id] for row in rows]

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        return [row.clip_id.replace("-", " ") for row in rows]

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        return [None if row.clip_id in self.silent else PITCH for row in rows]

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        return [NO_PROSODY for _ in rows]

    def votes(self, rows: Sequence[Row]) -> list[Any]:
        raise AssertionError("the language model uses no votes")

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        raise AssertionError("the language model uses no spectral features")

    text = spectral


def truthful(body: dict[str, Any]) -> fake.Reply:
    """Answer with the first word of the transcript."""
    return fake.label(body["messages"][1]["content"].split('"')[1].split()[0])


@pytest.fixture
def server():
    with fake.serve(truthful) as running:
        yield running


@pytest.fixture
def cfg(server, monkeypatch, tmp_path):
    monkeypatch.setenv("SER_BENCH_TEST_KEY", KEY)
    llm = LlmConfig(
        name="fake", model="m", base_url=server.base_url, api_key_env="SER_BENCH_TEST_KEY", max_retries=0,
        price_in_usd=2.5, price_out_usd=10.0,
    )  # fmt: skip
    return Config(llm=llm, trainer=TrainerConfig(name="cpu"), cache_dir=str(tmp_path / "cache"))


def build(cfg: Config, tmp_path: Path, inputs: Inputs | None = None) -> Llm:
    return Llm(cfg, LABELS, inputs or Inputs(), tmp_path, lambda epoch, values: None)


def with_llm(cfg: Config, **changes: Any) -> Config:
    return replace(cfg, llm=replace(cfg.llm, **changes))


def test_predictions_are_the_answers(server, cfg, tmp_path):
    model = build(cfg, tmp_path)
    assert model.fit(clean_rows(CLIPS), ()) == {}
    assert not server.asked, "fitting sends no request"
    rows = clean_rows(CLIPS)
    predictions = model.predict(rows)
    assert predictions.rows == rows and predictions.predicted == predictions.truth and not predictions.abstained.any()
    assert predictions.source == "one_hot" and not predictions.gives_probabilities
    assert json.loads(predictions.notes[0]) == {"emotion": "angry"}
    assert (predictions.latency_s > 0).all()
    assert predictions.cost_usd.sum() == pytest.approx(24 * 0.00035)


def test_concurrent_requests_share_the_time(server, cfg, tmp_path):
    server.queue.extend([replace(fake.label("angry"), delay_s=0.1)] * 24)
    began = time.perf_counter()
    predictions = build(with_llm(cfg, max_concurrency=8), tmp_path).predict(clean_rows(CLIPS))
    assert 0 < predictions.latency_s.sum() <= time.perf_counter() - began


def test_facts_add_up(server, cfg, tmp_path):
    server.queue.extend(
        [fake.completion("well"), fake.label("glad"), fake.completion(None, refusal="no"), fake.error(500, "oops")]
    )
    model = build(with_llm(cfg, max_concurrency=1), tmp_path)
    predictions = model.predict(clean_rows(CLIPS))
    assert predictions.status[:5] == ("abstained", "abstained", "abstained", "failed", "answered")
    assert predictions.reasons[:4] == ("bad_json", "not_a_label", "refusal", "")
    assert predictions.causes[:4] == ("", "", "", "HTTP 500") and "oops" in predictions.notes[3]
    facts = model.facts()
    assert facts["llm/asked"] == 24 == facts["llm/answered"] + facts["llm/abstained"] + facts["llm/failed"]
    assert (facts["llm/answered"], facts["llm/abstained"], facts["llm/failed"]) == (20, 3, 1)
    assert (facts["llm/requests"], facts["llm/cached"], facts["llm/retried"]) == (24, 0, 0)
    assert (facts["llm/tokens_in"], facts["llm/tokens_out"]) == (23 * 100, 23 * 10)
    assert facts["llm/cost_usd"] == pytest.approx(23 * 0.00035) == facts["llm/paid_usd"]
    assert not [name for name in facts if name.startswith("llm/reason")], "a run that goes on logs totals alone"
    server.queue.append(fake.label("angry"))
    again = build(with_llm(cfg, max_concurrency=1), tmp_path)
    predictions = again.predict(clean_rows(CLIPS))
    facts = again.facts()
    assert (facts["llm/answered"], facts["llm/abstained"], facts["llm/failed"]) == (21, 3, 0)
    assert (facts["llm/requests"], facts["llm/cached"]) == (1, 23)
    assert [facts[f"llm/reason/{r}"] for r in ("bad_json", "not_a_label", "refusal")] == [1, 1, 1]
    shares = {label: facts[f"llm/answer_share/{label}"] for label in LABELS}
    assert shares == {"angry": pytest.approx(5 / 24), "happy": pytest.approx(8 / 24), "sad": pytest.approx(8 / 24)}
    assert predictions.abstained.sum() == 3
    assert predictions.probabilities[:3] == pytest.approx(np.full((3, 3), 1 / 3))
    assert predictions.predicted[:4] == ("", "", "", "angry")


def test_second_run_sends_no_request_and_predicts_the_same(server, cfg, tmp_path):
    server.queue.append(fake.completion("well"))
    rows = clean_rows(CLIPS)
    first = build(cfg, tmp_path).predict(rows)
    asked = len(server.asked)
    again = build(cfg, tmp_path)
    second = again.predict(rows)
    assert len(server.asked) == asked
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    np.testing.assert_array_equal(first.latency_s, second.latency_s)
    assert (first.predicted, first.notes, first.source) == (second.predicted, second.notes, second.source)
    assert again.facts()["llm/cached"] == 24 and again.facts()["llm/paid_usd"] == 0
    assert again.facts()["llm/cost_usd"] == pytest.approx(24 * 0.00035)


def test_variants_of_a_clip_share_one_answer_its_time_and_its_price(server, cfg, tmp_path):
    rows = tuple(Row(clip_id, variant) for clip_id in list(CLIPS)[:3] for variant in ("clean", "noise", "pitch"))
    model = build(cfg, tmp_path)
    predictions = model.predict(rows)
    assert len(server.asked) == 3 and predictions.rows == rows and predictions.predicted == predictions.truth
    assert predictions.cost_usd.sum() == pytest.approx(model.facts()["llm/cost_usd"]) == pytest.approx(3 * 0.00035)


def test_prompt_of_a_clip_without_voiced_speech(server, cfg, tmp_path):
    build(cfg, tmp_path, Inputs(frozenset({"sad-0"}))).predict(clean_rows(["sad-0"]))
    text = server.asked[0]["messages"][1]["content"]
    assert "no voiced speech" in text and "Hz" not in text


def logprobs(**shares: float) -> list[dict[str, Any]]:
    entries = [{"token": k, "logprob": float(np.log(p)), "bytes": None} for k, p in shares.items()]
    return [
        {"token": '{"emotion":"', "logprob": 0.0, "bytes": None, "top_logprobs": []},
        {"token": next(iter(shares)), "logprob": entries[0]["logprob"], "bytes": None, "top_logprobs": entries},
    ]


def test_probabilities_and_their_source(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.4, sad=0.35, ang=0.2, The=0.05)
    )
    model = build(cfg, tmp_path)
    predictions = model.predict(clean_rows(list(CLIPS)[:2]))
    assert predictions.source == "logprobs" and predictions.gives_probabilities
    assert predictions.probabilities[0] == pytest.approx([0.2 / 0.95, 0.4 / 0.95, 0.35 / 0.95], abs=1e-6)
    assert model.facts()["llm/argmax_differs"] == 0 == model.facts()["llm/without_probabilities"]


def test_answer_other_than_the_most_probable_label_is_counted(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.3, sad=0.25, s=0.25, ang=0.2)
    )
    model = build(cfg, tmp_path)
    predictions = model.predict(clean_rows(list(CLIPS)[:2]))
    assert predictions.predicted == ("sad", "sad") and model.facts()["llm/argmax_differs"] == 2
    assert model.facts()["llm/answer_share/happy"] == 1.0


def test_one_answer_without_probabilities_makes_all_one_hot_with_a_warning(server, cfg, tmp_path, caplog):
    def otherwise(body):
        whole = "angry 1" not in body["messages"][1]["content"]
        shares = logprobs(happy=0.5, sad=0.3, ang=0.2) if whole else logprobs(happy=0.5, The=0.4)
        return fake.completion('{"emotion":"happy"}', logprobs=shares)

    server.otherwise = otherwise
    model = build(cfg, tmp_path)
    with caplog.at_level(logging.WARNING):
        predictions = model.predict(clean_rows(list(CLIPS)[:4]))
    assert predictions.source == "one_hot" and set(predictions.probabilities.ravel()) == {0.0, 1.0}
    assert "3 of 4" in caplog.text and model.facts()["llm/without_probabilities"] == 1


def test_repeated_answers_give_probabilities_without_logprobs(server, cfg, tmp_path):
    drawn = with_llm(cfg, samples=3, temperature=1.0, seed=7)

    def otherwise(body):  # the third answer, with the third seed, differs
        return fake.label("happy" if body["seed"] == 9 else "sad")

    server.otherwise = otherwise
    model = build(drawn, tmp_path)
    rows = clean_rows(list(CLIPS)[:4])
    predictions = model.predict(rows)
    assert predictions.source == "samples" and predictions.gives_probabilities and set(predictions.predicted) == {"sad"}
    assert predictions.probabilities[0] == pytest.approx([1 / 12, 4 / 12, 7 / 12], abs=1e-5)
    assert Counter(body["seed"] for body in server.asked) == {7: 4, 8: 4, 9: 4}
    facts = model.facts()
    assert facts["llm/source/samples"] == 1 and facts["llm/way/schema"] == 4
    assert (facts["llm/asked"], facts["llm/answered"], facts["llm/requests"]) == (4, 4, 12)
    assert facts["llm/cost_usd"] == pytest.approx(12 * 0.00035) == facts["llm/paid_usd"]
    again = build(drawn, tmp_path)
    np.testing.assert_array_equal(again.predict(rows).probabilities, predictions.probabilities)
    assert len(server.asked) == 12 and again.facts()["llm/paid_usd"] == 0


def test_no_repeated_answers_are_paid_for_with_logprobs(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.5, sad=0.3, ang=0.2)
    )
    predictions = build(with_llm(cfg, samples=5, temperature=1.0), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    assert predictions.source == "logprobs" and len(server.asked) == 3


def test_abstentions_do_not_make_the_rest_one_hot(server, cfg, tmp_path):
    server.queue.append(fake.completion("well"))
    server.otherwise = lambda body: fake.completion(
        '{"emotion":"happy"}', logprobs=logprobs(happy=0.5, sad=0.3, ang=0.2)
    )
    predictions = build(with_llm(cfg, max_concurrency=1), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    assert predictions.source == "logprobs"
    assert predictions.probabilities[0] == pytest.approx([1 / 3] * 3) and predictions.abstained.tolist() == [
        True,
        False,
        False,
    ]


def test_reason_is_asked_for_kept_and_never_scored(server, cfg, tmp_path):
    text = '{"emotion": "happy", "reason": "sad, they say, but loud and fast"}'
    server.otherwise = lambda body: fake.completion(text)
    predictions = build(with_llm(cfg, prompt="explain"), tmp_path).predict(clean_rows(list(CLIPS)[:2]))
    assert predictions.predicted == ("happy", "happy") and predictions.notes == (text, text)
    assert stated_reason(predictions.notes[0]) == "sad, they say, but loud and fast"
    body = server.asked[0]
    fields = body["response_format"]["json_schema"]["schema"]
    assert list(fields["properties"]) == fields["required"] == ["emotion", "reason"], (
        "the emotion comes before the reason"
    )
    assert body["max_tokens"] > 90
    server.otherwise = lambda body: fake.label("happy")
    without = build(with_llm(cfg, prompt="explain", seed=1), tmp_path).predict(clean_rows(list(CLIPS)[:1]))
    assert without.abstained.all(), "an answer in another form is an abstention"


def test_order_of_labels_reaches_prompt_and_schema_and_not_the_columns(server, cfg, tmp_path):
    predictions = build(with_llm(cfg, shuffle_order=True), tmp_path).predict(clean_rows(CLIPS))
    assert predictions.predicted == predictions.truth and predictions.labels == LABELS
    orders = set()
    for body in server.asked:
        order = body["response_format"]["json_schema"]["schema"]["properties"]["emotion"]["enum"]
        assert ", ".join(order) in body["messages"][0]["content"]
        orders.add(tuple(order))
    assert len(orders) > 3


def test_recording_is_sent_once_paid_at_its_price_and_not_stored(server, cfg, tmp_path):
    path = tmp_path / "voice.wav"
    soundfile.write(path, np.sin(np.arange(16_000) / 10.0), 16_000)

    class WithRecording(Inputs):
        def clips(self, rows):
            return [replace(CLIPS[row.clip_id], path=path, digest="d", duration_s=1.0) for row in rows]

        def transcripts(self, rows):
            raise AssertionError("this prompt uses no transcript")

    def otherwise(body):
        reply = fake.label("sad")
        reply.body["usage"]["prompt_tokens_details"] = {"audio_tokens": 40}
        return reply

    server.otherwise = otherwise
    with_audio = with_llm(cfg, prompt="audio", price_audio_in_usd=40.0, top_logprobs=0)
    model = build(with_audio, tmp_path, WithRecording())
    predictions = model.predict(clean_rows(["sad-0"]))
    assert predictions.predicted == ("sad",)
    [_, user] = server.asked[0]["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "input_audio"]
    assert model.facts()["llm/cost_usd"] == pytest.approx((60 * 2.5 + 40 * 40.0 + 10 * 10.0) / 1e6)
    model.predict(clean_rows(["sad-0"]))
    assert len(server.asked) == 1
    sent = user["content"][1]["input_audio"]["data"].encode()
    assert all(sent not in p.read_bytes() for p in (tmp_path / "cache").rglob("*") if p.is_file())


def test_norms_and_examples_are_stored_with_the_predictor(server, cfg, tmp_path):
    class Measured(Inputs):
        def prosody(self, rows):
            return [Prosody(10.0, 6.0, -2.0, 60.0 + len(row.clip_id), 4.0, 10.0, 2.0, 8.0, 12.0) for row in rows]

    shown = with_llm(cfg, prompt="few_shot")
    train, test = clean_rows(list(CLIPS)[1:]), clean_rows(list(CLIPS)[:1])
    server.otherwise = lambda body: fake.label("sad")
    model = build(shown, tmp_path, Measured())
    model.fit(train, ())
    model.predict(test)
    assert len(server.asked[0]["messages"]) == 2 + 2 * 3
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    Llm.load(folder, shown, LABELS, Measured()).predict(test)
    assert len(server.asked) == 1, "the prompt is the same after loading"


def test_limit_drops_predictions_of_whole_clips(server, cfg, tmp_path):
    rows = tuple(Row(clip_id, variant) for clip_id in CLIPS for variant in ("clean", "noise"))
    predictions = build(with_llm(cfg, limit=6), tmp_path).predict(rows)
    assert len(server.asked) == 6 and len(predictions.rows) == 12
    assert Counter(predictions.truth) == {"angry": 4, "happy": 4, "sad": 4}
    again = build(with_llm(cfg, limit=6), tmp_path).predict(tuple(reversed(rows)))
    assert set(again.rows) == set(predictions.rows) and len(server.asked) == 6


def test_empty_test_part(cfg, tmp_path):
    predictions = build(cfg, tmp_path).predict(())
    assert len(predictions.rows) == 0 and predictions.probabilities.shape == (0, 3)


def test_dry_run_needs_no_key_and_sends_no_request(server, cfg, tmp_path, monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    model = build(with_llm(cfg, dry_run=True, limit=6), tmp_path)
    model.fit(clean_rows(CLIPS), ())
    predictions = model.estimate(tuple(Row(clip_id, variant) for clip_id in CLIPS for variant in ("clean", "noise")))
    assert (predictions.clips, predictions.cached) == (6, 0) and predictions.tokens_in > 6 * 50
    assert not server.asked


def test_budget_without_prices_stops_before_anything_is_transcribed(cfg, tmp_path):
    with pytest.raises(ConfigError, match=r"llm\.price_in_usd"):
        build(with_llm(cfg, budget_usd=1.0, price_in_usd=0.0, price_out_usd=0.0), tmp_path).fit((), ())


def test_budget_of_a_resumed_run_holds_what_it_spent_before(server, cfg, tmp_path):
    tight = with_llm(cfg, budget_usd=0.004, max_concurrency=1)
    for _ in range(3):
        with pytest.raises(LLMStoppedError):
            build(tight, tmp_path).predict(clean_rows(CLIPS))
    assert 5 < len(server.asked) < 12
    asked = len(server.asked)
    model = build(with_llm(cfg, budget_usd=1.0), tmp_path)
    model.predict(clean_rows(CLIPS))
    facts = model.facts()
    assert facts["llm/spent_usd"] == pytest.approx(24 * 0.00035)
    assert facts["llm/paid_usd"] == pytest.approx((24 - asked) * 0.00035)
    # A restored predictor is another use, and never writes into the stored run.
    folder = tmp_path / "stored"
    folder.mkdir()
    model.save(folder)
    files = sorted(folder.iterdir())
    Llm.load(folder, with_llm(tight, seed=1), LABELS, Inputs()).predict(clean_rows(list(CLIPS)[:2]))
    assert sorted(folder.iterdir()) == files


def test_cost_that_is_only_bounded_is_counted_and_said(server, cfg, tmp_path, caplog):
    server.queue.extend([fake.with_usage(fake.label("sad"), None)] * 2)
    model = build(with_llm(cfg, max_concurrency=1), tmp_path)
    with caplog.at_level(logging.WARNING):
        model.predict(clean_rows(list(CLIPS)[:4]))
    assert model.facts()["llm/usage_estimated"] == 2 and "2 of 4" in caplog.text


def test_answers_cut_off_are_named_with_the_key_to_raise(server, cfg, tmp_path, caplog):
    server.otherwise = lambda body: fake.completion(None, finish="length")
    model = build(with_llm(cfg, max_concurrency=1), tmp_path)
    with caplog.at_level(logging.WARNING):
        predictions = model.predict(clean_rows(list(CLIPS)[:4]))
    assert set(predictions.reasons) == {"length"} and model.facts()["llm/reason/length"] == 4
    early, final = caplog.messages
    assert "llm.max_tokens=16" in early and "4 of 4" in final and "llm.max_tokens=" in final
    caplog.clear()
    build(with_llm(cfg), tmp_path).predict(clean_rows(list(CLIPS)[:4]))
    assert "4 of 4" in caplog.text, "cached answers are named as well"


def test_changed_parameters_are_part_of_the_record_also_with_cached_answers(server, cfg, tmp_path):
    server.otherwise = lambda body: fake.error(400, "seed is not supported") if "seed" in body else truthful(body)
    for _ in range(2):
        model = build(cfg, tmp_path)
        model.predict(clean_rows(CLIPS))
        assert model.prediction_tags() == {"llm_changed_parameters": "seed left out"}
        assert model.facts()["llm/changed/seed"] == 24
    assert len(server.asked) == 25
    server.otherwise = truthful
    other = build(with_llm(cfg, seed=1), tmp_path)
    other.predict(clean_rows(list(CLIPS)[:2]))
    assert other.prediction_tags() == {} and "llm/changed/seed" not in other.facts()


def test_missing_key_stops_before_anything_is_transcribed(cfg, tmp_path, monkeypatch):
    monkeypatch.delenv("SER_BENCH_TEST_KEY")
    with pytest.raises(LLMError, match="SER_BENCH_TEST_KEY"):
        build(cfg, tmp_path).fit((), ())


def test_saved_and_loaded(server, cfg, tmp_path, monkeypatch):
    model = build(cfg, tmp_path)
    first = model.predict(clean_rows(["sad-1"]))
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    text = (folder / SETTINGS_FILE).read_text()
    assert KEY not in text and "SER_BENCH_TEST_KEY" not in text
    saved = json.loads(text)
    assert saved["prompt"]["system"] and saved["prompt_digest"] == prompt_template.load("paper").digest
    # The stored prompt is used even if the package has another one by then.
    monkeypatch.setattr(
        prompt_template, "load", lambda name: prompt_template.Prompt(name, "2", "Other.", "$transcript")
    )
    second = Llm.load(folder, cfg, LABELS, Inputs()).predict(clean_rows(["sad-1"]))
    assert second.predicted == first.predicted and len(server.asked) == 1
    with pytest.raises(ConfigError, match="happy"):
        Llm.load(folder, cfg, ("happy", "sad"), Inputs())


def test_notes_survive_storage(server, cfg, tmp_path):
    server.queue.append(fake.completion('not "json"\n'))
    predictions = build(with_llm(cfg, max_concurrency=1), tmp_path).predict(clean_rows(list(CLIPS)[:3]))
    stored_predictions.save(predictions, CLIPS, tmp_path / "p.parquet")
    back = stored_predictions.load(tmp_path / "p.parquet")
    assert back.notes == predictions.notes and back.source == "one_hot" and back.abstained[0]


def biased(body: dict[str, Any]) -> fake.Reply:
    """Prefer "happy" in every prompt, and the clip's own label a little more than usual."""
    words = body["messages"][-1]["content"].split('"')[1].split()
    shares = {"happy": 0.7, "sad": 0.2, "ang": 0.1}
    if words and words[0] in LABELS:
        shares["ang" if words[0] == "angry" else words[0]] *= 2
    whole = sum(shares.values())
    tokens = logprobs(**{name: share / whole for name, share in shares.items()})
    return fake.completion('{"emotion":"happy"}', logprobs=tokens)


TRAIN, VAL, TEST = ([f"{label}-{n}" for n in part for label in LABELS] for part in (range(2), range(2, 6), range(6, 8)))


class WithoutLabelsOf(Inputs):
    """Fails if a label of these clips is read, also by way of the clip."""

    def __init__(self, hidden: Sequence[str]) -> None:
        super().__init__()
        self.hidden = set(hidden)

    def truth(self, rows: Sequence[Row]) -> list[str]:
        assert not self.hidden & {row.clip_id for row in rows}, "a label was read"
        return super().truth(rows)

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        return [replace(c, emotion="hidden" if c.id in self.hidden else c.emotion) for c in super().clips(rows)]


def test_contextual_calibration_divides_by_the_answer_to_an_empty_prompt(server, cfg, tmp_path):
    server.otherwise = biased
    plain = build(cfg, tmp_path).predict(clean_rows(TEST))
    assert set(plain.predicted) == {"happy"}
    sent = len(server.asked)
    shifted = with_llm(cfg, calibration=LabelCorrection.contextual)
    model = build(shifted, tmp_path)
    assert model.fit(clean_rows(TRAIN), clean_rows(VAL)) == {}
    predictions = model.predict(clean_rows(TEST))
    assert len(server.asked) == sent + 3, "three content-free questions; the answers about clips are those from before"
    assert predictions.predicted == predictions.truth
    odds = plain.probabilities / np.array([0.1, 0.7, 0.2])
    np.testing.assert_allclose(predictions.probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    facts = model.facts()
    assert facts["llm/answer_share/happy"] == 1.0 and facts["llm/predicted_share/happy"] == pytest.approx(1 / 3)
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    restored = Llm.load(folder, with_llm(shifted, cache=CacheMode.off), LABELS, Inputs())
    again = restored.predict(clean_rows(TEST[:1]))
    assert len(server.asked) == sent + 4, "the stored prior is used for new audio"
    np.testing.assert_allclose(again.probabilities, predictions.probabilities[:1], atol=1e-6)


def test_label_bias_is_measured_on_validation_clips_without_their_labels(server, cfg, tmp_path):
    server.otherwise = biased
    plain = build(cfg, tmp_path).predict(clean_rows(TEST))
    shifted = with_llm(cfg, calibration=LabelCorrection.label_bias, calibration_clips=9)
    model = build(shifted, tmp_path, WithoutLabelsOf(VAL))
    learnt = model.fit(clean_rows(TRAIN), clean_rows(VAL))
    asked = {body["messages"][1]["content"].split('"')[1].replace(" ", "-") for body in server.asked[len(TEST) :]}
    assert len(asked) == 9 and asked < set(VAL), "only validation clips are asked about"
    prior = [learnt[f"llm/prior/{label}"] for label in LABELS]
    of_clips = build(cfg, tmp_path).predict(clean_rows(sorted(asked))).probabilities
    np.testing.assert_allclose(prior, of_clips.mean(axis=0), atol=1e-6)
    predictions = model.predict(clean_rows(TEST))
    odds = plain.probabilities / np.array(prior)
    np.testing.assert_allclose(predictions.probabilities, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    folder = tmp_path / "model"
    folder.mkdir()
    model.save(folder)
    again = Llm.load(folder, shifted, LABELS, Inputs()).predict(clean_rows(TEST))
    np.testing.assert_array_equal(again.probabilities, predictions.probabilities)
    with pytest.raises(ConfigError, match=r"no.*validation|needs validation rows"):
        build(shifted, tmp_path).fit(clean_rows(TRAIN), ())


@pytest.mark.parametrize("calibration", [LabelCorrection.contextual, LabelCorrection.label_bias])
def test_calibration_without_probabilities_is_refused_early_and_in_one_line(server, cfg, tmp_path, calibration):
    server.otherwise = lambda body: fake.label("happy")
    model = build(with_llm(cfg, calibration=calibration, calibration_clips=4), tmp_path)
    with pytest.raises(LLMError, match=f"llm.calibration={calibration.value} needs the probabilities") as caught:
        model.fit(clean_rows(TRAIN), clean_rows(VAL))
        model.predict(clean_rows(TEST))
    assert "\n" not in str(caught.value) and len(server.asked) <= 4


def by_position(body: dict[str, Any]) -> fake.Reply:
    """Prefer the label that the prompt lists first."""
    order = body["messages"][0]["content"].partition("this list: ")[2].partition(".")[0].split(", ")
    shares = dict(zip(("ang" if label == "angry" else label for label in order), (0.6, 0.3, 0.1), strict=True))
    return fake.completion(json.dumps({"emotion": order[0]}), logprobs=logprobs(**shares))


def test_probabilities_are_averaged_over_the_orders(server, cfg, tmp_path):
    server.otherwise = by_position
    single = build(cfg, tmp_path)
    assert set(single.predict(clean_rows(TEST)).predicted) == {"angry"}
    model = build(with_llm(cfg, orders=3), tmp_path)
    predictions = model.predict(clean_rows(TEST))
    assert len(server.asked) == 3 * len(TEST), "the answers in the first order were in the cache"
    assert predictions.source == "logprobs"
    np.testing.assert_allclose(predictions.probabilities, 1 / 3, atol=1e-5)
    facts = model.facts()
    assert (facts["llm/asked"], facts["llm/requests"]) == (6, 12)
    assert facts["llm/cost_usd"] == pytest.approx(18 * 0.00035) and facts["llm/paid_usd"] == pytest.approx(12 * 0.00035)


def test_orders_without_logprobs_are_votes(server, cfg, tmp_path):
    server.otherwise = lambda body: replace(by_position(body), body=fake.label(by_position_label(body)).body)
    predictions = build(with_llm(cfg, orders=3), tmp_path).predict(clean_rows(TEST))
    assert predictions.source == "samples"
    np.testing.assert_allclose(predictions.probabilities, 1 / 3, atol=1e-5)


def by_position_label(body: dict[str, Any]) -> str:
    return body["messages"][0]["content"].partition("this list: ")[2].partition(",")[0]


def test_contextual_calibration_of_each_order_removes_the_preference_for_a_position(server, cfg, tmp_path):
    server.otherwise = by_position
    model = build(with_llm(cfg, orders=2, calibration=LabelCorrection.contextual), tmp_path)
    predictions = model.predict(clean_rows(TEST))
    assert len(server.asked) == 2 * 3 + 2 * len(TEST), "three content-free questions for each order"
    np.testing.assert_allclose(predictions.probabilities, 1 / 3, atol=1e-5)


def test_the_estimate_holds_all_orders_and_the_calibration(server, cfg, tmp_path):
    def estimate(**changes: Any):
        model = build(with_llm(cfg, dry_run=True, **changes), tmp_path)
        model.fit(clean_rows(TRAIN), clean_rows(VAL))
        return model.estimate(clean_rows(TEST))

    assert (estimate().clips, estimate().prompts) == (6, 6)
    assert estimate(orders=3).prompts == 18
    assert estimate(orders=3, calibration=LabelCorrection.contextual).prompts == 18 + 9
    several = estimate(orders=2, calibration=LabelCorrection.label_bias, calibration_clips=5)
    assert (several.clips, several.prompts) == (6, 2 * 6 + 2 * 5)
    assert several.tokens_in > 3 * estimate().tokens_in
    assert "6, 22 prompts (llm.orders, llm.calibration)" in several.lines(cfg.llm)[0]
    assert not server.asked


def test_reasons_are_compared_with_the_measures_and_with_the_answers_without_a_reason(server, cfg, tmp_path):
    class Loud(Inputs):
        def prosody(self, rows):
            loudness = [60.0 + (9.0 if row.clip_id in TEST else len(row.clip_id)) for row in rows]
            return [Prosody(10.0, 6.0, -2.0, db, 4.0, 10.0, 2.0, 8.0, 12.0) for db in loudness]

    def otherwise(body):
        if "reason" in body["messages"][0]["content"].splitlines()[-1]:
            return fake.completion('{"emotion": "happy", "reason": "the voice is loud"}')
        return truthful(body)

    server.otherwise = otherwise
    explaining = build(with_llm(cfg, prompt="explain"), tmp_path, Loud())
    explaining.fit(clean_rows(TRAIN), ())
    explaining.predict(clean_rows(TEST))
    facts = explaining.facts()
    assert (facts["llm/explain/reasons"], facts["llm/explain/names_cue"]) == (6, 1.0)
    assert facts["llm/explain/names_direction"] == 1.0 and facts["llm/explain/same_label_clips"] == 0
    plain = build(with_llm(cfg, prompt="prosody"), tmp_path, Loud())
    plain.fit(clean_rows(TRAIN), ())
    plain.predict(clean_rows(TEST[:3]))
    assert not any(name.startswith("llm/explain") for name in plain.facts())
    sent = len(server.asked)
    explaining.predict(clean_rows(TEST))
    facts = explaining.facts()
    assert facts["llm/explain/same_label_clips"] == 3 and facts["llm/explain/same_label"] == pytest.approx(1 / 3)
    assert len(server.asked) == sent, "no request is sent for the comparison"


def test_audio_llm_refuses_a_prompt_without_the_recording(cfg, tmp_path):
    predictor = AudioLlm(cfg, LABELS, Inputs(), tmp_path, lambda epoch, values: None)
    with pytest.raises(ConfigError, match=r"llm.prompt=paper does not: choose llm=audio_server"):
        predictor.fit((), ())
