"""Search for audio files in a folder with links, and warnings on levels, channels and formats that are not read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import corpora, new_audio
from ser_bench.config import Config, CorpusConfig, OnBadClip, Protocol, SplitConfig
from ser_bench.corpora import audio_files, verify
from ser_bench.corpora.audio_files import find_audio
from ser_bench.corpora.sheets.cremad import EMOTIONS
from ser_bench.errors import BadClipError, ConfigError, CorpusError
from ser_bench.inference.recording import Recording
from ser_bench.types import Corpus

RATE_HZ = 16_000
NAMES = [f"{actor}_DFA_{code}_XX" for actor in ("1001", "1002") for code in EMOTIONS]


def noise(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(RATE_HZ // 4)


def write(path: Path, samples: np.ndarray | None = None, subtype: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(0) if samples is None else samples, RATE_HZ, subtype=subtype)
    return path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two actors, one sentence, six emotions."""
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    for seed, name in enumerate(NAMES):
        write(tmp_path / "AudioWAV" / name[:4] / f"{name}.wav", noise(seed))
    return tmp_path / "AudioWAV"


def load(root: Path, skip: bool = False) -> Corpus:
    cfg = Config(split=SplitConfig(protocol=Protocol.speaker))
    cfg.corpus = CorpusConfig(name="cremad", root=str(root))
    cfg.on_bad_clip = OnBadClip.skip if skip else OnBadClip.stop
    return corpora.load(cfg)


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_audio(root)]


# ---- links


