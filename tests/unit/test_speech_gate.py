"""The speech gate: sections of probabilities, streaming, and what is said where it is missing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ser_bench.errors import SerBenchError
from ser_bench.inference import speech_gate
from ser_bench.inference.speech_gate import SpeechStream, speech_probabilities, speech_sections

needs_gate = pytest.mark.skipif(bool(speech_gate.reason_unavailable()), reason="no speech gate")


def section(*runs: tuple[float, int], **given: float) -> list[tuple[float, float]]:
    """Sections of frames of 0.1 s, given as (probability, frames)."""
    values = np.concatenate([np.full(count, p, np.float32) for p, count in runs])
    found = speech_sections(values, **({"frame_s": 0.1, "pad_s": 0.0} | given))  # type: ignore[arg-type]
    return [(round(start, 3), round(end, 3)) for start, end in found]


def test_sections_start_at_the_threshold_and_end_below_a_lower_one() -> None:
    assert section((0.1, 5), (0.8, 4), (0.4, 3), (0.1, 5)) == [(0.5, 1.2)]
    assert section((0.4, 5)) == []
    assert speech_sections([]) == []


def test_short_pauses_are_bridged_and_short_sections_dropped() -> None:
    assert section((0.9, 4), (0.0, 2), (0.9, 4), (0.0, 4)) == [(0.0, 1.0)]
    assert section((0.9, 4), (0.0, 3), (0.9, 4)) == [(0.0, 0.4), (0.7, 1.1)]
    assert section((0.0, 4), (0.9, 1), (0.0, 4), min_speech_s=0.2) == []


def test_padding_stays_inside_and_joins_sections_that_meet() -> None:
    assert section((0.9, 4), (0.0, 4), (0.9, 4), pad_s=0.1) == [(0.0, 0.5), (0.7, 1.2)]
    assert section((0.9, 4), (0.0, 4), (0.9, 4), pad_s=0.2) == [(0.0, 1.2)]


@needs_gate
def test_chunks_of_any_length_give_the_probabilities_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    time_s = np.arange(40_000) / 16_000
    samples = (
        0.2 * np.sin(2 * np.pi * 150 * time_s) * (np.sin(9 * time_s) > 0) + 0.05 * rng.normal(size=40_000)
    ).astype(np.float32)
    whole = speech_probabilities(samples)
    assert whole.shape == (79,) and whole.dtype == np.float32
    assert len(np.unique(whole)) > 40
    stream, start, parts = SpeechStream(), 0, []
    for length in (1, 511, 512, 513, 5_000, 40_000):
        parts.append(stream.feed(samples[start : start + length]))
        start += length
    fed = np.concatenate(parts)
    np.testing.assert_allclose(fed, whole[: len(fed)], atol=1e-6)
    assert len(fed) == 78  # the last frame is not complete
    stream.reset()
    np.testing.assert_allclose(stream.feed(samples), whole[:78], atol=1e-6)
    assert len(speech_probabilities(samples[:0])) == 0


@needs_gate
def test_long_recordings_are_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 20 * 512).astype(np.float32)
    whole = speech_probabilities(samples)
    monkeypatch.setattr(speech_gate, "BATCH_FRAMES", 7)
    np.testing.assert_allclose(speech_probabilities(samples), whole, atol=1e-6)


@pytest.fixture
def unknown_gate() -> object:
    """Forget what was found out about the installed gate, before and after a test."""
    speech_gate.reason_unavailable.cache_clear()
    yield
    speech_gate.reason_unavailable.cache_clear()


def test_a_missing_package_is_named_once_with_its_command(
    unknown_gate: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(speech_gate.extras, "is_installed", lambda name: name != "faster_whisper")
    with caplog.at_level(logging.WARNING, logger=speech_gate.__name__):
        for _ in range(2):
            assert "faster_whisper" in speech_gate.reason_unavailable()
        with pytest.raises(SerBenchError, match=r"ser-bench\[asr\]"):
            speech_probabilities(np.zeros(512, np.float32))
    assert len(caplog.records) == 1


@needs_gate
def test_a_damaged_file_is_a_reason(unknown_gate: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged = tmp_path / "silero_vad_v6.onnx"
    damaged.write_bytes(b"not a network")
    monkeypatch.setattr(speech_gate, "_model_file", lambda: damaged)
    monkeypatch.setattr(speech_gate, "_session", speech_gate._session.__wrapped__)
    assert "cannot be loaded" in speech_gate.reason_unavailable()
