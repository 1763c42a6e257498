"""Downloads from a local server that cuts connections, stalls, and sends wrong data: complete files, or none."""

from __future__ import annotations

import dataclasses
import email.utils
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ser_bench.corpora import SHEETS, DataSheet, Host, Remote, prepare, verify
from ser_bench.corpora.download import downloader, git_lfs, http_transfer
from ser_bench.corpora.download.http_transfer import ExpectedFile, Transfer, TransferLimits
from ser_bench.errors import ConfigError, CorpusError, DownloadError
from tests.support import forge as forges
from tests.support.forge import Forge

LIMITS = TransferLimits(attempts=3, pause_s=0.01, max_pause_s=2.0, timeout_s=0.4, min_bytes_per_s=10_000.0)
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
    """Data sheets with as many clips as the local server has, and without other hosts."""
    for name, clips in (("cremad", len(AUDIO)), ("ravdess", 3), ("tess", 3)):
        sheet: DataSheet = dataclasses.replace(SHEETS[name], clips=clips, clip_ids=(), remotes=())
        monkeypatch.setitem(SHEETS, name, sheet)


@pytest.fixture
def forge() -> Iterator[Forge]:
    with forges.running() as running:
        forges.serve_git_lfs(running, "main", AUDIO, TABLES)
        forges.serve_git_lfs(running, "mirror", AUDIO, TABLES)
        yield running


def repository(forge: Forge, name: str) -> Remote:
    return Remote(Host.git_lfs, url=f"{forge.url}/{name}", archive=f"{forge.url}/{name}/archive.tar.gz")


def fetch(forge: Forge, root: Path, *names: str) -> Path:
    sources = [repository(forge, name) for name in names or ("main",)]
    return prepare("cremad", root, remotes=sources, limits=LIMITS, jobs=4)


def object_path(name: str, repository: str = "main") -> str:
    return f"/{repository}/objects/{hashlib.sha256(AUDIO[name]).hexdigest()}"


def objects_asked(forge: Forge, repository: str = "main") -> int:
    return sum(n for path, n in forge.asked.items() if path.startswith(f"/{repository}/objects/"))


