"""The command line `ser-bench`: words, options, help, exit statuses, tables and the doctor."""

from __future__ import annotations

import inspect
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from rich.console import Console

from ser_bench import cli, corpora, extras, new_audio, predictors, tracking, weights
from ser_bench.cli import app, audit_command, compare_command, data_commands, doctor, predict_command, terminal_tables
from ser_bench.cli.command_words import parse_words
from ser_bench.config import compose
from ser_bench.errors import ConfigError, RunNotFoundError
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.types import Predictions, Row
from tests.support import stored_runs

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "describe": "model=cnn",
    "corpora": "prepare",
    "corpora list": "corpora list",
    "corpora prepare": "--root",
    "corpora verify": "--root",
    "weights": "fetch",
    "weights list": "weights list",
    "weights fetch": "NAME",
    "compare": "--baseline",
    "audit": "--json",
    "require": "--json",
    "serve": "--token-env",
    "predict": "--json",
    "listen": "--from-file",
    "doctor": "OVERRIDE",
    "runs": "--models",
    "show": "--json",
    "rerun": "corpus.root",
}


# ---- words


@pytest.mark.parametrize(
    ("words", "overrides", "others"),
    [
        (["8b97", "corpus.root=a", "e6a6"], ["corpus.root=a"], ["8b97", "e6a6"]),
        (["+experiment=paper", "hydra/launcher=joblib", "++x.y=1", "~x=1"], None, []),
        (["tracking.uri=http://host:1/?a=b"], None, []),
        (["folder/clip.wav", "-"], [], None),
        ([], [], []),
    ],
)
def test_words_with_an_equals_sign_are_overrides(
    words: list[str], overrides: list[str] | None, others: list[str] | None
) -> None:
    parsed = parse_words(words)
    assert parsed.overrides == (words if overrides is None else overrides)
    assert parsed.others == (words if others is None else others)


def test_an_existing_path_with_an_equals_sign_is_no_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "take=2.wav").write_bytes(b"")
    assert parse_words(["take=2.wav", "seed=3"]) == (["seed=3"], ["take=2.wav"])


def test_a_word_with_a_slash_before_its_equals_sign_is_a_path_unless_it_is_a_known_key() -> None:
    words = ["./take=3.wav", "/data/a=b/c.wav", "x/é=1", "hydra/launcher=joblib", "corpus.root=./a/b", "é=1.wav"]
    overrides = ["hydra/launcher=joblib", "corpus.root=./a/b"]
    assert parse_words(words) == (overrides, [word for word in words if word not in overrides])


def test_a_known_key_is_an_override_also_where_a_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "seed=1").write_bytes(b"")
    assert parse_words(["seed=1", "./seed=1"]) == (["seed=1"], ["./seed=1"])
    assert parse_words(["seed=1", "seed=1"], after_dashes=1) == (["seed=1"], ["seed=1"])


def test_a_word_that_is_neither_a_known_key_nor_a_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", "8b97", "take=3.wav"]) == cli.EXIT_FAILED
    error = capsys.readouterr().err
    assert re.search(r"take=3\.wav: .*no file.*no configuration key", error) and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "overrides", "others"),
    [
        (["8b97", "--", "seed=1", "--json", "-"], [], ["8b97", "seed=1", "--json", "-"]),
        (["seed=1", "--json", "--", "8b97", "--", "a=b"], ["seed=1"], ["8b97", "--", "a=b"]),
        (["8b97", "seed=1", "--"], ["seed=1"], ["8b97"]),
    ],
)
@pytest.mark.parametrize("command", ["predict", "audit", "compare"])
def test_two_dashes_end_options_and_overrides(
    command: str, words: list[str], overrides: list[str], others: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[Any]] = []
    monkeypatch.setattr(predict_command, "run", lambda given, rest, _: calls.append([given, rest]))
    monkeypatch.setattr(audit_command, "run", lambda given, rest, _: calls.append([given, rest]) or True)
    monkeypatch.setattr(
        compare_command, "run", lambda chosen, *_: calls.append([chosen.overrides, chosen.run_ids]) or True
    )
    assert cli.main([command, *words]) == 0
    assert calls == [[overrides, others]]


