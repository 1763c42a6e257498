"""The content of a report in every form, and its page in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ser_bench.comparison import Report, claims, report_figures, report_tables, verdict
from ser_bench.comparison.paired import Comparison, GroupResult, compare
from ser_bench.comparison.report_html import as_html, short_share
from ser_bench.comparison.report_markdown import as_markdown_table, as_text
from ser_bench.errors import ConfigError, NotComparableError
from ser_bench.evaluation import metrics, statistics
from ser_bench.evaluation.metrics import METRICS
from ser_bench.tracking import StoredRun
from ser_bench.types import Predictions, Row
from tests.support.stored_runs import LABELS, make_clips, predict, store

MAX_BYTES = 8_000_000
LONG_NAMES = (
    *("cnn", "cnn_text", "listeners", "majority", "llm", "whisper_probe", "whisper_probe+speaker_stats_10"),
    *("ssl_probe+speaker_stats", "fusion model.members=cnn_text,whisper_probe+speaker_stats_10"),
    "attention_fusion head.members=svm,logistic,hidden_layer",
)


def comparison(folder: Path, skills: dict[str, float], speakers: int = 20, **tags: str) -> Comparison:
    clips = make_clips(speakers, each=24)
    return compare(
        [store(folder, m, predict(clips, skill, i), clips, **tags) for i, (m, skill) in enumerate(skills.items())]
    )


def with_price(unpriced: Comparison, prices: dict[str, float]) -> Comparison:
    def priced(result: GroupResult) -> GroupResult:
        cost = np.full(len(unpriced.clips), prices[result.name] / 1000, np.float32)
        return replace(result, by_seed=tuple(replace(p, cost_usd=cost) for p in result.by_seed))

    return replace(unpriced, results=tuple(priced(result) for result in unpriced.results))


def sentences(of: Comparison) -> list[str]:
    """The verdict, which must consist of three sentences."""
    three = verdict.verdict(of)
    assert len(three) == 3
    for sentence in three:
        assert sentence.endswith(".") and not re.search(r"[.!?] +[A-Z]", sentence), sentence
    return three


def test_the_verdict_on_a_clear_difference(tmp_path: Path) -> None:
    highest, differences, recommendation = sentences(comparison(tmp_path, {"cnn": 0.5, "cnn_text": 0.9}))
    assert re.match(r"Of 2 predictors, cnn_text has the highest UAR: 0\.\d{3} \(95 % interval", highest)
    assert "chance level is 0.333" in highest
    assert re.match(
        r"cnn_text is better than cnn \(\+[\d.]+ UAR points, 95 % interval \+.*, p < 0.001, 20 speakers\)", differences
    )
    assert recommendation.startswith("Use cnn_text: ") and "no known leakage (split=speaker)" in recommendation


def test_many_differences_are_listed_by_outcome(tmp_path: Path) -> None:
    skills = {"cnn": 0.6, "low": 0.34, "best": 0.95, "same": 0.61, "lower": 0.3, "good": 0.85}
    text = sentences(comparison(tmp_path / "many", skills))[1]
    assert re.search(
        r"cnn, in UAR points, better: best \+\d\d\.\d, good \+\d\d\.\d; not distinguishable: same [+−]\d\.\d; "
        r"worse: low −\d\d\.\d, lower −\d\d\.\d \(5 % level, Holm",
        text,
    ), text
    few = sentences(comparison(tmp_path / "few", skills, speakers=4))[1]
    assert "too few speakers for a test: best" in few and "better" not in few and "level" not in few


def test_without_a_significant_difference_the_cheaper_predictor_is_recommended(tmp_path: Path) -> None:
    priced = with_price(comparison(tmp_path, {"cnn": 0.60, "llm": 0.61}), {"cnn": 0.0, "llm": 2.5})
    _, differences, recommendation = sentences(priced)
    assert "llm is not distinguishable from cnn" in differences
    assert verdict.recommended(priced).name == "cnn"
    assert "Use cnn: llm is not measurably better, and cnn is cheaper" in recommendation


def test_of_equal_price_the_much_faster_then_the_smaller_predictor_is_recommended(tmp_path: Path) -> None:
    measured = comparison(tmp_path, {"cnn": 0.60, "big": 0.62})

    def result(name: str, parameters: float, clips_per_second: float) -> GroupResult:
        scores = {**measured.result(name).scores, "clips_per_second": clips_per_second}
        return replace(measured.result(name), parameters=parameters, scores=scores)

    nearly = replace(measured, results=(result("cnn", 100, 300), result("big", 200, 550)))
    assert "Use cnn: big is not measurably better, and cnn is smaller" in sentences(nearly)[2]
    slow = replace(measured, results=(result("cnn", 100, 30), result("big", 200, 550)))
    assert "Use big" in sentences(slow)[2]
    fast = replace(measured, results=(result("cnn", 900, 550), result("big", 200, 30)))
    assert "Use cnn: big is not measurably better, and cnn is more than twice as fast" in sentences(fast)[2]


def test_the_verdict_at_chance_level_with_few_speakers_and_alone(tmp_path: Path) -> None:
    assert "Use none of them" in sentences(comparison(tmp_path / "a", {"cnn": 1 / 3, "llm": 1 / 3}))[2]
    few = sentences(comparison(tmp_path / "b", {"cnn": 0.9, "llm": 0.5}, speakers=4))
    assert "4 speakers are too few for a test" in few[1] and "4 speakers are too few" in few[2]
    assert "p =" not in few[1] and "p <" not in few[1]
    alone = sentences(comparison(tmp_path / "f", {"cnn": 0.9}))
    assert alone[0].startswith("cnn has UAR") and "no second predictor" in alone[1]
    synthetic = sentences(comparison(tmp_path / "d", {"cnn": 0.9, "llm": 0.5}, synthetic="true"))
    assert "SYNTHETIC" in synthetic[0] and "nothing about human speech" in synthetic[2]


def test_synthetic_speech_does_not_choose_a_predictor(tmp_path: Path) -> None:
    none, no_choice = "No predictor is measurably above chance level", "synthetic speech does not choose a predictor"
    cases = [(0.9, 0.5, no_choice), (0.6, 0.61, no_choice), (1 / 3, 1 / 3, none)]
    for i, (cnn, llm, advice) in enumerate(cases):
        of = comparison(tmp_path / str(i), {"cnn": cnn, "llm": llm}, synthetic="true")
        assert not re.search(r"\buse\b", sentences(of)[2], re.IGNORECASE) and advice in sentences(of)[2]
        assert Report("x", (of,)).to_json()["comparisons"][0]["recommended"] is None


def test_the_verdict_states_the_known_leakage(tmp_path: Path) -> None:
    skills = {"cnn": 0.9, "llm": 0.5}
    leaky = sentences(comparison(tmp_path / "paper", skills, protocol="paper"))[2]
    assert "known leakage under split=paper" in leaky and "new speakers" in leaky
    unaudited = sentences(comparison(tmp_path / "a", skills))[2]
    assert "not all runs are audited" in unaudited and "found none" not in unaudited
    audited = {"audit": "clean", "audit_not_checked": "none"}
    assert "the audits found none in what they check" in sentences(comparison(tmp_path / "b", skills, **audited))[2]
    partly = sentences(comparison(tmp_path / "d", skills, **audited | {"audit_not_checked": "artifacts scaler"}))[2]
    assert "found none in what they checked, which is not everything (see leakage by run)" in partly
    older = sentences(comparison(tmp_path / "e", skills, audit="clean"))[2]
    assert "which is not everything" in older
    found = sentences(comparison(tmp_path / "c", skills, audit="leaks: scaler", synthetic="true"))[2]
    assert "found by the audits of 2 of 2 runs" in found and "not valid" in found


def test_adapted_predictors_are_marked_and_not_recommended_beside_others(tmp_path: Path) -> None:
    both = comparison(tmp_path / "both", {"probe": 0.6, "probe+speaker_stats_10": 0.9})
    assert "probe+speaker_stats_10 has the highest" in sentences(both)[0]
    assert verdict.recommended(both).name == "probe"
    assert "probe+speaker_stats_10 uses unlabelled clips of the tested speakers" in sentences(both)[2]
    plain = comparison(tmp_path / "plain", {"probe": 0.6, "cnn": 0.3})
    assert "unlabelled" not in " ".join(sentences(plain))
    adapted = comparison(tmp_path / "adapted", {"probe+speaker_stats_0": 0.3, "probe+speaker_stats": 0.9})
    assert verdict.recommended(adapted).name == "probe+speaker_stats"
    assert "2 predictors" in sentences(adapted)[2]


def test_listeners_are_never_recommended(tmp_path: Path) -> None:
    with_listeners = comparison(tmp_path, {"cnn": 0.6, "listeners": 0.9})
    assert "listeners has the highest" in sentences(with_listeners)[0]
    assert verdict.recommended(with_listeners).name == "cnn" and "Use cnn" in sentences(with_listeners)[2]


def test_with_too_few_speakers_there_is_no_p_value_of_any_kind(tmp_path: Path) -> None:
    frame = report_tables.as_frame(
        *report_tables.main_table(comparison(tmp_path, {"cnn": 0.9, "llm": 0.3}, speakers=4))
    )
    assert frame["p (Holm)"][1] == "too few speakers" and list(frame["rank"]) == ["n/a", "n/a"]


def test_two_speakers_are_too_few_for_an_interval_in_every_form(tmp_path: Path) -> None:
    """One predictor is right about the first speaker only, the other one about the second only."""
    clips = make_clips(2, each=24)
    first = clips[min(clips)].speaker

    def knows(model: str, speaker: bool) -> StoredRun:
        right, wrong = predict(clips, 1.0, 0), predict(clips, 0.0, 0)
        order = [(clips[row.clip_id].speaker == first) == speaker for row in right.rows]
        mixed = np.where(np.array(order)[:, None], right.probabilities, wrong.probabilities)
        return store(tmp_path, model, replace(right, probabilities=mixed), clips)

    both = compare([knows("cnn", True), knows("llm", False)])
    report = Report.of("A title", [both])
    outside = re.compile(r"[+−](?:100\.[1-9]|1[0-9][1-9]\.|[2-9]\d\d\.)")
    assert not outside.search(report.markdown()) and not outside.search(report.html())
    assert "no 95 % interval, because 2 speakers are too few" in sentences(both)[0]
    assert "2 speakers are too few for an interval and a test" in sentences(both)[1]
    (entry,) = report.to_json()["comparisons"]
    assert entry["pairs"][0]["uar_second_minus_first"]["low"] is None
    row = report_tables.as_frame(*report_tables.main_table(both)).iloc[1]
    assert row["difference to cnn (UAR points)"].endswith("(too few speakers)")


def test_leakage_statements_distinguish_audited_runs(tmp_path: Path) -> None:
    run = comparison(tmp_path, {"cnn": 0.9}).results[0].group.all[0]
    assert f"not audited (to audit: ser-bench audit {run.run_id[:8]})" in verdict.leakage_statement(run)
    audited = replace(run, tags=run.tags | {"audit": "clean"}, metrics={"leak/speaker": 0.0, "leak/sentence": 1.0})
    statement = verdict.leakage_statement(audited)
    assert "no leakage found" in statement and "100.0 % of the test rows share a sentence with training" in statement
    assert "speaker with training" not in statement and "not checked: " in statement and "scores" in statement
    whole = replace(audited, tags=audited.tags | {"audit_not_checked": "none"})
    assert "not checked" not in verdict.leakage_statement(whole)
    partly = replace(audited, tags=audited.tags | {"audit_not_checked": "near_identical_audio scaler"})
    assert "; not checked: nearly identical audio and scaler." in verdict.leakage_statement(partly)
    leaky = replace(run, tags=run.tags | {"audit": "leaks: speaker"})
    assert "leakage found: speaker" in verdict.leakage_statement(leaky)


def test_reliability_and_risk_by_hand() -> None:
    p = Predictions(
        rows=tuple(Row(f"c{i}") for i in range(4)),
        truth=("angry", "angry", "happy", "sad"),
        labels=LABELS,
        probabilities=np.array([[0.95, 0.05, 0], [0.92, 0.08, 0], [0.5, 0.3, 0.2], [1 / 3] * 3], np.float32),
        abstained=np.array([False, False, False, True]),
        latency_s=np.zeros(4, np.float32),
        cost_usd=np.zeros(4, np.float32),
    )
    table = report_tables.reliability(p)
    assert table["clips"].tolist() == [1, 2]
    assert table["accuracy"].tolist() == [0.0, 1.0]
    assert table["confidence"].tolist() == pytest.approx([0.5, 0.935])
    curve = report_tables.risk_coverage(p)
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert curve["risk"].tolist() == pytest.approx([0, 0, 1 / 3, 2 / 4])


def test_risk_at_full_coverage_is_the_error_rate_whatever_the_ties(tmp_path: Path) -> None:
    result = comparison(tmp_path, {"cnn": 0.7}).results[0]
    curve = report_tables.risk_coverage(result.predictions)
    assert curve["risk"].iloc[-1] == pytest.approx(1 - result.accuracy.value)
    answers = result.predictions.probabilities.argmax(axis=1)
    one_hot = replace(result.predictions, probabilities=np.eye(3, dtype=np.float32)[answers])
    assert len(report_tables.risk_coverage(one_hot)) == 1


def test_scores_by_emotion_and_by_group_of_clips(tmp_path: Path) -> None:
    both = comparison(tmp_path, {"cnn": 0.7, "llm": 0.5})
    for column in ("speaker", "sex", "sentence"):
        frame = report_tables.by_clip_group(both, column)
        assert frame is not None and frame["clips"].sum() == len(both.clips)
        assert frame["cnn"].between(0, 1).all()
    assert report_tables.by_clip_group(both, "intensity") is None
    recall = report_tables.by_class(both, "recall")
    assert list(recall.columns) == ["predictor", *LABELS] and list(recall["predictor"]) == ["cnn", "llm"]
    assert recall.loc[0, list(LABELS)].mean() == pytest.approx(both.results[0].uar.value)
    assert np.diagonal(report_tables.confusion_shares(both.results[0])) == pytest.approx(recall.loc[0, list(LABELS)])


def test_disagreements_are_sorted_and_differ(tmp_path: Path) -> None:
    both = comparison(tmp_path, {"cnn": 0.7, "llm": 0.5})
    frame = report_tables.disagreements(both, count=5)
    p, q = (result.predictions for result in both.results)
    distance = dict(
        zip((r.clip_id for r in p.rows), 0.5 * np.abs(p.probabilities - q.probabilities).sum(1), strict=True)
    )
    shown = [distance[clip] for clip in frame["clip"]]
    assert shown == sorted(shown, reverse=True)
    assert (frame["cnn"].str.split().str[0] != frame["llm"].str.split().str[0]).all()


def test_the_reason_of_a_language_model_is_shown_and_escaped(tmp_path: Path) -> None:
    clips = make_clips(8, each=24)
    answers = predict(clips, 0.5, 1)
    note = json.dumps({"emotion": answers.predicted[0], "reason": "loud & <fast>"})
    explained = replace(answers, notes=(note,) * len(answers.rows))
    both = compare([store(tmp_path, "cnn", predict(clips, 0.7, 0), clips), store(tmp_path, "llm", explained, clips)])
    assert all(cell.endswith("(“loud & <fast>”)") for cell in report_tables.disagreements(both)["llm"])
    assert not any("“" in cell for cell in report_tables.disagreements(both)["cnn"])
    page = as_html(Report("t", (both,)))
    assert "loud &amp; &lt;fast&gt;" in page and "<fast>" not in page


def test_the_main_table_has_scores_differences_and_cost(tmp_path: Path) -> None:
    both = comparison(tmp_path, {"cnn": 0.7, "llm": 0.5})
    frame = report_tables.as_frame(*report_tables.main_table(both))
    assert list(frame["predictor"]) == ["cnn", "llm"]
    assert frame["UAR"][0].startswith(f"{both.results[0].uar.value:.3f} (")
    assert frame["clips/s"][0] == "100" and frame["training time"][0] == "60 s"
    assert frame["difference to cnn (UAR points)"].tolist()[0] == "baseline"
    assert frame["difference to cnn (UAR points)"][1].startswith("−")
    titles = {METRICS[name].title for name in ("uar", "accuracy", "macro_f1", "log_loss", "ece")}
    assert titles <= set(frame.columns) and all(title in as_text(both) for title in titles)


def test_several_seeds_are_given_with_their_standard_deviation(tmp_path: Path) -> None:
    clips = make_clips(8)
    runs = [store(tmp_path, "cnn", predict(clips, 0.7, i), clips, seed=i, params={"seed": str(i)}) for i in range(3)]
    (result,) = compare(runs).results
    headings, (row,) = report_tables.main_table(compare(runs))
    deviation = np.std(result.uar_by_seed, ddof=1)
    assert row[headings.index("UAR")].text == f"{result.uar.value:.3f} ± {deviation:.3f}"
    assert row[headings.index("UAR")].detail.endswith("; 3 seeds")
    accuracies = [metrics.accuracy(p) for p in result.by_seed]
    assert row[headings.index("accuracy")].text.endswith(f" ± {np.std(accuracies, ddof=1):.3f}")
    assert "mean of 3 seeds" in sentences(compare(runs))[0]


def with_votes(predictions: Predictions, seed: int = 3) -> Predictions:
    rng = np.random.default_rng(seed)
    return replace(predictions, votes=rng.multinomial(8, [0.5, 0.3, 0.2], size=len(predictions.rows)))


def test_soft_label_metrics_and_the_listeners_own_figures_stand_in_every_form(tmp_path: Path) -> None:
    """One run has votes; an older run and a predictor without probabilities stand beside it."""
    clips = make_clips(8)
    of_votes = with_votes(predict(clips, 0.7, 0))
    older, one_hot = predict(clips, 0.5, 1), replace(predict(clips, 0.4, 2), source="one_hot")
    runs = [store(tmp_path, name, p, clips) for name, p in {"cnn": of_votes, "old": older, "llm": one_hot}.items()]
    both = compare(runs)
    headings, rows = report_tables.votes_table(both) or ([], [])
    assert [row[0].text for row in rows] == ["cnn", "old", "llm", report_tables.LISTENERS_ROW]
    assert [cell.text == "n/a" for cell in rows[2]] == [False, True, True, False]
    assert all(cell.text != "n/a" for row in (rows[0], rows[1], rows[3]) for cell in row)
    expected = metrics.METRICS["vote_accuracy"].compute(replace(older, votes=of_votes.votes))
    assert both.result("old").of_votes["vote_accuracy"].value == pytest.approx(expected)
    document = Report("R", (both,))
    for text in (as_text(both), document.markdown(), as_html(document)):
        assert report_tables.LISTENERS_ROW in text and headings[1] in text
    (record,) = document.to_json()["comparisons"]
    assert record["predictors"][0]["of_votes"]["vote_accuracy"]["speakers"] == 8
    assert report_tables.votes_table(compare(runs[1:])) is None


def test_ranks_share_a_range_where_no_test_tells_predictors_apart(tmp_path: Path) -> None:
    of = comparison(tmp_path, {"low": 0.35, "good": 0.8, "as_good": 0.8, "best": 0.97})
    assert {r.name: r.rank for r in of.results} == {"low": (4, 4), "good": (2, 3), "as_good": (2, 3), "best": (1, 1)}
    headings, rows = report_tables.main_table(of)
    assert {row[0].text: row[headings.index("rank")].text for row in rows}["as_good"] == "2–3"
    assert re.search(r"as_good +2–3 ", as_text(of)) and "| 2–3 |" in Report("R", (of,)).markdown()
    predictors = Report("R", (of,)).to_json()["comparisons"][0]["predictors"]
    assert [p["rank"] for p in predictors] == [[4, 4], [2, 3], [2, 3], [1, 1]]


def test_the_report_says_which_differences_could_not_have_been_seen(tmp_path: Path) -> None:
    of = comparison(tmp_path / "many", {"cnn": 0.6, "llm": 0.7, "fusion": 0.65})
    pair = of.pairs[0]
    assert pair.detectable == statistics.detectable(pair.difference, tests=3)
    shown = f"{100 * (pair.detectable or 0):.1f}"
    _, rows = report_tables.pairs_table(of)
    assert rows[0][0].text == "llm minus cnn" and rows[0][-1].text == shown
    for text in (as_text(of), Report("R", (of,)).markdown(), as_html(Report("R", (of,)))):
        assert "could not have been seen" in " ".join(text.split()) and "α = .05/3" in " ".join(text.split())
    assert Report("R", (of,)).to_json()["comparisons"][0]["pairs"][0]["detectable"] == pair.detectable
    few = comparison(tmp_path / "few", {"cnn": 0.6, "llm": 0.7}, speakers=4)
    assert report_tables.detectable_remark(few) is None and few.pairs[0].detectable is None


def test_the_metrics_of_a_sweep_have_the_names_of_its_runs_or_of_its_predictors(tmp_path: Path) -> None:
    clips = make_clips(8)
    runs = [store(tmp_path, "cnn", predict(clips, 0.7, i), clips, seed=i, params={"seed": str(i)}) for i in range(3)]
    alone = Report("R", (compare(runs),))
    (result,) = alone.comparisons[0].results
    logged = alone.metrics()
    assert logged["test/uar"] == result.uar.value and logged["test/uar_low"] == result.uar.low
    assert logged["test/uar_sd"] == pytest.approx(np.std(result.uar_by_seed, ddof=1))
    with_another = Report("R", (compare([*runs, store(tmp_path, "llm", predict(clips, 0.4, 9), clips)]),))
    assert with_another.metrics()["uar/cnn"] == result.uar.value
    assert {"uar/llm", "uar_sd/cnn"} <= set(with_another.metrics()) and "uar_sd/llm" not in with_another.metrics()


def test_markdown_and_json_have_the_same_content(tmp_path: Path) -> None:
    both = comparison(tmp_path, {"cnn": 0.7, "llm": 0.5})
    refused = NotComparableError("runs a and b differ in labels")
    report = Report("Side by side", (both,), (refused,), {"tiny": [claims.Claim("theirs", "tiny", "p", "s", 0.9)]})
    text = report.markdown()
    content = json.loads(json.dumps(report.to_json(), allow_nan=False))
    (entry,) = content["comparisons"]
    assert entry["verdict"] == sentences(both) and all(sentence in text for sentence in entry["verdict"])
    assert entry["predictors"][0]["uar"]["value"] == pytest.approx(both.results[0].uar.value)
    assert entry["pairs"][0]["p_holm"] == both.pairs[0].adjusted_p
    assert entry["support"] == dict.fromkeys(LABELS, 160)
    assert set(entry["per_class"]["recall"]["cnn"]) == set(LABELS)
    assert "theirs (claimed)" in text and "not tested" in text and "differ in labels" in text
    assert content["not_compared"] == [str(refused)]


def test_claims_are_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "claims.yaml"
    for content, complaint in [
        ("- {system: x, corpus: c, protocol: p, source: s, auc: 1}", "unknown field auc"),
        ("- {system: x, corpus: c, source: s}", "field protocol is missing"),
        ("- {system: x, corpus: c, protocol: p, source: s, uar: 92}", "uar is 92, but must be a number"),
        ("- just words", "is not a mapping"),
        ("a: [", "cannot be read as YAML"),
        ("a: 1", "write a list"),
        ("- {system: x, corpus: c, protocol: p, source: s, uar: true}", "uar is True, but must be a number"),
        ("- {system: [x, y], corpus: c, protocol: p, source: s}", "system is a list, but must be a text"),
        ('- {system: "x\\ay", corpus: c, protocol: p, source: s}', r"the system .*U\+0007"),
        ("[" * 30 + "]" * 30, "line 1 is nested more than 20 levels deep"),
        ("[" * 100_000, "nested more than 20 levels deep"),
        ("# " + "x" * 1_000_000, "larger than 1,000,000 bytes"),
    ]:
        path.write_text(content)
        with pytest.raises(ConfigError, match=f"claims.yaml.*{complaint}"):
            claims.load(path)
    with pytest.raises(ConfigError, match="absent"):
        claims.claims_on("cremad", tmp_path / "absent.yaml")
    assert {claim.accuracy for claim in claims.claims_on("cremad")} >= {0.9219, 0.9247}


def test_aliases_in_a_file_of_claims_are_refused_before_they_are_expanded(tmp_path: Path) -> None:
    """Expanded, the list has 9 ** 30 elements."""
    lines = ["- &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"- &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    path = tmp_path / "claims.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"claims.yaml: cannot be read as YAML: line 2 uses the alias \*a0"):
        claims.load(path)


def test_figures_take_the_text_colour_of_the_page_and_come_with_words(tmp_path: Path) -> None:
    both = with_price(comparison(tmp_path, {"cnn": 0.7, "llm": 0.5}), {"cnn": 0.0, "llm": 2.5})
    figures = report_figures.figures_of(both)
    assert [figure.title for figure in figures] == [
        "UAR", "Calibration", "Risk–coverage curve", "UAR against seconds per clip",
        "UAR against US dollars per 1,000 clips",
    ]  # fmt: skip
    for figure in figures:
        assert figure.svg.startswith("<svg") and "currentColor" in figure.svg and report_figures.INK not in figure.svg
        assert figure.text.endswith(".") and "nan" not in figure.text


def test_learning_curves_are_shown_if_a_run_has_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = comparison(tmp_path, {"cnn": 0.7, "llm": 0.5})
    both.results[0].group.all[0].metrics.update({"train/loss": 0.5, "val/loss": 0.75})
    monkeypatch.setattr(
        type(both.results[0].group.all[0]), "history", lambda run, metric: {1: 2.0, 2: run.metrics[metric]}
    )
    curves = report_figures.figures_of(both)[-1]
    assert curves.title == "Learning curves" and "cnn training 0.500 after epoch 2" in curves.text
    assert "llm" not in curves.text


def test_no_two_predictors_have_the_same_style() -> None:
    styles = [tuple(map(str, report_figures._style(i).values())) for i in range(40)]
    assert len(set(styles)) == len(styles)


def test_results_by_protocol(tmp_path: Path) -> None:
    honest = comparison(tmp_path / "a", {"cnn": 0.5, "llm": 0.4})
    leaky = comparison(tmp_path / "b", {"cnn": 0.95}, protocol="paper")
    run = leaky.results[0].group.all[0]
    run.metrics.update({"test/rows": 900.0, "test/accuracy": 0.93, "test_clean/accuracy": 0.95})
    results = report_tables.across_protocols([honest, leaky])
    assert [(result.predictor, result.protocol) for result in results] == [("cnn", "paper"), ("cnn", "speaker")]
    frame = report_tables.as_frame(*report_tables.protocol_table(results))
    assert frame["accuracy with augmented rows"].tolist() == ["0.930 (900 rows)", ""]
    figure = report_figures.protocol_figure(results, [claims.Claim("theirs", "tiny", "paper", "s", accuracy=0.92)])
    assert "claimed: theirs" in figure.svg and "not tested" in figure.text
    report = Report("t", (honest, leaky))
    assert "0.930 (900 rows)" in report.markdown() and "results by protocol" in as_html(report)
    assert report_tables.across_protocols([honest]) == []


def test_short_shares() -> None:
    assert [short_share(v) for v in (0.071, -0.12, 1.0, 0.0, -0.001, -1.0)] == [
        ".07",
        "−.12",
        "1",
        ".00",
        ".00",
        "−1.00",
    ]


def open_in_browser(page: Path, profile: Path) -> str:
    """Open a page in headless Chromium; return its DOM once its scripts have run."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("the page was not opened, because there is no Chromium")
    flags = [
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", "--enable-logging=stderr", "--virtual-time-budget=5000"),
        *(f"--user-data-dir={profile}", "--window-size=2000,1000"),
    ]
    done = subprocess.run([browser, *flags, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=400)
    assert ":CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout


@pytest.mark.slow
def test_the_page_fits_a_desktop_window_and_a_phone(tmp_path: Path) -> None:
    """Ten predictors with long names: the page never scrolls sideways; at 1280 pixels, neither do its first tables."""
    skills = {name: 0.35 + 0.05 * i for i, name in enumerate(LONG_NAMES)}
    wide = comparison(tmp_path / "a", skills)
    for i, result in enumerate(wide.results):
        result.group.all[0].metrics.update({"params/trainable": 7_192_710.0, "time/fit_s": 4000.0 + i})
    wide = compare(wide.runs)
    leaky = comparison(tmp_path / "b", dict.fromkeys(LONG_NAMES[:7], 0.9), protocol="paper")
    claim = claims.Claim("a system", "tiny", "rows after augmentation, 80/20", "somewhere", note="x" * 30, accuracy=0.9)
    page = as_html(Report("Ten predictors", (wide, leaky), (), {"tiny": [claim]}))
    widths = (1280, 1920, 390)
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(page)}"></iframe>' for w in widths)
    measure = """<pre id="widths"></pre><script>onload = () => {
      const measured = [...document.querySelectorAll("iframe")].map(frame => {
        const page = frame.contentDocument;
        page.querySelectorAll("details").forEach(part => part.open = true);
        return {page: page.documentElement.scrollWidth, window: frame.contentWindow.innerWidth,
                cut: [...page.querySelectorAll(".scroll")].slice(0, 3).map(box => box.scrollWidth - box.clientWidth)};
      });
      document.getElementById("widths").textContent = JSON.stringify(measured);
    }</script>"""
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><body>{frames}{measure}", encoding="utf-8")
    dom = open_in_browser(path, tmp_path / "profile")
    measured = json.loads(dom.partition('<pre id="widths">')[2].partition("</pre>")[0])
    assert [entry["window"] for entry in measured] == list(widths)
    for entry in measured:
        assert entry["page"] <= entry["window"], entry
    for entry in measured[:2]:
        assert entry["cut"] == [0, 0, 0], "a table is cut off on the right"


