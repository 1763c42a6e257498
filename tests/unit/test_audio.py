"""Reading of every supported format, and detection of every kind of damaged file."""

from __future__ import annotations

import hashlib
import io
import struct
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from ser_bench import audio
from ser_bench.errors import BadClipError

RATE_HZ = 16_000


def tone(seconds: float = 1.0, rate_hz: int = RATE_HZ) -> np.ndarray:
    time_s = np.arange(int(seconds * rate_hz)) / rate_hz
    return (0.5 * np.sin(2 * np.pi * 220 * time_s)).astype(np.float32)


def written(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, subtype: str | None = None) -> Path:
    soundfile.write(path, samples, rate_hz, subtype=subtype)
    return path


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".mp3", ".aiff", ".au", ".caf", ".w64"])
def test_every_format_is_read(tmp_path: Path, extension: str) -> None:
    samples, rate = audio.read(written(tmp_path / f"a{extension}", tone()))
    assert extension in audio.EXTENSIONS
    assert rate == RATE_HZ
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert abs(len(samples) - RATE_HZ) < 0.2 * RATE_HZ  # MP3 pads
    assert 0.4 < np.abs(samples).max() < 0.6


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT"])
def test_sample_formats_agree(tmp_path: Path, subtype: str) -> None:
    samples, _ = audio.read(written(tmp_path / "a.wav", tone(), subtype=subtype))
    np.testing.assert_allclose(samples, tone(), atol=1 / 64)


def test_stereo_is_the_mean_of_its_channels(tmp_path: Path) -> None:
    both = np.stack([tone(), np.zeros(RATE_HZ, np.float32)], axis=1)
    path = written(tmp_path / "a.wav", both)
    samples, _ = audio.read(path)
    np.testing.assert_allclose(samples, tone() / 2, atol=1e-4)
    assert audio.probe(path).channels == 2


def test_load_resamples_8_khz(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone(rate_hz=8000), 8000)
    assert audio.load(path, 22_050).shape == (22_050,)


@pytest.mark.parametrize(("offset_s", "duration_s"), [(0.0, None), (0.6, 2.5), (0.25, 0.5), (0.3333, 0.1234)])
@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 11_025])
def test_load_agrees_with_librosa(tmp_path: Path, offset_s: float, duration_s: float | None, rate_hz: int) -> None:
    path = written(tmp_path / "a.wav", tone(1.7) + 0.01 * np.random.default_rng(0).standard_normal(27_200))
    ours = audio.load(path, rate_hz, offset_s, duration_s)
    theirs, _ = librosa.load(path, sr=rate_hz, offset=offset_s, duration=duration_s)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_load_of_a_stretch_beyond_the_end_is_empty(tmp_path: Path) -> None:
    assert audio.load(written(tmp_path / "a.wav", tone()), 22_050, offset_s=2.0).shape == (0,)


def test_probe_measures_length_rate_and_digest(tmp_path: Path) -> None:
    path, quieter = written(tmp_path / "a.wav", tone(1.5)), written(tmp_path / "b.wav", tone(1.5) / 2)
    info = audio.probe(path)
    assert (info.duration_s, info.sample_rate_hz, info.channels, info.silent) == (1.5, RATE_HZ, 1, False)
    assert info.digest == audio.content_digest(path) != audio.probe(quieter).digest


def test_the_content_digest_does_not_change(tmp_path: Path) -> None:
    """Run keys and cache keys contain it: with another digest, every cache would be computed again."""
    (tmp_path / "a").write_bytes(b"sound" * 100_000)
    assert audio.content_digest(tmp_path / "a") == hashlib.blake2b(b"sound" * 100_000, digest_size=16).hexdigest()
    (tmp_path / "a").write_bytes(b"")
    assert audio.content_digest(tmp_path / "a") == "cae66941d9efbd404e4d88758ea67670"
    with pytest.raises(BadClipError, match="none: cannot be read"):
        audio.content_digest(tmp_path / "none")


@pytest.mark.parametrize(("peak", "silent"), [(0.0, True), (0.4 / 32768, True), (2 / 32768, False)])
def test_silence_is_a_peak_below_one_step_of_16_bits(tmp_path: Path, peak: float, silent: bool) -> None:
    path = written(tmp_path / "a.wav", np.full(RATE_HZ, peak, np.float32), subtype="FLOAT")
    assert audio.probe(path).silent is silent


