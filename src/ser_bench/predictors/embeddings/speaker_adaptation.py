"""`adapt=speaker_stats`: standardisation of vectors by the mean and standard deviation of the speaker.

The statistics of a training speaker are those of all of the speaker's training clips. For an unseen speaker,
`adapt.enrol` *unlabelled* enrolment clips are used and not scored; with null, all clips are used, scored ones too
(transductive). Clips of unknown speakers, whose name is empty, are standardised by the mean and the variance of the
training speakers. Few clips give noisy statistics, so they are shrunk towards those of the training speakers, with a
weight of `adapt.prior` clips:

    mean = (Σx + prior · M) / (n + prior),  variance = (Σ(x − mean)² + prior · V) / (n + prior)

M is the mean over training rows, V the mean variance within a training speaker. The result answers another question
than `adapt=none`, where nothing of the unseen speaker is used before the prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config
from ser_bench.corpora.names import nfc
from ser_bench.errors import ConfigError
from ser_bench.predictors.base import generator_of
from ser_bench.predictors.stored_model import reading
from ser_bench.splits import SPEAKERS_APART
from ser_bench.types import Clip, FloatArray, Inputs, Row

FILE = "speakers.safetensors"
"""No array in it is named `mean` or `std`, because the audit looks for the head's scaler under these names."""
TINY = 1e-12

Raw = Callable[[Sequence[Row]], FloatArray]
"""Rows → vectors [N, D], not adapted."""
Array = npt.NDArray[np.float64]
Moments = tuple[Array, Array]
"""Mean [D] and standard deviation [D]."""


