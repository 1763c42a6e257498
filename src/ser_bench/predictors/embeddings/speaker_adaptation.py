"""`adapt=speaker_stats`: vectors standardised by the speaker's own mean and deviation.

Training speakers are known from all of their training clips. Of a new speaker `adapt.enrol` *unlabelled* clips are set
aside and never scored, or, with null, all clips are used, scored ones too (transductive). Few clips say little, so
their statistics are drawn towards those of the training speakers as if `adapt.prior` more clips had been heard:

    mean = (Σx + prior · M) / (n + prior),  variance = (Σ(x − mean)² + prior · V) / (n + prior)

M is the mean over training rows, V the mean variance within a training speaker. This answers another question than
`adapt=none` does, where nothing is known of the speaker who is heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.base import generator_of
from ser_bench.splits import SPEAKERS_APART
from ser_bench.types import Clip, FloatArray, Inputs, Row

FILE = "speakers.safetensors"
"""Its arrays are not named `mean` and `std`: the scaler that the audit looks for is the head's."""
TINY = 1e-12

Raw = Callable[[Sequence[Row]], FloatArray]
"""Rows → vectors [N, D] as they are."""
Array = npt.NDArray[np.float64]
Moments = tuple[Array, Array]
"""Mean [D] and standard deviation [D]."""


class Speakers:
    """What is subtracted from, and divides, the vectors of each speaker.

    Args:
        cfg: the run's; its group `adapt` decides.
        inputs: knows which clips a speaker has.
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
        """From training rows.

        Raises:
            ConfigError: no such adaptation, a negative number, or a split that trains on the speakers it tests.
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
        """Vectors [N, D] of rows by the statistics of their speakers; as they are under `adapt=none`."""
        vectors = raw(rows)
        if self._prior is None:
            return vectors
        clips = self._inputs.clips(rows)
        heard = self._heard(clips)
        speakers = np.array([clip.speaker for clip in clips])
        out = np.empty(vectors.shape, dtype=np.float32)
        for name in map(str, np.unique(speakers)):
            if name in self._trained:
                mean, deviation = self._trained[name]
            else:
                mean, deviation = self._known_from(raw(heard[name]) if heard[name] else vectors[:0])
            out[speakers == name] = (vectors[speakers == name] - mean) / np.maximum(deviation, TINY)
        return out

    def enrolled(self, rows: Sequence[Row]) -> set[str]:
        """Ids of the clips that the speakers of these rows were learnt from and that are therefore not scored."""
        if self._prior is None or self._cfg.enrol is None:
            return set()
        return {row.clip_id for own in self._heard(self._inputs.clips(rows)).values() for row in own}

    def save(self, folder: Path) -> None:
        """Write M and V, and the training speakers' moments in one file of numbers."""
        from safetensors.numpy import save_file

        arrays = {"none": np.zeros(1)}
        if self._prior is not None:
            arrays = {"prior_mean": self._prior[0], "prior_variance": self._prior[1]}
            for name, (mean, deviation) in self._trained.items():
                arrays |= {f"mean of {name}": mean, f"deviation of {name}": deviation}
        save_file(arrays, folder / FILE)

    @classmethod
    def load(cls, folder: Path, cfg: Config, inputs: Inputs) -> Self:
        """From what `save` wrote.

        Raises:
            SerBenchError: it cannot be read.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            arrays = load_file(folder / FILE)
            if "none" in arrays:
                return cls(cfg, inputs, None, {})
            names = [key.removeprefix("mean of ") for key in arrays if key.startswith("mean of ")]
            trained = {name: (arrays[f"mean of {name}"], arrays[f"deviation of {name}"]) for name in names}
            return cls(cfg, inputs, (arrays["prior_mean"], arrays["prior_variance"]), trained)
        except (OSError, KeyError, SafetensorError) as error:
            raise SerBenchError(f"{folder}: no readable stored model ({error}); run again with force=true") from error

    def _heard(self, clips: Sequence[Clip]) -> dict[str, list[Row]]:
        """New speaker → the clips that tell of them: drawn by seed and speaker, so that 5 of them are among 10."""
        chosen: dict[str, list[Row]] = {}
        for name in dict.fromkeys(clip.speaker for clip in clips if clip.speaker not in self._trained):
            own = sorted(self._inputs.of_speaker(name))
            if self._cfg.enrol_emotion is not None:
                said = self._inputs.truth(own)
                own = [row for row, emotion in zip(own, said, strict=True) if emotion == self._cfg.enrol_emotion]
            if self._cfg.enrol is not None:
                order = generator_of(self._cfg.seed, name).permutation(len(own))
                own = [own[i] for i in order[: self._cfg.enrol]]
            chosen[name] = own
        return chosen

    def _known_from(self, vectors: FloatArray) -> Moments:
        """Moments of a new speaker of whom these vectors [n, D] were heard; n may be 0."""
        assert self._prior is not None
        mean, variance = self._prior
        weight, count = self._cfg.prior, len(vectors)
        if not count:
            return mean, np.sqrt(variance)
        values = vectors.astype(np.float64)
        own = (values.sum(axis=0) + weight * mean) / (count + weight)
        spread = (np.square(values - own).sum(axis=0) + weight * variance) / (count + weight)
        return own, np.sqrt(spread)


def _moments(vectors: Array) -> Moments:
    return vectors.mean(axis=0), vectors.std(axis=0)


def _check(cfg: Config) -> None:
    adapt: Any = cfg.adapt
    if adapt.name != "speaker_stats":
        raise ConfigError(f"adapt={adapt.name!r} is not known; choose none or speaker_stats")
    if cfg.split.protocol not in SPEAKERS_APART:
        allowed = ", ".join(sorted(protocol.name for protocol in SPEAKERS_APART))
        raise ConfigError(
            f"adapt=speaker_stats is for speakers who were not trained on, and split={cfg.split.protocol.name} trains "
            f"on them; choose one of {allowed}"
        )
    if adapt.prior < 0 or (adapt.enrol is not None and adapt.enrol < 0):
        raise ConfigError(f"adapt.enrol={adapt.enrol} and adapt.prior={adapt.prior:g} count clips; give 0 or more")
