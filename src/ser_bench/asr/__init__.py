"""Transcripts of clips, by a speech recogniser or from the corpus itself, and the word error rate of the recogniser.

`asr=faster_whisper` is the default, `asr=whisper` is OpenAI's own package (an extra), and `asr=reference` is the known
sentence of each clip. Transcripts are cached clip by clip, so an interrupted computation continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ser_bench import audio, extras
from ser_bench.asr import faster_whisper, openai_whisper
from ser_bench.asr.words import normalise
from ser_bench.cache import Cache, CachedComputation, json_format
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, LanguageError
from ser_bench.types import Clip

__all__ = ["transcribe", "word_error_rate"]

TRANSCRIPT_VERSION = 1
"""Increase it when the same clip and parameters give other words than before: older cache entries are then not read."""


@dataclass(frozen=True)
class Recogniser:
    """A speech recogniser.

    Attributes:
        english_only: whether this configuration supports English only.
        identity: everything that decides the words except audio and language; part of every cache key.
        recognise: (clips, configuration, language) → (position, transcript) of every clip, in any order.
    """

    english_only: Callable[[AsrConfig], bool]
    identity: Callable[[AsrConfig], dict[str, Any]]
    recognise: Callable[[Sequence[Clip], AsrConfig, str], Iterator[tuple[int, str]]]


RECOGNISERS = {
    "faster_whisper": Recogniser(faster_whisper.english_only, faster_whisper.identity, faster_whisper.recognise),
    "whisper": Recogniser(openai_whisper.english_only, openai_whisper.identity, openai_whisper.recognise),
}
REFERENCE = "reference"


def transcribe(clips: Sequence[Clip], cfg: AsrConfig, language: str, cache: Cache) -> list[str]:
    """Return one transcript per clip, in order; "" if no words were recognised.

    Args:
        clips: N clips.
        cfg: the recogniser and its parameters.
        language: ISO 639-1 code of the spoken language. For two corpora it has both codes ("en de"), and each clip has
            its own.
        cache: where the transcripts are stored. Their keys contain the digest of the clip's file and everything in
            `cfg` that decides the words.

    Raises:
        ConfigError: if the recogniser does not exist or does not support a parameter, or if a clip has no text under
            `asr=reference`.
        LanguageError: if the recogniser does not support the language.
        WeightsError: if its weights are not available.
        BadClipError: if a clip cannot be read.
    """
    extras.require("jiwer", f"asr={cfg.name}")  # the run computes the word error rate at its end
    if cfg.name == REFERENCE:
        return _known_sentences(clips)
    if cfg.name not in RECOGNISERS:
        raise ConfigError(f"asr={cfg.name!r} is not a recogniser; choose {', '.join([*RECOGNISERS, REFERENCE])}")
    recogniser = RECOGNISERS[cfg.name]
    if language != "en" and recogniser.english_only(cfg):
        raise LanguageError(
            f"asr.model={cfg.model} supports English only, and the language of the corpus is {language!r}: use the "
            "multilingual recogniser, asr.model=base (and with model=cnn_text a multilingual embedder, text=openai)"
        )
    identity = recogniser.identity(cfg)

    def key(clip: Clip) -> str:
        digest, spoken = audio.clip_digest(clip), clip.language or language
        return Cache.key(step="asr", version=TRANSCRIPT_VERSION, clip=digest, language=spoken, **identity)

    def compute(missing: Sequence[Clip]) -> Generator[tuple[int, str], None, None]:
        by_language: dict[str, list[int]] = {}
        for position, clip in enumerate(missing):
            by_language.setdefault(clip.language or language, []).append(position)
        for spoken, positions in by_language.items():
            for number, words in recogniser.recognise([missing[i] for i in positions], cfg, spoken):
                yield positions[number], words

    return CachedComputation(cache, key, compute, json_format(), "transcripts").values(clips)


def word_error_rate(clips: Sequence[Clip], transcripts: Sequence[str]) -> float | None:
    """Return the word error rate: (substitutions + deletions + insertions) / words of the known sentences.

    Words are compared in lower case, without punctuation, and integers below a hundred are spelled out: see
    `words.normalise`. The range starts at 0 and has no upper bound.

    Returns:
        The rate over all clips whose sentence is known; None if no sentence is known.
    """
    import jiwer

    pairs = [(normalise(c.text), normalise(words)) for c, words in zip(clips, transcripts, strict=True)]
    known = [(reference, transcript) for reference, transcript in pairs if reference]
    if not known:
        return None
    return float(jiwer.wer([reference for reference, _ in known], [transcript for _, transcript in known]))


def _known_sentences(clips: Sequence[Clip]) -> list[str]:
    unknown = [clip for clip in clips if not clip.text]
    if unknown:
        raise ConfigError(
            f"asr=reference needs the sentence of every clip, and {len(unknown)} of {len(clips)} have none "
            f"(first: {unknown[0].path}); use asr=faster_whisper"
        )
    return [clip.text for clip in clips]