@pytest.mark.parametrize(
    "words",
    [
        ["--json", "8b97", "corpus.root=a", "e6a6"],
        ["8b97", "--json", "corpus.root=a", "e6a6"],
        ["corpus.root=a", "8b97", "e6a6", "--json"],
    ],
)
def test_words_and_options_may_stand_in_any_order(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(audit_command, "run", lambda *given: calls.append(given) or True)
    assert cli.main(["audit", *words]) == 0
    assert calls == [(["corpus.root=a"], ["8b97", "e6a6"], True)]


def test_the_options_of_compare_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(compare_command, "run", lambda *given: calls.append(given) or True)
    words = ["corpus=cremad", "--tag", "protocol=speaker", "8b97", "--tag=size=eighth", "--models", "cnn,llm"]
    options = [
        "--baseline",
        "cnn",
        "--experiment",
        "x",
        "--parent",
        "5f1c",
        "--claimed",
        "c.yaml",
        "--out",
        "o",
        "--json",
    ]
    assert cli.main(["compare", *words, *options]) == 0
    selection = compare_command.Selection(
        ["corpus=cremad"], ["8b97"], "5f1c", ["cnn", "llm"], "x", ["protocol=speaker", "size=eighth"]
    )
    assert calls == [(selection, "cnn", Path("c.yaml"), Path("o"), True)]


def test_a_tag_needs_an_equals_sign() -> None:
    assert compare_command.parse_tag("overrides=a=b") == ("overrides", "a=b")
    assert compare_command.parse_tag("labels=wu\u0308tend") == ("labels", "w\u00fctend")
    with pytest.raises(ConfigError, match=r"--tag 'size'.*NAME=VALUE"):
        compare_command.parse_tag("size")


# ---- help and exit statuses


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: ser-bench {command}" in text and COMMANDS[command] in text


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_in_whole_sentences_and_nothing_is_cut_off(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command.split(), "--help"]) == 0
    text = capsys.readouterr().out
    assert "..." not in text.replace("]...", "").replace("}...", "") and "<str>" not in text and "list[" not in text
    description = text.partition("\n\n")[2].partition("Options:")[0]
    assert re.match(r"  [A-Z][^.]*\.\n", description), "the first sentence is a line of its own"
    listed = re.findall(r"^  (?:--\w+(?: [A-Z,=]+)?|[A-Z|]+|\w+) {2,}(\S.*(?:\n {6,}\S.*)*)$", text, flags=re.MULTILINE)
    assert listed
    assert all(re.search(r"\.( +\[required\])?$", " ".join(entry.split())) for entry in listed), listed


