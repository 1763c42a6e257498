"""Transcripts of real recordings and of silence, their cache, and languages that a recogniser does not support."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import asr, weights
from ser_bench.asr import faster_whisper
from ser_bench.asr.faster_whisper import DecodedClip
from ser_bench.asr.words import normalise, repeats
from ser_bench.cache import Cache
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, LanguageError, WeightsError
from ser_bench.types import Clip

SENTENCES = {
    "DFA": "Don't forget a jacket",
    "IEO": "It's eleven o'clock",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "MTI": "Maybe tomorrow it will be cold",
    "TAI": "The airplane is almost full",
}
DEFAULT = AsrConfig(
    name="faster_whisper", model="tiny.en", max_frames=1000, fallback_frames=3000, fallback_logprob=-0.5
)
REFERENCE = AsrConfig(name="reference", model="none")


def _clip(name: str, path: Path, text: str = "") -> Clip:
    info = soundfile.info(path) if path.is_file() else None
    return Clip(name, path, "neutral", "1001", text=text, duration_s=info.duration if info else 0.0, digest=name)


def _wave(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    soundfile.write(path, samples, rate)
    return path


# Normalisation of words


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("It’s 11 o'clock!", "it's eleven o'clock"),
        ("“I've seen this, before…”", "i've seen this before"),
        ("  The 'airplane'\nis -- ALMOST full. ", "the airplane is almost full"),
        ("21 or 40, not 3.5 or 1976", "twenty one or forty not three five or 1976"),
        ("Das schwarze Stück Papier", "das schwarze stück papier"),
        ("...", ""),
    ],
)
def test_words_are_compared_without_case_punctuation_and_digits(written: str, compared: str) -> None:
    assert normalise(written) == compared


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("Don't forget a jacket.", False),
        ("No. No, it's cold.", False),
        ("", False),
        ("you", False),
        ("Is that a clock? Is that a clock? Is that a clock?", True),
        ("until 11 o'clock until eleven o'clock", True),
    ],
)
def test_a_phrase_said_again_and_nothing_else_is_a_repetition(text: str, repeated: bool) -> None:
    assert repeats(text) is repeated


def test_word_error_rate_counts_words_over_the_whole_corpus() -> None:
    clips = [_clip("a", Path("a"), "Don't forget a jacket"), _clip("b", Path("b"), "It's eleven o'clock")]
    # "a" is deleted; "it's" becomes "it", "was" and "now" are inserted: 4 errors in 4 + 3 words
    assert asr.word_error_rate(clips, ["Don’t forget jacket.", "It was 11 o'clock now"]) == pytest.approx(4 / 7)
    assert asr.word_error_rate(clips, ["don't forget a jacket!", "It's 11 o'clock."]) == 0.0
    assert asr.word_error_rate(clips, ["", ""]) == 1.0


def test_clips_without_a_known_sentence_do_not_count() -> None:
    clips = [_clip("a", Path("a"), "The surface is slick"), _clip("b", Path("b"))]
    assert asr.word_error_rate(clips, ["the surface is thick", "whatever"]) == 0.25
    assert asr.word_error_rate(clips[1:], ["whatever"]) is None


# asr=reference


def test_reference_is_the_known_sentence(tmp_path: Path) -> None:
    clips = [_clip("a", Path("a"), "One"), _clip("b", Path("b"), "Two")]
    assert asr.transcribe(clips, REFERENCE, "de", Cache(tmp_path)) == ["One", "Two"]


def test_reference_is_refused_where_the_corpus_has_no_text(tmp_path: Path) -> None:
    clips = [_clip("a", Path("a"), "One"), _clip("b", Path("somewhere/b.wav"))]
    with pytest.raises(ConfigError, match=r"1 of 2 have none.*b\.wav.*asr=faster_whisper"):
        asr.transcribe(clips, REFERENCE, "en", Cache(tmp_path))


# Refusals, before any weights are fetched


@pytest.mark.parametrize("name", ["faster_whisper", "whisper"])
def test_english_recogniser_refuses_german_and_names_the_multilingual_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(LanguageError, match=r"'de'.*asr\.model=base"):
        asr.transcribe([_clip("a", Path("a"))], AsrConfig(name=name, model="tiny.en"), "de", Cache(tmp_path))


def test_english_recogniser_refuses_two_languages_before_it_decodes_the_english_clips(
    fake: type[FakeWhisper], tmp_path: Path
) -> None:
    clips = [dataclasses.replace(_clip("sure", Path("sure")), language="en")]
    with pytest.raises(LanguageError, match=r"'en de'.*asr\.model=base"):
        asr.transcribe(clips, DEFAULT, "en de", Cache(tmp_path))
    assert fake.asked == []


def test_each_clip_of_two_corpora_is_recognised_in_its_own_language(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def recognise(clips: Sequence[Clip], _cfg: AsrConfig, language: str) -> Iterator[tuple[int, str]]:
        yield from ((i, f"{clip.id} in {language}") for i, clip in reversed(list(enumerate(clips))))

    multilingual = asr.Recogniser(lambda _cfg: False, lambda _cfg: {"model": "base"}, recognise)
    monkeypatch.setitem(asr.RECOGNISERS, "faster_whisper", multilingual)
    spoken = {"a": "en", "b": "de", "c": "en", "d": "de"}
    clips = [dataclasses.replace(_clip(name, Path(name)), language=code) for name, code in spoken.items()]
    for _ in range(2):  # from the recogniser, then from the cache
        words = asr.transcribe(clips, DEFAULT, "en de", Cache(tmp_path))
        assert words == ["a in en", "b in de", "c in en", "d in de"]


def test_unknown_recogniser_and_unknown_model_are_refused(tmp_path: Path) -> None:
    clips = [_clip("a", Path("a"))]
    with pytest.raises(ConfigError, match="faster_whisper, whisper, reference"):
        asr.transcribe(clips, AsrConfig(name="siri"), "en", Cache(tmp_path))
    with pytest.raises(ConfigError, match=r"neither one of tiny\.en, base nor a folder"):
        asr.transcribe(clips, AsrConfig(name="faster_whisper", model="huge"), "en", Cache(tmp_path))


def test_whisper_that_is_not_installed_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper", None)
    with pytest.raises(ConfigError, match=r"pip install 'ser-bench\[whisper\]'"):
        asr.transcribe([_clip("a", Path("a"))], AsrConfig(name="whisper", model="tiny.en"), "en", Cache(tmp_path))


def test_whisper_cannot_cut_the_padding(tmp_path: Path) -> None:
    cfg = AsrConfig(name="whisper", model="tiny.en", max_frames=1000)
    with pytest.raises(ConfigError, match="max_frames=null"):
        asr.transcribe([_clip("a", Path("a"))], cfg, "en", Cache(tmp_path))


# The cache, and which clips are decoded twice, with a fake model


class FakeWhisper(faster_whisper.Whisper):
    """Returns `answers[frames][clip id]`, and records the requests."""

    answers: dict[int, dict[str, DecodedClip]] = {}  # noqa: RUF012
    asked: list[tuple[int, list[str]]] = []  # noqa: RUF012

    def __init__(self, cfg: AsrConfig, language: str) -> None:
        self._cfg = cfg

    def decode(self, clips: Sequence[Clip], order: Sequence[int], frames: int) -> Iterator[tuple[int, DecodedClip]]:
        FakeWhisper.asked.append((frames, [clips[i].id for i in order]))
        for i in order:
            yield i, FakeWhisper.answers[frames][clips[i].id]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeWhisper]:
    monkeypatch.setattr(faster_whisper, "Whisper", FakeWhisper)
    FakeWhisper.asked = []
    FakeWhisper.answers = {
        1000: {
            "sure": DecodedClip("Don't forget a jacket.", -0.1, 0.02, False),
            "improbable": DecodedClip("to let me make walk", -1.2, 0.1, False),
            "empty": DecodedClip("", -0.2, 0.1, False),
            "loop": DecodedClip("is is is is is is", -0.1, 0.1, True),
            "twice": DecodedClip("It's 11 o'clock. It's eleven o'clock!", -0.1, 0.1, False),
            "silent": DecodedClip("", 0.0, 1.0, False, silent=True),
            "noise": DecodedClip("you", -1.4, 0.9, False),
        },
        3000: {
            "improbable": DecodedClip("It's 11 o'clock.", -0.4, 0.1, False),
            "empty": DecodedClip("Maybe tomorrow it will be cold.", -0.3, 0.1, False),
            "loop": DecodedClip("I wonder what this is about.", -0.2, 0.1, False),
            "twice": DecodedClip("It's 11 o'clock.", -0.1, 0.1, False),
            "noise": DecodedClip("you", -1.3, 0.9, False),
        },
    }
    return FakeWhisper


def test_only_doubtful_clips_are_decoded_again_with_more_silence(fake: type[FakeWhisper], tmp_path: Path) -> None:
    clips = [_clip(name, Path(name)) for name in fake.answers[1000]]
    transcripts = dict(zip(fake.answers[1000], asr.transcribe(clips, DEFAULT, "en", Cache(tmp_path)), strict=True))
    assert [frames for frames, _ in fake.asked] == [1000, 3000]
    assert set(fake.asked[1][1]) == {"improbable", "empty", "loop", "twice", "noise"}
    assert transcripts == {
        "sure": "Don't forget a jacket.",
        "improbable": "It's 11 o'clock.",
        "empty": "Maybe tomorrow it will be cold.",
        "loop": "I wonder what this is about.",
        "twice": "It's 11 o'clock.",
        "silent": "",
        "noise": "",
    }


def test_without_fallback_nothing_is_decoded_twice(fake: type[FakeWhisper], tmp_path: Path) -> None:
    clips = [_clip(name, Path(name)) for name in ("sure", "improbable")]
    cfg = dataclasses.replace(DEFAULT, fallback_frames=None)
    assert asr.transcribe(clips, cfg, "en", Cache(tmp_path)) == ["Don't forget a jacket.", "to let me make walk"]


def test_transcripts_are_cached_clip_by_clip(fake: type[FakeWhisper], tmp_path: Path) -> None:
    sure, loop = (_clip(name, Path(name)) for name in ("sure", "loop"))
    asr.transcribe([sure], DEFAULT, "en", Cache(tmp_path))
    fake.asked = []
    assert asr.transcribe([loop, sure], DEFAULT, "en", Cache(tmp_path))[1] == "Don't forget a jacket."
    assert fake.asked == [(1000, ["loop"]), (3000, ["loop"])]
    fake.asked = []
    asr.transcribe([sure, loop], dataclasses.replace(DEFAULT, batch_size=3), "en", Cache(tmp_path))
    assert fake.asked == [], "the size of a batch does not decide the words"


@pytest.mark.parametrize(
    "change",
    [{"fallback_logprob": -0.9}, {"fallback_frames": None}, {"model": "base"}, {"compute_type": "float32"}],
)
def test_other_parameters_do_not_read_these_transcripts(
    change: dict[str, object], fake: type[FakeWhisper], tmp_path: Path
) -> None:
    clips = [_clip("sure", Path("sure"))]
    asr.transcribe(clips, DEFAULT, "en", Cache(tmp_path))
    asr.transcribe(clips, dataclasses.replace(DEFAULT, **change), "en", Cache(tmp_path))  # type: ignore[arg-type]
    assert len([names for _, names in fake.asked if names]) == 2


def test_clip_longer_than_the_padding_is_padded_to_its_own_length() -> None:
    assert faster_whisper._padded(2 * 16_000, 1000) == 1000
    assert faster_whisper._padded(10 * 16_000, 1000) == 1000
    assert faster_whisper._padded(10 * 16_000 + 1, 1000) == 1100
    assert faster_whisper._padded(60 * 16_000, 1000) == 3000


# The real model on real speech


@pytest.fixture(scope="module")
def tiny_en() -> None:
    try:
        weights.fetch("whisper-tiny.en")
    except WeightsError as error:
        pytest.skip(f"needs the real weights: {error}")


def test_digital_silence_has_no_words(tiny_en: None, tmp_path: Path) -> None:
    silent = _clip("silent", _wave(tmp_path / "silent.wav", np.zeros(40_000)))
    assert asr.transcribe([silent], DEFAULT, "en", Cache(tmp_path / "cache")) == [""]


@pytest.mark.corpora
@pytest.mark.slow
def test_most_words_of_real_speech_are_recognised_and_no_clip_sees_its_neighbours(
    tiny_en: None, corpora_root: Path, tmp_path: Path
) -> None:
    folder = corpora_root / "cremad" / "AudioWAV"
    clips = [
        _clip(path.stem, path, SENTENCES[code])
        for speaker in (1003, 1023, 1051, 1082)
        for code in SENTENCES
        for path in sorted(folder.glob(f"{speaker}_{code}_NEU_XX.*"))
    ]
    assert len(clips) == 24
    transcripts = asr.transcribe(clips, DEFAULT, "en", Cache(tmp_path / "a"))
    rate = asr.word_error_rate(clips, transcripts)
    assert rate is not None
    assert rate < 0.15, list(zip([clip.text for clip in clips], transcripts, strict=True))
    alone = asr.transcribe(clips[::-8], dataclasses.replace(DEFAULT, batch_size=1), "en", Cache(tmp_path / "b"))
    assert alone == transcripts[::-8]


@pytest.mark.slow
def test_stereo_at_another_rate_has_the_same_words(tiny_en: None, corpora_root: Path, tmp_path: Path) -> None:
    source = next((corpora_root / "cremad" / "AudioWAV").glob("1003_DFA_NEU_XX.*"))
    samples, rate = soundfile.read(source)
    up = np.repeat(samples, 3)
    stereo = _clip("stereo", _wave(tmp_path / "stereo.wav", np.stack([up, up], axis=1), 3 * rate))
    transcripts = asr.transcribe([stereo], DEFAULT, "en", Cache(tmp_path / "cache"))
    assert asr.word_error_rate([dataclasses.replace(stereo, text=SENTENCES["DFA"])], transcripts) == 0.0


# asr=whisper, with a checkpoint made on the spot: no package index has its weights


@pytest.mark.slow
def test_whisper_runs_end_to_end_on_a_random_checkpoint(tmp_path: Path) -> None:
    if importlib.util.find_spec("whisper") is None:
        pytest.skip("openai-whisper is not installed: pip install 'ser-bench[whisper]' to run this test")
    import torch
    import whisper

    torch.manual_seed(0)
    dims = whisper.model.ModelDimensions(80, 1500, 32, 2, 1, 51_864, 448, 32, 2, 1)
    checkpoint = tmp_path / "random.pt"
    torch.save({"dims": vars(dims), "model_state_dict": whisper.model.Whisper(dims).state_dict()}, checkpoint)
    rng = np.random.default_rng(0)
    clips = [_clip(f"c{i}", _wave(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 16_000 * (i + 1)))) for i in range(3)]
    cfg = AsrConfig(name="whisper", model=str(checkpoint), batch_size=2, compute_type="float32")
    first = asr.transcribe(clips, cfg, "en", Cache(tmp_path / "a"))
    assert len(first) == 3
    assert all(isinstance(words, str) for words in first)
    assert asr.transcribe(clips, cfg, "en", Cache(tmp_path / "b")) == first
    with pytest.raises(LanguageError, match="English only"):
        asr.transcribe(clips, cfg, "de", Cache(tmp_path / "c"))
