"""Configurations in the working directory: they are found after those of ser_bench, and never replace them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ser_bench import corpora
from ser_bench.cli import app
from ser_bench.config import CONF, compose
from ser_bench.errors import ConfigError

MINE = "defaults: [table]\nname: mine\nroot: clips.csv\nfolds: 3\n"
EXPERIMENT = "defaults:\n  - override /corpus: mine\nexperiment_name: mine\nseed: 7\n"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with a corpus and an experiment of her own."""
    for folder, name, text in (("conf/corpus", "mine", MINE), ("experiments", "mine", EXPERIMENT)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_corpus_and_experiment_compose() -> None:
    cfg = compose(["experiment=mine", "model=majority"])
    assert (cfg.corpus.name, cfg.corpus.root, cfg.split.folds, cfg.seed) == ("mine", "clips.csv", 3, 7)
    assert (cfg.experiment_name, cfg.tracking.experiment) == ("mine", "mine")
    sheet = corpora.sheet_of(cfg.corpus.name, cfg.corpus.root)
    assert sheet.name == "mine" and sheet.read_table is not None


def test_they_belong_to_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compose(["experiment=mine", "model=majority"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="mine"):
        compose(["corpus=mine"])


@pytest.mark.parametrize("name", ["conf/corpus/cremad.yaml", "experiments/paper.yaml"])
def test_a_file_with_the_name_of_one_of_ser_bench_is_refused(name: str, project: Path) -> None:
    (project / name).write_text("name: other\n")
    with pytest.raises(ConfigError, match=rf"{name}: ser_bench has a configuration of this name.*rename"):
        compose([])


def test_an_equal_copy_is_no_conflict(project: Path) -> None:
    (project / "conf" / "corpus" / "cremad.yaml").write_bytes((CONF / "corpus" / "cremad.yaml").read_bytes())
    assert compose(["corpus=cremad"]).corpus.name == "cremad"


def test_an_unknown_corpus_is_refused_unless_a_table_lists_its_clips() -> None:
    with pytest.raises(ConfigError, match=r"unknown corpus 'mine'.*CSV file"):
        corpora.sheet_of("mine", "folder")


def test_errors_of_own_files_are_one_line_of_the_command(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "conf" / "corpus" / "mine.yaml").write_text("defaults: [table]\nname: mine\nrot: clips.csv\n")
    assert app.main(["describe", "corpus=mine"]) == app.EXIT_FAILED
    error = capsys.readouterr().err
    assert "rot" in error and "Traceback" not in error and len(error.splitlines()) == 1