def assert_complete(root: Path, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Every file is correct, only `but` are missing, and no temporary file is left."""
    files = {path.name: path.read_bytes() for path in (root / "AudioWAV").iterdir()}
    assert files == {name: content for name, content in AUDIO.items() if name not in but}
    assert not [path for path in root.rglob("*") if path.name.startswith(".half-")]


def test_audio_tables_and_a_manifest_are_downloaded(forge: Forge, tmp_path: Path) -> None:
    root = fetch(forge, tmp_path / "cremad")
    assert_complete(root)
    assert (root / "VideoDemographics.csv").read_bytes() == TABLES["VideoDemographics.csv"]
    assert (root / "summaryTable.csv").is_file()
    assert not (root / "README.md").exists()
    assert len((root / "manifest.csv").read_text().splitlines()) == len(AUDIO) + 1
    assert forge.asked["/main.git/info/lfs/objects/batch"] == 2  # 105 objects, 100 a batch
    assert forge.headers["/main.git/info/lfs/objects/batch"]["Accept"] == "application/vnd.git-lfs+json"
    assert forge.headers[object_path("1001_DFA_ANG_XX.wav")]["X-Token"] == "abc"
    assert verify("cremad", root).complete


def test_complete_files_are_not_requested_again(forge: Forge, tmp_path: Path) -> None:
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
    assert_complete(tmp_path)
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
def test_a_temporary_failure_is_retried(forge: Forge, tmp_path: Path, trouble: forges.Trouble) -> None:
    path = object_path("1001_DFA_ANG_XX.wav")
    forge.troubles[path] = [trouble]
    forge.troubles["/main.git/info/lfs/objects/batch"] = [forges.status(503)]
    fetch(forge, tmp_path)
    assert_complete(tmp_path)
    assert forge.asked[path] == 2


@pytest.mark.parametrize("trouble", [*TROUBLES.values(), forges.status(404)], ids=[*TROUBLES, "404"])
def test_a_lasting_failure_loses_one_file_and_a_second_call_resumes(
    forge: Forge, tmp_path: Path, trouble: forges.Trouble
) -> None:
    name = "1001_DFA_ANG_XX.wav"
    forge.always(object_path(name), trouble)
    with pytest.raises(DownloadError, match="1 of 105 files") as caught:
        fetch(forge, tmp_path)
    assert "\n" not in str(caught.value)
    assert "corpus.root=FOLDER" in str(caught.value)
    assert_complete(tmp_path, but={name})
    assert not verify("cremad", tmp_path).complete
    forge.troubles.clear()
    forge.asked.clear()
    fetch(forge, tmp_path)
    assert_complete(tmp_path)
    assert objects_asked(forge) == 1


def test_the_second_host_delivers_the_files_that_the_first_did_not(forge: Forge, tmp_path: Path) -> None:
    forge.always(object_path("1003_TIE_ANG_XX.wav"), forges.status(404))
    fetch(forge, tmp_path, "main", "mirror")
    assert_complete(tmp_path)
    assert objects_asked(forge, "mirror") == 1


@pytest.mark.parametrize("code", [403, 429])
def test_an_exhausted_quota_leads_to_the_second_host_at_once(forge: Forge, tmp_path: Path, code: int) -> None:
    spent = forges.status(code, "This repository is over its data quota. Purchase more data packs to restore access.")
    forge.always("/main.git/info/lfs/objects/batch", spent)
    fetch(forge, tmp_path, "main", "mirror")
    assert_complete(tmp_path)
    assert forge.asked["/main.git/info/lfs/objects/batch"] == 1
    assert objects_asked(forge, "main") == 0
    assert "/mirror/archive.tar.gz" not in forge.asked  # the manifest already contains the pointers


def test_a_quota_error_on_every_object_leads_to_the_second_host(forge: Forge, tmp_path: Path) -> None:
    for name in AUDIO:
        forge.always(object_path(name), forges.status(403, "over its data quota"))
    fetch(forge, tmp_path, "main", "mirror")
    assert_complete(tmp_path)
    assert objects_asked(forge, "main") == 100  # one batch is sufficient to detect it


@pytest.mark.parametrize("trouble", [forges.status(404), forges.wrong, forges.short, forges.status(500)])
def test_a_broken_archive_leads_to_the_second_host(forge: Forge, tmp_path: Path, trouble: forges.Trouble) -> None:
    forge.always("/main/archive.tar.gz", trouble)
    fetch(forge, tmp_path, "main", "mirror")
    assert_complete(tmp_path)


def test_an_archive_with_audio_instead_of_pointers_is_refused(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/main/archive.tar.gz"] = forges.tar_gz({f"r/AudioWAV/{name}": AUDIO[name] for name in AUDIO})
    with pytest.raises(DownloadError, match="no Git LFS pointers in AudioWAV"):
        fetch(forge, tmp_path)


@pytest.mark.parametrize("answer", [b"[]", b"<html>", b'{"objects": [{"oid": 1}]}', b'{"objects": [{"actions": 3}]}'])
def test_an_invalid_response_is_an_error_in_one_line(forge: Forge, tmp_path: Path, answer: bytes) -> None:
    forge.answers["/main.git/info/lfs/objects/batch"] = answer
    with pytest.raises(DownloadError) as caught:
        fetch(forge, tmp_path)
    assert "\n" not in str(caught.value)


def test_without_any_host_the_error_contains_the_next_step(tmp_path: Path) -> None:
    sources = [Remote(Host.git_lfs, url=f"http://127.0.0.1:9/{i}", archive="http://127.0.0.1:9/a") for i in range(2)]
    with pytest.raises(DownloadError, match=r"no host could deliver.*corpus.root=FOLDER") as caught:
        prepare("cremad", tmp_path, remotes=sources, limits=LIMITS)
    assert str(caught.value).count("127.0.0.1:9: ") == 2
    assert str(caught.value).count("(2 attempts)") == 2  # without a network there are only two attempts
    assert "\n" not in str(caught.value)


def test_a_corpus_without_download_sources_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"demo: .*generated at its first use"):
        prepare("demo", tmp_path)
    with pytest.raises(CorpusError, match=r"table: .*corpus\.root"):
        prepare("table", tmp_path)
    with pytest.raises(ConfigError, match="unknown corpus"):
        prepare("iemocap", tmp_path)


def test_a_folder_that_cannot_be_written_does_not_lead_to_the_second_host(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CorpusError, match="cannot be written") as caught:
        fetch(forge, tmp_path / "file", "main", "mirror")
    assert not isinstance(caught.value, DownloadError)
    assert "/mirror/archive.tar.gz" not in forge.asked


# Retry-After


@pytest.mark.parametrize("as_date", [False, True])
def test_a_requested_pause_is_respected(forge: Forge, tmp_path: Path, as_date: bool) -> None:
    forge.answers["/file"] = b"content"
    value = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    forge.troubles["/file"] = [forges.status(429, Retry_After=value)]
    start = time.monotonic()
    Transfer.open(LIMITS).file(f"{forge.url}/file", tmp_path / "file", ExpectedFile())
    assert time.monotonic() - start > 0.9
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_requested_pause_that_is_too_long_is_an_error(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.status(503, Retry_After="3600"))
    start = time.monotonic()
    with pytest.raises(DownloadError, match="asks to wait 3,600 s"):
        Transfer.open(LIMITS).file(f"{forge.url}/file", tmp_path / "file", ExpectedFile())
    assert time.monotonic() - start < 1
    assert forge.asked["/file"] == 1


def test_a_file_that_does_not_end_is_cut_at_its_size(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.endless)
    with pytest.raises(DownloadError, match=r"more than 7 bytes were sent \(2 attempts\)"):
        Transfer.open(LIMITS).file(f"{forge.url}/file", tmp_path / "file", ExpectedFile(7))
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_unknown_size_is_cut_at_a_limit(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_transfer, "MAX_DOWNLOAD_BYTES", 1_000_000)
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.endless)
    with pytest.raises(DownloadError, match="more than 1,000,000 bytes were sent"):
        Transfer.open(LIMITS).file(f"{forge.url}/file", tmp_path / "file", ExpectedFile())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("trouble", [forges.endless, forges.endless_error], ids=["200", "500"])
def test_an_answer_that_does_not_end_is_not_read_into_memory(
    forge: Forge, monkeypatch: pytest.MonkeyPatch, trouble: forges.Trouble
) -> None:
    monkeypatch.setattr(http_transfer, "MAX_BODY_BYTES", 1_000_000)
    forge.answers["/list"] = b"[]"
    forge.always("/list", trouble)
    with pytest.raises(DownloadError, match=r"more than 1,000,000 bytes were sent|HTTP 404"):
        Transfer.open(LIMITS).json("GET", f"{forge.url}/list", {})


def test_a_clip_in_an_archive_that_unpacks_to_gigabytes_is_refused(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloader, "MAX_FILE_BYTES", 1_000_000)
    bomb = {"Actor_01/03-01-01-01-01-01-01.wav": bytes(1_000_001)}
    with pytest.raises(DownloadError, match=r"Actor_01/03-01-01-01-01-01-01\.wav in the archive has 1,000,001 bytes"):
        prepare("ravdess", tmp_path, remotes=[archive(forge, bomb)], limits=LIMITS)
    assert not list(tmp_path.rglob("*.wav"))


def test_a_table_in_a_repository_that_unpacks_to_gigabytes_is_refused(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_lfs, "TABLE_MAX_BYTES", 10)
    with pytest.raises(DownloadError, match=r"VideoDemographics\.csv in the archive of the repository has 22 bytes"):
        fetch(forge, tmp_path)


def test_the_number_of_attempts_is_limited(forge: Forge, tmp_path: Path) -> None:
    forge.answers["/file"] = b"content"
    forge.always("/file", forges.status(500))
    with pytest.raises(DownloadError, match=r"HTTP 500.*\(3 attempts\)"):
        Transfer.open(LIMITS).file(f"{forge.url}/file", tmp_path / "file", ExpectedFile())
    assert forge.asked["/file"] == LIMITS.attempts
    assert list(tmp_path.iterdir()) == []


# One archive: RAVDESS, EmoDB

RAVDESS = {f"Actor_0{i}/03-01-01-01-01-01-0{i}.wav": forges.clip(i) for i in (1, 2, 3)}


def archive(forge: Forge, files: dict[str, bytes], checksum: str | None = None) -> Remote:
    content = forges.zipped(files)
    forge.answers["/speech.zip"] = content
    md5 = f"md5:{hashlib.md5(content).hexdigest()}" if checksum is None else checksum
    return Remote(Host.archive, url=f"{forge.url}/speech.zip", checksum=md5, bytes=len(content))


def test_an_archive_is_checked_unpacked_and_not_requested_again(forge: Forge, tmp_path: Path) -> None:
    extra = {"__MACOSX/._03-01-01-01-01-01-01.wav": b"x", "readme.txt": b"x", "../03-01-02-01-01-01-01.wav": b"x"}
    source = archive(forge, RAVDESS | extra)
    forge.troubles["/speech.zip"] = [forges.cut]
    root = prepare("ravdess", tmp_path / "r", remotes=[source], limits=LIMITS)
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert {name: content for name, content in files.items() if name.startswith("Actor")} == RAVDESS
    assert not (tmp_path / "03-01-02-01-01-01-01.wav").exists()
    assert not [name for name in files if name.endswith(".zip")]
    forge.asked.clear()
    prepare("ravdess", root, remotes=[source], limits=LIMITS)
    assert not forge.asked


def test_an_archive_with_another_checksum_is_not_unpacked(forge: Forge, tmp_path: Path) -> None:
    source = archive(forge, RAVDESS, checksum="md5:" + "0" * 32)
    with pytest.raises(DownloadError, match=r"does not have the checksum md5:0{32} \(2 attempts\)"):
        prepare("ravdess", tmp_path, remotes=[source], limits=LIMITS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"<html>moved</html>", forges.zipped(RAVDESS)[:-40]])
def test_without_a_checksum_the_archive_must_be_complete(forge: Forge, tmp_path: Path, content: bytes) -> None:
    forge.answers["/speech.zip"] = content
    with pytest.raises(DownloadError, match="the archive is damaged"):
        prepare("ravdess", tmp_path, remotes=[Remote(Host.archive, f"{forge.url}/speech.zip")], limits=LIMITS)


def deflated(damage: str) -> bytes:
    """An archive with one clip whose compressed bytes are wrong, or that asks for a password."""
    content = bytearray(forges.zipped(dict([next(iter(RAVDESS.items()))])))
    if damage == "bytes":
        start = 30 + len(next(iter(RAVDESS)))  # after the local header and the name
        content[start : start + 8] = b"\xff" * 8
    else:
        for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            content[content.index(mark) + flags] |= 1
    return bytes(content)


@pytest.mark.parametrize(("damage", "message"), [("bytes", "is damaged"), ("password", "cannot be unpacked")])
def test_an_archive_that_cannot_be_unpacked_is_an_error(
    forge: Forge, tmp_path: Path, damage: str, message: str
) -> None:
    forge.answers["/speech.zip"] = deflated(damage)
    with pytest.raises(DownloadError, match=f"the archive {message}"):
        prepare("ravdess", tmp_path, remotes=[Remote(Host.archive, f"{forge.url}/speech.zip")], limits=LIMITS)


def test_without_a_checksum_all_clips_must_be_decodable(forge: Forge, tmp_path: Path) -> None:
    files = dict(RAVDESS)
    files["Actor_02/03-01-01-01-01-01-02.wav"] = b"not audio"
    with pytest.raises(DownloadError, match="2 of 3 clips"):
        prepare("ravdess", tmp_path, remotes=[archive(forge, files, checksum="")], limits=LIMITS)


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


def test_a_data_set_is_downloaded_file_by_file(forge: Forge, dataverse: Remote, tmp_path: Path) -> None:
    forge.troubles["/api/access/datafile/1"] = [forges.wrong]
    root = prepare("tess", tmp_path, remotes=[dataverse], limits=LIMITS)
    assert {path.name: path.read_bytes() for path in (root / "OAF_angry").iterdir()} == TESS
    assert "/api/access/datafile/99" not in forge.asked
    (root / "OAF_angry/OAF_bar_angry.wav").unlink()
    forge.asked.clear()
    prepare("tess", tmp_path, remotes=[dataverse], limits=LIMITS)
    assert [path for path in forge.asked if "datafile" in path] == ["/api/access/datafile/1"]


def test_an_incomplete_data_set_is_an_error(forge: Forge, dataverse: Remote, tmp_path: Path) -> None:
    del forge.answers["/api/access/datafile/2"]
    with pytest.raises(DownloadError, match="HTTP 404"):
        prepare("tess", tmp_path, remotes=[dataverse], limits=LIMITS)
    assert len(list((tmp_path / "OAF_angry").iterdir())) == 2


# Files are written inside the folder only


def test_a_path_in_a_manifest_writes_nothing_outside_the_folder(forge: Forge, tmp_path: Path) -> None:
    root = fetch(forge, tmp_path / "inner" / "cremad")
    manifest = root / "manifest.csv"
    first = manifest.read_text().splitlines()[1].partition(",")[0]
    manifest.write_text(manifest.read_text().replace(first, f"../../{first}"))
    with pytest.raises(CorpusError, match=r"manifest\.csv line 2: .*is not the name of a file"):
        fetch(forge, root)
    assert not list(tmp_path.glob("*.wav")) and not list((tmp_path / "inner").glob("*.wav"))


def test_nothing_is_written_through_a_link_to_another_folder(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name, folder in (("cremad", "AudioWAV"), ("ravdess", "Actor_01")):
        root = tmp_path / name
        root.mkdir()
        (root / folder).symlink_to(tmp_path / "elsewhere")
        with pytest.raises(CorpusError, match=rf"{folder}/.*outside the folder of the corpus, to .*elsewhere"):
            source = repository(forge, "main") if name == "cremad" else archive(forge, RAVDESS)
            prepare(name, root, remotes=[source], limits=LIMITS)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_folder_of_a_corpus_may_be_a_link(forge: Forge, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert_complete(fetch(forge, tmp_path / "link"))


def test_a_folder_in_a_data_set_cannot_lead_out_of_the_corpus(forge: Forge, dataverse: Remote, tmp_path: Path) -> None:
    listing = next(path for path in forge.answers if "persistentId" in path)
    forge.answers[listing] = forge.answers[listing].replace(b'"OAF_angry"', b'"a/.."')
    with pytest.raises(DownloadError, match="without name, size or id"):
        prepare("tess", tmp_path / "tess", remotes=[dataverse], limits=LIMITS)
    assert not list(tmp_path.glob("*.wav"))
