"""Windows of a long recording, their regions, and reading in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import audio
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference import speech_gate
from ser_bench.inference.answer import Answer
from ser_bench.inference.long_audio import LongRecording, StreamResampler
from ser_bench.inference.recording import Recording
from ser_bench.inference.timeline import BATCH, TimelineEntry, regions, timeline
from ser_bench.types import FloatArray

RATE_HZ = 8000
MISSING = speech_gate.reason_unavailable()


class LevelPredictor:
    """Says "loud" or "quiet", and keeps the size of each batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.lengths_s: list[float] = []

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        self.batches.append(len(recordings))
        self.lengths_s += [recording.duration_s for recording in recordings]
        answers = []
        for recording in recordings:
            loud = float(np.abs(recording.samples).mean())
            probabilities = {"loud": loud, "quiet": 1 - loud}
            answers.append(Answer(recording.name, max(probabilities, key=lambda k: probabilities[k]), probabilities))
        return answers


@pytest.fixture
def no_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "no gate")


def divided(samples: FloatArray, size: int) -> Iterator[FloatArray]:
    for start in range(0, len(samples), size):
        yield samples[start : start + size]


@pytest.mark.usefixtures("no_gate")
@pytest.mark.parametrize(
    ("seconds", "windows"),
    [
        (3.0, [(0, 3)]),
        (3.4, [(0, 3), (1, 3.4)]),
        (5.0, [(0, 3), (1, 4), (2, 5)]),
        (1.2, [(0, 1.2)]),
    ],
)
def test_windows_cover_the_recording_whatever_the_blocks(seconds: float, windows: list[tuple[float, float]]) -> None:
    samples = np.zeros(round(seconds * RATE_HZ), np.float32)
    for size in (999, 8000, 100_000):
        predictor = LevelPredictor()
        entries = list(timeline(predictor, divided(samples, size), RATE_HZ, 3.0, 1.0))
        assert [(entry.start_s, entry.end_s) for entry in entries] == windows
        assert predictor.lengths_s == pytest.approx([end - start for start, end in windows])
        assert all(entry.speech is None for entry in entries)


@pytest.mark.usefixtures("no_gate")
def test_windows_are_predicted_in_batches_while_the_blocks_are_read() -> None:
    read: list[int] = []

    def blocks() -> Iterator[FloatArray]:
        for number in range(100):
            read.append(number)
            yield np.full(RATE_HZ, 0.1, np.float32)

    predictor = LevelPredictor()
    entries = timeline(predictor, blocks(), RATE_HZ, 1.0, 0.5)
    next(entries)
    assert len(read) <= 10 and predictor.batches == [BATCH]
    assert len(list(entries)) == 198 and max(predictor.batches) == BATCH


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_windows_without_speech_are_not_predicted() -> None:
    predictor = LevelPredictor()
    entries = list(timeline(predictor, divided(np.zeros(10 * 44_100, np.float32), 44_100), 44_100, 3.0, 1.0))
    assert len(entries) == 8 and all(entry.speech is False and entry.answer is None for entry in entries)
    assert not predictor.batches and entries[0].as_dict()["label"] == ""


@pytest.mark.parametrize(
    ("window_s", "hop_s", "message"), [(0.2, 0.1, "--window"), (3.0, 0.0, "--hop 0"), (1.0, 2.0, "--hop 2")]
)
def test_windows_that_are_none_are_refused(window_s: float, hop_s: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        timeline(LevelPredictor(), [], RATE_HZ, window_s, hop_s)


def entry(start_s: float, end_s: float, label: str, probability: float = 0.5) -> TimelineEntry:
    answer = Answer("", label, {label: probability}) if label else None
    return TimelineEntry(start_s, end_s, bool(label), 1.0, answer)


def test_regions_join_windows_with_one_label_and_do_not_overlap() -> None:
    entries = [entry(0, 3, "a", 0.6), entry(1, 4, "a", 0.8), entry(2, 5, "b"), entry(3, 6, ""), entry(4, 6.5, "b")]
    found = list(regions(entries, 1.0))
    assert [(r.start_s, r.end_s, r.label) for r in found] == [(0, 3.0, "a"), (3.0, 4.0, "b"), (5.0, 6.5, "b")]
    assert found[0].probability == pytest.approx(0.7)
    assert list(regions([], 1.0)) == [] and list(regions([entry(0, 3, "")], 1.0)) == []


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_blocks_are_the_samples_of_the_file(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"long.{suffix}"
    soundfile.write(path, rng.normal(0, 0.1, (50_000, 2)), 16_000)
    long = LongRecording.open(path)
    assert long.sample_rate_hz == 16_000 and long.channels == 2
    whole, _ = audio.read(path)
    assert len(whole) == round(long.duration_s * 16_000)
    blocks = list(long.blocks(1.0))
    assert {len(block) for block in blocks[:-1]} == {16_000}
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-7)
    assert len(list(long.blocks(1.0))) == len(blocks)  # a second time
    held = LongRecording.from_bytes(path.read_bytes(), "upload")
    np.testing.assert_allclose(np.concatenate(list(held.blocks())), whole, atol=1e-7)


def test_damaged_files_are_refused_at_the_start_or_where_they_end(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(32_000), 16_000)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(BadClipError, match=r"a\.wav: truncated"):
        LongRecording.open(path)
    (tmp_path / "b.wav").write_bytes(b"no audio")
    for name, message in (("b.wav", "not audio"), ("missing.wav", "cannot be read"), (".", "is a folder")):
        with pytest.raises(BadClipError, match=message):
            LongRecording.open(tmp_path / name)
    samples = np.zeros(32_000, np.float32)
    samples[20_000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    blocks = LongRecording.open(tmp_path / "nan.wav").blocks(1.0)
    assert len(next(blocks)) == 16_000
    with pytest.raises(BadClipError, match=r"not numbers .* after 1 s"):
        next(blocks)


def test_a_file_that_ends_early_is_an_error_after_its_blocks(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000), 16_000)
    long = LongRecording.open(tmp_path / "a.wav")
    longer = LongRecording(long.name, 16_000, 3.0, 1, tmp_path / "a.wav")
    blocks = longer.blocks(1.0)
    assert len(next(blocks)) == len(next(blocks)) == 16_000
    with pytest.raises(BadClipError, match=r"truncated, 2.0 of 3.0 s"):
        next(blocks)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
def test_resampling_does_not_depend_on_the_chunks(rate_hz: int) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, rate_hz).astype(np.float32)
    results = []
    for size in (rate_hz, 777):
        resampler = StreamResampler(rate_hz, 16_000)
        parts = [resampler.feed(part) for part in divided(samples, size)]
        results.append(np.concatenate([*parts, resampler.feed(np.zeros(0, np.float32), last=True)]))
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
    np.testing.assert_allclose(results[0], audio.resample(samples, rate_hz, 16_000)[: len(results[0])], atol=1e-4)
    assert abs(len(results[0]) - 16_000) <= 1