def test_the_help_lists_every_command_and_every_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    listed = {line.split()[0] for line in text.partition("Commands:")[2].splitlines() if line[:3].strip()}
    assert {command.split()[0] for command in COMMANDS} <= listed | set(text.split())
    statuses = text.partition("Exit status:")[2]
    assert all(
        str(status) in statuses
        for status in (0, cli.EXIT_UNMET, cli.EXIT_FAILED, cli.EXIT_LEAK, cli.EXIT_DIFFERS, cli.EXIT_INTERRUPTED)
    )


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["listen"],
        ["--nope"],
        ["audit", "8b97", "--nope"],
        ["audit"],
        ["predict"],
        ["corpora"],
        ["compare", "--out"],
    ],
)
def test_a_wrong_command_line_ends_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == cli.EXIT_FAILED
    printed = capsys.readouterr()
    assert "Usage: ser-bench" in printed.out + printed.err or "Error" in printed.err


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["corpora", "prepare"], r"corpora prepare NAME.*cremad"),
        (["corpora", "verify", "timit"], r"timit"),
        (["corpora", "prepare", "demo"], r"demo: nothing to download.*python run\.py corpus=demo"),
        (["corpora", "prepare", "table"], r"table: nothing to download.*columns path, emotion.*corpus\.root=FILE\.csv"),
        (["corpora", "verify", "table"], r"table: .*no official release.*corpus\.root=FILE\.csv"),
        (["corpora", "verify", "demo", "--root", "no-such-folder"], r"no-such-folder.*python run\.py corpus=demo"),
        (["corpora", "verify", "cremad", "--root", "no-such-folder"], r"no-such-folder.*corpora prepare cremad"),
        (["audit", "corpus.root=a"], r"audit RUN"),
        (["predict", "8b97"], r"predict RUN FILE"),
        (["describe", "model=resnet"], r"cnn_text"),
        (["compare", "--tag", "size"], r"NAME=VALUE"),
        (["weights", "fetch", "no-such-weights"], r"no-such-weights"),
    ],
)
def test_an_error_is_one_line_with_status_2(words: list[str], pattern: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == cli.EXIT_FAILED
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error    ") and printed.err.count("\n") == 1
    assert re.search(pattern, printed.err)


@pytest.mark.parametrize(
    ("raised", "status", "first_word"),
    [(RunNotFoundError("no run"), 2, "error"), (KeyboardInterrupt(), 130, "stopped"), (None, 0, ""), ("leak", 3, "")],
)
def test_exit_statuses(
    raised: Any, status: int, first_word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> bool:
        if isinstance(raised, BaseException):
            raise raised
        return raised is None

    monkeypatch.setattr(audit_command, "run", run)
    assert cli.main(["audit", "8b97"]) == status
    assert capsys.readouterr().err.startswith(first_word)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(data_commands, "list_corpora", fails)
    with pytest.raises(ZeroDivisionError):
        cli.main(["corpora", "list"])


def test_a_copy_that_is_not_complete_ends_with_status_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_commands, "verify_corpus", lambda name, root: (name, root) != ("demo", Path("here")))
    assert cli.main(["corpora", "verify", "demo", "--root", "here"]) == cli.EXIT_FAILED
    assert cli.main(["corpora", "verify", "demo", "--root", "there"]) == 0


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == app.__version__


@pytest.mark.parametrize("words", [["weights", "list"], ["--help"]])
def test_a_reader_that_has_closed_the_pipe_gets_no_traceback(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ser_bench.cli", *words]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=300, cwd=ROOT)
    os.close(writing)
    assert done.stderr == "" and done.returncode != 0


def test_help_does_not_import_what_only_commands_need() -> None:
    code = (
        "import sys; from ser_bench import cli; assert cli.main(['compare', '--help']) == 0; "
        "print({'torch', 'mlflow', 'pandas', 'hydra', 'sklearn', 'librosa', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()", done.stdout + done.stderr


# ---- tables


def test_a_plain_table_is_aligned_and_keeps_long_cells() -> None:
    rows = [["a.wav", "angry", 0.5], ["b" * 200, "sad", 12.25]]
    heading, first, second = terminal_tables.plain_table(["file", "emotion", "share"], rows).splitlines()
    assert heading.index("emotion") == first.index("angry") == second.index("sad") == 202
    assert first.endswith(" 0.500") and second.endswith("12.250") and len(first) == len(second)
    assert terminal_tables.plain_table(["file"], []) == "file"


def test_a_terminal_gets_a_drawn_table_without_interpreted_brackets() -> None:
    console = Console(file=io.StringIO(), width=60, force_terminal=True, color_system=None)
    console.print(terminal_tables.rich_table(["name", "state"], [["[red]", "x" * 80], ["b", "y"]]))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[red]" in text and text.count("x") == 80 and "─" in text


def test_lists_are_plain_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpora", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "corpus" and any(line.startswith("cremad ") and "7,442" in line for line in lines)
    assert any(line.startswith("demo ") and "SYNTHETIC" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["corpora", "list"], {"corpus", "clips", "speakers", "language", "licence", "synthetic"}),
        (["weights", "list"], {"weights", "licence", "folder", "bytes"}),
        (["doctor"], set(doctor.COLUMNS)),
    ],
)
def test_lists_are_json_on_request(words: list[str], keys: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*words, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert len(records) >= 4 and all(keys <= set(record) for record in records)


def test_layers_are_json_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "model=cnn", "size=paper", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["layers"][0] == {"layer": "Conv1D", "output": [2376, 512], "parameters": 3072}
    assert sum(layer["parameters"] for layer in table["layers"]) == table["total"] > table["trainable"]


def test_compare_prints_the_content_of_its_json_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = stored_runs.make_clips(8)
    runs = [stored_runs.store(tmp_path, name, stored_runs.predict(clips, 0.6, i), clips)
            for i, name in enumerate(("cnn", "mlp"))]  # fmt: skip
    monkeypatch.setattr(compare_command.run_groups, "select_runs", lambda *_: runs)
    monkeypatch.setattr(compare_command.fold_pooling, "readable_runs", lambda chosen: (chosen, []))
    monkeypatch.setattr(tracking, "start_parent", lambda *_: "1" * 32)
    monkeypatch.setattr(tracking, "end_parent", lambda *_: None)
    for name in ("describe_run", "log_files", "log_metrics"):
        monkeypatch.setattr(tracking, name, lambda *_: None)
    assert cli.main(["compare", "--json", "--out", str(tmp_path / "report")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("report") == str(tmp_path / "report" / "comparison.html") and printed.pop("run") == "1" * 32
    assert printed == json.loads((tmp_path / "report" / "comparison.json").read_text(encoding="utf-8"))


def test_numbers_that_json_does_not_have_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_tables.print_json({"uar": float("nan"), "all": [float("inf"), 0.5], "name": "wütend"})
    text = capsys.readouterr().out
    assert json.loads(text) == {"uar": None, "all": [None, 0.5], "name": "wütend"} and "wütend" in text


def test_json_escapes_what_standard_output_cannot_show(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_tables.print_json({"file": "a\udcff.wav"})
    assert json.loads(capsys.readouterr().out) == {"file": "a\udcff.wav"}


def test_every_command_that_prints_a_table_takes_json() -> None:
    """Commands that change something print lines, and no table."""
    without = {"run", "rerun", "serve", "corpora prepare", "corpora verify", "weights fetch"}
    for command in COMMANDS.keys() - without - {"corpora", "weights"}:
        words = command.split()
        group = {"corpora": app.corpora_app, "weights": app.weights_app}.get(words[0], app.app)
        [callback] = [c.callback for c in group.registered_commands if (c.name or c.callback.__name__) == words[-1]]
        assert "as_json" in inspect.signature(callback).parameters, command


# ---- predict


def test_predict_names_a_path_that_is_not_there_and_a_folder_without_audio(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.wav"):
        new_audio.audio_files([tmp_path / "missing.wav"])
    with pytest.raises(ConfigError, match="no audio file"):
        new_audio.audio_files([tmp_path])


def test_a_file_is_found_in_another_unicode_form(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "u\u0308.wav", np.full(4000, 0.1), 16_000)
    assert new_audio.audio_files([tmp_path / "\u00fc.wav"]) == [tmp_path / "u\u0308.wav"]


def test_predict_names_and_counts_what_it_skips(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def predict(rows: Sequence[Row]) -> Predictions:
        n = len(rows)
        zeros = np.zeros(n, np.float32)
        return Predictions(
            tuple(rows), ("",) * n, ("angry", "sad"), np.full((n, 2), 0.5, np.float32), zeros > 0, zeros, zeros
        )

    files = PredictorFiles("cnn speaker fold 0", "8b97" * 8, compose([]), ("angry", "sad"), tmp_path)
    monkeypatch.setattr(tracking, "load_run", lambda *_: SimpleNamespace())
    monkeypatch.setattr(PredictorFiles, "of_run", lambda *_: files)
    monkeypatch.setattr(predictors, "load", lambda *_: SimpleNamespace(predict=predict))
    soundfile.write(tmp_path / "a=1.wav", np.full(8000, 0.1), 8000)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    words = ["predict", "8b97", f"{tmp_path}/a=1.wav", str(tmp_path / "b.wav"), f"cache_dir={tmp_path}", "--json"]
    assert cli.main(words) == cli.EXIT_FAILED
    shown = capsys.readouterr()
    assert "1 of 2 recordings have no answer" in shown.err and "on_bad_clip=skip" in shown.err
    good, bad = json.loads(shown.out)
    assert Path(good["name"]).name == "a=1.wav" and good["label"] == "angry"
    assert bad["status"] == "failed" and "b.wav: not audio" in bad["reason"] and bad["probabilities"] == {}
    assert cli.main([*words, "on_bad_clip=skip"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2
    first, last = caplog.messages
    assert first.startswith("skipped  ") and "b.wav" in first
    assert last == "skipped  1 of 2 files (on_bad_clip=skip)"


# ---- doctor


def state_of(rows: list[doctor.Line], name: str) -> str:
    [state] = [state for _, line_name, state in rows if line_name == name]
    return state


def test_the_doctor_names_what_is_missing_and_the_command_that_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        if name == "mlflow":
            raise metadata.PackageNotFoundError(name)
        return "1.2.3"

    (tmp_path / "corpora" / "emodb").mkdir(parents=True)
    (tmp_path / "corpora" / "emodb" / "a.wav").write_bytes(b"")
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(extras, "is_installed", lambda name: name not in ("whisper", "faster_whisper"))
    monkeypatch.setattr(weights, "find", lambda name: None if "MiniLM" in name else tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown-0123")
    rows = doctor.rows(compose([f"cache_dir={tmp_path}", "tracking.dir=elsewhere/mlruns"]))
    assert all(len(line) == len(doctor.COLUMNS) for line in rows)
    assert state_of(rows, "torch") == "1.2.3" and "pip install" in state_of(rows, "mlflow")
    assert "not here (openai-whisper): pip install 'ser-bench[whisper]'" in state_of(rows, "ser-bench[whisper]")
    assert state_of(rows, "ser-bench[egemaps]").startswith("here")
    assert "not here (faster-whisper)" in state_of(rows, "ser-bench[demo]")
    assert "weights fetch all-MiniLM-L6-v2" in state_of(rows, "all-MiniLM-L6-v2")
    assert state_of(rows, "whisper-tiny.en").startswith("here")
    assert str(tmp_path / "corpora" / "emodb") in state_of(rows, "emodb")
    assert "corpora prepare cremad" in state_of(rows, "cremad")
    assert state_of(rows, "OPENAI_API_KEY") == "set" and "never-shown" not in str(rows)
    assert state_of(rows, "cache").startswith(str(tmp_path)) and state_of(rows, "runs").startswith("elsewhere/mlruns")


def test_the_doctor_says_how_to_get_a_corpus_by_its_data_sheet_and_not_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sheets = {
        "synth": replace(corpora.SHEETS["demo"], name="synth"),
        "rows": replace(corpora.SHEETS["table"], name="rows"),
    }
    monkeypatch.setattr(corpora, "SHEETS", sheets)
    rows = doctor.rows(compose([f"cache_dir={tmp_path}"]))
    assert "generated at its first use" in state_of(rows, "synth") and "SYNTHETIC" in state_of(rows, "synth")
    assert "corpus=rows corpus.root=FILE.csv" in state_of(rows, "rows")


def test_the_doctor_says_that_a_key_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert state_of(doctor.rows(compose([])), "OPENAI_API_KEY").startswith("not set")


@pytest.mark.parametrize(
    ("overrides", "latest", "expected"),
    [
        ([], "mine", "mine"),
        ([], None, "demo"),
        (["corpus=cremad", "corpus.root=a"], "mine", "cremad"),
        (["tracking.experiment=other"], "mine", "other"),
        (["tracking.dir=elsewhere"], "mine", "mine"),
    ],
)
def test_compare_searches_the_experiment_of_the_latest_run_unless_one_is_chosen(
    overrides: list[str], latest: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "latest_experiment", lambda cfg: latest)
    assert compare_command._experiment(compose(overrides).tracking, overrides) == expected
