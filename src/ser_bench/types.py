"""The nouns that the steps of the pipeline hand to each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

CLEAN = "clean"
VARIANTS: tuple[str, ...] = (CLEAN, "noise", "pitch", "noise_pitch")


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of one utterance.

    Attributes:
        id: unique within its corpus; the file's stem.
        path: the audio file.
        emotion: canonical label (`corpora/labels.py`); "" where it is not known (new audio).
        speaker: unique within the corpus.
        sentence: code of the spoken sentence, or "" where it is not known.
        text: the words of that sentence, or "" where they are not known.
        intensity: as the corpus names it ("low", "medium", "high", "normal", "strong"), or "".
        sex: "female", "male" or "".
        duration_s: length of the file, seconds.
        digest: hexadecimal BLAKE2b-128 of the file's bytes.
        corpus: where a run has two corpora, the one that this clip is of; else "".
        language: ISO 639-1 code of what is spoken, where a run has two corpora; else "", and the corpus says it.
    """

    id: str
    path: Path
    emotion: str
    speaker: str
    sentence: str = ""
    text: str = ""
    intensity: str = ""
    sex: str = ""
    duration_s: float = 0.0
    digest: str = ""
    corpus: str = ""
    language: str = ""


@dataclass(frozen=True)
class Corpus:
    """The clips of one corpus after labels were mapped and unusable files dealt with.

    Attributes:
        name: name of the data sheet; of two corpora both, the one that is trained on first ("ravdess-emodb").
        clips: sorted by id.
        labels: the ordered label list; column order of every probability matrix.
        language: ISO 639-1 code of the spoken language; of two corpora that differ both, a space between.
        synthetic: True where no human spoke.
        skipped: file → reason, of files that `on_bad_clip=skip` left out.
        warnings: what a reader should know of this copy (missing clips, silent clips), one line each.
        target: whose word the clips' emotions are: "intended", or the plurality of listeners' "votes".
    """

    name: str
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    language: str
    synthetic: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    target: str = "intended"

    @property
    def measured(self) -> str:
        """What figures are of: the name, and the target where it is not what was intended ("cremad-votes")."""
        return self.name if self.target == "intended" else f"{self.name}-{self.target}"

    @property
    def by_id(self) -> dict[str, Clip]:
        """Clips by id."""
        return {clip.id: clip for clip in self.clips}

    @property
    def digest(self) -> str:
        """Digest of the content: ids, labels, speakers, and every file's bytes."""
        return digest_of([(c.id, c.emotion, c.speaker, c.sentence, c.digest) for c in self.clips])


class Row(NamedTuple):
    """One item to train or test on: a clip in one of its `VARIANTS`."""

    clip_id: str
    variant: str = CLEAN


@dataclass(frozen=True)
class Split:
    """Which rows train, validate and test in one fold of one protocol."""

    protocol: str
    fold: int
    folds: int
    train: tuple[Row, ...]
    val: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def partition(self) -> str:
        """Digest of which clip is in which part and which variants are tested: equal means comparable."""
        clips = [sorted({row.clip_id for row in part}) for part in (self.train, self.val, self.test)]
        return digest_of([clips, sorted(self.test)])

    @property
    def rows(self) -> str:
        """Digest of all rows, training variants included."""
        return digest_of([sorted(part) for part in (self.train, self.val, self.test)])


