"""Overrides as words of a command line: special characters, the quoting that is suggested, commas under `-m`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from ser_bench import cli, config, launcher
from ser_bench.config import compose
from ser_bench.config.override_words import check_overrides, is_known_key, quoted_word
from ser_bench.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = [*"=,[](){}&#~'\"`;<>!^|*?%@+:$\\ü录é ", "${x", "a:b", "1_000", "1e3", "true", "null"]


def read_by_hydra(suggestion: str) -> Any:
    """The value that a shell and Hydra's parser make of a suggested word, with interpolations resolved."""
    [word] = shlex.split(suggestion)
    override = OverridesParser.create().parse_override(word)
    value = override.value()
    return OmegaConf.to_container(OmegaConf.create({"value": value}), resolve=True)["value"]  # type: ignore[call-overload,index]


def suggestion_for(words: Sequence[str], sweep: bool = False) -> str:
    """The last word of the message, which is the suggestion."""
    with pytest.raises(ConfigError) as caught:
        check_overrides(words, sweep)
    message = str(caught.value)
    assert "\n" not in message
    return message.rpartition("write ")[2]


@pytest.mark.parametrize("place", ["{}", "/data/{}x", "/data/x{}", "/a{}b/c"])
@pytest.mark.parametrize("special", SPECIAL)
def test_a_path_arrives_as_typed_or_the_message_shows_a_quoting_that_arrives(special: str, place: str) -> None:
    path = place.format(special)
    word = f"corpus.root={path}"
    try:
        check_overrides([word], sweep=False)
    except ConfigError:
        assert read_by_hydra(suggestion_for([word])) == (str(Path(path).expanduser()) if path[0] == "~" else path)
    else:
        assert OverridesParser.create().parse_override(word).value() in (path, None) or path[0] in "'\"" or "\\" in path


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=12))
@example("a\\")
@example('\\"')
@example('it\'s "here"')
@example("\\${a")
def test_the_quoting_of_any_text_is_read_as_this_text(text: str) -> None:
    if "${" in text and "}" in text.partition("${")[2]:
        return  # an interpolation, which is kept
    assert read_by_hydra(quoted_word("experiment_name", text)) == text


def test_an_interpolation_in_a_quoted_value_stays_an_interpolation() -> None:
    assert shlex.split(quoted_word("tracking.dir", "${cache_dir}/ü")) == ['tracking.dir="${cache_dir}/ü"']


@pytest.mark.parametrize(
    "words",
    [
        ["corpus.root=/data/CREMA-D/AudioWAV", "model=cnn", "split.fold=2", "seed=1e3", "trainer.learning_rate=1e-4"],
        ["corpus.root=null", "corpus.root=", "llm.gguf=/a/b c.gguf", "+experiment=paper", "~experiment"],
        ["corpus.root='/a,b'", 'corpus.root="/a(b"', "corpus.root=/a\\,b", "tracking.dir=${cache_dir}/runs"],
        ["model.members=[a,b]", "features.pitch={floor_hz: 60}", "hydra.sweep.dir=multirun/${now:%H-%M-%S}"],
        ["tracking.uri=sqlite:////a/b.db", "llm.base_url=http://127.0.0.1:8080/v1", "cache_dir=C:/a", "corpus.root=42"],
    ],
)
def test_words_that_hydra_reads_as_typed_pass(words: list[str]) -> None:
    check_overrides(words, sweep=False)
    check_overrides(words, sweep=True)


@pytest.mark.parametrize("path", ["1_000", "1e3", "true", " /a", "[a]", "{a: 1}", "int(3)", "x(1)", "/a,b"])
def test_a_path_that_hydra_would_read_as_something_else_is_stopped(path: str) -> None:
    assert read_by_hydra(suggestion_for([f"corpus.root={path}"])) == path


def test_the_home_folder_is_written_out_because_neither_shell_nor_hydra_expands_it() -> None:
    assert read_by_hydra(suggestion_for(["cache_dir=~/a b"])) == f"{Path.home()}/a b"
    assert read_by_hydra(suggestion_for(["experiment_name=~a"])) == "~a"


def test_each_text_of_a_list_is_quoted_by_itself() -> None:
    assert read_by_hydra(suggestion_for(["model.members=[run=1,ü]"])) == ["run=1", "ü"]


def test_a_word_without_an_equals_sign_may_be_the_rest_of_a_path_with_spaces() -> None:
    assert read_by_hydra(suggestion_for(["model=cnn", "corpus.root=/my", "own", "(new)"])) == "/my own (new)"
    with pytest.raises(ConfigError, match=r"^'cnn' is no override; write key=value"):
        check_overrides(["cnn"], sweep=False)


def test_a_key_with_special_characters_is_not_a_question_of_quoting() -> None:
    with pytest.raises(ConfigError, match="'ü' is no configuration key"):
        check_overrides(["ü=1"], sweep=False)


