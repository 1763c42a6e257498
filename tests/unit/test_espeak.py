"""Speech synthesis with espeak-ng: reproducible, independent synthesizers, and clear errors."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ser_bench.corpora.demo_speech import espeak
from ser_bench.corpora.demo_speech.espeak import SpeechSettings, Synthesizer
from ser_bench.errors import CorpusError

TEXT = "The airplane is almost full"
# espeak-ng uses random numbers for the flutter of f1 and for the breath of f2.
VOICES = ("en-us+f1", "en-us+f2")


def spoken(seed: int = 0) -> list[np.ndarray]:
    with Synthesizer(seed) as synthesizer:
        return [synthesizer.say(TEXT, voice) for voice in VOICES]


def test_new_synthesizers_give_identical_speech() -> None:
    for first, second in zip(spoken(), spoken(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_another_seed_gives_other_breath_noise() -> None:
    assert not np.array_equal(spoken(0)[1], spoken(1)[1])


def test_synthesizers_in_threads_are_independent() -> None:
    alone = spoken()
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: spoken(), range(8)):
            for first, second in zip(alone, together, strict=True):
                np.testing.assert_array_equal(first, second)


def test_speech_is_16_bit_at_22050_hz_and_not_silent() -> None:
    with Synthesizer() as synthesizer:
        samples = synthesizer.say(TEXT, "en-us+m3")
        assert synthesizer.sample_rate_hz == 22_050
    assert samples.dtype == np.int16
    assert 1.0 < len(samples) / 22_050 < 3.0
    assert np.abs(samples).max() > 3_000


def test_faster_is_shorter_and_pauses_are_longer() -> None:
    with Synthesizer() as synthesizer:
        slow, fast, halting = (
            len(synthesizer.say(TEXT, "en-us+m3", settings))
            for settings in (
                SpeechSettings(rate_wpm=120),
                SpeechSettings(rate_wpm=240),
                SpeechSettings(rate_wpm=240, word_gap=20),
            )
        )
    assert slow > 1.5 * fast
    assert halting > fast + 0.2 * 22_050


def test_pitch_changes_f0_and_range_its_spread() -> None:
    def f0(settings: SpeechSettings) -> np.ndarray:
        import parselmouth

        with Synthesizer() as synthesizer:
            samples = synthesizer.say(TEXT, "en-us+m3", settings) / 32768
        track = parselmouth.Sound(samples, 22_050).to_pitch(pitch_floor=50, pitch_ceiling=500)
        hz = track.selected_array["frequency"]
        return 12 * np.log2(hz[hz > 0])

    plain = f0(SpeechSettings(range=30))
    higher = f0(SpeechSettings(pitch=80, range=30))
    assert 4 < np.median(higher) - np.median(plain) < 7
    assert f0(SpeechSettings(range=90)).std() > 1.5 * f0(SpeechSettings(range=10)).std()


def test_an_unknown_voice_is_an_error() -> None:
    with Synthesizer() as synthesizer, pytest.raises(CorpusError, match="no voice 'xx\\+f1'"):
        synthesizer.say(TEXT, "xx+f1")


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="rate_wpm=20 is outside 80 to 450"):
        SpeechSettings(rate_wpm=20)


def test_a_missing_package_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(CorpusError, match=r"pip install 'ser-bench\[demo\]'"):
        Synthesizer()


def test_a_library_that_cannot_be_loaded_is_an_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    broken = tmp_path / "libespeak-ng.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(espeak, "_locate", lambda: (broken, tmp_path))
    with pytest.raises(CorpusError, match="cannot be loaded"):
        Synthesizer()


def test_closing_twice_is_allowed() -> None:
    synthesizer = Synthesizer()
    synthesizer.close()
    synthesizer.close()
