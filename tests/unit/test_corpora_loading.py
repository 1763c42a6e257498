"""Loading one corpus: files that cannot be used are errors or counted, peculiarities are warnings."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import __version__, audio, corpora
from ser_bench.config import Config, CorpusConfig, LabelSet, OnBadClip, Protocol, SplitConfig
from ser_bench.corpora import audio_files, loading
from ser_bench.corpora.sheets.cremad import EMOTIONS
from ser_bench.errors import BadClipError, CacheError, ConfigError, CorpusError
from ser_bench.types import Corpus

RATE_HZ = 16_000


def tone(seed: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(seed).standard_normal(RATE_HZ // 4)


def write(path: Path, samples: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(0) if samples is None else samples, RATE_HZ)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two actors, one sentence, six emotions."""
    for actor in ("1001", "1002"):
        for code in EMOTIONS:
            write(
                tmp_path / "AudioWAV" / f"{actor}_DFA_{code}_XX.wav",
                tone(int(actor) * 100 + list(EMOTIONS).index(code)),
            )
    return tmp_path / "AudioWAV"


def config(root: Path | None, name: str = "cremad", skip: bool = False, **corpus: object) -> Config:
    cfg = Config(split=SplitConfig(protocol=Protocol.speaker))
    cfg.corpus = CorpusConfig(name=name, root=None if root is None else str(root), **corpus)  # type: ignore[arg-type]
    cfg.on_bad_clip = OnBadClip.skip if skip else OnBadClip.stop
    return cfg


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SER_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def load(*args: object, **kwargs: object) -> Corpus:
    return corpora.load(config(*args, **kwargs))  # type: ignore[arg-type]


def test_clips_are_sorted_and_complete_in_every_field(root: Path) -> None:
    (root.parent / "VideoDemographics.csv").write_text('"ActorID","Age","Sex"\n1001,51,"Male"\n1002,21,"Female"\n')
    corpus = load(root)
    assert [clip.id for clip in corpus.clips] == sorted(clip.id for clip in corpus.clips)
    assert len(corpus.clips) == 12
    clip = corpus.clips[0]
    assert (clip.id, clip.emotion, clip.speaker, clip.sentence) == ("1001_DFA_ANG_XX", "angry", "1001", "DFA")
    assert (clip.text, clip.intensity, clip.sex) == ("Don't forget a jacket", "", "male")
    assert clip.path == root / "1001_DFA_ANG_XX.wav"
    assert clip.duration_s == 0.25
    assert clip.digest == audio.probe(clip.path).digest
    assert corpus.labels == ("angry", "disgust", "fearful", "happy", "neutral", "sad")
    assert {c.sex for c in corpus.clips} == {"male", "female"}


def test_missing_clips_are_one_warning_with_counts(root: Path) -> None:
    assert load(root).warnings == ("cremad: this copy has 12 of 7,442 clips and 2 of 91 speakers",)


def test_sex_is_unknown_without_the_table(root: Path) -> None:
    assert {clip.sex for clip in load(root).clips} == {""}


def test_a_table_of_sexes_with_other_columns_is_refused(root: Path) -> None:
    (root / "VideoDemographics.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CorpusError, match="ActorID and Sex"):
        load(root)


def test_files_are_found_by_stem_at_any_depth_in_any_format(root: Path) -> None:
    for path in sorted(root.glob("1002*.wav")):
        samples, _ = soundfile.read(path)
        write(root / "deep" / "er" / f"{path.stem}.flac", samples)
        path.unlink()
    assert len(load(root.parent).clips) == 12


def test_hidden_files_and_resource_forks_are_ignored(root: Path) -> None:
    (root / "._1001_DFA_ANG_XX.wav").write_bytes(b"mac")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "1001_DFA_ANG_XX.wav").write_bytes(b"mac")
    assert len(load(root).clips) == 12


def test_unknown_corpus_lists_the_choices(root: Path) -> None:
    with pytest.raises(ConfigError, match="iemocap.*" + ", ".join(corpora.SHEETS)):
        load(root, name="iemocap")


def test_a_missing_folder_is_an_error_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere: no such folder; run `ser-bench corpora prepare cremad`"):
        load(tmp_path / "nowhere")


def test_without_a_root_the_folder_of_prepare_is_read(own_cache: Path) -> None:
    with pytest.raises(CorpusError, match=str(own_cache / "corpora" / "emodb")):
        load(None, name="emodb")


def test_a_file_as_root_is_an_error(root: Path) -> None:
    with pytest.raises(CorpusError, match="not a folder"):
        load(root / "1001_DFA_ANG_XX.wav")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="empty: no audio of cremad"):
        load(tmp_path / "empty")


def test_a_name_that_cannot_be_parsed(root: Path) -> None:
    stray = write(root / "my_song.wav")
    with pytest.raises(BadClipError, match=r"my_song\.wav: .*ACTOR_SENTENCE_EMOTION_LEVEL"):
        load(root)
    corpus = load(root, skip=True)
    assert list(corpus.skipped) == [str(stray)]
    assert len(corpus.clips) == 12


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _nan(path: Path) -> None:
    soundfile.write(path, np.full(4000, np.nan), RATE_HZ, subtype="FLOAT")


