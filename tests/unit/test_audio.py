"""Reading of every supported format, and detection of every kind of damaged file."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import time
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


def wav_by_hand(path: Path, data_bytes: int, riff_bytes: int, samples: np.ndarray, after: bytes = b"") -> Path:
    """Write a 16-bit WAV file whose header states these sizes, whatever follows."""
    header = struct.pack("<4sI4s", b"RIFF", riff_bytes, b"WAVE")
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE_HZ, 2 * RATE_HZ, 2, 16)
    header += struct.pack("<4sI", b"data", data_bytes)
    path.write_bytes(header + (samples * 32_767).astype("<i2").tobytes() + after)
    return path


@pytest.mark.parametrize(("data_bytes", "riff_bytes"), [
    (0x7FFFF000, 0x7FFFF024),  # sox
    (0x7FFFFFDB, 0x7FFFFFFF),
    (0x80000000, 0x80000024),  # arecord
    (0xFFFFFFFF - 36, 0xFFFFFFFF),
    (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
    (0, 0),
    (0, 36),
    (0, 0xFFFFFFFF),
])  # fmt: skip
def test_wav_from_a_pipe_is_whole_whatever_size_it_states(tmp_path: Path, data_bytes: int, riff_bytes: int) -> None:
    path = wav_by_hand(tmp_path / "a.wav", data_bytes, riff_bytes, tone())
    assert audio.probe(path).duration_s == 1.0
    np.testing.assert_allclose(audio.read(path)[0], tone(), atol=1e-4)
    np.testing.assert_allclose(audio.load(path, RATE_HZ, 0.25, 0.5), tone()[4000:12_000], atol=1e-4)


@pytest.mark.parametrize("excess", [1, 16, 36, 44])
def test_a_size_that_counts_the_header_too_is_no_truncation(tmp_path: Path, excess: int) -> None:
    path = wav_by_hand(tmp_path / "a.wav", 32_000 + excess, 32_036 + excess, tone())
    assert audio.probe(path).duration_s == 1.0


def test_a_wav_without_samples_stays_empty(tmp_path: Path) -> None:
    assert_refused(wav_by_hand(tmp_path / "a.wav", 0, 36, np.zeros(0)), "no audio samples")
    info = b"LIST" + struct.pack("<I", 4) + b"INFO"
    assert_refused(wav_by_hand(tmp_path / "b.wav", 0, 48, np.zeros(0), info), "no audio samples")


@pytest.mark.parametrize("riff_bytes", [16_036, 32_036])
def test_a_header_that_states_half_is_refused_and_not_read_half(tmp_path: Path, riff_bytes: int) -> None:
    path = wav_by_hand(tmp_path / "a.wav", 16_000, riff_bytes, tone())
    assert soundfile.info(path).frames == 8000
    assert_refused(path, "states 16,000 bytes of samples, but 16,000 bytes follow that belong to nothing")


def test_two_wavs_in_one_file_are_refused(tmp_path: Path) -> None:
    path = wav_by_hand(tmp_path / "a.wav", 32_000, 32_036, tone())
    path.write_bytes(2 * path.read_bytes())
    assert_refused(path, "states 32,000 bytes of samples, but 32,044 bytes follow that belong to nothing")


@pytest.mark.parametrize("after", [b"ID3" + bytes(range(1, 255)) * 20, bytes(50_000), b"\x01\xfe" * 500])
def test_a_tag_padding_or_little_after_the_samples_is_ignored(tmp_path: Path, after: bytes) -> None:
    assert audio.probe(wav_by_hand(tmp_path / "a.wav", 32_000, 32_036, tone(), after)).duration_s == 1.0


@pytest.mark.parametrize(("extension", "subtype"), [
    (".wav", "GSM610"), (".wav", "G721_32"), (".wav", "NMS_ADPCM_16"), (".aiff", "GSM610"), (".au", "G723_24"),
    (".w64", "GSM610"),
])  # fmt: skip
def test_a_coding_without_random_access_is_read(tmp_path: Path, extension: str, subtype: str) -> None:
    path = written(tmp_path / f"a{extension}", tone(rate_hz=8000), 8000, subtype)
    assert audio.probe(path).duration_s == pytest.approx(1.0, abs=0.05)
    samples, _ = audio.read(path)
    assert np.corrcoef(samples[:8000], tone(rate_hz=8000))[0, 1] > 0.9
    np.testing.assert_array_equal(audio.load(path, 8000, 0.25, 0.5), samples[2000:6000])


@pytest.mark.parametrize("extension", [".au", ".w64", ".rf64", ".caf"])
def test_other_containers_that_are_truncated(tmp_path: Path, extension: str) -> None:
    path = written(tmp_path / f"a{extension}", tone())
    assert audio.probe(path).duration_s == 1.0
    path.write_bytes(path.read_bytes()[:-4000])
    assert_refused(path, "truncated|malformed")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_flipped_bit_of_an_ogg_file_is_found(tmp_path: Path, subtype: str) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    path = written(tmp_path / "a.ogg", tone(3.0) + noise, subtype=subtype)
    assert_every_flipped_bit_is_found(path.read_bytes(), path, 60)


def assert_every_flipped_bit_is_found(blob: bytes, path: Path, flips: int) -> None:
    rng = np.random.default_rng(0)
    for position, bit in zip(rng.integers(len(blob), size=flips), rng.integers(8, size=flips), strict=True):
        damaged = bytearray(blob)
        damaged[position] ^= 1 << bit
        path.write_bytes(bytes(damaged))
        with pytest.raises(BadClipError, match=r"damaged|truncated|not audio"):
            audio.read(path)


def ogg_pages(blob: bytes) -> list[bytes]:
    starts = [i for i in range(len(blob)) if blob.startswith(b"OggS", i)]
    return [blob[start:end] for start, end in zip(starts, [*starts[1:], len(blob)], strict=True)]


def test_an_ogg_file_without_one_of_its_pages_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ogg", tone(5.0) + 0.1 * np.random.default_rng(0).standard_normal(80_000))
    pages = ogg_pages(path.read_bytes())
    assert len(pages) >= 6
    path.write_bytes(b"".join(pages[:4] + pages[5:]))
    assert_refused(path, "damaged, an Ogg page before byte .* is missing")
    path.write_bytes(b"".join([*pages[:4], b"lost" * 10, *pages[4:]]))
    assert_refused(path, "damaged, there is no Ogg page at byte")
    path.write_bytes(b"".join(pages) + b"TAG" + bytes(125))
    assert audio.probe(path).duration_s == 5.0


def test_two_ogg_recordings_in_one_file_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ogg", tone())
    path.write_bytes(2 * path.read_bytes())
    assert soundfile.info(path).duration == 1.0  # libsndfile reads the first only
    assert_refused(path, "a second recording begins at byte [0-9,]+, of which nothing would be read")


def test_checking_an_ogg_file_is_fast(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ogg", 0.3 * np.random.default_rng(0).standard_normal(200_000))
    assert path.stat().st_size > 50_000
    started = time.process_time()
    for _ in range(20):
        audio.open_checked(path)
    assert (time.process_time() - started) / 20 < 0.003


def test_a_named_pipe_is_refused_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    assert_refused(tmp_path / "a.wav", "not a regular file")
    with pytest.raises(BadClipError, match="not a regular file"):
        audio.content_digest(tmp_path / "a.wav")
    (tmp_path / "b.wav").mkdir()
    assert_refused(tmp_path / "b.wav", "is a folder")


def test_a_sparse_file_of_many_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = wav_by_hand(tmp_path / "a.wav", 32_000, 32_036, tone())
    os.truncate(path, 30 << 30)
    started = time.monotonic()
    assert_refused(path, "has 32,212,254,720 bytes, the limit is 1,073,741,824")
    with pytest.raises(BadClipError, match="limit"):
        audio.content_digest(path)
    with pytest.raises(BadClipError, match="limit"):
        audio.load(path, RATE_HZ)
    assert time.monotonic() - started < 1.0


def test_a_small_file_of_very_many_samples_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_SAMPLES", 100_000)
    path = written(tmp_path / "a.flac", np.zeros((60_000, 2), np.float32))
    assert path.stat().st_size < 10_000
    with pytest.raises(BadClipError, match="contains 120,000 samples, the limit is 100,000"):
        audio.load(path, RATE_HZ)


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