@dataclass(frozen=True)
class Predictions:
    """What one predictor said of the test rows; every metric, plot and test is recomputed from it.

    Attributes:
        rows: N rows, unique.
        truth: N canonical labels ("" where not known).
        labels: C labels, the columns of `probabilities`.
        probabilities: [N, C] float32, rows sum to 1; uniform for an abstention.
        abstained: [N] bool; True where no label could be had. Scored as wrong.
        latency_s: [N] float32, seconds spent on each row (a batch's time is shared out evenly).
        cost_usd: [N] float32, US dollars paid for each row.
        source: where the probabilities come from: "softmax", "logprobs", "samples", "votes" (of listeners),
            "priors" (shares of training labels), "mean" (of the members of a fusion) or "one_hot".
        notes: optional text per row (the raw answer of a language model), or empty.
    """

    rows: tuple[Row, ...]
    truth: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: FloatArray
    abstained: npt.NDArray[np.bool_]
    latency_s: FloatArray
    cost_usd: FloatArray
    source: str = "softmax"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n, c = len(self.rows), len(self.labels)
        shapes = [len(self.truth), len(self.abstained), len(self.latency_s), len(self.cost_usd)]
        if self.probabilities.shape != (n, c) or any(size != n for size in shapes):
            raise ValueError(f"predictions of {n} rows and {c} labels have shapes {self.probabilities.shape}, {shapes}")
        if len(set(self.rows)) != n:
            raise ValueError("a row was predicted twice")
        if n and not np.allclose(self.probabilities.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError("probabilities do not sum to 1")

    @property
    def gives_probabilities(self) -> bool:
        """False where the matrix is one-hot: log-loss and ECE then mean nothing."""
        return self.source != "one_hot"

    @property
    def predicted(self) -> tuple[str, ...]:
        """N labels: the most probable one, "" for an abstention."""
        best = self.probabilities.argmax(axis=1) if len(self.rows) else []
        return tuple("" if out else self.labels[i] for i, out in zip(best, self.abstained, strict=True))

    def take(self, keep: Sequence[int]) -> Predictions:
        """The predictions at these positions, in this order."""
        index = np.asarray(keep, dtype=np.int64)
        return Predictions(
            rows=tuple(self.rows[i] for i in keep),
            truth=tuple(self.truth[i] for i in keep),
            labels=self.labels,
            probabilities=self.probabilities[index],
            abstained=self.abstained[index],
            latency_s=self.latency_s[index],
            cost_usd=self.cost_usd[index],
            source=self.source,
            notes=tuple(self.notes[i] for i in keep) if self.notes else (),
        )


class FusionMember(Protocol):
    """A finished run whose predictions a fusion combines."""

    @property
    def name(self) -> str:
        """Its model, with the first digits of its id where two members are of one model; unique in a fusion."""

    @property
    def run_id(self) -> str:
        """Id of the run."""

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Every row, in the order asked: as the run stored it, else as its restored predictor answers."""

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] in the order asked: what its classifier stands on, not standardised; ConfigError where it has none."""


class Inputs(Protocol):
    """What a predictor may ask of the feature step, row by row and in the order asked."""

    def truth(self, rows: Sequence[Row]) -> list[str]:
        """Canonical labels."""

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        """The clips of these rows (their speaker, sentence, …; never to be used as an input of the model)."""

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        """[N, 2376] at the paper's settings: ZCR | RMS | MFCC, not standardised."""

    def log_mel(self, rows: Sequence[Row], cfg: Any) -> FloatArray:
        """[N, T, B] log-mel spectrograms of the clean clips, dB, not standardised; `cfg` is a LogMelConfig."""

    def egemaps(self, rows: Sequence[Row]) -> FloatArray:
        """[N, 88]: openSMILE's eGeMAPSv02 functionals of the whole row, not standardised."""

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        """What the recogniser heard in the clean clip."""

    def text(self, rows: Sequence[Row]) -> FloatArray:
        """[N, D] embeddings of the transcripts, not standardised."""

    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        """[N, layers, 2, width]: mean and deviation over time of a frozen encoder's layers; `others` come later."""

    def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Iterator[FloatArray]:
        """[T, width] of each clean clip: states over time of one layer of a frozen encoder."""

    def of_speaker(self, speaker: str) -> list[Row]:
        """Every clip of a speaker, clean; which emotion they hold is no part of it."""

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        """`features.prosody.Pitch` of each clean clip, None where nothing is voiced."""

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        """`features.prosody.Prosody` of each clean clip."""

    def votes(self, rows: Sequence[Row]) -> list[Mapping[str, int] | None]:
        """Emotion → people who heard it in the clean clip, None for a clip that nobody was asked about."""

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray | None:
        """[N, C] shares of listeners' votes to train on under `corpus.target=votes`, else None: the truth is all."""

    def members(self) -> Sequence[FusionMember]:
        """Other runs whose answers a fusion combines; () for every other predictor."""

    def speech_encoder(self, rows: Sequence[Row], encoder: str, revision: str | None, device: str) -> FloatArray:
        """[N, layers, 2, width] of the clean clips: mean and deviation over time of a speech encoder's states."""


EpochLog = Callable[[int, Mapping[str, float]], None]
"""Receives (epoch, metrics) once an epoch; names as they shall stand in MLflow."""


class Predictor(Protocol):
    """One way to get from audio to an emotion. Not a LightningModule: a language model never trains.

    Built by `predictors.build(cfg, labels, inputs, work_dir, on_epoch)`; restored by
    `predictors.load(folder, cfg, labels, inputs)`.
    """

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]
    """Configuration groups that change what this predictor computes; they make the run's key."""

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Learn from training rows, stop on validation rows; return facts to log (seconds, epochs, parameters).

        `test` is given under the `paper` protocol alone, for the per-epoch test curve that the paper draws; it must
        never influence a choice.
        """

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Predict every row; a row that cannot be answered is an abstention, never missing."""

    def facts(self) -> Mapping[str, float]:
        """What happened while predicting, to log: counts, tokens, shares of answers; {} where there is nothing."""

    def save(self, folder: Path) -> None:
        """Write all that `load` needs, loadable without executing code."""


def digest_of(value: Any) -> str:
    """Hexadecimal BLAKE2b-128 of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def clean_rows(clip_ids: Iterable[str]) -> tuple[Row, ...]:
    """One clean row a clip."""
    return tuple(Row(clip_id) for clip_id in clip_ids)