@pytest.mark.slow
def test_the_page_opens_in_a_browser_sorts_and_stays_small(tmp_path: Path) -> None:
    clips = make_clips(91, each=82)  # 7,462 clips, about as many as CREMA-D has
    runs = [store(tmp_path / "runs", f"m{i}", predict(clips, 0.3 + 0.1 * i, i, abstain=i), clips) for i in range(6)]
    page = as_html(Report("Six predictors", (compare(runs),)))
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", page).replace("http-equiv", "")
    assert len(page.encode()) < MAX_BYTES and "http" not in without_namespaces
    # A click on the third heading of the first table must sort it by UAR.
    click = "<script>document.querySelectorAll('th button')[2].click()</script></body>"
    path = tmp_path / "page.html"
    path.write_text(page.replace("</body>", click), encoding="utf-8")
    dom = open_in_browser(path, tmp_path / "profile")
    assert 'aria-sort="descending"' in dom
    body = dom[dom.index("<tbody>") : dom.index("</tbody>")]
    assert re.findall(r">(m\d)<", body) == ["m5", "m4", "m3", "m2", "m1", "m0"]
    figures = re.findall(r"<figure.*?</figure>", dom, flags=re.DOTALL)
    assert len(figures) >= 4
    for figure in figures:
        assert figure.count("<path") > 5 and re.search(r"<figcaption>.{20,}</figcaption>", figure, re.DOTALL)


