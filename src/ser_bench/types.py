"""The data types that the steps of the pipeline pass to each other, and the protocols of a predictor."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

FloatArray = npt.NDArray[np.float32]

CLEAN = "clean"
VARIANTS: tuple[str, ...] = (CLEAN, "noise", "pitch", "noise_pitch")


@dataclass(frozen=True, slots=True)
class Clip:
    """One recording of one utterance.

    Attributes:
        id: unique within its corpus; the stem of the file name.
        path: the audio file.
        emotion: canonical label (`corpora/labels.py`), or the level under `corpus.target=intensity`; "" if unknown (new
            audio).
        speaker: unique within the corpus.
        sentence: code of the spoken sentence; "" if unknown.
        text: words of that sentence; "" if unknown.
        intensity: name that the corpus uses ("low", "medium", "high", "normal", "strong"); "" if unknown.
        sex: "female", "male", or "" if unknown.
        duration_s: duration of the file, seconds.
        digest: hexadecimal BLAKE2b-128 of the file's bytes.
        corpus: name of the clip's corpus in a run with two corpora; else "".
        language: ISO 639-1 code of the clip's language in a run with two corpora; else "" (see `Corpus.language`).
        part: "train", "val" or "test", if the corpus itself states one (`split=fixed split.list=corpus`); else "".
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
    part: str = ""


@dataclass(frozen=True)
class Corpus:
    """The clips of one corpus, after labels were mapped and unusable files were refused or skipped.

    Attributes:
        name: name of the data sheet; for two corpora both names, the training corpus first ("ravdess-emodb").
        clips: sorted by id.
        labels: ordered label list; the column order of every probability matrix.
        language: ISO 639-1 code of the language; two codes with a space between for two corpora that differ.
        synthetic: True for generated speech.
        skipped: file → reason, for files that `on_bad_clip=skip` left out.
        warnings: problems of this copy (missing clips, silent clips), one line each.
        target: source of the labels: "intended" emotion, plurality of listeners' "votes", or requested "intensity".
        scored: the rows that a run predicts and scores: "test", or "validation" (`split.scored`).
    """

    name: str
    clips: tuple[Clip, ...]
    labels: tuple[str, ...]
    language: str
    synthetic: bool = False
    skipped: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    target: str = "intended"
    scored: str = "test"

    @property
    def measured(self) -> str:
        """Name used in tags and headings: the name, with target and scored rows where they are not the usual ones.

        For example "cremad-votes" or "cremad-validation". Runs are compared only if this name is the same, so figures
        of validation rows never stand beside figures of test rows.
        """
        usual = ("intended", "test")
        return "-".join([self.name, *(word for word in (self.target, self.scored) if word not in usual)])

    @property
    def is_ordinal(self) -> bool:
        """Whether the labels are ordered levels, from the least to the most (`corpus.target=intensity`)."""
        return self.target == "intensity"

    @property
    def by_id(self) -> dict[str, Clip]:
        """Clips by id."""
        return {clip.id: clip for clip in self.clips}

    @property
    def table(self) -> pd.DataFrame:
        """One row per clip, indexed by id: path, emotion, speaker, sex, sentence, text, intensity, duration_s."""
        import pandas as pd

        columns = ("path", "emotion", "speaker", "sex", "sentence", "text", "intensity", "duration_s")
        index = pd.Index([clip.id for clip in self.clips], name="id")
        return pd.DataFrame({name: [getattr(clip, name) for clip in self.clips] for name in columns}, index=index)

    @property
    def digest(self) -> str:
        """Digest of the content: ids, labels, speakers, sentences, and the bytes of every file."""
        return digest_of([(c.id, c.emotion, c.speaker, c.sentence, c.digest) for c in self.clips])


class Row(NamedTuple):
    """One training or test item: a clip in one of its `VARIANTS`."""

    clip_id: str
    variant: str = CLEAN


@dataclass(frozen=True)
class Split:
    """The training, validation and test rows of one fold under one protocol."""

    protocol: str
    fold: int
    folds: int
    train: tuple[Row, ...]
    val: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def partition(self) -> str:
        """Digest of the clips of each part and of the test rows; runs with equal digests can be compared."""
        clips = [sorted({row.clip_id for row in part}) for part in (self.train, self.val, self.test)]
        return digest_of([clips, sorted(self.test)])

    @property
    def rows(self) -> str:
        """Digest of all rows, including augmented training rows."""
        return digest_of([sorted(part) for part in (self.train, self.val, self.test)])


