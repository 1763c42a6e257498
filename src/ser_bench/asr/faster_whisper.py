"""`asr=faster_whisper`: Whisper through CTranslate2, greedy, in batches, with the padding cut.

Whisper pads every clip to 30 s, twelve times the length of a CREMA-D clip, and most of the work goes into silence.
Here a first pass pads to `asr.max_frames`. Short of trailing silence the decoder sometimes repeats itself, stops at
once or guesses; such transcripts give themselves away (`_doubtful`), and those clips alone are heard again at
`asr.fallback_frames`. docs/asr.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import audio
from ser_bench.asr import whisper_weights
from ser_bench.asr.words import repeats
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, LanguageError
from ser_bench.types import Clip, FloatArray

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 160
"""Samples: a mel frame is 10 ms, a position of the encoder two frames."""
MAX_FRAMES = 3_000
"""30 s: what Whisper was trained with, and as many positions as its encoder has."""
FRAMES_STEP = 100
"""A clip longer than `asr.max_frames` is padded to the next multiple of this."""
TOKENS_AT_LEAST = 16
TOKENS_PER_S = 8
"""Fast English speech has about 5 tokens a second; a decoder that writes more is repeating itself."""
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOGPROB = -1.0
"""Whisper's own rule for "nothing was said": both thresholds must be passed."""
ENGLISH_END = 50_256
"""Id of <|endoftext|> in the English-only vocabulary; the multilingual one has one token more before it."""


@dataclass(frozen=True)
class Heard:
    """One decoded clip: words, mean log-probability of its tokens, probability that nothing was said."""

    text: str
    logprob: float
    no_speech: float
    cut_off: bool
    """The limit on tokens ended it."""
    silent: bool = False
    """The clip holds no signal at all."""


NOTHING = Heard("", 0.0, 1.0, False, True)


def english_only(cfg: AsrConfig) -> bool:
    """True for the models called `.en`, and for folders with their vocabulary."""
    if not whisper_weights.is_folder(cfg.model):
        return cfg.model.endswith(".en")
    return int(_tokenizer(Path(cfg.model)).token_to_id("<|endoftext|>")) == ENGLISH_END


def identity(cfg: AsrConfig) -> dict[str, Any]:
    """What decides the words: the weights' sha256 and the parameters; not the size of a batch."""
    return {
        "name": cfg.name,
        "sha256": whisper_weights.sha256(cfg.model),
        "max_frames": cfg.max_frames,
        "fallback_frames": cfg.fallback_frames,
        "fallback_logprob": cfg.fallback_logprob,
        "device": cfg.device,
        "compute_type": cfg.compute_type,
    }


def recognise(clips: Sequence[Clip], cfg: AsrConfig, language: str) -> Iterator[tuple[int, str]]:
    """(position, transcript) of every clip, sorted by length; clips that are heard twice come last.

    Raises:
        LanguageError: the model does not know the language.
        WeightsError: its weights cannot be had.
        BadClipError: a clip cannot be read.
    """
    yield from Whisper(cfg, language).transcribe(clips)