def test_frames_render_as_markdown_tables() -> None:
    frame = pd.DataFrame({"a": ["x|y"], "b": [0.5]})
    assert as_markdown_table(frame).splitlines()[-1] == "| x\\|y | 0.500 |"


HOSTILE = "<script>alert(1)</script> a|b `c` *d* [e](javascript:f) _g_ &lt; $h{$ \\foo"


def test_every_text_of_a_report_is_shown_and_none_is_markup(tmp_path: Path) -> None:
    of = comparison(tmp_path, {"cnn": 0.5, HOSTILE: 0.9})
    claim = claims.Claim(HOSTILE, of.corpus, HOSTILE + "\n\nx", HOSTILE, accuracy=0.5, note=HOSTILE + "\n| y |")
    refused = NotComparableError(HOSTILE)
    report = Report(HOSTILE, (of,), (refused,), {of.corpus: [claim]})
    text = report.markdown()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"(?<!\\)[`*\[$]", text)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables if "claimed" in line} == {7}
    assert "<script>alert" not in report.html() and "&lt;script&gt;alert" in report.html()
    figure = report_figures.figures_of(of)[0]
    shown = " ".join(html.unescape(part) for part in re.findall(r"<text[^>]*>([^<]*)</text>", figure.svg))
    assert "$h{$ \\foo" in shown and "<script>alert(1)</script>" in shown


def test_markdown_is_rendered_as_the_text_that_was_escaped() -> None:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    for value in (HOSTILE, "&amp; R&D", "__init__ a_b _c", "~~x~~", "a\nb"):
        rendered = markdown.render(as_markdown_table(pd.DataFrame({"a": [value]})))
        (cell,) = re.findall(r"<td>(.*)</td>", rendered)
        assert html.unescape(cell) == " ".join(value.split())
