"""`asr=faster_whisper`: Whisper through CTranslate2, with greedy decoding, in batches, with less padding.

Whisper pads every clip to 30 s, twelve times the length of a CREMA-D clip, and spends most of the time on silence. Here
a first pass pads to `asr.max_frames`. With little silence at the end, the decoder sometimes repeats a phrase, stops at
once, or produces improbable words. Such transcripts can be recognised (`_doubtful`), and only those clips are decoded
again with `asr.fallback_frames`. docs/asr.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ser_bench import audio, extras
from ser_bench.asr import whisper_weights
from ser_bench.asr.words import repeats
from ser_bench.config import AsrConfig
from ser_bench.errors import ConfigError, LanguageError
from ser_bench.types import Clip, FloatArray

SAMPLE_RATE_HZ = 16_000
HOP_LENGTH = 160
"""Samples per mel frame (10 ms); a position of the encoder is two frames."""
MAX_FRAMES = 3_000
"""30 s: the length with which Whisper was trained, and the limit of its position encodings."""
FRAMES_STEP = 100
"""A clip longer than `asr.max_frames` is padded to the next multiple of this."""
TOKENS_AT_LEAST = 16
TOKENS_PER_S = 8
"""Limit of the tokens of a transcript. Fast English speech has about 5 tokens per second; a decoder that exceeds the
limit repeats itself."""
NO_SPEECH_PROBABILITY = 0.6
NO_SPEECH_LOGPROB = -1.0
"""Whisper's own rule for "no speech": both thresholds must be passed."""
ENGLISH_END = 50_256
"""Id of <|endoftext|> in the English-only vocabulary; the multilingual vocabulary has one more token before it."""


@dataclass(frozen=True)
class DecodedClip:
    """The decoder's output for one clip.

    Attributes:
        text: the words.
        logprob: mean log-probability of the tokens.
        no_speech: probability that the clip contains no speech.
        cut_off: whether the limit on tokens ended the decoding.
        silent: whether the clip contains no signal at all.
    """

    text: str
    logprob: float
    no_speech: float
    cut_off: bool
    silent: bool = False


NO_SIGNAL = DecodedClip("", 0.0, 1.0, False, True)


def english_only(cfg: AsrConfig) -> bool:
    """Return True for models whose name ends with `.en`, and for folders with their vocabulary."""
    if not whisper_weights.is_folder(cfg.model):
        return cfg.model.endswith(".en")
    return int(_tokenizer(Path(cfg.model)).token_to_id("<|endoftext|>")) == ENGLISH_END


def identity(cfg: AsrConfig) -> dict[str, Any]:
    """Return what decides the words: the sha256 of the weights and the parameters, but not the batch size."""
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
    """Yield (position, transcript) of every clip, sorted by length; clips that are decoded twice come last.

    Raises:
        LanguageError: if the model does not support the language.
        WeightsError: if its weights are not available.
        BadClipError: if a clip cannot be read.
    """
    settings = tuple(sorted((name, value) for name, value in asdict(cfg).items()))
    yield from _resident(settings, language).transcribe(clips)


@lru_cache(maxsize=1)
def _resident(settings: tuple[tuple[str, Any], ...], language: str) -> Whisper:
    """The recogniser with these settings. It stays in memory: loading it takes as long as transcribing ten clips."""
    return Whisper(AsrConfig(**dict(settings)), language)