def assert_refused(path: Path, words: str, max_duration_s: float = 60.0) -> None:
    for reader in (audio.read, audio.probe):
        with pytest.raises(BadClipError, match=words) as caught:
            reader(path, max_duration_s)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "a.wav", "No such file")


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    assert_refused(tmp_path / "a.wav", "empty")


def test_not_audio(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("<html>404</html>" * 100)
    assert_refused(tmp_path / "a.wav", "not audio")


def test_header_without_samples(tmp_path: Path) -> None:
    assert_refused(written(tmp_path / "a.wav", np.zeros(0, np.float32)), "no audio samples")


def test_git_lfs_pointer_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 72862\n")
    assert_refused(tmp_path / "a.wav", r"Git LFS pointer.*git lfs pull.*ser-bench corpora prepare cremad")


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".aiff"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_truncated(tmp_path: Path, extension: str, share: float) -> None:
    path = written(tmp_path / f"a{extension}", tone(3.0) + 0.1 * np.random.default_rng(0).standard_normal(48_000))
    blob = path.read_bytes()
    path.write_bytes(blob[: int(share * len(blob))])
    assert_refused(path, "truncated|cannot be decoded|can be decoded|not audio")


def test_truncated_mp3_with_a_header_that_counts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mp3", tone(3.0))
    path.write_bytes(path.read_bytes()[:-2000])
    assert_refused(path, "truncated.*convert it to WAV")


def test_truncated_wav_is_not_taken_for_a_shorter_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone(3.0))
    path.write_bytes(path.read_bytes()[:-2000])
    assert soundfile.info(path).frames == 47_000  # libsndfile reports no error
    assert_refused(path, "truncated, its header states 96,044 bytes and the file has 94,044")


def test_wav_with_chunks_around_its_data_is_whole(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), RATE_HZ, format="WAV")
    blob = buffer.getvalue()
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    (tmp_path / "a.wav").write_bytes(blob[:36] + odd + blob[36:] + odd)
    assert audio.probe(tmp_path / "a.wav").duration_s == 1.0


def test_wav_from_a_pipe_has_no_size_and_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone())
    blob = bytearray(path.read_bytes())
    blob[4:8] = blob[40:44] = b"\xff" * 4
    path.write_bytes(bytes(blob))
    assert audio.probe(path).duration_s == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_numbers(tmp_path: Path, value: float) -> None:
    samples = tone()
    samples[777] = value
    assert_refused(written(tmp_path / "a.wav", samples, subtype="FLOAT"), "not numbers")


def test_twenty_minutes_are_not_one_utterance(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", np.zeros(20 * 60 * 8000, np.float32), 8000, "PCM_U8")
    assert_refused(path, "1200 s long.*corpus.max_duration_s=60")
    assert audio.probe(path, max_duration_s=1200).duration_s == 1200


def test_real_ogg_and_flac_are_whole_and_cut_ones_are_not(corpora_root: Path, tmp_path: Path) -> None:
    clips = [
        corpora_root / "cremad/AudioWAV/1001_DFA_ANG_XX.ogg",
        corpora_root / "emodb/wav/03a01Fa.ogg",
        corpora_root / "ravdess/Actor_01/03-01-01-01-01-01-01.flac",
        corpora_root / "cremad/official/1001_DFA_ANG_XX.wav",
    ]
    for clip in clips:
        assert audio.probe(clip).duration_s > 1
        cut = tmp_path / clip.name
        cut.write_bytes(clip.read_bytes()[:-500])
        assert_refused(cut, "truncated|can be decoded")


def test_the_copy_in_vorbis_has_the_official_length(corpora_root: Path) -> None:
    for stem in ("1001_DFA_ANG_XX", "1001_IEO_SAD_HI", "1076_MTI_SAD_XX"):
        official = audio.probe(corpora_root / f"cremad/official/{stem}.wav")
        copy = audio.probe(corpora_root / f"cremad/AudioWAV/{stem}.ogg")
        assert official.duration_s == copy.duration_s
        assert official.silent is copy.silent is (stem == "1076_MTI_SAD_XX")
