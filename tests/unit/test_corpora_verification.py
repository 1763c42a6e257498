"""Verification of a copy: missing, damaged, additional and different files."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from ser_bench.corpora import SHEETS, verify
from ser_bench.corpora.data_sheet import Fields
from ser_bench.errors import CorpusError
from tests.support import forge

NAMES = [f"1001_{sentence}_ANG_XX" for sentence in ("DFA", "TIE", "IOM")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clips and their manifest."""
    monkeypatch.setitem(SHEETS, "cremad", dataclasses.replace(SHEETS["cremad"], clips=3))
    (tmp_path / "AudioWAV").mkdir()
    rows = ["file,sha256,bytes"]
    for i, name in enumerate(NAMES):
        content = forge.clip(i)
        (tmp_path / "AudioWAV" / f"{name}.wav").write_bytes(content)
        rows.append(f"{name}.wav,{hashlib.sha256(content).hexdigest()},{len(content)}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "AudioWAV"


def test_a_complete_copy(root: Path) -> None:
    inventory = verify("cremad", root)
    assert inventory.complete
    assert (inventory.clips, inventory.expected, inventory.compared) == (3, 3, 3)
    assert verify("cremad", root.parent) == dataclasses.replace(inventory, root=root.parent)


def test_what_is_missing_damaged_different_or_extra_is_named(root: Path) -> None:
    (root / f"{NAMES[0]}.wav").unlink()
    (root / f"{NAMES[1]}.wav").write_bytes(b"")
    (root / f"{NAMES[2]}.wav").write_bytes(forge.clip(99))
    (root / "song.wav").write_bytes(forge.clip(0))
    inventory = verify("cremad", root)
    assert not inventory.complete
    assert inventory.clips == 1
    assert inventory.missing == tuple(sorted(NAMES[:2]))
    assert list(inventory.damaged) == [str(root / f"{NAMES[1]}.wav")]
    assert inventory.different == (f"{NAMES[2]}.wav", f"{NAMES[1]}.wav")
    assert inventory.extra == (str(root / "song.wav"),)
    text = "\n".join(inventory.lines())
    for words in (
        "1 of 3 clips",
        "missing: 2 (1001_DFA_ANG_XX",
        "damaged: 1",
        "published files: 0 of 2",
        "other audio",
    ):
        assert words in text


def test_a_clip_that_occurs_twice_is_reported(root: Path) -> None:
    (root / "copy").mkdir()
    (root / "copy" / f"{NAMES[0]}.wav").write_bytes((root / f"{NAMES[0]}.wav").read_bytes())
    inventory = verify("cremad", root)
    assert inventory.duplicates == (NAMES[0],)
    assert not inventory.complete


def test_a_manifest_that_cannot_be_read(root: Path) -> None:
    (root.parent / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CorpusError, match=r"manifest\.csv: .*file, sha256 and bytes"):
        verify("cremad", root)


@pytest.mark.parametrize("name", ["../../x.wav", "/x.wav", "a/x.wav", "..", "a\\x.wav", ""])
def test_a_manifest_with_paths_instead_of_names_is_refused(root: Path, name: str) -> None:
    (root.parent / "manifest.csv").write_text(f"file,sha256,bytes\n{name},{'0' * 64},1\n")
    with pytest.raises(CorpusError, match=r"manifest\.csv line 2: .* is not the name of a file in this folder"):
        verify("cremad", root)


@pytest.mark.parametrize("line", ["x.wav,abc", "x.wav,abc,1,2", "x.wav,abc,many", 'x.wav,"abc,1'])
def test_a_line_of_a_manifest_that_does_not_fit_its_header_is_refused(root: Path, line: str) -> None:
    (root.parent / "manifest.csv").write_text(f"file,sha256,bytes\n{line}\n")
    with pytest.raises(CorpusError, match=r"manifest\.csv line 2: .*`prepare` writes it again"):
        verify("cremad", root)


def test_a_copy_that_cannot_be_verified_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="none: no such folder"):
        verify("emodb", tmp_path / "none")
    with pytest.raises(CorpusError, match="no official release"):
        verify("table", tmp_path)


def test_real_ravdess_lacks_fourteen_actors_by_name(corpora_root: Path) -> None:
    inventory = verify("ravdess", corpora_root / "ravdess")
    assert (inventory.clips, inventory.missing_count, inventory.compared) == (600, 840, 0)
    assert {name[-2:] for name in inventory.missing} == {f"{actor:02d}" for actor in range(11, 25)}
    assert not inventory.damaged
    assert "not compared" in inventory.lines()[-1]


def test_real_official_cremad_is_byte_for_byte_as_published(corpora_root: Path) -> None:
    inventory = verify("cremad", corpora_root / "cremad/official")
    assert (inventory.clips, inventory.compared, inventory.different) == (89, 89, ())
    assert inventory.missing_count == 7442 - 89


def test_names_of_files_and_manifest_may_differ_in_unicode_form(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(stem: str) -> Fields:
        if stem != "\u00fc1":
            raise ValueError(stem)
        return Fields(stem, "sad", "s")

    monkeypatch.setitem(SHEETS, "emodb", dataclasses.replace(SHEETS["emodb"], parse=parse, clips=1, clip_ids=()))
    content = (root / f"{NAMES[0]}.wav").read_bytes()
    folder = root / "umlaut"
    folder.mkdir()
    (folder / "u\u03081.wav").write_bytes(content)
    line = f"\u00fc1.wav,{hashlib.sha256(content).hexdigest()},{len(content)}"
    (folder / "manifest.csv").write_text(f"file,sha256,bytes\n{line}\n", encoding="utf-8")
    inventory = verify("emodb", folder.rename(root / "\u00e4").with_name("a\u0308"))
    assert inventory.complete and inventory.compared == 1 and not inventory.extra