class SpeakerAdaptation:
    """The mean and standard deviation by which the vectors of each speaker are standardised.

    Args:
        cfg: configuration of the run; its group `adapt` is used.
        inputs: gives the clips of a speaker.
        prior: M and V; None under `adapt=none`.
        trained: speaker → moments, of training speakers.
    """

    def __init__(self, cfg: Config, inputs: Inputs, prior: Moments | None, trained: Mapping[str, Moments]) -> None:
        self._cfg = cfg.adapt
        self._inputs = inputs
        self._prior = prior
        self._trained = trained

    @classmethod
    def fitted(cls, cfg: Config, inputs: Inputs, train: Sequence[Row], raw: Raw) -> Self:
        """Return the adaptation fitted to training rows.

        Raises:
            ConfigError: the adaptation does not exist, a number is negative, or test speakers are in training.
        """
        if cfg.adapt.name == "none":
            return cls(cfg, inputs, None, {})
        _check(cfg)
        vectors = raw(train).astype(np.float64)
        speakers = np.array([clip.speaker for clip in inputs.clips(train)])
        moments = {str(name): _moments(vectors[speakers == name]) for name in np.unique(speakers)}
        within = np.mean([np.square(deviation) for _, deviation in moments.values()], axis=0)
        return cls(cfg, inputs, (vectors.mean(axis=0), within), moments)

    def adapted(self, rows: Sequence[Row], raw: Raw) -> FloatArray:
        """Return vectors [N, D] standardised by speaker; unchanged under `adapt=none`."""
        vectors = raw(rows)
        if self._prior is None:
            return vectors
        clips = self._inputs.clips(rows)
        enrolment = self._enrolment_rows(clips)
        speakers = np.array([clip.speaker for clip in clips])
        out = np.empty(vectors.shape, dtype=np.float32)
        for name in map(str, np.unique(speakers)):
            if name in self._trained:
                mean, deviation = self._trained[name]
            else:
                mean, deviation = self._estimated(raw(enrolment[name]) if enrolment[name] else vectors[:0])
            out[speakers == name] = (vectors[speakers == name] - mean) / np.maximum(deviation, TINY)
        return out

    def enrol(self, speaker: str, rows: Sequence[Row], raw: Raw) -> None:
        """Take the statistics of an unseen speaker from these clips; clips of this speaker are then adapted by them.

        Raises:
            ConfigError: the run was made under `adapt=none`.
        """
        if self._prior is None:
            raise ConfigError("enrolment needs a run with adapt=speaker_stats; this one has adapt=none")
        self._trained = {**self._trained, speaker: self._estimated(raw(rows))}

    def enrolled(self, rows: Sequence[Row]) -> set[str]:
        """Return the ids of the enrolment clips of the speakers of these rows; they are not scored."""
        if self._prior is None or self._cfg.enrol is None:
            return set()
        return {row.clip_id for chosen in self._enrolment_rows(self._inputs.clips(rows)).values() for row in chosen}

    def save(self, folder: Path) -> None:
        """Write M, V and the moments of the training speakers as safetensors."""
        from safetensors.numpy import save_file

        arrays = {"none": np.zeros(1)}
        if self._prior is not None:
            arrays = {"prior_mean": self._prior[0], "prior_variance": self._prior[1]}
            for name, (mean, deviation) in self._trained.items():
                arrays |= {f"mean of {name}": mean, f"deviation of {name}": deviation}
        save_file(arrays, folder / FILE)

    @classmethod
    def load(cls, folder: Path, cfg: Config, inputs: Inputs) -> Self:
        """Restore what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors.numpy import load_file

        with reading(folder):
            arrays = load_file(folder / FILE)
            if "none" in arrays:
                return cls(cfg, inputs, None, {})
            names = [key.removeprefix("mean of ") for key in arrays if key.startswith("mean of ")]
            trained = {name: (arrays[f"mean of {name}"], arrays[f"deviation of {name}"]) for name in names}
            return cls(cfg, inputs, (arrays["prior_mean"], arrays["prior_variance"]), trained)

    def _enrolment_rows(self, clips: Sequence[Clip]) -> dict[str, list[Row]]:
        """Return unseen speaker → enrolment clips, drawn by seed and speaker so that 5 clips are a subset of 10."""
        chosen: dict[str, list[Row]] = {}
        for name in dict.fromkeys(clip.speaker for clip in clips if clip.speaker not in self._trained):
            if not name:  # the clips of unknown speakers are not those of one speaker
                chosen[name] = []
                continue
            rows = sorted(self._inputs.of_speaker(name))
            if self._cfg.enrol_emotion is not None:
                wanted, emotions = nfc(self._cfg.enrol_emotion), self._inputs.truth(rows)
                rows = [row for row, emotion in zip(rows, emotions, strict=True) if emotion == wanted]
            if self._cfg.enrol is not None:
                order = generator_of(self._cfg.seed, name).permutation(len(rows))
                rows = [rows[i] for i in order[: self._cfg.enrol]]
            chosen[name] = rows
        return chosen

    def _estimated(self, vectors: FloatArray) -> Moments:
        """Return the moments of an unseen speaker from enrolment vectors [n, D]; n may be 0."""
        assert self._prior is not None
        mean, variance = self._prior
        weight, count = self._cfg.prior, len(vectors)
        if not count:
            return mean, np.sqrt(variance)
        values = vectors.astype(np.float64)
        estimate = (values.sum(axis=0) + weight * mean) / (count + weight)
        spread = (np.square(values - estimate).sum(axis=0) + weight * variance) / (count + weight)
        return estimate, np.sqrt(spread)


def _moments(vectors: Array) -> Moments:
    return vectors.mean(axis=0), vectors.std(axis=0)


def _check(cfg: Config) -> None:
    adapt: Any = cfg.adapt
    if adapt.name != "speaker_stats":
        raise ConfigError(f"adapt={adapt.name!r} is not known; choose none or speaker_stats")
    if cfg.split.protocol not in SPEAKERS_APART:
        allowed = ", ".join(sorted(protocol.name for protocol in SPEAKERS_APART))
        raise ConfigError(
            f"adapt=speaker_stats needs test speakers outside training, and split={cfg.split.protocol.name} has them "
            f"in training; choose one of {allowed}"
        )
    if adapt.prior < 0 or (adapt.enrol is not None and adapt.enrol < 0):
        raise ConfigError(f"adapt.enrol={adapt.enrol} and adapt.prior={adapt.prior:g} count clips; give 0 or more")
