"""Downloads against a host on loopback that cuts, stalls, lies and refuses: whole files, or none."""

from __future__ import annotations

import dataclasses
import email.utils
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ser_bench.corpora import Host, Remote, Sheet, catalogue, prepare, verify
from ser_bench.corpora.transfer import Expected, Patience, Transfer
from ser_bench.errors import ConfigError, CorpusError, DownloadError
from tests.support import forge as forges
from tests.support.forge import Forge

PATIENCE = Patience(attempts=3, pause_s=0.01, longest_pause_s=2.0, silence_s=0.4, slowest_bytes_per_s=10_000.0)
STEMS = [
    f"{actor}_{sentence}_ANG_XX" for actor in range(1001, 1022) for sentence in ("DFA", "TIE", "IOM", "IWW", "TAI")
]
AUDIO = {f"{stem}.wav": forges.clip(i) for i, stem in enumerate(STEMS)}
TABLES = {
    "VideoDemographics.csv": b"ActorID,Sex\n1001,Male\n",
    "processedResults/summaryTable.csv": b"fileName,VoiceVote\n",
    "README.md": b"not wanted",
}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corpora as small as what the forge holds, with no host outside this machine."""
    for name, clips in (("cremad", len(AUDIO)), ("ravdess", 3), ("tess", 3)):
        sheet: Sheet = dataclasses.replace(catalogue.SHEETS[name], clips=clips, names=(), remotes=())
        monkeypatch.setitem(catalogue.SHEETS, name, sheet)


@pytest.fixture
def forge() -> Iterator[Forge]:
    with forges.running() as running:
        forges.serve_git_lfs(running, "main", AUDIO, TABLES)
        forges.serve_git_lfs(running, "mirror", AUDIO, TABLES)
        yield running


def repository(forge: Forge, name: str) -> Remote:
    return Remote(Host.git_lfs, url=f"{forge.url}/{name}", archive=f"{forge.url}/{name}/archive.tar.gz")


def fetch(forge: Forge, root: Path, *names: str) -> Path:
    places = [repository(forge, name) for name in names or ("main",)]
    return prepare("cremad", root, remotes=places, patience=PATIENCE, jobs=4)


def object_path(name: str, repository: str = "main") -> str:
    return f"/{repository}/objects/{hashlib.sha256(AUDIO[name]).hexdigest()}"


def objects_asked(forge: Forge, repository: str = "main") -> int:
    return sum(n for path, n in forge.asked.items() if path.startswith(f"/{repository}/objects/"))


def assert_whole(root: Path, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Every file that is there is right, only `but` are missing, and nothing half-written lies about."""
    here = {path.name: path.read_bytes() for path in (root / "AudioWAV").iterdir()}
    assert here == {name: content for name, content in AUDIO.items() if name not in but}
    assert not [path for path in root.rglob("*") if path.name.startswith(".half-")]


def test_everything_comes_with_its_tables_and_a_manifest(forge: Forge, tmp_path: Path) -> None:
    root = fetch(forge, tmp_path / "cremad")
    assert_whole(root)
    assert (root / "VideoDemographics.csv").read_bytes() == TABLES["VideoDemographics.csv"]
    assert (root / "summaryTable.csv").is_file()
    assert not (root / "README.md").exists()
    assert len((root / "manifest.csv").read_text().splitlines()) == len(AUDIO) + 1
    assert forge.asked["/main.git/info/lfs/objects/batch"] == 2  # 105 objects, 100 a batch
    assert forge.headers["/main.git/info/lfs/objects/batch"]["Accept"] == "application/vnd.git-lfs+json"
    assert forge.headers[object_path("1001_DFA_ANG_XX.wav")]["X-Token"] == "abc"
    assert verify("cremad", root).complete


def test_nothing_is_asked_again_for_what_is_here(forge: Forge, tmp_path: Path) -> None:
    fetch(forge, tmp_path)
    forge.asked.clear()
    fetch(forge, tmp_path)
    assert not forge.asked


def test_only_what_is_missing_or_damaged_is_fetched(forge: Forge, tmp_path: Path) -> None:
    fetch(forge, tmp_path)
    forge.asked.clear()
    (tmp_path / "AudioWAV/1001_DFA_ANG_XX.wav").unlink()
    damaged = tmp_path / "AudioWAV/1002_DFA_ANG_XX.wav"
    damaged.write_bytes(bytes(len(damaged.read_bytes())))
    fetch(forge, tmp_path)
    assert_whole(tmp_path)
    assert objects_asked(forge) == 2
    assert "/main/archive.tar.gz" not in forge.asked