@dataclass(frozen=True)
class Predictions:
    """The predictions of one predictor; every metric, figure and test is computed from them.

    Attributes:
        rows: N rows, unique.
        truth: N canonical labels ("" if unknown).
        labels: C labels, the column order of `probabilities`.
        probabilities: [N, C] float32, rows sum to 1; uniform for an abstention.
        abstained: [N] bool; True if there is no label. An abstention counts as wrong; a row in `causes` is none.
        latency_s: [N] float32, seconds per row (the time of a batch is divided evenly).
        cost_usd: [N] float32, US dollars per row.
        source: origin of the probabilities: "softmax", "logprobs", "samples", "votes" (of listeners), "priors" (shares
            of training labels), "mean" (over the members of a fusion) or "one_hot".
        notes: optional text per row (the raw answer of a language model); may be empty.
        reasons: the reason of each abstention, "" for other rows; () if the predictor states none.
        causes: the cause of each failed request, "" for other rows; () if no request failed. Failed rows have no label
            either, but they say nothing about the model: predictions that hold some have no score.
        ordinal: whether the labels are ordered levels, from the least to the most; metrics of levels are then defined.
        votes: [N, C] int64, number of listeners who chose each label for the clip; None if they are not known. Only
            soft-label metrics use them.
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
    reasons: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    ordinal: bool = False
    votes: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n, c = len(self.rows), len(self.labels)
        if self.votes is not None and self.votes.shape != (n, c):
            raise ValueError(f"votes for predictions of {n} rows and {c} labels have the shape {self.votes.shape}")
        shapes = [len(self.truth), len(self.abstained), len(self.latency_s), len(self.cost_usd)]
        if self.probabilities.shape != (n, c) or any(size != n for size in shapes):
            raise ValueError(f"predictions of {n} rows and {c} labels have shapes {self.probabilities.shape}, {shapes}")
        if len(set(self.rows)) != n:
            raise ValueError("a row was predicted twice")
        if n and not np.allclose(self.probabilities.sum(axis=1), 1.0, atol=1e-3):
            raise ValueError("probabilities do not sum to 1")
        if any(len(texts) not in (0, n) for texts in (self.notes, self.reasons, self.causes)):
            raise ValueError(f"notes, reasons or causes are not those of {n} rows")
        if self.causes and (self.failed & ~self.abstained).any():
            raise ValueError("a row has a label and the cause of a failure")

    @property
    def failed(self) -> npt.NDArray[np.bool_]:
        """[N] bool; True if the request for the row failed."""
        if not self.causes:
            return np.zeros(len(self.rows), dtype=np.bool_)
        return np.array([bool(cause) for cause in self.causes], dtype=np.bool_)

    @property
    def status(self) -> tuple[str, ...]:
        """N words: "answered", "abstained" or "failed"."""
        return tuple(
            "failed" if failed else "abstained" if out else "answered"
            for failed, out in zip(self.failed, self.abstained, strict=True)
        )

    @property
    def gives_probabilities(self) -> bool:
        """False if the matrix is one-hot; log-loss and ECE are then not defined."""
        return self.source != "one_hot"

    @property
    def predicted(self) -> tuple[str, ...]:
        """N labels: the most probable one, or "" for an abstention."""
        best = self.probabilities.argmax(axis=1) if len(self.rows) else []
        return tuple("" if out else self.labels[i] for i, out in zip(best, self.abstained, strict=True))

    def take(self, keep: Sequence[int]) -> Predictions:
        """Return the predictions at these indices, in this order."""
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
            reasons=tuple(self.reasons[i] for i in keep) if self.reasons else (),
            causes=tuple(self.causes[i] for i in keep) if self.causes else (),
            ordinal=self.ordinal,
            votes=None if self.votes is None else self.votes[index],
        )


class FusionMember(Protocol):
    """A finished run whose predictions a fusion combines."""

    @property
    def name(self) -> str:
        """Name of its model; with the first digits of the run id if several members have one model. Unique."""

    @property
    def run_id(self) -> str:
        """Id of the run."""

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the stored predictions of these rows, or those of the restored predictor, in the given order."""

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] vectors of its classifier, not standardised; raise ConfigError if it has none."""


class Inputs(Protocol):
    """The inputs that a predictor can request, one value per row, in the order of the rows."""

    def truth(self, rows: Sequence[Row]) -> list[str]:
        """Return canonical labels."""

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        """Return the clips of these rows. Their speaker and sentence must not be inputs of a model."""

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        """Return ZCR | RMS | MFCC, [N, 2376] at the paper's settings, not standardised."""

    def log_mel(self, rows: Sequence[Row], cfg: Any) -> FloatArray:
        """Return log-mel spectrograms [N, T, B] of the clean clips, dB, not standardised; `cfg` is a LogMelConfig."""

    def egemaps(self, rows: Sequence[Row]) -> FloatArray:
        """Return openSMILE's eGeMAPSv02 functionals [N, 88] of the whole row, not standardised."""

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        """Return the transcripts of the clean clips."""

    def text(self, rows: Sequence[Row]) -> FloatArray:
        """Return embeddings [N, D] of the transcripts, not standardised."""

    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        """Return [N, layers, 2, width], mean and standard deviation over time of a frozen Whisper encoder's layers.

        `others` are encoders that will be requested too: each clip is then decoded once for all of them.
        """

    def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Iterator[FloatArray]:
        """Yield [T, width] for each clean clip: states over time of one layer of a frozen Whisper encoder."""

    def of_speaker(self, speaker: str) -> list[Row]:
        """Return the clean rows of all clips of a speaker, without their labels."""

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        """`features.prosody.Pitch` of each clean clip, None where nothing is voiced."""

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        """Return prosodic measures of each clean clip."""

    def votes(self, rows: Sequence[Row]) -> list[Mapping[str, int] | None]:
        """Return emotion → number of listeners who chose it for the clean clip; None for a clip without votes."""

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray | None:
        """Return the shares [N, C] of listeners' votes as training targets under `corpus.target=votes`; else None."""

    def members(self) -> Sequence[FusionMember]:
        """Return the runs that a fusion combines; () for every other predictor."""

    def speech_encoder(self, rows: Sequence[Row], encoder: str, revision: str | None, device: str) -> FloatArray:
        """Return [N, layers, 2, width], mean and standard deviation over time of a Hugging Face encoder's layers."""

    def class_scores(self, rows: Sequence[Row], checkpoint: str, revision: str | None, device: str) -> FloatArray:
        """Return [N, K] scores of a Hugging Face audio-classification checkpoint's own labels."""


