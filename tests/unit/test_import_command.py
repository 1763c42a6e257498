"""`ser-bench export-split` and `ser-bench import` on a few clips: lists out, predictions in, runs compared."""

from __future__ import annotations

import csv
import json
import runpy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sklearn.metrics import recall_score

from ser_bench import tracking
from ser_bench.cli import app
from ser_bench.config import TrackingConfig
from ser_bench.tracking import StoredRun
from tests.support.small_table import CLIPS, LABELS, write_small_table

Command = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("imported")
    write_small_table(made / "corpus")
    return made


@pytest.fixture
def command(folder: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command on the small corpus in this process; return status and everything that it printed."""
    words = [f"corpus.root={folder}/corpus/clips.csv", "corpus=table", "split.folds=4", f"cache_dir={folder}/cache"]

    def called(name: str, *arguments: str) -> tuple[int, str]:
        own = words if name in ("import", "export-split") else []
        status = app.main([name, *arguments, *own, f"tracking.dir={folder}/store"])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    return called


def stored_runs(folder: Path) -> list[StoredRun]:
    return tracking.search(TrackingConfig(dir=str(folder / "store"), experiment="table"))


def write(path: Path, clips: Sequence[str], **columns: Sequence[str]) -> str:
    """Write predictions; without columns, every third one is wrong."""
    labels = [LABELS[(LABELS.index(CLIPS[clip]) + (i % 3 == 0)) % 3] for i, clip in enumerate(clips)]
    columns = {"label": labels} | columns if "label" not in columns else dict(columns)
    lines = [",".join(["clip_id", *columns])]
    lines += [",".join([clip, *(values[i] for values in columns.values())]) for i, clip in enumerate(clips)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def clips_of_fold(command: Command, folder: Path, fold: int = 0) -> list[str]:
    out = folder / f"lists_{fold}"
    if not out.exists():
        assert command("export-split", "--fold", str(fold), "--out", str(out))[0] == 0
    return [row["clip_id"] for row in csv.DictReader((out / "test.csv").open())]


def test_lists_hold_every_clip_once_with_speakers_apart(command: Command, folder: Path) -> None:
    clips_of_fold(command, folder)
    lists = folder / "lists_0"
    rows = {part: list(csv.DictReader((lists / f"{part}.csv").open())) for part in ("train", "val", "test")}
    assert sorted(row["clip_id"] for part in rows.values() for row in part) == sorted(CLIPS)
    speakers = [{row["speaker"] for row in part} for part in rows.values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == 8
    for part, listed in rows.items():
        for row in listed:
            assert row == {"clip_id": row["clip_id"], "path": f"audio/{row['clip_id']}.wav", "part": part,
                           "emotion": CLIPS[row["clip_id"]], "speaker": row["clip_id"].partition("_")[0]}  # fmt: skip
    about = json.loads((folder / "lists_0" / "split.json").read_text())
    assert (about["protocol"], about["fold"], about["folds"], about["labels"]) == ("speaker", 0, 4, list(LABELS))
    status, printed = command("export-split", "--out", str(folder / "lists_0"))
    assert status == 2 and "not an empty folder" in printed


def test_an_imported_file_is_a_run_like_any_other(command: Command, folder: Path) -> None:
    clips = clips_of_fold(command, folder)
    file = write(folder / "p.csv", clips, truth=[CLIPS[clip] for clip in clips])
    status, printed = command("import", file, "--name", "mymodel", "--split", "speaker")
    assert status == 0, printed
    (run,) = stored_runs(folder)
    assert (run.status, run.name, run.tags["model"]) == ("FINISHED", "mymodel speaker fold 0", "mymodel")
    about = json.loads((folder / "lists_0" / "split.json").read_text())
    assert run.tags["partition"] == about["partition"] and run.tags["corpus_digest"] == about["corpus_digest"]
    assert (run.tags["imported"], run.tags["imported_file"], run.tags["training"]) == ("true", "p.csv", "unknown")
    assert len(run.tags["imported_sha256"]) == 64
    predictions = run.predictions()
    assert predictions.source == "one_hot" and sorted(row.clip_id for row in predictions.rows) == sorted(clips)
    uar = recall_score(predictions.truth, predictions.predicted, average="macro", labels=LABELS)
    assert run.metrics["test/uar"] == pytest.approx(uar, abs=1e-6) and 0 < uar < 1
    assert {"confusion.png", "report.txt", "split.json", "model_card.md"} <= set(run.artifact_names())
    card = run.artifact("model_card.md").read_text()
    assert "`mymodel`" in card and "Training: unknown" in card and "ser-bench predict" not in card
    assert str(folder) not in json.dumps(run.tags) + card

    status, printed = command("import", file, "--name", "mymodel")
    assert status == 0 and "finished before" in printed and len(stored_runs(folder)) == 1


def test_the_audit_says_that_the_training_is_not_known(command: Command, folder: Path) -> None:
    (run,) = stored_runs(folder)
    assert run.tags["audit"] == "unknown" and run.tags["audit_verdict"].startswith("leakage not known")
    assert "no leakage found" not in run.tags["audit_verdict"]
    assert not [name for name in run.metrics if name.startswith("leak/") and name.count("speaker")]
    status, printed = command("audit", run.run_id, f"corpus.root={folder}/corpus/clips.csv")
    assert status == 0 and "p.csv" in printed
    for question in ("clip", "speaker", "training_rows", "repeated_predictions"):
        assert f"{question:21}    n/a  not checked: the training of imported" in printed
    assert "exactly the test rows of the split" in printed


def test_there_is_no_model_to_predict_with(command: Command, folder: Path) -> None:
    (run,) = stored_runs(folder)
    status, printed = command("predict", run.run_id, str(folder / "corpus/audio/s0_sad.wav"))
    assert status == 2 and "no model that could predict new audio" in printed and len(printed.splitlines()) == 1


def test_it_is_compared_with_a_run_and_audit_and_repeat_work(command: Command, folder: Path) -> None:
    clips = clips_of_fold(command, folder)
    other = write(folder / "other.csv", clips, label=[CLIPS[clip] for clip in clips])
    assert command("import", other, "--name", "right")[0] == 0
    status, printed = command("compare", "--out", str(folder / "report"), "--experiment", "table")
    assert status == 0, printed
    assert "right" in printed and "mymodel" in printed
    assert "2 models of imported predictions kept to it, which nothing here can check" in " ".join(printed.split())
    assert " 0 s" not in printed, "the training time of imported predictions is not known"
    status, printed = command("runs")
    assert printed.count("unknown") == 2
    (run, _) = stored_runs(folder)
    status, printed = command("show", run.run_id)
    assert status == 0 and "model.file=" in printed and "imported_file" in printed


def test_a_changed_file_is_not_the_one_that_was_imported(command: Command, folder: Path) -> None:
    clips = clips_of_fold(command, folder)
    file = write(folder / "changed.csv", clips)
    assert command("import", file, "--name", "changed")[0] == 0
    run = stored_runs(folder)[0]
    write(folder / "changed.csv", clips, label=["sad"] * len(clips))
    here = [f"corpus.root={folder}/corpus/clips.csv", f"cache_dir={folder}/cache"]
    status, printed = command("rerun", run.run_id, *here)
    assert status == 2 and "was changed since it was imported" in printed


def test_several_folds_in_one_file(command: Command, folder: Path) -> None:
    file = write(folder / "all.csv", list(CLIPS))
    status, printed = command("import", file, "--name", "folds")
    assert status == 2 and "training part of speaker fold 0" in printed and "--fold all" in printed
    before = {run.run_id for run in stored_runs(folder)}
    status, printed = command("import", file, "--name", "folds", "--fold", "all")
    assert status == 0, printed
    new = [run for run in stored_runs(folder) if run.run_id not in before]
    assert sorted(run.tags["fold"] for run in new) == ["0", "1", "2", "3"] and len({run.parent for run in new}) == 1
    assert sorted(row.clip_id for run in new for row in run.predictions().rows) == sorted(CLIPS)
    write(folder / "all.csv", [clip for clip in CLIPS if clip != "s3_sad"])
    status, printed = command("import", file, "--name", "folds", "--fold", "all")
    assert status == 2 and "have no prediction, for example s3_sad" in printed


def test_clips_that_are_missing_unknown_of_training_or_of_another_truth(command: Command, folder: Path) -> None:
    clips = clips_of_fold(command, folder)
    count = len(stored_runs(folder))

    def refused(file: str, *words: str) -> str:
        status, printed = command("import", file, "--name", "refused", *words)
        assert status == 2 and len(printed.splitlines()[-1]) < 700, printed
        return printed

    file = write(folder / "bad.csv", clips[1:])
    assert "1 of 6 test rows of speaker fold 0 have no prediction" in refused(file)
    unknown = [f"x{i}" for i in range(7)]
    (folder / "unknown.csv").write_text("clip_id,label\n" + "".join(f"{clip},sad\n" for clip in [*clips, *unknown]))
    assert "7 ids of no clip of table, for example x0, x1, x2, x3, x4, …" in refused(str(folder / "unknown.csv"))
    trained = [row["clip_id"] for row in csv.DictReader((folder / "lists_0" / "train.csv").open())]
    assert "1 clip of the training part of speaker fold 0" in refused(write(folder / "bad.csv", [*clips, trained[0]]))
    validated = [row["clip_id"] for row in csv.DictReader((folder / "lists_0" / "val.csv").open())]
    assert "1 clip of the validation part" in refused(write(folder / "bad.csv", [*clips, validated[0]]))
    wrong = write(folder / "bad.csv", clips, truth=["sad"] * len(clips))
    printed = refused(wrong)
    assert "the truth of 4 clips is not that of table" in printed and "(sad, in the corpus angry)" in printed
    assert len(stored_runs(folder)) == count, "a refused file leaves no run"
    file = write(folder / "bad.csv", clips[1:])
    assert command("import", file, "--name", "gaps", "--allow-missing")[0] == 0
    run = stored_runs(folder)[0]
    assert run.predictions().abstained.sum() == 1 and len(run.predictions().rows) == 6
    assert run.predictions().reasons.count("the file does not have the clip") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["p.csv"], "name"),
        (["p.csv", "--name", "cnn"], "that of a predictor of ser_bench"),
        (["p.csv", "--name", "a+b"], "letters, digits, dots"),
        (["p.csv", "--name", "m", "--corpus", "cremad"], "--corpus cremad and corpus=table contradict each other"),
        (["p.csv", "--name", "m", "--fold", "x"], "--fold x: give a number"),
        (["p.csv", "--name", "m", "--fold", "all", "split.fold=1"], "contradict each other"),
        (["p.csv", "--name", "m", "--fold", "9"], "split.fold=9 does not exist"),
        (["p.csv", "--name", "m", "model=cnn"], "trains no model"),
        (["--name", "m"], "name one file"),
        (["none.csv", "--name", "m"], "no such file"),
    ],
)
def test_a_command_line_that_cannot_be_carried_out(
    words: list[str], message: str, command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    status, printed = command("import", *words)
    assert status == 2 and message in printed


def test_the_corpus_must_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["import", str(folder / "p.csv"), "--name", "m"]) == 2
    assert "name the corpus: --corpus NAME" in capsys.readouterr().err


def test_the_example_trains_on_the_lists_and_its_predictions_are_imported(
    command: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips_of_fold(command, folder)
    example = Path(__file__).resolve().parents[2] / "examples" / "foreign_model.py"
    file = folder / "example.csv"
    monkeypatch.setattr("sys.argv", ["foreign_model", str(folder / "lists_0"), str(folder / "corpus"), str(file)])
    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor", ThreadPoolExecutor)  # no processes for 24 clips
    runpy.run_path(str(example), run_name="__main__")
    status, printed = command("import", str(file), "--name", "example")
    assert status == 0, printed
    run = stored_runs(folder)[0]
    assert (run.tags["model"], run.predictions().source) == ("example", "softmax")
    assert run.metrics["time/clips_per_second"] > 0 and "test/log_loss" in run.metrics
