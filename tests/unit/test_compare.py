"""Run groups, pooling of folds, paired comparison, and refusal of runs that are not comparable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from ser_bench import tracking
from ser_bench.comparison import fold_pooling, paired, report_tables, run_groups
from ser_bench.comparison.paired import compare
from ser_bench.comparison.run_groups import group_runs, latest_comparable
from ser_bench.errors import ArtifactError, NotComparableError, RunNotFoundError
from ser_bench.evaluation import calibration, metrics
from ser_bench.predictions import concatenate
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip
from tests.support.stored_runs import make_clips, predict, store

CLIPS = make_clips(20)


def half(which: int) -> dict[str, Clip]:
    return {clip_id: clip for clip_id, clip in CLIPS.items() if int(clip.speaker[1:]) % 2 == which}


def test_folds_are_pooled_and_every_clip_counts_once(tmp_path: Path) -> None:
    parts = [predict(half(fold), 0.7, fold) for fold in (0, 1)]
    runs = [store(tmp_path, "cnn", part, half(fold), fold) for fold, part in enumerate(parts)]
    comparison = compare(runs)
    assert (len(comparison.clips), comparison.speakers, comparison.folds) == (len(CLIPS), 20, (0, 1))
    truth = [t for part in parts for t in part.truth]
    answers = [answer for part in parts for answer in part.predicted]
    assert comparison.results[0].uar.value == pytest.approx(balanced_accuracy_score(truth, answers))
    assert comparison.results[0].fit_s == 120


def test_seeds_form_one_run_group_with_the_mean_and_each_score(tmp_path: Path) -> None:
    seeds = [predict(CLIPS, 0.7, seed) for seed in (1, 2, 3)]
    runs = [store(tmp_path, "cnn", p, CLIPS, seed=i, params={"seed": str(i)}) for i, p in enumerate(seeds)]
    other = store(tmp_path, "llm", predict(CLIPS, 0.4, 9), CLIPS)
    comparison = compare([*runs, other])
    assert [result.name for result in comparison.results] == ["cnn", "llm"]
    each = [balanced_accuracy_score(p.truth, p.predicted) for p in seeds]
    assert comparison.results[0].uar_by_seed == pytest.approx(each)
    assert comparison.results[0].uar.value == pytest.approx(np.mean(each))
    assert comparison.results[1].difference is not None and comparison.results[1].difference.mcnemar_p is None


def test_only_common_clips_are_compared_in_the_same_order(tmp_path: Path) -> None:
    whole, part = predict(CLIPS, 0.6, 0), predict(CLIPS, 0.6, 1)
    some = list(range(len(CLIPS) - 1, 20, -1))
    runs = [store(tmp_path, "cnn", whole, CLIPS), store(tmp_path, "llm", part.take(some), CLIPS)]
    comparison = compare(runs)
    assert len(comparison.clips) == len(some)
    assert comparison.results[0].predictions.rows == comparison.results[1].predictions.rows
    assert tuple(comparison.clips.index) == tuple(row.clip_id for row in comparison.results[0].predictions.rows)


def test_macro_f1_of_the_report_leaves_out_a_label_that_is_absent_from_the_truth(tmp_path: Path) -> None:
    """The report once gave .667 for perfect predictions here, and the run itself 1.0."""
    clips = {clip_id: clip for clip_id, clip in CLIPS.items() if clip.emotion != "sad"}
    perfect = predict(clips, 1.0, 0)
    assert perfect.labels == ("angry", "happy", "sad") and set(perfect.truth) == {"angry", "happy"}
    comparison = compare([store(tmp_path, "cnn", perfect, clips)])
    headings, (row,) = report_tables.main_table(comparison)
    cells = dict(zip(headings, row, strict=True))
    assert {cells[name].whole for name in ("UAR", "accuracy", "macro-F1")} == {"1.000 (1.000 to 1.000)"}
    assert comparison.results[0].scores["macro_f1"] == comparison.results[0].macro_f1.value == 1.0


def test_scores_of_the_report_are_those_of_the_run(tmp_path: Path) -> None:
    predictions = predict(half(0), 0.6, 3, abstain=5)
    (result,) = compare([store(tmp_path, "cnn", predictions, half(0))]).results
    logged = metrics.score(predictions, prefix="")
    for name in ("uar", "accuracy", "macro_f1"):
        assert getattr(result, name).value == pytest.approx(logged[name], abs=1e-12)


def test_each_fold_is_calibrated_by_its_own_run(tmp_path: Path) -> None:
    parts = [predict(half(fold), 0.7, fold) for fold in (0, 1)]
    runs = [store(tmp_path, "cnn", part, half(fold), fold) for fold, part in enumerate(parts)]
    found = [calibration.fit(part, {clip_id: c.speaker for clip_id, c in CLIPS.items()}) for part in parts]
    assert "ece_calibrated" not in compare(runs).results[0].scores
    for run, each in zip(runs, found, strict=True):
        (run.artifact("predictions.parquet").parent / "calibration.json").write_text(each.as_json())
    (result,) = compare(runs).results
    pooled = concatenate(found[0].applied(parts[0]), found[1].applied(parts[1]))
    assert result.scores["ece_calibrated"] == pytest.approx(metrics.ece(pooled), abs=1e-6)
    assert result.scores["ece_calibrated"] != pytest.approx(result.scores["ece"], abs=1e-3)
    headings, (row,) = report_tables.main_table(compare(runs))
    assert row[headings.index("ECE")].detail == f"calibrated {result.scores['ece_calibrated']:.3f}"


def test_every_pair_is_tested_and_adjusted_over_all(tmp_path: Path) -> None:
    runs = [
        store(tmp_path, m, predict(CLIPS, s, i), CLIPS) for i, (m, s) in enumerate([("a", 0.8), ("b", 0.5), ("c", 0.5)])
    ]
    comparison = compare(runs, baseline="b")
    assert [result.name for result in comparison.results] == ["b", "a", "c"]
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("b", "a"), ("b", "c"), ("a", "c")]
    for pair in comparison.pairs:
        assert pair.difference.p is not None and pair.adjusted_p is not None and pair.adjusted_p >= pair.difference.p
    assert (
        comparison.results[1].adjusted_p == comparison.pairs[0].adjusted_p and comparison.results[1].adjusted_p < 0.05
    )
    difference = comparison.result("a").uar.value - comparison.result("b").uar.value
    assert comparison.results[1].difference is not None
    assert comparison.results[1].difference.interval.value == pytest.approx(difference)


@pytest.mark.parametrize(("speakers", "models", "tested"), [(6, 2, True), (6, 3, False), (7, 3, True), (5, 2, False)])
def test_there_is_no_p_value_with_too_few_speakers(tmp_path: Path, speakers: int, models: int, tested: bool) -> None:
    clips = make_clips(speakers)
    comparison = compare([store(tmp_path, f"m{i}", predict(clips, 0.5, i), clips) for i in range(models)])
    assert {pair.difference.p is not None for pair in comparison.pairs} == {tested}


@pytest.mark.parametrize("tag", ["partition", "labels", "corpus_digest", "protocol"])
def test_runs_that_differ_are_refused_by_name(tmp_path: Path, tag: str) -> None:
    one = store(tmp_path, "cnn", predict(CLIPS, 0.5, 0), CLIPS)
    two = store(tmp_path, "llm", predict(CLIPS, 0.5, 1), CLIPS, **{tag: "other"})
    with pytest.raises(NotComparableError, match=f"{one.run_id}.*{two.run_id}.*differ in {tag}.*other"):
        compare([one, two])


def test_folds_of_a_fusion_are_pooled_by_the_configuration_of_its_members(tmp_path: Path) -> None:
    def fusion(fold: int, word: str, settings: str) -> StoredRun:
        params = {"model.members": f"['{word}']"}
        return store(
            tmp_path,
            "fusion",
            predict(half(fold), 0.5, fold),
            half(fold),
            fold,
            params=params,
            member_settings=settings,
        )

    alike = [fusion(0, "id-of-fold-0", "cnn-1"), fusion(1, "id-of-fold-1", "cnn-1")]
    assert [group.folds for group in group_runs(alike)] == [{0, 1}]
    unlike = [fusion(0, "cnn", "cnn-1"), fusion(1, "cnn", "cnn-2")]
    assert [group.name for group in group_runs(unlike)] == ["fusion model.members=cnn-1", "fusion model.members=cnn-2"]


def test_a_run_group_is_named_by_the_choice_of_a_group_if_other_keys_follow_from_it(tmp_path: Path) -> None:
    def probe(**head: str) -> StoredRun:
        params = {f"head.{key}": value for key, value in head.items()}
        return store(tmp_path, "probe", predict(half(0), 0.5, 0), half(0), params=params, key_groups="head")

    svm = probe(name="svm", members="['svm']", svm_c="[3.0]")
    logistic = probe(name="logistic", members="['logistic']", svm_c="[1.0]")
    assert [group.name for group in group_runs([svm, logistic])] == ["probe head=svm", "probe head=logistic"]
    changed = probe(name="svm", members="['svm']", svm_c="[9.0]")
    names = [group.name for group in group_runs([svm, logistic, changed])]
    assert names[0] == "probe head=svm head.svm_c=[3.0]" and names[2] == "probe head=svm head.svm_c=[9.0]"


def test_no_common_fold_and_no_such_baseline_are_refused(tmp_path: Path) -> None:
    one = store(tmp_path, "cnn", predict(half(0), 0.5, 0), half(0), fold=0)
    two = store(tmp_path, "llm", predict(half(1), 0.5, 1), half(1), fold=1)
    with pytest.raises(NotComparableError, match="no fold was run by all of cnn, llm"):
        compare([one, two])
    with pytest.raises(RunNotFoundError, match="no run of the baseline 'svm'; there are cnn"):
        compare([one], baseline="svm")
    with pytest.raises(RunNotFoundError, match="no finished run"):
        compare([])


def test_run_groups_differ_in_settings_that_the_predictor_reads_and_in_no_others(tmp_path: Path) -> None:
    def run(rate: str, prompt: str) -> StoredRun:
        params = {"trainer.learning_rate": rate, "llm.prompt": prompt}
        return store(tmp_path, "cnn", predict(CLIPS, 0.5, 0), CLIPS, params=params)

    names = [result.name for result in compare([run("1e-3", "a"), run("1e-4", "b")]).results]
    assert names == ["cnn trainer.learning_rate=1e-3", "cnn trainer.learning_rate=1e-4"]


def test_a_key_that_an_older_version_lacks_counts_as_null(tmp_path: Path) -> None:
    one = store(tmp_path, "cnn", predict(half(0), 0.5, 0), half(0), fold=0)
    two = store(tmp_path, "cnn", predict(half(1), 0.5, 0), half(1), fold=1, params={"split.test_root": "null"})
    assert [result.name for result in compare([one, two]).results] == ["cnn"]


def test_the_names_of_many_runs_are_looked_up_by_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [store(tmp_path, model, predict(half(0), 0.5, 0), half(0), size="half") for model in ("cnn", "llm")]
    monkeypatch.setattr(run_groups.tracking, "search", lambda cfg, experiment: runs)
    cfg = runs[0].tracking
    assert run_groups.select_runs(cfg, "e", [], {"size": "half"}, ["llm"]) == [runs[1]]
    assert run_groups.select_runs(cfg, "e", [], {"size": "paper"}) == []
    with pytest.raises(RunNotFoundError, match=r"svm.*model=svm"):
        run_groups.select_runs(cfg, "e", [], {}, ["cnn", "svm"])


def test_the_latest_of_each_model_with_its_folds_and_seeds(tmp_path: Path) -> None:
    p = predict(CLIPS, 0.5, 0)
    old = store(tmp_path, "cnn", p, CLIPS, start_time=1, params={"trainer.max_epochs": "5"})
    new = [store(tmp_path, "cnn", p, CLIPS, fold=f, seed=s, start_time=5 + f, params={"trainer.max_epochs": "9"})
           for f in (0, 1) for s in (0, 1)]  # fmt: skip
    llm = store(tmp_path, "llm", p, CLIPS, start_time=2)
    shuffled = store(tmp_path, "cnn", p, CLIPS, start_time=20, shuffle_labels="true")
    elsewhere = replace(store(tmp_path, "llm", p, CLIPS, start_time=3), tags=llm.tags | {"partition": "another"})
    chosen = latest_comparable([old, *new, llm, shuffled, elsewhere])
    assert {run.run_id for run in chosen} == {run.run_id for run in [*new, llm]}


@pytest.mark.parametrize("damage", [b"", b"PAR1 half", None], ids=["empty", "truncated", "missing"])
def test_a_damaged_run_is_left_out_with_its_name_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    runs = [store(tmp_path, model, predict(CLIPS, 0.5, i), CLIPS) for i, model in enumerate(("cnn", "llm", "crnn"))]
    file = runs[1].artifact("predictions.parquet")
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    with pytest.raises(ArtifactError, match=str(file)):
        compare(runs)
    monkeypatch.setattr(tracking, "search", lambda *_, **__: runs)
    comparison, refused = paired.comparisons_of_sweep(runs[0].tracking, "parent")
    assert isinstance(comparison, paired.Comparison) and isinstance(refused, NotComparableError)
    assert [result.name for result in comparison.results] == ["cnn", "crnn"]
    assert str(file) in str(refused) and runs[1].run_id in str(refused) and "left out" in str(refused)
    assert fold_pooling.readable_runs(runs)[0] == [runs[0], runs[2]]