EpochLog = Callable[[int, Mapping[str, float]], None]
"""Called with (epoch, metrics) once per epoch; the names are those in MLflow."""


class Predictor(Protocol):
    """A predictor of emotion. It is not a LightningModule, because some predictors are not trained.

    It is built by `predictors.build(cfg, labels, inputs, work_dir, on_epoch)` and restored by
    `predictors.load(folder, cfg, labels, inputs)`.
    """

    name: ClassVar[str]
    groups: ClassVar[tuple[str, ...]]
    """Configuration groups that change its result; they are part of the run key."""

    def fit(self, train: Sequence[Row], val: Sequence[Row], test: Sequence[Row] = ()) -> Mapping[str, float]:
        """Fit on training rows, choose on validation rows, and return metrics to log (seconds, epochs, parameters).

        `test` is given under the `paper` protocol only, for the per-epoch test curve that the paper shows. It must not
        influence any choice.
        """

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Predict every row; a row without an answer is an abstention or has failed, but is never missing."""

    def facts(self) -> Mapping[str, float]:
        """Return metrics of the last `predict` to log: counts, tokens, shares of answers; may be {}."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs; nothing in it needs code to be executed."""


def digest_of(value: Any) -> str:
    """Return the hexadecimal BLAKE2b-128 digest of a JSON-serialisable value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def clean_rows(clip_ids: Iterable[str]) -> tuple[Row, ...]:
    """Return one clean row per clip."""
    return tuple(Row(clip_id) for clip_id in clip_ids)
