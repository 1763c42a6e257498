"""The inputs of predictors (`types.Inputs`), computed when they are requested and cached on disk."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from ser_bench import asr, corpora
from ser_bench.cache import Cache
from ser_bench.config import Config, LogMelConfig, Target, cache_dir
from ser_bench.corpora import listener_votes
from ser_bench.features import egemaps_functionals, fingerprint, log_mel, paper_features, prosody, text_embedding
from ser_bench.features.encoders import audio_classifier, huggingface_encoder, whisper_states
from ser_bench.types import Clip, FloatArray, FusionMember, Row

Method = TypeVar("Method", bound=Callable[..., Any])


def _stage(name: str) -> Callable[[Method], Method]:
    """Add the time of a method to `Features.seconds[name]`, without that of the other stages that it requests."""

    def timed(method: Method) -> Method:
        @functools.wraps(method)
        def call(self: Features, *args: Any, **kwargs: Any) -> Any:
            started, others = time.perf_counter(), sum(self.seconds.values())
            try:
                return method(self, *args, **kwargs)
            finally:
                within = sum(self.seconds.values()) - others
                self.seconds[name] += time.perf_counter() - started - within

        return cast(Method, call)

    return timed


class Features:
    """Features of rows, in the order of the rows. The variants of a clip share its transcript and its prosody.

    Args:
        cfg: composed configuration of the run.
        clips: id → clip; a mapping that the caller may fill anew (`forget`).
        language: ISO 639-1 code of the spoken language; for two corpora both codes, separated by a space.
        members: the runs that a fusion combines.
    """

    def __init__(
        self, cfg: Config, clips: Mapping[str, Clip], language: str, members: Sequence[FusionMember] = ()
    ) -> None:
        self._cfg = cfg
        self._clips = clips
        self._language = language
        self._members = tuple(members)
        self._folder = cache_dir(cfg)
        self._transcripts: dict[str, str] = {}
        self._pooled: dict[tuple[str, str], FloatArray] = {}
        self._votes: dict[str, Mapping[str, Mapping[str, int]]] = {}
        self.labels_read: set[Row] = set()
        """Rows whose labels or votes were requested so far; a run stores those that its fit requested."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Stage → seconds that it took since the last `forget`."""

    def forget(self) -> None:
        """Drop what was computed so far; call it after the mapping `clips` was given other clips."""
        self._transcripts.clear()
        self._pooled.clear()
        self.labels_read.clear()
        self.seconds.clear()

    @property
    def transcripts_by_id(self) -> Mapping[str, str]:
        """Clip id → transcript, of those that were requested."""
        return self._transcripts

    def truth(self, rows: Sequence[Row]) -> list[str]:
        """Return the canonical labels."""
        self.labels_read.update(rows)
        return [self._clips[row.clip_id].emotion for row in rows]

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        """Return the clips of these rows."""
        return [self._clips[row.clip_id] for row in rows]

    @_stage("spectral")
    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        """Return ZCR | RMS | MFCC [N, D], not standardised; D is 2,376 with the paper's settings."""
        cache = Cache(self._folder / "spectral")
        return paper_features.extract(rows, self._clips, self._cfg.features, self._cfg.augment, cache)

    def copies(self, clip_ids: Sequence[str], compute: bool = True) -> list[tuple[str, str]] | None:
        """Return the pairs of these clips with the same recording; see `fingerprint.copies`."""
        clips = [self._clips[clip_id] for clip_id in clip_ids]
        return fingerprint.copies(clips, Cache(self._folder / "fingerprint"), compute)

    @_stage("log_mel")
    def log_mel(self, rows: Sequence[Row], cfg: LogMelConfig) -> FloatArray:
        """Return the log-mel spectrograms [N, T, B] of the clean clips, dB, not standardised."""
        return log_mel.extract(self.clips(rows), cfg, Cache(self._folder / "logmel"))

    @_stage("egemaps")
    def egemaps(self, rows: Sequence[Row]) -> FloatArray:
        """Return openSMILE's eGeMAPSv02 functionals [N, 88] of the whole row, not standardised."""
        return egemaps_functionals.extract(rows, self._clips, self._cfg.augment, Cache(self._folder / "egemaps"))

    @_stage("transcript")
    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        """Return the transcripts of the clean clips."""
        missing = [c for c in self._unique(rows) if c.id not in self._transcripts]
        if missing:
            transcripts = asr.transcribe(missing, self._cfg.asr, self._language, Cache(self._folder / "asr"))
            self._transcripts.update({clip.id: words for clip, words in zip(missing, transcripts, strict=True)})
        return [self._transcripts[row.clip_id] for row in rows]

    def word_error_rate(self) -> float | None:
        """Return the word error rate of the transcripts requested so far; None if no sentence is known."""
        if not self._transcripts:
            return None
        return asr.word_error_rate([self._clips[i] for i in self._transcripts], list(self._transcripts.values()))

    @_stage("text_embedding")
    def text(self, rows: Sequence[Row]) -> FloatArray:
        """Return the embeddings [N, D] of the transcripts, not standardised; D is 384 for MiniLM."""
        cache = Cache(self._folder / "text")
        return text_embedding.embed(self.transcripts(rows), self._cfg.text, self._language, cache)

    @_stage("encoder")
    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        """Return [N, layers, 2, width] of the clean clips: mean and deviation over time of a frozen Whisper encoder."""
        missing = [c for c in self._unique(rows) if (encoder, c.id) not in self._pooled]
        if missing:
            states = whisper_states.embed(missing, encoder, others, device, Cache(self._folder / "embedding"))
            self._pooled.update({(encoder, clip.id): values for clip, values in zip(missing, states, strict=True)})
        pooled = [self._pooled[encoder, row.clip_id] for row in rows]
        return np.stack(pooled) if pooled else np.zeros((0, 0, 0, 0), dtype=np.float32)

    @_stage("encoder")
    def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Iterator[FloatArray]:
        """Yield the frames [T, width] float16 of each clean clip: states of one layer of a frozen Whisper encoder."""
        cache = Cache(self._folder / "frames")
        return whisper_states.frames(self.clips(rows), encoder, layer, device, cache)

    def of_speaker(self, speaker: str) -> list[Row]:
        """Return the clean rows of all clips of a speaker."""
        return [Row(clip.id) for clip in self._clips.values() if clip.speaker == speaker]

    @_stage("f0")
    def pitch(self, rows: Sequence[Row]) -> list[prosody.Pitch | None]:
        """Return the F0 statistics of the clean clips, Hz; None if no frame is voiced."""
        cache = Cache(self._folder / "pitch")
        return prosody.measure_pitch(self.clips(rows), self._cfg.features.pitch, cache)

    @_stage("prosody")
    def prosody(self, rows: Sequence[Row]) -> list[prosody.Prosody]:
        """Return pitch, loudness, rate, pauses and voice quality of the clean clips."""
        cache = Cache(self._folder / "prosody")
        return prosody.measure_prosody(self.clips(rows), self._cfg.features.pitch, cache)

    def votes(self, rows: Sequence[Row]) -> list[Mapping[str, int] | None]:
        """Return emotion → number of listeners who chose it for the clean clip; None for a clip without votes.

        Raises:
            ConfigError: if the corpus has no listeners' votes.
            CorpusError: if it has, but this copy of the corpus has no readable table of them.
        """
        self.labels_read.update(rows)
        return [
            self._votes_of(clip.corpus or self._cfg.corpus.name).get(clip.id.removeprefix(f"{clip.corpus}:"))
            for clip in self.clips(rows)
        ]

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray | None:
        """Return the shares [N, C] of the listeners' votes if `corpus.target=votes`, else None."""
        return listener_votes.vote_shares(self.votes(rows), labels) if self._cfg.corpus.target is Target.votes else None

    def members(self) -> Sequence[FusionMember]:
        """Return the runs whose predictions a fusion combines; () for every other predictor."""
        return self._members

    @_stage("encoder")
    def speech_encoder(self, rows: Sequence[Row], encoder: str, revision: str | None, device: str) -> FloatArray:
        """Return [N, layers, 2, width] of the clean clips, not standardised; see `huggingface_encoder.embed`."""
        cache = Cache(self._folder / "speech_encoder")
        return huggingface_encoder.embed(self.clips(rows), encoder, revision, device, cache)

    @_stage("encoder")
    def class_scores(self, rows: Sequence[Row], checkpoint: str, revision: str | None, device: str) -> FloatArray:
        """Return the scores [N, K] of a checkpoint's own labels for the clean clips; see `audio_classifier`."""
        cache = Cache(self._folder / "class_scores")
        return audio_classifier.class_scores(self.clips(rows), checkpoint, revision, device, cache)

    def under(self, cfg: Config, members: Sequence[FusionMember] = ()) -> Features:
        """Return the features of the same clips under another run's configuration, with the members of that run."""
        return Features(cfg, self._clips, self._language, members)

    def _votes_of(self, corpus: str) -> Mapping[str, Mapping[str, int]]:
        """Clip id in the corpus → emotion → number of listeners. A run can have two corpora; each is read once."""
        if corpus not in self._votes:
            corpus_cfg = replace(self._cfg.corpus, name=corpus)
            if corpus != self._cfg.corpus.name:
                corpus_cfg = replace(corpus_cfg, root=self._cfg.split.test_root)
            sheet, root = corpora.sheet_of(corpus), corpora.root_of(replace(self._cfg, corpus=corpus_cfg))
            self._votes[corpus] = corpora.votes_of(sheet, root)
        return self._votes[corpus]

    def _unique(self, rows: Sequence[Row]) -> list[Clip]:
        return [self._clips[clip_id] for clip_id in dict.fromkeys(row.clip_id for row in rows)]