class Whisper:
    """The model, its tokenizer and its prompt for one language."""

    def __init__(self, cfg: AsrConfig, language: str) -> None:
        import ctranslate2
        from faster_whisper.feature_extractor import FeatureExtractor

        home = whisper_weights.home(cfg.model)
        self._cfg = cfg
        self._tokenizer = _tokenizer(home)
        self._end = self._token("<|endoftext|>")
        self._prompt = self._prompt_for(language)
        self._model = ctranslate2.models.Whisper(str(home), device=cfg.device, compute_type=cfg.compute_type)
        self._log_mel = FeatureExtractor(feature_size=self._model.n_mels)

    def transcribe(self, clips: Sequence[Clip]) -> Iterator[tuple[int, str]]:
        """(position, transcript) of every clip; doubtful clips are heard again, and come last."""
        first, second = self._cfg.max_frames or MAX_FRAMES, self._cfg.fallback_frames or 0
        order = sorted(range(len(clips)), key=lambda i: clips[i].duration_s)
        again = []
        for i, heard in self.hear(clips, order, first):
            if second > first and _doubtful(heard, self._cfg.fallback_logprob):
                again.append(i)
            else:
                yield i, _words(heard)
        for i, heard in self.hear(clips, again, second):
            yield i, _words(heard)

    def hear(self, clips: Sequence[Clip], order: Sequence[int], frames: int) -> Iterator[tuple[int, Heard]]:
        """(position, what was heard) of the clips at these positions, each padded to `frames` at least."""
        for start in range(0, len(order), self._cfg.batch_size):
            batch = order[start : start + self._cfg.batch_size]
            waves = [audio.load(clips[i].path, SAMPLE_RATE_HZ)[: MAX_FRAMES * HOP_LENGTH] for i in batch]
            by_length: dict[int, list[int]] = {}
            for k, wave in enumerate(waves):
                if np.abs(wave).max(initial=0.0) < audio.SILENCE_PEAK:
                    yield batch[k], NOTHING  # Whisper hears "you" in digital silence
                else:
                    by_length.setdefault(_padded(len(wave), frames), []).append(k)
            for length, members in by_length.items():
                for k, heard in zip(members, self._decode([waves[k] for k in members], length), strict=True):
                    yield batch[k], heard

    def _decode(self, waves: list[FloatArray], frames: int) -> list[Heard]:
        import ctranslate2

        features = np.stack([self._features(wave, frames) for wave in waves])
        limit = TOKENS_AT_LEAST + TOKENS_PER_S * max(map(len, waves)) // SAMPLE_RATE_HZ
        results = self._model.generate(
            ctranslate2.StorageView.from_array(features),
            [self._prompt] * len(waves),
            beam_size=1,
            max_length=2 * limit,  # CTranslate2 takes half of it for new tokens
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._heard(result, limit) for result in results]

    def _heard(self, result: Any, limit: int) -> Heard:
        tokens = [token for token in result.sequences_ids[0] if token < self._end]
        text = self._tokenizer.decode(tokens).strip()
        return Heard(text, float(result.scores[0]), float(result.no_speech_prob), len(tokens) >= limit)

    def _features(self, wave: FloatArray, frames: int) -> FloatArray:
        """Log-mel [n_mels, frames] of the clip, then zeros, as faster-whisper itself pads."""
        mel: FloatArray = self._log_mel(wave)[:, :frames]
        return np.pad(mel, ((0, 0), (0, frames - mel.shape[1]))).astype(np.float32)

    def _prompt_for(self, language: str) -> list[int]:
        start, end = self._token("<|startoftranscript|>"), self._token("<|notimestamps|>")
        if self._end == ENGLISH_END:
            return [start, end]
        code = self._tokenizer.token_to_id(f"<|{language}|>")
        if code is None:
            raise LanguageError(f"Whisper knows no language {language!r}; corpus.language is a code like 'de'")
        return [start, int(code), self._token("<|transcribe|>"), end]

    def _token(self, name: str) -> int:
        return int(self._tokenizer.token_to_id(name))


def _doubtful(heard: Heard, logprob: float) -> bool:
    """True where more trailing silence is worth its time: nothing, no end, a repetition, or a guess."""
    if heard.silent:
        return False
    return not heard.text or heard.cut_off or heard.logprob < logprob or repeats(heard.text)


def _words(heard: Heard) -> str:
    silent = heard.no_speech > NO_SPEECH_PROBABILITY and heard.logprob < NO_SPEECH_LOGPROB
    return "" if silent else heard.text


def _padded(samples: int, frames: int) -> int:
    """Frames that a clip of so many samples is padded to."""
    own = -(-samples // HOP_LENGTH)
    return frames if own <= frames else min(MAX_FRAMES, -(-own // FRAMES_STEP) * FRAMES_STEP)


def _tokenizer(home: Path) -> Any:
    import tokenizers

    path = home / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: copy the model's tokenizer.json beside its model.bin")
    return tokenizers.Tokenizer.from_file(str(path))