class Whisper:
    """A Whisper model in CTranslate2, with its tokenizer and its prompt for one language.

    Args:
        cfg: model and parameters.
        language: ISO 639-1 code of the spoken language.

    Raises:
        ConfigError, LanguageError, WeightsError: as in `recognise`.
    """

    def __init__(self, cfg: AsrConfig, language: str) -> None:
        extras.require("faster_whisper", "asr=faster_whisper")
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
        """Yield (position, transcript) of every clip; doubtful clips are decoded again, and come last."""
        first, second = self._cfg.max_frames or MAX_FRAMES, self._cfg.fallback_frames or 0
        order = sorted(range(len(clips)), key=lambda i: clips[i].duration_s)
        again = []
        for i, decoded in self.decode(clips, order, first):
            if second > first and _doubtful(decoded, self._cfg.fallback_logprob):
                again.append(i)
            else:
                yield i, _words(decoded)
        for i, decoded in self.decode(clips, again, second):
            yield i, _words(decoded)

    def decode(self, clips: Sequence[Clip], order: Sequence[int], frames: int) -> Iterator[tuple[int, DecodedClip]]:
        """Yield (position, output) of the clips at the positions `order`, each padded to at least `frames` frames."""
        for start in range(0, len(order), self._cfg.batch_size):
            batch = order[start : start + self._cfg.batch_size]
            waves = [audio.load(clips[i].path, SAMPLE_RATE_HZ)[: MAX_FRAMES * HOP_LENGTH] for i in batch]
            by_length: dict[int, list[int]] = {}
            for k, wave in enumerate(waves):
                if np.abs(wave).max(initial=0.0) < audio.SILENCE_PEAK:
                    yield batch[k], NO_SIGNAL  # Whisper would transcribe digital silence as "you"
                else:
                    by_length.setdefault(_padded(len(wave), frames), []).append(k)
            for length, members in by_length.items():
                for k, decoded in zip(members, self._generate([waves[k] for k in members], length), strict=True):
                    yield batch[k], decoded

    def _generate(self, waves: list[FloatArray], frames: int) -> list[DecodedClip]:
        import ctranslate2

        features = np.stack([self._features(wave, frames) for wave in waves])
        limit = TOKENS_AT_LEAST + TOKENS_PER_S * max(map(len, waves)) // SAMPLE_RATE_HZ
        results = self._model.generate(
            ctranslate2.StorageView.from_array(features),
            [self._prompt] * len(waves),
            beam_size=1,
            max_length=2 * limit,  # CTranslate2 allows half of it for new tokens
            return_scores=True,
            return_no_speech_prob=True,
        )
        return [self._decoded(result, limit) for result in results]

    def _decoded(self, result: Any, limit: int) -> DecodedClip:
        tokens = [token for token in result.sequences_ids[0] if token < self._end]
        text = self._tokenizer.decode(tokens).strip()
        return DecodedClip(text, float(result.scores[0]), float(result.no_speech_prob), len(tokens) >= limit)

    def _features(self, wave: FloatArray, frames: int) -> FloatArray:
        """Log-mel [n_mels, frames] of the clip, padded with zeros as in faster-whisper."""
        mel: FloatArray = self._log_mel(wave)[:, :frames]
        return np.pad(mel, ((0, 0), (0, frames - mel.shape[1]))).astype(np.float32)

    def _prompt_for(self, language: str) -> list[int]:
        start, end = self._token("<|startoftranscript|>"), self._token("<|notimestamps|>")
        if self._end == ENGLISH_END:
            return [start, end]
        code = self._tokenizer.token_to_id(f"<|{language}|>")
        if code is None:
            raise LanguageError(
                f"Whisper does not support the language {language!r}; set corpus.language to a code like 'de'"
            )
        return [start, int(code), self._token("<|transcribe|>"), end]

    def _token(self, name: str) -> int:
        return int(self._tokenizer.token_to_id(name))


def _doubtful(decoded: DecodedClip, logprob: float) -> bool:
    """True if the transcript is empty, cut off, improbable, or a repetition, so that more silence may improve it."""
    if decoded.silent:
        return False
    return not decoded.text or decoded.cut_off or decoded.logprob < logprob or repeats(decoded.text)


def _words(decoded: DecodedClip) -> str:
    no_speech = decoded.no_speech > NO_SPEECH_PROBABILITY and decoded.logprob < NO_SPEECH_LOGPROB
    return "" if no_speech else decoded.text


def _padded(samples: int, frames: int) -> int:
    """Number of frames to which a clip of so many samples is padded."""
    needed = -(-samples // HOP_LENGTH)
    return frames if needed <= frames else min(MAX_FRAMES, -(-needed // FRAMES_STEP) * FRAMES_STEP)


def _tokenizer(home: Path) -> Any:
    import tokenizers

    path = home / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"{path} is missing: copy the model's tokenizer.json beside its model.bin")
    return tokenizers.Tokenizer.from_file(str(path))
