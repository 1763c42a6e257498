"""Audio → transcript: what was said, by a recogniser or from the corpus itself, and how often the recogniser errs.

`asr=faster_whisper` is the default, `asr=whisper` is OpenAI's own package (an extra), `asr=reference` is the known
sentence word for word. Transcripts are cached clip by clip, so an interrupted pass goes on where it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from ser_bench.asr import faster_whisper, openai_whisper
from ser_bench.asr.words import normalise
from ser_bench.cache import Cache
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, LanguageError
from ser_bench.types import Clip

__all__ = ["transcribe", "word_error_rate"]

TRANSCRIPT_VERSION = 1
"""Raised when the same clip and parameters would give other words: old cache entries are then not read."""


@dataclass(frozen=True)
class Recogniser:
    """One way to get words out of audio.

    Attributes:
        english_only: whether this configuration knows English only.
        identity: all that decides its words besides the audio and the language; part of every cache key.
        recognise: (clips, configuration, language) → (position, transcript), in any order.
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
    """One transcript a clip, in the order asked; "" where nothing was heard.

    Args:
        clips: N clips.
        cfg: the recogniser and its parameters.
        language: ISO 639-1 code of what is spoken; of two corpora both ("en de"), and each clip has its own.
        cache: where transcripts are kept, by the clip's bytes and everything in `cfg` that decides the words.

    Raises:
        ConfigError: no such recogniser, a parameter it cannot follow, or a clip without text under `asr=reference`.
        LanguageError: the recogniser does not know the language.
        WeightsError: its weights cannot be had.
        BadClipError: a clip cannot be read.
    """
    if cfg.name == REFERENCE:
        return _known_sentences(clips)
    if cfg.name not in RECOGNISERS:
        raise ConfigError(f"asr={cfg.name!r} is not a recogniser; choose {', '.join([*RECOGNISERS, REFERENCE])}")
    recogniser = RECOGNISERS[cfg.name]
    if language != "en" and recogniser.english_only(cfg):
        raise LanguageError(
            f"asr.model={cfg.model} knows English only, and the corpus speaks {language!r}: use the multilingual "
            "recogniser, asr.model=base (and with model=cnn_text a multilingual embedder, text=openai)"
        )
    identity = recogniser.identity(cfg)
    spoken = [clip.language or language for clip in clips]
    keys = [
        Cache.key(step="asr", version=TRANSCRIPT_VERSION, clip=_digest(clip), language=one, **identity)
        for clip, one in zip(clips, spoken, strict=True)
    ]
    transcripts: list[str | None] = [cache.read_json(key) for key in keys]
    missing = [i for i, words in enumerate(transcripts) if words is None]
    if missing:
        with tqdm(total=len(missing), desc="transcripts", unit="clip", disable=None, leave=False) as bar:
            for one in dict.fromkeys(spoken[i] for i in missing):
                places = [i for i in missing if spoken[i] == one]
                for position, words in recogniser.recognise([clips[i] for i in places], cfg, one):
                    cache.write_json(keys[places[position]], words)
                    transcripts[places[position]] = words
                    bar.update()
    return [words for words in transcripts if words is not None]


def word_error_rate(clips: Sequence[Clip], transcripts: Sequence[str]) -> float | None:
    """Word error rate against the known sentences: (substitutions + deletions + insertions) / words of reference.

    Words are compared in lower case, without punctuation, and whole numbers below a hundred as words: see
    `words.normalise`. The range starts at 0 and has no upper bound.

    Returns:
        The rate over all clips whose sentence is known; None where none is.
    """
    import jiwer

    pairs = [(normalise(c.text), normalise(words)) for c, words in zip(clips, transcripts, strict=True)]
    known = [(reference, heard) for reference, heard in pairs if reference]
    if not known:
        return None
    return float(jiwer.wer([reference for reference, _ in known], [heard for _, heard in known]))


def _known_sentences(clips: Sequence[Clip]) -> list[str]:
    unknown = [clip for clip in clips if not clip.text]
    if unknown:
        raise ConfigError(
            f"asr=reference needs the words of every clip, and {len(unknown)} of {len(clips)} have none "
            f"(first: {unknown[0].path}); use asr=faster_whisper"
        )
    return [clip.text for clip in clips]


def _digest(clip: Clip) -> str:
    """Of the file's bytes; read now where the corpus did not note it."""
    return clip.digest or hashlib.blake2b(clip.path.read_bytes(), digest_size=16).hexdigest()