TROUBLES = {
    "cut": forges.cut,
    "short": forges.short,
    "wrong bytes": forges.wrong,
    "429": forges.status(429),
    "503 with a wait": forges.status(503, Retry_After="0"),
    "silent": forges.silent,
    "trickling": forges.trickling,
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_a_passing_trouble_is_got_over(forge: Forge, tmp_path: Path, trouble: forges.Trouble) -> None:
    path = object_path("1001_DFA_ANG_XX.wav")
    forge.troubles[path] = [trouble]
    forge.troubles["/main.git/info/lfs/objects/batch"] = [forges.status(503)]
    fetch(forge, tmp_path)
    assert_whole(tmp_path)
    assert forge.asked[path] == 2


@pytest.mark.parametrize("trouble", [*TROUBLES.values(), forges.status(404)], ids=[*TROUBLES, "404"])
def test_a_lasting_trouble_costs_one_file_and_a_second_run_goes_on(
    forge: Forge, tmp_path: Path, trouble: forges.Trouble
) -> None:
    name = "1001_DFA_ANG_XX.wav"
    forge.always(object_path(name), trouble)
    with pytest.raises(DownloadError, match="1 of 105 files did not come") as caught:
        fetch(forge, tmp_path)
    assert "\n" not in str(caught.value)
    assert "corpus.root=FOLDER" in str(caught.value)
    assert_whole(tmp_path, but={name})
    assert not verify("cremad", tmp_path).complete
    forge.troubles.clear()
    forge.asked.clear()
    fetch(forge, tmp_path)
    assert_whole(tmp_path)
    assert objects_asked(forge) == 1


def test_the_second_mirror_is_asked_for_what_the_first_did_not_deliver(forge: Forge, tmp_path: Path) -> None:
    forge.always(object_path("1003_TIE_ANG_XX.wav"), forges.status(404))
    fetch(forge, tmp_path, "main", "mirror")
    assert_whole(tmp_path)
    assert objects_asked(forge, "mirror") == 1


@pytest.mark.parametrize("code", [403, 429])
def test_a_spent_quota_sends_to_the_second_mirror_at_once(forge: Forge, tmp_path: Path, code: int) -> None:
    spent = forges.status(code, "This repository is over its data quota. Purchase more data packs to restore access.")
    forge.always("/main.git/info/lfs/objects/batch", spent)
    fetch(forge, tmp_path, "main", "mirror")
    assert_whole(tmp_path)
    assert forge.asked["/main.git/info/lfs/objects/batch"] == 1
    assert objects_asked(forge, "main") == 0
    assert "/mirror/archive.tar.gz" not in forge.asked  # the pointers are known by then


def test_a_quota_spent_object_by_object_sends_to_the_second_mirror(forge: Forge, tmp_path: Path) -> None:
    for name in AUDIO:
        forge.always(object_path(name), forges.status(403, "over its data quota"))
    fetch(forge, tmp_path, "main", "mirror")
    assert_whole(tmp_path)
    assert objects_asked(forge, "main") == 100  # one batch was enough to see it


@pytest.mark.parametrize("trouble", [forges.status(404), forges.wrong, forges.short, forges.status(500)])
def test_an_archive_that_cannot_be_had_sends_to_the_second_mirror(
    forge: Forge, tmp_path: Path, trouble: forges.Trouble
) -> None:
    forge.always("/main/archive.tar.gz", trouble)
    fetch(forge, tmp_path, "main", "mirror")
    assert_whole(tmp_path)


def test_an_archive_with_audio_in_place_of_pointers_is_not_taken(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/main/archive.tar.gz"] = forges.tar_gz({f"r/AudioWAV/{name}": AUDIO[name] for name in AUDIO})
    with pytest.raises(DownloadError, match="holds no Git LFS pointers in AudioWAV"):
        fetch(forge, tmp_path)


@pytest.mark.parametrize("answer", [b"[]", b"<html>", b'{"objects": [{"oid": 1}]}', b'{"objects": [{"actions": 3}]}'])
def test_an_answer_that_makes_no_sense_is_one_clear_error(forge: Forge, tmp_path: Path, answer: bytes) -> None:
    forge.answers["/main.git/info/lfs/objects/batch"] = answer
    with pytest.raises(DownloadError) as caught:
        fetch(forge, tmp_path)
    assert "\n" not in str(caught.value)


def test_where_no_host_answers_one_error_says_what_to_do(tmp_path: Path) -> None:
    places = [Remote(Host.git_lfs, url=f"http://127.0.0.1:9/{i}", archive="http://127.0.0.1:9/a") for i in range(2)]
    with pytest.raises(DownloadError, match=r"no host could deliver.*point corpus.root=FOLDER at a copy") as caught:
        prepare("cremad", tmp_path, remotes=places, patience=PATIENCE)
    assert str(caught.value).count("127.0.0.1:9: ") == 2
    assert str(caught.value).count("(2 attempts)") == 2  # without a network nobody waits for five
    assert "\n" not in str(caught.value)


def test_what_is_not_downloaded_says_so(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="generated on first use"):
        prepare("demo", tmp_path)
    with pytest.raises(CorpusError, match="yours"):
        prepare("table", tmp_path)
    with pytest.raises(ConfigError, match="unknown corpus"):
        prepare("iemocap", tmp_path)


def test_a_folder_that_cannot_be_written_is_no_mirrors_fault(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusError, match="cannot be written") as caught:
        fetch(forge, tmp_path / "file", "main", "mirror")
    assert not isinstance(caught.value, DownloadError)
    assert "/mirror/archive.tar.gz" not in forge.asked


# Retry-After


@pytest.mark.parametrize("as_date", [False, True])
def test_a_wait_that_is_asked_for_is_kept(forge: Forge, tmp_path: Path, as_date: bool) -> None:
    forge.answers["/file"] = b"content"
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    forge.troubles["/file"] = [forges.status(429, Retry_After=value)]
    start = time.monotonic()
    Transfer.open(PATIENCE).file(f"{forge.url}/file", tmp_path / "file", Expected())
    assert time.monotonic() - start > 0.9
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_wait_that_is_too_long_is_not_kept(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.status(503, Retry_After="3600"))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="asks to wait 3,600 s"):
        Transfer.open(PATIENCE).file(f"{forge.url}/file", tmp_path / "file", Expected())
    assert time.monotonic() - start < 1
    assert forge.asked["/file"] == 1


def test_attempts_are_bounded(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.status(500))
    with pytest.raises(DownloadError, match=r"HTTP 500.*\(3 attempts\)"):
        Transfer.open(PATIENCE).file(f"{forge.url}/file", tmp_path / "file", Expected())
    assert forge.asked["/file"] == PATIENCE.attempts
    assert list(tmp_path.iterdir()) == []


# One archive: RAVDESS, EmoDB

RAVDESS = {f"Actor_0{i}/03-01-01-01-01-01-0{i}.wav": forges.clip(i) for i in (1, 2, 3)}


def archive(forge: Forge, files: dict[str, bytes], checksum: str | None = None) -> Remote:
    content = forges.zipped(files)
    forge.answers["/speech.zip"] = content
    md5 = f"md5:{hashlib.md5(content).hexdigest()}" if checksum is None else checksum
    return Remote(Host.archive, url=f"{forge.url}/speech.zip", checksum=md5, bytes=len(content))


def test_an_archive_is_checked_unpacked_and_not_asked_again(forge: Forge, tmp_path: Path) -> None:
    extra = {"__MACOSX/._03-01-01-01-01-01-01.wav": b"x", "readme.txt": b"x", "../03-01-02-01-01-01-01.wav": b"x"}
    place = archive(forge, RAVDESS | extra)
    forge.troubles["/speech.zip"] = [forges.cut]
    root = prepare("ravdess", tmp_path / "r", remotes=[place], patience=PATIENCE)
    here = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {name: content for name, content in here.items() if name.startswith("Actor")} == RAVDESS
    assert not (tmp_path / "03-01-02-01-01-01-01.wav").exists()
    assert not [name for name in here if name.endswith(".zip")]
    forge.asked.clear()
    prepare("ravdess", root, remotes=[place], patience=PATIENCE)
    assert not forge.asked


def test_an_archive_with_another_checksum_is_not_unpacked(forge: Forge, tmp_path: Path) -> None:
    place = archive(forge, RAVDESS, checksum="md5:" + "0" * 32)
    with pytest.raises(DownloadError, match=r"does not have the checksum md5:0{32} \(2 attempts\)"):
        prepare("ravdess", tmp_path, remotes=[place], patience=PATIENCE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>moved</html>", forges.zipped(RAVDESS)[:-40]])
def test_without_a_checksum_the_archive_must_be_whole(forge: Forge, tmp_path: Path, content: bytes) -> None:
    forge.answers["/speech.zip"] = content
    with pytest.raises(DownloadError, match="the archive is damaged"):
        prepare("ravdess", tmp_path, remotes=[Remote(Host.archive, f"{forge.url}/speech.zip")], patience=PATIENCE)


def deflated(damage: str) -> bytes:
    """An archive with one clip whose compressed bytes are wrong, or that asks for a password."""
    content = bytearray(forges.zipped(dict([next(iter(RAVDESS.items()))])))
    if damage == "bytes":
        start = 30 + len(next(iter(RAVDESS)))  # behind the local header and the name
        content[start : start + 8] = b"\xff" * 8
    else:
        for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(mark) + flags] |= 1
    return bytes(content)


@pytest.mark.parametrize(("damage", "said"), [("bytes", "is damaged"), ("password", "cannot be unpacked here")])
def test_an_archive_that_cannot_be_unpacked_is_one_clear_error(
    forge: Forge, tmp_path: Path, damage: str, said: str
) -> None:
    forge.answers["/speech.zip"] = deflated(damage)
    with pytest.raises(DownloadError, match=f"the archive {said}"):
        prepare("ravdess", tmp_path, remotes=[Remote(Host.archive, f"{forge.url}/speech.zip")], patience=PATIENCE)


def test_without_a_checksum_the_clips_must_decode_and_be_all(forge: Forge, tmp_path: Path) -> None:
    files = dict(RAVDESS)
    files["Actor_02/03-01-01-01-01-01-02.wav"] = b"not audio"
    with pytest.raises(DownloadError, match="holds 2 of 3 clips"):
        prepare("ravdess", tmp_path, remotes=[archive(forge, files, checksum="")], patience=PATIENCE)


# A Dataverse data set: TESS

TESS = {f"OAF_{word}_angry.wav": forges.clip(i) for i, word in enumerate(("back", "bar", "base"))}


@pytest.fixture
def dataverse(forge: Forge) -> Remote:
    items = [{"label": "TESS.txt", "dataFile": {"id": 99, "filesize": 1, "md5": "0"}}]
    for i, (name, content) in enumerate(TESS.items()):
        file = {"id": i, "filesize": len(content), "md5": hashlib.md5(content).hexdigest()}
        items.append({"label": name, "directoryLabel": "OAF_angry", "dataFile": file})
        forge.answers[f"/api/access/datafile/{i}"] = content
    listing = "/api/datasets/:persistentId/versions/:latest-published/files?persistentId=doi:1/X"
    forge.answers[listing] = json.dumps({"status": "OK", "data": items}).encode()
    return Remote(Host.dataverse, url=forge.url, archive="doi:1/X")


def test_a_data_set_is_fetched_file_by_file(forge: Forge, dataverse: Remote, tmp_path: Path) -> None:
    forge.troubles["/api/access/datafile/1"] = [forges.wrong]
    root = prepare("tess", tmp_path, remotes=[dataverse], patience=PATIENCE)
    assert {path.name: path.read_bytes() for path in (root / "OAF_angry").iterdir()} == TESS
    assert "/api/access/datafile/99" not in forge.asked
    (root / "OAF_angry/OAF_bar_angry.wav").unlink()
    forge.asked.clear()
    prepare("tess", tmp_path, remotes=[dataverse], patience=PATIENCE)
    assert [path for path in forge.asked if "datafile" in path] == ["/api/access/datafile/1"]


def test_a_data_set_that_is_not_complete_is_said(forge: Forge, dataverse: Remote, tmp_path: Path) -> None:
    del forge.answers["/api/access/datafile/2"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        prepare("tess", tmp_path, remotes=[dataverse], patience=PATIENCE)
    assert len(list((tmp_path / "OAF_angry").iterdir())) == 2
