"""Checks of a recording: each flag on a signal that was made for it, and none on speech-like samples."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ser_bench import audio
from ser_bench.inference import input_checks, speech_gate
from ser_bench.inference.input_checks import CODES, Flag, TrainedOn, flags
from ser_bench.types import FloatArray
from tests.support.signals import RATE_HZ, voice_like

SPEECH = np.full(200, 0.9, np.float32)
"""Probabilities in place of those of the gate, which takes the made voice for none."""


def recorded(samples: FloatArray, rate_hz: int = RATE_HZ) -> SimpleNamespace:
    return SimpleNamespace(samples=samples.astype(np.float32), sample_rate_hz=rate_hz)


def codes(samples: FloatArray, rate_hz: int = RATE_HZ, **given: object) -> list[str]:
    found = flags(recorded(samples, rate_hz), **({"probabilities": SPEECH} | given))  # type: ignore[arg-type]
    assert all(flag.code in CODES and "\n" not in flag.text for flag in found)
    return [flag.code for flag in found]


def test_speech_has_no_flag() -> None:
    assert codes(voice_like()) == []


def test_flags_of_level() -> None:
    voice = voice_like()
    assert codes(np.zeros(RATE_HZ, np.float32)) == ["silence"]
    assert codes(voice * 3e-3) == ["low_level"]
    assert codes(np.clip(10 * voice, -1, 1)) == ["clipping"]
    assert codes(0.3 * np.clip(10 * voice, -1, 1)) == ["clipping"]
    assert codes(voice * 30_000) == ["too_loud"]


def test_flags_of_length() -> None:
    voice, known = voice_like(), TrainedOn(longest_s=2.5)
    assert codes(voice[: RATE_HZ // 5]) == ["short"]
    assert codes(np.tile(voice, 4), trained_on=known) == ["long"]
    assert codes(voice, trained_on=known) == []
    assert codes(np.tile(voice, 4)) == []


def test_a_raised_rate_and_a_low_one_are_a_narrow_band() -> None:
    voice = voice_like()
    narrow = audio.resample(voice, RATE_HZ, 8_000)
    assert codes(narrow, 8_000) == ["narrow_band"]
    raised = audio.resample(narrow, 8_000, 44_100)
    stored = np.round(raised * 32_768).astype(np.float32) / 32_768
    assert codes(stored, 44_100) == ["narrow_band"]
    assert codes(audio.resample(voice, RATE_HZ, 44_100), 44_100) == []


def test_noise_as_loud_as_the_voice_is_flagged() -> None:
    voice = voice_like()[: RATE_HZ * 2]
    noise = np.random.default_rng(0).normal(0, float(voice.std()), len(voice)).astype(np.float32)
    assert codes(0.3 * (voice + noise)) == ["noisy"]
    assert codes(0.3 * (voice + 0.03 * noise)) == []


def test_cancelled_channels_are_flagged_though_the_mean_shows_nothing() -> None:
    assert codes(np.zeros(RATE_HZ, np.float32), cancelled=True) == ["silence", "channels_cancelled"]


def test_no_speech_and_little_speech_follow_the_gate() -> None:
    voice = voice_like()
    assert codes(voice, probabilities=np.full(80, 0.1, np.float32)) == ["no_speech"]
    assert codes(voice * 30_000, probabilities=np.full(80, 0.1, np.float32)) == ["no_speech", "too_loud"]
    some = np.zeros(80, np.float32)
    some[:5] = 0.9
    assert codes(voice, probabilities=some) == ["little_speech"]


def test_without_the_gate_the_other_checks_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_gate, "reason_unavailable", lambda: "not installed")
    assert codes(voice_like(), probabilities=None) == ["no_speech_gate"]
    assert codes(np.clip(10 * voice_like(), -1, 1), probabilities=None) == ["clipping", "no_speech_gate"]


def test_another_language_is_flagged_where_it_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recogniser:
        def __init__(self, probability: float) -> None:
            self.probability = probability

        def detect_language(self, audio: FloatArray) -> tuple[str, float, list[object]]:
            assert len(audio) == 40_000  # at 16 kHz
            return "de", self.probability, []

    asked = {"trained_on": TrainedOn(language="en"), "check_language": True}
    monkeypatch.setattr(input_checks, "_language_model", lambda: Recogniser(0.9))
    assert codes(voice_like(), **asked) == ["language"]
    assert codes(voice_like(), **(asked | {"trained_on": TrainedOn(language="en de")})) == []
    monkeypatch.setattr(input_checks, "_language_model", lambda: Recogniser(0.3))
    assert codes(voice_like(), **asked) == []
    monkeypatch.setattr(input_checks, "_language_model", lambda: None)
    assert codes(voice_like(), **asked) == []


def test_music_and_noise_have_no_speech_by_the_real_gate() -> None:
    pytest.importorskip("onnxruntime")
    if speech_gate.reason_unavailable():
        pytest.skip("no speech gate")
    time_s = np.arange(32_000) / 16_000
    tone = 0.3 * np.sin(2 * np.pi * 440 * time_s)
    noise = 0.1 * np.random.default_rng(0).normal(size=32_000)
    for samples in (tone, noise):
        assert codes(samples, 16_000, probabilities=None) == ["no_speech"]


def test_a_flag_states_what_was_measured() -> None:
    assert flags(recorded(voice_like()[: RATE_HZ // 5]), probabilities=SPEECH) == (Flag("short", "0.20 s long"),)
