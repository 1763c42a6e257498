"""Rules for every data sheet, its configuration and its row in docs/corpora.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ser_bench.config import PROJECT_ROOT, LabelSet
from ser_bench.corpora import SHEETS, DataSheet, Fields, Host, labels

sheets = pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS)
published = pytest.mark.parametrize(
    "sheet", [sheet for sheet in SHEETS.values() if sheet.remotes], ids=lambda sheet: sheet.name
)


def test_every_corpus_has_a_configuration() -> None:
    assert set(SHEETS) == {path.stem for path in (PROJECT_ROOT / "conf" / "corpus").glob("*.yaml")}


@sheets
def test_it_has_a_title_a_licence_and_a_language(sheet: DataSheet) -> None:
    assert sheet.title
    assert sheet.licence
    assert re.fullmatch("[a-z]{2}", sheet.language)
    assert sheet.naming
    configured = OmegaConf.load(PROJECT_ROOT / "conf" / "corpus" / f"{sheet.name}.yaml")
    assert configured.name == sheet.name
    assert configured.language == sheet.language


@sheets
def test_labels_are_canonical_in_canonical_order(sheet: DataSheet) -> None:
    assert set(sheet.labels) <= set(labels.CANONICAL)
    assert labels.ordered(sheet.labels) == sheet.labels
    if set(labels.BASIC6) <= set(sheet.labels):
        assert set(labels.choose(sheet.labels, LabelSet.basic6)) == set(labels.BASIC6)


@sheets
def test_examples_parse_into_consistent_fields(sheet: DataSheet) -> None:
    for stem in sheet.examples:
        fields = sheet.parse(stem)
        assert isinstance(fields, Fields)
        assert fields.emotion in sheet.labels
        assert fields.speaker
        assert fields.sex in ("female", "male", "")
        if sheet.sentences:
            assert fields.text == sheet.sentences[fields.sentence]
        assert sheet.parse(fields.id) == fields  # the official spelling is parsed alike


@sheets
@pytest.mark.parametrize("stem", ["a", "holiday", "1001_DFA_ANG", "03-01-09-01-01-01-01", "03a01Xa", "OAF_back_angry2"])
def test_other_names_are_refused(sheet: DataSheet, stem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(stem)):
        sheet.parse(stem)


@sheets
def test_counts_add_up(sheet: DataSheet) -> None:
    if sheet.clips_per_label:
        assert tuple(labels.ordered(sheet.clips_per_label)) == sheet.labels
        assert sum(sheet.clips_per_label.values()) == sheet.clips
    if sheet.clip_ids:
        parsed = [sheet.parse(name) for name in sheet.clip_ids]
        assert len(set(sheet.clip_ids)) == sheet.clips
        assert len({fields.speaker for fields in parsed if fields}) == sheet.speakers
        for label, count in sheet.clips_per_label.items():
            assert sum(fields is not None and fields.emotion == label for fields in parsed) == count


@published
def test_a_published_corpus_has_a_citation_and_download_sources(sheet: DataSheet) -> None:
    assert len(sheet.citation) > 40
    assert re.fullmatch(r"10\.\d{4,}/\S+", sheet.doi)
    assert sheet.homepage.startswith("http")
    assert sheet.examples
    assert sheet.clips > 0
    assert sheet.speakers > 0
    for remote in sheet.remotes:
        assert remote.url.startswith("http")
        assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", remote.checksum)
        assert bool(remote.archive) is (remote.host is not Host.archive)
        if remote.host is Host.git_lfs:
            assert sheet.lfs_folder


@sheets
def test_its_row_in_the_documentation_agrees(sheet: DataSheet) -> None:
    text = (PROJECT_ROOT / "docs" / "corpora.md").read_text(encoding="utf-8").partition("## ")[0]
    [row] = [line for line in text.splitlines() if line.startswith(f"| `{sheet.name}` |")]
    clips, speakers, labelled, licence = [cell.strip() for cell in row.strip("|").split("|")][2:6]
    assert licence == sheet.licence
    if sheet.clips:
        assert (clips, speakers) == (f"{sheet.clips:,}", str(sheet.speakers))
        assert labelled.split() == list(sheet.labels)


@sheets
def test_the_first_line_of_its_configuration_agrees(sheet: DataSheet) -> None:
    first = (PROJECT_ROOT / "conf" / "corpus" / f"{sheet.name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    if sheet.clips:
        assert f"{sheet.clips:,} clips, {sheet.speakers} speakers, {len(sheet.labels)} emotions" in first


@pytest.mark.parametrize(
    ("name", "clips", "speakers"), [("cremad", 7442, 91), ("ravdess", 600, 10), ("emodb", 535, 10)]
)
def test_every_real_file_name_is_parsed(corpora_root: Path, name: str, clips: int, speakers: int) -> None:
    folder = corpora_root / {"cremad": "cremad/AudioWAV"}.get(name, name)
    fields = [SHEETS[name].parse(path.stem) for path in folder.rglob("*.*")]
    assert len({f.id for f in fields if f}) == clips
    assert len({f.speaker for f in fields if f}) == speakers
    assert {f.emotion for f in fields if f} == set(SHEETS[name].labels)
