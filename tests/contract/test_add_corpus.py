"""The corpus in docs/corpora.md ("Add a corpus"), added by exactly the edits of that page, can be loaded and split."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import corpora, splits
from ser_bench.config import PROJECT_ROOT, Config, compose
from ser_bench.corpora import sheets

SECTION = (PROJECT_ROOT / "docs" / "corpora.md").read_text(encoding="utf-8").partition("## Add a corpus")[2]
SPEAKERS, EMOTIONS, SENTENCES = ("anna", "bert", "cleo", "dan"), ("ang", "neu", "sad"), ("1", "2")


def block(language: str) -> str:
    [text] = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(text)


@pytest.fixture
def cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """The data sheet and the YAML file in folders that are searched after the real ones, and the 24 clips."""
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "toy.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "conf" / "corpus").mkdir(parents=True)
    (tmp_path / "conf" / "corpus" / "toy.yaml").write_text(block("yaml"), encoding="utf-8")
    monkeypatch.setattr(sheets, "__path__", [*sheets.__path__, str(tmp_path / "sheets")])
    monkeypatch.chdir(tmp_path)
    for name, sheet in sheets.import_all().items():
        monkeypatch.setitem(sheets.SHEETS, name, sheet)
    names = [f"{speaker}_{emotion}_{text}" for speaker in SPEAKERS for emotion in EMOTIONS for text in SENTENCES]
    (tmp_path / "toy").mkdir()
    for seed, name in enumerate(names):
        samples = 0.1 * np.random.default_rng(seed).standard_normal(4_000)
        soundfile.write(tmp_path / "toy" / f"{name}.wav", samples, 16_000)
    root, cache = f"corpus.root={tmp_path / 'toy'}", f"cache_dir={tmp_path / 'cache'}"
    yield compose(["experiment=none", "corpus=toy", root, cache, "split=speaker", "split.fold=1"])
    sys.modules.pop("ser_bench.corpora.sheets.toy", None)


def test_the_example_is_loaded_and_split_by_speaker(cfg: Config) -> None:
    corpus = corpora.load(cfg)
    assert (corpus.name, corpus.labels, len(corpus.clips)) == ("toy", ("angry", "neutral", "sad"), 24)
    assert corpus.warnings == ()
    clip = corpus.by_id["dan_sad_2"]
    assert (clip.speaker, clip.emotion, clip.text, clip.sex) == ("dan", "sad", "It is late", "male")
    split = splits.make(corpus, cfg.split, ("clean",))
    tested = {corpus.by_id[row.clip_id].speaker for row in split.test}
    assert (split.folds, len(split.test), len(tested)) == (2, 12, 2)
    assert not tested & {corpus.by_id[row.clip_id].speaker for row in (*split.train, *split.val)}


def test_the_example_follows_the_rules_of_a_data_sheet(cfg: Config) -> None:
    sheet = corpora.SHEETS["toy"]
    assert sheet.clips == len(SPEAKERS) * len(EMOTIONS) * len(SENTENCES)
    assert sheet.speakers == len(SPEAKERS)
    assert cfg.corpus.language == sheet.language
    for stem in sheet.examples:
        fields = sheet.parse(stem)
        assert fields is not None and fields.emotion in sheet.labels
    cells = [cell.strip() for cell in block("text").strip().strip("|").split("|")]
    assert cells[0] == "`toy`"
    assert cells[2:6] == [str(sheet.clips), str(sheet.speakers), " ".join(sheet.labels), sheet.licence]


def test_a_data_sheet_has_the_name_of_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toi.py").write_text(block("python"), encoding="utf-8")
    monkeypatch.setattr(sheets, "__path__", [*sheets.__path__, str(tmp_path)])
    with pytest.raises(ValueError, match=r"toi\.py.*toy"):
        sheets.import_all()
    sys.modules.pop("ser_bench.corpora.sheets.toi", None)
