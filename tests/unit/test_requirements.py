"""`ser-bench require`: what a requirement says, what it is compared with, and the exit statuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.metrics import balanced_accuracy_score

from ser_bench import cli, tracking
from ser_bench.cli import require_command
from ser_bench.comparison.requirements import CheckedRuns, Requirement
from ser_bench.config import Protocol
from ser_bench.errors import ConfigError
from ser_bench.evaluation import run_scores
from ser_bench.tracking import StoredRun
from tests.support.stored_runs import make_clips, predict, store

CLIPS = make_clips(12)


def made(folder: Path, skill: float = 0.8, number: int = 0, **tags: str) -> StoredRun:
    """A run of one fold, with the scores that a run logs."""
    predictions = predict(CLIPS, skill, number)
    run = store(folder, tags.pop("model", "cnn"), predictions, CLIPS, **({"audit": "clean"} | tags))
    speakers = {clip.id: clip.speaker for clip in CLIPS.values()}
    run.metrics.update(run_scores.score(predictions, Protocol.speaker, speakers) | {"time/answer_s": 0.02 + number})
    return run


def check(runs: list[StoredRun], text: str) -> tuple[float | str, bool]:
    outcome = CheckedRuns(runs).check(Requirement.parse(text))
    return outcome.actual, outcome.met


def test_a_figure_of_one_run_is_the_one_that_it_logged(tmp_path: Path) -> None:
    run = made(tmp_path)
    uar = run.metrics["test/uar"]
    assert check([run], "test/uar>=.5") == (uar, True) and check([run], "test/uar<.5") == (uar, False)
    assert check([run], "test/uar_low >= .99") == (run.metrics["test/uar_low"], False)
    assert check([run], f"test/uar=={uar!r}")[1] and check([run], "test/recall/sad>0")[1]


def test_folds_are_pooled_and_of_other_metrics_the_worst_run_counts(tmp_path: Path) -> None:
    halves = [{i: c for i, c in CLIPS.items() if int(c.speaker[1:]) % 2 == fold} for fold in (0, 1)]
    runs = [store(tmp_path, "cnn", predict(half, 0.7, 1 + f), half, fold=f) for f, half in enumerate(halves)]
    for run, seconds in zip(runs, (0.1, 0.4), strict=True):
        run.metrics.update({"time/answer_s": seconds, "test/uar": -1.0})
    both = [run.predictions() for run in runs]
    truth, answers = [t for p in both for t in p.truth], [a for p in both for a in p.predicted]
    assert check(runs, "test/uar>=0") == (pytest.approx(balanced_accuracy_score(truth, answers)), True)
    assert check(runs, "time/answer_s<=.2") == (0.4, False) and check(runs, "time/answer_s>=.2") == (0.1, False)
    assert CheckedRuns(runs).check(Requirement.parse("test/uar_low>=.1")).detail == "2 folds pooled"


def test_the_gap_between_sexes_is_the_difference_of_their_uar(tmp_path: Path) -> None:
    run = made(tmp_path)
    p = run.predictions()
    of_sex = []
    for sex in ("female", "male"):
        chosen = p.take([i for i, row in enumerate(p.rows) if CLIPS[row.clip_id].sex == sex])
        of_sex.append(balanced_accuracy_score(chosen.truth, chosen.predicted))
    gap = pytest.approx(abs(of_sex[0] - of_sex[1]))
    assert check([run], "gap/sex<=1") == (gap, True) and check([run], "gap/sex<0") == (gap, False)
    unknown = {clip_id: replace(clip, sex="") for clip_id, clip in CLIPS.items()}
    without = store(tmp_path, "cnn", predict(unknown, 0.8, 0), unknown)
    with pytest.raises(ConfigError, match="sex is not known for this corpus"):
        check([without], "gap/sex<=.05")


@pytest.mark.parametrize(
    ("tag", "protocol", "none", "announced"),
    [
        ("clean", "speaker", True, True),
        ("leaks: speaker", "clip", False, True),
        ("leaks: speaker", "speaker", False, False),
        ("leaks: speaker, artifacts", "clip", False, False),
        ("unknown", "speaker", False, False),
    ],
)
def test_leakage_is_that_of_the_audit(tag: str, protocol: str, none: bool, announced: bool, tmp_path: Path) -> None:
    run = made(tmp_path, audit=tag, protocol=protocol)
    assert check([run], "leak=none")[1] is none and check([run], "leak=announced")[1] is announced


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test/uar_lo>=.7", "test/uar_low"),
        ("uar>=.7", "test/uar"),
        ("test/uar>=high", "'high' is not a number"),
        ("test/uar>=", "is no requirement"),
        (">=.7", "is no requirement"),
        ("leak<=.1", "write leak=none"),
        ("leak=clean", "write leak=none"),
        ("gap/age<=.05", "known are gap/sex"),
        ("test/uar>=nan", "not a number"),
    ],
)
def test_what_cannot_be_checked_is_one_line_that_says_what_to_write(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        check([made(tmp_path)], text)
    assert "\n" not in str(error.value)


def test_runs_of_two_configurations_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    runs = [made(tmp_path), made(tmp_path, model="llm")]
    with pytest.raises(ConfigError, match="cnn, llm; use --model"):
        CheckedRuns(runs)
    with pytest.raises(ConfigError, match="is FAILED, not finished"):
        CheckedRuns([replace(runs[0], status="FAILED")])


def test_exit_statuses_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(tmp_path)
    monkeypatch.setattr(tracking, "load_run", lambda cfg, run_id: run)
    assert cli.main(["require", "8b97", "test/uar>=.1", "leak=none", f"tracking.dir={tmp_path}"]) == 0
    assert "met      all 2 requirements" in capsys.readouterr().out
    assert cli.main(["require", "8b97", "leak=none", "test/uar>=.999", "--json"]) == cli.EXIT_UNMET == 1
    record = json.loads(capsys.readouterr().out)
    assert record["met"] is False and [r["met"] for r in record["requirements"]] == [True, False]
    assert record["requirements"][1]["actual"] == run.metrics["test/uar"]
    for words in (["test/uar>=.1"], ["8b97"], ["8b97", "test/urr>=.1"], ["8b97", "test/uar>=x"]):
        assert cli.main(["require", *words]) == cli.EXIT_FAILED
        assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_an_audit_is_audited_and_a_sweep_stands_for_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = made(tmp_path), made(tmp_path, model="llm")
    del run.tags["audit"]
    sweep = replace(run, run_id="5" * 32, tags={"kind": "sweep"})
    audited: list[str] = []

    def audit(stored: StoredRun, root: str | None, cache: str | None) -> None:
        audited.append(stored.run_id)
        stored.tags["audit"] = "clean"

    monkeypatch.setattr(tracking, "load_run", lambda cfg, i: sweep if i == "5" else run)
    monkeypatch.setattr(tracking, "search", lambda cfg, parent: [run, other])
    monkeypatch.setattr(require_command, "audit_stored", audit)
    assert cli.main(["require", "5", "leak=none", "--model", "cnn"]) == 0 and audited == [run.run_id]
    assert cli.main(["require", "5", "leak=none", "--model", "cnn"]) == 0 and len(audited) == 1
    assert cli.main(["require", "5", "leak=none", "--model", "cnn", "--audit"]) == 0 and len(audited) == 2
    assert cli.main(["require", "5", "leak=none", "--model", "crnn"]) == cli.EXIT_FAILED