def test_a_secret_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "abcdefgh12345")
    with pytest.raises(ConfigError) as caught:
        check_overrides(["llm.base_url=https://me:hunter22@host/?key=abcdefgh12345"], sweep=False)
    assert "hunter22" not in str(caught.value) and "abcdefgh12345" not in str(caught.value)


# ---- commas


def test_a_comma_without_a_sweep_shows_list_sweep_and_text() -> None:
    with pytest.raises(ConfigError, match=r"model=cnn,llm.*-m") as caught:
        check_overrides(["model=cnn,llm"], sweep=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "word", ["corpus.root={}", "tracking.dir={}", "cache_dir={}", "llm.gguf={}", "hydra.sweep.dir={}"]
)
def test_a_sweep_does_not_halve_a_path(word: str, tmp_path: Path) -> None:
    path = tmp_path / "a,b"
    assert read_by_hydra(suggestion_for([word.format(path)], sweep=True)) == str(path)  # neither whole nor halves exist
    path.mkdir()
    assert read_by_hydra(suggestion_for([word.format(path)], sweep=True)) == str(path)


def test_a_sweep_over_folders_that_all_exist_is_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    check_overrides([f"corpus.root={tmp_path}/a,{tmp_path}/b"], sweep=True)
    check_overrides(["corpus.root=choice(/no/a,/no/b)"], sweep=True)
    with pytest.raises(ConfigError, match=r"choice\("):
        check_overrides(["corpus.root=/no/a,/no/b"], sweep=True)


def test_any_value_with_a_comma_that_is_an_existing_path_is_stopped(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    assert read_by_hydra(suggestion_for([f"llm.model={tmp_path}/a,b"], sweep=True)) == f"{tmp_path}/a,b"
    check_overrides(["model=cnn,llm", "llm.model=a,b", "seed=1,2", "corpus.language=en,de"], sweep=True)


# ---- where the check is made


def test_the_commands_stop_with_the_quoting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "corpus.root=/a/b=c"]) == cli.EXIT_FAILED
    assert capsys.readouterr().err == (
        "error    corpus.root=/a/b=c: the value needs quotes because of =; write 'corpus.root=\"/a/b=c\"'\n"
    )
    with pytest.raises(ConfigError, match="choice"):
        compose(["corpus.root=choice(a,b)"])


def start(words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[DictConfig]]:
    """Exit status of run.py with these words, and the configurations that it would have run."""
    composed: list[DictConfig] = []

    @hydra.main(version_base="1.3", config_path=str(ROOT / "conf"), config_name="config")
    def task(cfg: DictConfig) -> None:
        composed.append(cfg)

    config.register()
    monkeypatch.setattr(launcher, "_statuses", [])
    monkeypatch.setattr("sys.argv", ["run.py", *words, f"tracking.dir={folder}", f"hydra.run.dir={folder}"])
    return launcher.main(task), composed


@pytest.mark.parametrize(
    ("words", "pattern"),
    [
        (["corpus.root=/a/录"], r"because of 录; write 'corpus.root=\"/a/录\"'"),
        (["-m", "corpus.root=/a/b,c"], r"'corpus.root=\"/a/b,c\"'"),
        (["corpus.rot=1"], r"corpus\.rot"),
        (["model=resnet"], r"resnet.*cnn_text"),
        (["corpus.folds=many"], r"many"),
    ],
)
def test_run_py_ends_in_one_line_with_status_2(
    words: list[str], pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(words, tmp_path, monkeypatch) == (launcher.EXIT_FAILED, [])
    error = capsys.readouterr().err
    assert error.startswith("error    ") and error.count("\n") == 1
    assert re.search(pattern, error)


def test_the_help_of_run_py_explains_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        start(["--help", "corpus=emodb"], tmp_path, monkeypatch)
    text = capsys.readouterr().out
    assert not ended.value.code and text.startswith("Start one run, or a sweep") and "Powered by" not in text
    assert "corpus: audformat, cremad, demo" in text and "name: emodb" in text and "Exit status: 0" in text
    for line in re.findall(r"^  python run\.py (.*?)(?:  .*)?$", text, flags=re.MULTILINE):
        words = [word for word in shlex.split(line) if "=" in word]
        check_overrides(words, sweep="-m" in line)
        assert all(is_known_key(word.partition("=")[0]) for word in words)


def test_run_py_receives_a_quoted_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = f"{tmp_path}/ü, [x] = '1'"
    status, [composed] = start(shlex.split(quoted_word("corpus.root", path)), tmp_path, monkeypatch)
    assert status == 0 and composed.corpus.root == path


def test_known_keys() -> None:
    known = [
        "corpus",
        "corpus.root",
        "features.pitch",
        "features.pitch.floor_hz",
        "experiment",
        "hydra/launcher",
        "seed",
    ]
    assert all(map(is_known_key, [*known, "model.members", "model.kernels", "hydra.run.dir"]))
    assert not any(map(is_known_key, ["take", "./corpus.root", "a/b", "corpus.rot", "corpus/root", ""]))