def _long(path: Path) -> None:
    soundfile.write(path, np.zeros(20 * 60 * 8000), 8000, subtype="PCM_U8")


BAD = {
    "is empty": lambda path: path.write_bytes(b""),
    "truncated": _cut,
    "not audio": lambda path: path.write_bytes(b"hello " * 50),
    "not numbers": _nan,
    "1200 s long": _long,
    "Git LFS pointer": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    ),
}


@pytest.mark.parametrize("words", BAD)
def test_a_bad_clip_is_an_error_with_its_name_or_is_skipped(root: Path, words: str) -> None:
    bad = root / "1002_DFA_HAP_XX.wav"
    BAD[words](bad)
    with pytest.raises(BadClipError, match=words) as caught:
        load(root)
    assert str(caught.value).startswith(str(bad))
    assert "on_bad_clip=skip" in str(caught.value)
    corpus = load(root, skip=True)
    assert list(corpus.skipped) == [str(bad)]
    assert words in corpus.skipped[str(bad)]
    assert len(corpus.clips) == 11


def test_the_first_bad_clip_by_name_is_the_one_reported(root: Path) -> None:
    for stem in ("1002_DFA_SAD_XX", "1001_DFA_FEA_XX"):
        (root / f"{stem}.wav").write_bytes(b"")
    with pytest.raises(BadClipError, match="1001_DFA_FEA_XX"):
        load(root)


def test_stereo_8_bit_and_8_khz_are_taken(root: Path) -> None:
    soundfile.write(root / "1001_DFA_ANG_XX.wav", np.stack([tone(1), tone(2)], axis=1), RATE_HZ)
    soundfile.write(root / "1001_DFA_DIS_XX.wav", tone(3), RATE_HZ, subtype="PCM_U8")
    soundfile.write(root / "1001_DFA_FEA_XX.wav", tone(4), 8000)
    assert len(load(root).clips) == 12


def test_a_silent_clip_is_loaded_and_counted(root: Path) -> None:
    write(root / "1001_DFA_SAD_XX.wav", np.zeros(4000))
    corpus = load(root)
    assert len(corpus.clips) == 12
    assert any(re.search("1 of 12 clips are silent.*: 1001_DFA_SAD_XX", line) for line in corpus.warnings)


def test_equal_files_with_different_labels_are_a_warning(root: Path) -> None:
    (root / "1001_DFA_HAP_XX.wav").write_bytes((root / "1001_DFA_NEU_XX.wav").read_bytes())
    lines = load(root).warnings
    assert any(re.search("1 recordings .*label: 1001_DFA_HAP_XX=1001_DFA_NEU_XX", line) for line in lines)


@pytest.mark.parametrize("twin", ["1001_DFA_ANG_XX.flac", "copy/1001_DFA_ANG_XX.wav"])
@pytest.mark.parametrize("skip", [False, True])
def test_one_clip_twice_is_refused(root: Path, twin: str, skip: bool) -> None:
    write(root / twin)
    with pytest.raises(CorpusError, match="same clip twice"):
        load(root, skip=skip)


def test_an_unofficial_spelling_is_read_as_the_official_one(root: Path) -> None:
    (root / "1001_DFA_SAD_XX.wav").rename(root / "1001_DFA_SAD_X.wav")
    assert "1001_DFA_SAD_XX" in load(root).by_id


def test_a_label_without_clips(root: Path) -> None:
    for path in root.glob("*_FEA_*"):
        path.unlink()
    with pytest.raises(CorpusError, match="no clip has the label fearful"):
        load(root)
    corpus = load(root, skip=True)
    assert corpus.labels == ("angry", "disgust", "happy", "neutral", "sad")
    assert any("no clip has the label fearful" in line for line in corpus.warnings)


def test_nothing_usable_is_an_error_even_when_skipping(root: Path) -> None:
    for path in root.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CorpusError, match="no usable clip"):
        load(root, skip=True)


def test_basic6_leaves_out_other_emotions_with_a_count(tmp_path: Path) -> None:
    for code in range(1, 9):
        write(tmp_path / "r" / f"03-01-0{code}-01-01-01-01.wav", tone(code))
    write(tmp_path / "r" / "03-02-01-01-01-01-01.wav")
    native, basic = load(tmp_path / "r", "ravdess"), load(tmp_path / "r", "ravdess", labels=LabelSet.basic6)
    assert native.labels[-2:] == ("calm", "surprised")
    assert basic.labels == native.labels[:6]
    assert (len(native.clips), len(basic.clips)) == (8, 6)
    assert "ravdess: corpus.labels=basic6 leaves out 2 clips (1 calm, 1 surprised)" in basic.warnings
    assert "ravdess: 1 files that are not speech clips (songs, videos) are left out" in native.warnings