def test_linked_folders_are_followed_in_every_search(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "actor"
    moved.parent.mkdir()
    (root / "1002").rename(moved)
    (root / "1002").symlink_to(moved)
    assert len(load(root).clips) == 12
    assert verify("cremad", root).clips == 12
    assert len(new_audio.audio_files([root])) == 12
    (tmp_path / "all").symlink_to(root)
    assert {clip.speaker for clip in load(tmp_path / "all").clips} == {"1001", "1002"}


def test_a_link_inside_a_linked_folder_is_followed(tmp_path: Path) -> None:
    write(tmp_path / "third" / "c.wav")
    write(tmp_path / "second" / "b.wav")
    write(tmp_path / "first" / "a.wav")
    (tmp_path / "first" / "to2").symlink_to(tmp_path / "second")
    (tmp_path / "second" / "to3").symlink_to(tmp_path / "third")
    (tmp_path / "third" / "to1").symlink_to(tmp_path / "first")
    (tmp_path / "third" / "to2").symlink_to(tmp_path / "second")
    (tmp_path / "third" / "itself").symlink_to(".")
    assert found(tmp_path / "first") == ["a.wav", "to2/b.wav", "to2/to3/c.wav"]


def test_links_in_a_circle_end(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "1003_DFA_ANG_XX.wav")  # beside the corpus, which a link to the parent does not add
    (root / "itself").symlink_to(root)
    (root / "1001" / "up").symlink_to("..")
    (root / "parent").symlink_to(tmp_path)
    (root / "nowhere").symlink_to(tmp_path / "missing")
    (root / "circle").symlink_to(root / "circle")
    assert found(root) == [f"{name[:4]}/{name}.wav" for name in sorted(NAMES)]


def test_a_file_that_is_reached_in_two_ways_counts_once(root: Path) -> None:
    (root / "1003").symlink_to(root / "1002")
    (root / "0000").symlink_to(root / "1001")
    (root / "9").mkdir()
    (root / "9" / f"{NAMES[0]}.wav").symlink_to(root / "1001" / f"{NAMES[0]}.wav")
    assert found(root) == [f"{name[:4]}/{name}.wav" for name in sorted(NAMES)]
    assert len(load(root).clips) == 12
    assert len(new_audio.audio_files([root, root / "1003", root / "1001" / f"{NAMES[0]}.wav"])) == 12


def test_two_names_of_one_content_are_two_files(tmp_path: Path) -> None:
    """Stores that keep each content once (git-annex, the Hugging Face hub) link several names to it."""
    write(tmp_path / "store" / "blob.wav")
    (tmp_path / "corpus").mkdir()
    for name in ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"):
        (tmp_path / "corpus" / f"{name}.wav").symlink_to(tmp_path / "store" / "blob.wav")
    assert found(tmp_path / "corpus") == ["1006_TIE_HAP_XX.wav", "1006_TIE_NEU_XX.wav"]


def test_hidden_folders_are_not_followed_either(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "store" / "1003_DFA_ANG_XX.wav")
    (root / ".hidden").symlink_to(tmp_path / "store")
    assert len(found(root)) == 12


def test_a_folder_that_cannot_be_read_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("1002"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(CorpusError, match=r"1002: this folder cannot be read \(Permission denied\)"):
        find_audio(root)
    assert find_audio(root / "missing") == []


# ---- named pipes


def test_a_named_pipe_is_refused_wherever_files_are_opened(root: Path) -> None:
    pipe = root / "1001" / f"{NAMES[0]}.wav"
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(BadClipError, match="not a regular file"):
        load(root)
    assert load(root, skip=True).skipped.keys() == {str(pipe)}
    (root / "manifest.csv").write_text(f"file,sha256,bytes\n{pipe.name},{'0' * 64},9\n")
    inventory = verify("cremad", root)
    assert list(inventory.damaged) == [str(pipe)]
    assert inventory.different == (pipe.name,)
    assert pipe in new_audio.audio_files([root])
    with pytest.raises(BadClipError, match="not a regular file"):
        Recording.from_file(pipe)


def test_a_sparse_table_of_many_gigabytes_is_not_read(root: Path) -> None:
    (root / "VideoDemographics.csv").write_text("ActorID,Sex\n1001,Male\n")
    os.truncate(root / "VideoDemographics.csv", 30 << 30)
    with pytest.raises(CorpusError, match=r"Demographics\.csv: has 32,212,254,720 bytes, the limit is 268,435,456"):
        load(root)


# ---- formats that are not read


def test_a_folder_of_m4a_says_what_is_there_and_how_to_convert_it(tmp_path: Path) -> None:
    for name in NAMES[:3]:
        (tmp_path / f"{name}.m4a").write_bytes(b"\0\0\0\x20ftypM4A ")
    (tmp_path / "speech.wma").touch()
    words = r"no audio .*it has 3 \.m4a and 1 \.wma files, which libsndfile does not read.*`ffmpeg -i clip\.m4a clip"
    with pytest.raises(CorpusError, match=words):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"3 \.m4a and 1 \.wma files.*ffmpeg"):
        new_audio.audio_files([tmp_path])
    lines = verify("cremad", tmp_path).lines()
    assert any(line.startswith("left out: 3 .m4a and 1 .wma files") and "ffmpeg" in line for line in lines)
    with pytest.raises(BadClipError, match="ffmpeg -i"):
        Recording.from_file(tmp_path / f"{NAMES[0]}.m4a")


def test_a_folder_without_audio_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a.txt", "b.TXT", "README"):
        (tmp_path / name).touch()
    with pytest.raises(CorpusError, match=r"no audio .*it has 2 \.txt and 1 other files"):
        load(tmp_path)
    with pytest.raises(CorpusError, match=r"no audio .*it has no files"):
        load(tmp_path / "empty")


def test_files_that_are_not_read_beside_others_are_a_warning(root: Path) -> None:
    (root / "1003_DFA_ANG_XX.m4a").touch()
    (root / "notes.txt").touch()
    [line] = [line for line in load(root).warnings if "left out" in line]
    assert line.startswith("cremad: 1 .m4a files, which libsndfile does not read, are left out; convert each")


# ---- levels and channels


def test_clips_far_above_full_scale_are_one_warning_with_the_worst(root: Path) -> None:
    write(root / "1001" / f"{NAMES[0]}.wav", 1.5 * noise(0) / np.abs(noise(0)).max(), "FLOAT")
    assert not any("full scale" in line for line in load(root).warnings)
    write(root / "1001" / f"{NAMES[1]}.wav", 3.0 * noise(1) / np.abs(noise(1)).max(), "FLOAT")
    write(root / "1001" / f"{NAMES[2]}.wav", -7189.0 * noise(2) / np.abs(noise(2)).max(), "FLOAT")
    [line] = [line for line in load(root).warnings if "full scale" in line]
    assert line.startswith(f"cremad: 2 of 12 clips exceed full scale by more than a factor of 2, {NAMES[2]} by 7,189;")
    assert [line for line in load(root).warnings if "full scale" in line] == [line], "also from the cache"


def test_channels_that_cancel_are_a_warning(root: Path) -> None:
    left = noise(0)
    write(root / "1001" / f"{NAMES[0]}.wav", np.stack([left, -left], axis=1))
    write(root / "1001" / f"{NAMES[1]}.wav", np.stack([left, -0.9 * left], axis=1))
    write(root / "1001" / f"{NAMES[2]}.wav", np.stack([left, noise(9)], axis=1))
    write(root / "1001" / f"{NAMES[3]}.wav", np.stack([left, 0 * left], axis=1))
    lines = load(root).warnings
    assert any(f"1 of 12 clips are silent (not left out): {NAMES[0]}" in line for line in lines)
    [line] = [line for line in lines if "cancel" in line]
    words = "cremad: in 2 of 12 clips the channels cancel when they are averaged"
    assert line.startswith(f"{words}: {NAMES[0]}, {NAMES[1]};")


def test_predict_counts_what_it_leaves_out_of_a_folder(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "1001" / "other.m4a").touch()
    new_audio.audio_files([root])
    assert "1 .m4a files, which libsndfile does not read, are left out" in caplog.text


def test_real_corpora_have_no_warning_on_levels(corpora_root: Path) -> None:
    for path in sorted((corpora_root / "emodb" / "wav").glob("*.ogg"))[::10]:
        assert audio_files.level_warnings("emodb", {path.stem: audio_files.audio.probe(path)}) == []
