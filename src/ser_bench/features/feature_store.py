"""What predictors may ask of the feature step, computed when asked and cached on disk (`types.Inputs`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ser_bench import asr, corpora
from ser_bench.cache import Cache
from ser_bench.config import Config, LogMelConfig, Target, cache_dir
from ser_bench.corpora import target
from ser_bench.features import egemaps_functionals, log_mel, paper_features, pitch, prosody, text_embedding
from ser_bench.features.encoders import huggingface_encoder, whisper_states
from ser_bench.types import Clip, FloatArray, Member, Row


class Features:
    """Rows → arrays, in the order asked; variants of a clip share its transcript and its pitch."""

    def __init__(self, cfg: Config, clips: Mapping[str, Clip], language: str, members: Sequence[Member] = ()) -> None:
        self._cfg = cfg
        self._clips = clips
        self._language = language
        self._members = tuple(members)
        self._folder = cache_dir(cfg)
        self._transcripts: dict[str, str] = {}
        self._pooled: dict[tuple[str, str], FloatArray] = {}
        self._votes: dict[str, Mapping[str, Mapping[str, int]]] = {}

    def truth(self, rows: Sequence[Row]) -> list[str]:
        """Canonical labels."""
        return [self._clips[row.clip_id].emotion for row in rows]

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        """The clips of these rows."""
        return [self._clips[row.clip_id] for row in rows]

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] ZCR | RMS | MFCC, not standardised; D is 2,376 at the paper's settings."""
        cache = Cache(self._folder / "spectral")
        return paper_features.extract(rows, self._clips, self._cfg.features, self._cfg.augment, cache)

    def cached_spectral(self, rows: Sequence[Row]) -> FloatArray | None:
        """The same from the cache alone; None where a row is not in it."""
        cache = Cache(self._folder / "spectral")
        return paper_features.cached(rows, self._clips, self._cfg.features, self._cfg.augment, cache)

    def log_mel(self, rows: Sequence[Row], cfg: LogMelConfig) -> FloatArray:
        """[N, T, B] log-mel spectrograms of the clean clips, dB, not standardised."""
        return log_mel.extract(self.clips(rows), cfg, Cache(self._folder / "logmel"))

    def egemaps(self, rows: Sequence[Row]) -> FloatArray:
        """[N, 88] openSMILE's eGeMAPSv02 functionals of the whole row, not standardised."""
        return egemaps_functionals.extract(rows, self._clips, self._cfg.augment, Cache(self._folder / "egemaps"))

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        """What the recogniser heard in the clean clip."""
        missing = [c for c in self._unique(rows) if c.id not in self._transcripts]
        if missing:
            heard = asr.transcribe(missing, self._cfg.asr, self._language, Cache(self._folder / "asr"))
            self._transcripts.update({clip.id: words for clip, words in zip(missing, heard, strict=True)})
        return [self._transcripts[row.clip_id] for row in rows]

    def word_error_rate(self) -> float | None:
        """WER of the transcripts asked for so far against the known sentences; None where none is known."""
        heard = [(self._clips[clip_id], words) for clip_id, words in self._transcripts.items()]
        return asr.word_error_rate([clip for clip, _ in heard], [words for _, words in heard]) if heard else None

    def text(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] embeddings of the transcripts, not standardised; D is 384 for MiniLM."""
        cache = Cache(self._folder / "text")
        return text_embedding.embed(self.transcripts(rows), self._cfg.text, self._language, cache)

    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        """[N, layers, 2, width] of the clean clips: mean and deviation over time of a frozen encoder's layers."""
        missing = [c for c in self._unique(rows) if (encoder, c.id) not in self._pooled]
        if missing:
            found = whisper_states.embed(missing, encoder, others, device, Cache(self._folder / "embedding"))
            self._pooled.update({(encoder, clip.id): one for clip, one in zip(missing, found, strict=True)})
        pooled = [self._pooled[encoder, row.clip_id] for row in rows]
        return np.stack(pooled) if pooled else np.zeros((0, 0, 0, 0), dtype=np.float32)

    def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Iterator[FloatArray]:
        """[T, width] float16 of each clean clip: one layer's states over time."""
        cache = Cache(self._folder / "frames")
        return whisper_states.frames(self.clips(rows), encoder, layer, device, cache)

    def of_speaker(self, speaker: str) -> list[Row]:
        """Every clip of a speaker, clean."""
        return [Row(clip.id) for clip in self._clips.values() if clip.speaker == speaker]

    def pitch(self, rows: Sequence[Row]) -> list[pitch.Pitch | None]:
        """F0 statistics of the clean clips, Hz; None where nothing is voiced."""
        unique = self._unique(rows)
        measured = pitch.measure(unique, self._cfg.features.pitch, Cache(self._folder / "pitch"))
        by_id = {clip.id: value for clip, value in zip(unique, measured, strict=True)}
        return [by_id[row.clip_id] for row in rows]

    def prosody(self, rows: Sequence[Row]) -> list[prosody.Prosody]:
        """How the clean clips were said: pitch, loudness, rate, pauses, quality of the voice."""
        unique = self._unique(rows)
        measured = prosody.measure(unique, self._cfg.features.pitch, Cache(self._folder / "prosody"))
        by_id = {clip.id: value for clip, value in zip(unique, measured, strict=True)}
        return [by_id[row.clip_id] for row in rows]

    def votes(self, rows: Sequence[Row]) -> list[Mapping[str, int] | None]:
        """Emotion → people who heard it in the clean clip, None for a clip that nobody was asked about.

        Raises:
            ConfigError: nobody was asked about any clip of this corpus.
            CorpusError: people were, but this copy of the corpus has no readable table of their votes.
        """
        return [
            self._votes_of(clip.corpus or self._cfg.corpus.name).get(clip.id.removeprefix(f"{clip.corpus}:"))
            for clip in self.clips(rows)
        ]

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray | None:
        """[N, C] shares of the votes under `corpus.target=votes`, else None."""
        return target.shares(self.votes(rows), labels) if self._cfg.corpus.target is Target.votes else None

    def members(self) -> Sequence[Member]:
        """Other runs whose answers a fusion combines; () for every other predictor."""
        return self._members

    def speech_encoder(self, rows: Sequence[Row], encoder: str, revision: str | None, device: str) -> FloatArray:
        """[N, layers, 2, width] of the clean clips, not standardised; see `features.speech_encoder.embed`."""
        cache = Cache(self._folder / "speech_encoder")
        return huggingface_encoder.embed([self._clips[row.clip_id] for row in rows], encoder, revision, device, cache)

    def under(self, cfg: Config) -> Features:
        """The same clips, read as another run's configuration reads them."""
        return Features(cfg, self._clips, self._language)

    def _votes_of(self, corpus: str) -> Mapping[str, Mapping[str, int]]:
        """Clip id, as its corpus spells it → emotion → people; read once. A run may have two corpora."""
        if corpus not in self._votes:
            own = replace(self._cfg.corpus, name=corpus)
            if corpus != self._cfg.corpus.name:
                own = replace(own, root=self._cfg.split.test_root)
            sheet, root = corpora.sheet_of(corpus), corpora.root_of(replace(self._cfg, corpus=own))
            self._votes[corpus] = corpora.votes_of(sheet, root)
        return self._votes[corpus]

    def _unique(self, rows: Sequence[Row]) -> list[Clip]:
        return [self._clips[clip_id] for clip_id in dict.fromkeys(row.clip_id for row in rows)]