def test_a_second_load_decodes_only_what_changed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    seen: list[str] = []
    probe = audio.probe

    def counted(path: Path, max_duration_s: float) -> audio.AudioInfo:
        seen.append(path.stem)
        return probe(path, max_duration_s)

    monkeypatch.setattr(audio_files.audio, "probe", counted)
    assert load(root) == first
    assert seen == []
    write(root / "1001_DFA_ANG_XX.wav", tone(99))
    os.utime(root / "1001_DFA_ANG_XX.wav", ns=(0, time.time_ns() + 10**9))
    assert load(root).digest != first.digest
    assert seen == ["1001_DFA_ANG_XX"]


def test_a_file_that_was_damaged_later_is_checked_again(root: Path) -> None:
    load(root)
    _cut(root / "1001_DFA_ANG_XX.wav")
    with pytest.raises(BadClipError, match="truncated"):
        load(root)


def test_a_damaged_cache_entry_is_written_again(root: Path, own_cache: Path) -> None:
    first = load(root)
    entries = [path for path in (own_cache / "index").rglob("*") if path.is_file()]
    assert len(entries) == 1
    entries[0].write_bytes(entries[0].read_bytes()[:-10])
    assert load(root) == first


def test_a_cache_that_cannot_be_written_is_an_error(root: Path, own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.raises(CacheError, match="cannot write to the cache"):
        load(root)


def test_the_demo_corpus_is_generated_once(own_cache: Path) -> None:
    pytest.importorskip("espeakng_loader")
    corpus = load(None, "demo", clips=36)
    folder = own_cache / "corpora" / "demo" / f"36-clips-seed-0-version-{__version__}"
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.wav")}
    assert corpus.synthetic
    assert len(corpus.clips) == len(stamps) == 36
    assert load(None, "demo", clips=36) == corpus
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.wav")} == stamps


def test_all_of_real_cremad(corpora_root: Path) -> None:
    listing = loading.list_files(corpora.SHEETS["cremad"], corpora_root / "cremad/AudioWAV")
    fields = [fields for _, fields in listing.clips]
    counts = {label: sum(f.emotion == label for f in fields) for label in corpora.SHEETS["cremad"].labels}
    assert len(fields) == 7442
    assert len({f.speaker for f in fields}) == 91
    assert counts == {"angry": 1271, "disgust": 1271, "fearful": 1271, "happy": 1271, "neutral": 1087, "sad": 1271}
    assert {f.intensity for f in fields if f.sentence == "IEO"} == {"low", "medium", "high", ""}
    assert {f.intensity for f in fields if f.sentence != "IEO"} == {""}


def test_official_cremad_has_three_pairs_and_a_silent_clip(corpora_root: Path) -> None:
    corpus = load(corpora_root / "cremad/official")
    assert len(corpus.clips) == 89
    by_id = corpus.by_id
    pairs = [("1006_TIE_HAP", "1006_TIE_NEU"), ("1013_WSI_DIS", "1013_WSI_SAD"), ("1017_IWW_ANG", "1017_IWW_FEA")]
    for first, second in pairs:
        assert by_id[f"{first}_XX"].digest == by_id[f"{second}_XX"].digest
    assert {clip.sex for clip in corpus.clips if clip.speaker == "1001"} == {"male"}
    lines = " | ".join(corpus.warnings)
    assert "89 of 7,442 clips and 5 of 91 speakers" in lines
    assert re.search("1 of 89 clips are silent.*: 1076_MTI_SAD_XX", lines)
    assert "3 recordings have more than one label" in lines


def test_real_ravdess_is_incomplete_and_can_be_loaded(corpora_root: Path) -> None:
    corpus = load(corpora_root / "ravdess", "ravdess")
    assert (len(corpus.clips), len({clip.speaker for clip in corpus.clips})) == (600, 10)
    assert "ravdess: this copy has 600 of 1,440 clips and 10 of 24 speakers" in corpus.warnings
    assert {clip.sex for clip in corpus.clips if clip.speaker == "02"} == {"female"}


def test_real_emodb_is_complete(corpora_root: Path) -> None:
    corpus = load(corpora_root / "emodb", "emodb", language="de")
    assert (len(corpus.clips), len({clip.speaker for clip in corpus.clips})) == (535, 10)
    assert corpus.warnings == ()
    assert corpus.language == "de"
    lengths = [clip.duration_s for clip in corpus.clips]
    assert 1.2 < min(lengths) < 1.3
    assert 8.9 < max(lengths) < 9.0


def test_a_recording_under_two_speakers_is_a_warning_that_names_the_clips(root: Path) -> None:
    (root / "1002_DFA_ANG_XX.wav").write_bytes((root / "1001_DFA_ANG_XX.wav").read_bytes())
    lines = load(root).warnings
    assert "cremad: 1 recordings have more than one speaker: 1001_DFA_ANG_XX=1002_DFA_ANG_XX" in lines
    assert not [line for line in lines if "label" in line]


def test_a_root_in_another_unicode_form_is_found(root: Path) -> None:
    composed = root.rename(root.parent / "M\u00fcller")
    assert len(load(composed.with_name("Mu\u0308ller")).clips) == 12
