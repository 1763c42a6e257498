"""`verify`: missing, damaged, extra, different."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from ser_bench.corpora import catalogue, verify
from ser_bench.errors import CorpusError
from tests.support import forge

NAMES = [f"1001_{sentence}_ANG_XX" for sentence in ("DFA", "TIE", "IOM")]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three clips and their manifest."""
    monkeypatch.setitem(catalogue.SHEETS, "cremad", dataclasses.replace(catalogue.SHEETS["cremad"], clips=3))
    (tmp_path / "AudioWAV").mkdir()
    rows = ["file,sha256,bytes"]
    for i, name in enumerate(NAMES):
        content = forge.clip(i)
        (tmp_path / "AudioWAV" / f"{name}.wav").write_bytes(content)
        rows.append(f"{name}.wav,{hashlib.sha256(content).hexdigest()},{len(content)}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    return tmp_path / "AudioWAV"


def test_a_complete_copy(root: Path) -> None:
    found = verify("cremad", root)
    assert found.complete
    assert (found.clips, found.expected, found.compared) == (3, 3, 3)
    assert verify("cremad", root.parent) == dataclasses.replace(found, root=root.parent)


def test_what_is_missing_damaged_different_or_extra_is_named(root: Path) -> None:
    (root / f"{NAMES[0]}.wav").unlink()
    (root / f"{NAMES[1]}.wav").write_bytes(b"")
    (root / f"{NAMES[2]}.wav").write_bytes(forge.clip(99))
    (root / "song.wav").write_bytes(forge.clip(0))
    found = verify("cremad", root)
    assert not found.complete
    assert found.clips == 1
    assert found.missing == tuple(sorted(NAMES[:2]))
    assert list(found.damaged) == [str(root / f"{NAMES[1]}.wav")]
    assert found.different == (f"{NAMES[2]}.wav", f"{NAMES[1]}.wav")
    assert found.extra == (str(root / "song.wav"),)
    text = "\n".join(found.lines())
    for words in ("1 of 3 clips", "missing: 2 (1001_DFA_ANG_XX", "damaged: 1", "published: 0 of 2", "other audio"):
        assert words in text


def test_a_clip_twice(root: Path) -> None:
    (root / "copy").mkdir()
    (root / "copy" / f"{NAMES[0]}.wav").write_bytes((root / f"{NAMES[0]}.wav").read_bytes())
    found = verify("cremad", root)
    assert found.twice == (NAMES[0],)
    assert not found.complete


def test_a_manifest_that_cannot_be_read(root: Path) -> None:
    (root.parent / "manifest.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CorpusError, match="needs columns file, sha256 and bytes"):
        verify("cremad", root)


def test_what_cannot_be_verified_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no such folder"):
        verify("emodb", tmp_path / "none")
    with pytest.raises(CorpusError, match="no official release"):
        verify("table", tmp_path)


def test_real_ravdess_lacks_fourteen_actors_by_name(corpora_root: Path) -> None:
    found = verify("ravdess", corpora_root / "ravdess")
    assert (found.clips, found.missing_count, found.compared) == (600, 840, 0)
    assert {name[-2:] for name in found.missing} == {f"{actor:02d}" for actor in range(11, 25)}
    assert not found.damaged
    assert "no file could be compared" in found.lines()[-1]


def test_real_official_cremad_is_byte_for_byte_as_published(corpora_root: Path) -> None:
    found = verify("cremad", corpora_root / "cremad/official")
    assert (found.clips, found.compared, found.different) == (89, 89, ())
    assert found.missing_count == 7442 - 89
