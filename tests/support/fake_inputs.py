"""Seeded feature arrays in place of audio, for tests of the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ser_bench import config
from ser_bench.features import log_mel
from ser_bench.features.prosody import NO_PROSODY
from ser_bench.types import Clip, FloatArray, FusionMember, Predictions, Row

LABELS = ("anger", "fear", "sadness")
TINY = (
    "experiment=none",
    "model.channels=[4,4,3,3,2]",
    "model.hidden=8",
    "trainer.max_epochs=4",
    "trainer.batch_size=8",
    "trainer.patience=null",
    "trainer.progress=false",
)


class FakeInputs:
    """Rows are named `<label>-<number>`; each label oscillates at its own rate, so that a network can learn it."""

    def __init__(self, dim: int = 40, text_dim: int = 6, spread: float = 0.3) -> None:
        self.centres = np.sin(np.outer([0.3, 1.0, 2.4], np.arange(dim))).astype(np.float32)
        self.dim = dim
        self.text_dim = text_dim
        self.spread = spread
        self.asked: list[tuple[Row, ...]] = []

    def truth(self, rows: Sequence[Row]) -> list[str]:
        return [row.clip_id.split("-")[0] for row in rows]

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        truth = self.truth(rows)
        return [
            Clip(row.clip_id, Path(f"{row.clip_id}.wav"), label, f"s{int(row.clip_id.split('-')[1]) % 4}")
            for row, label in zip(rows, truth, strict=True)
        ]

    def spectral(self, rows: Sequence[Row]) -> FloatArray:
        self.asked.append(tuple(rows))
        return np.array([5 + 3 * self._one(row) for row in rows], np.float32).reshape(-1, self.dim)

    def log_mel(self, rows: Sequence[Row], cfg: Any) -> FloatArray:
        """Each label has its own band pattern, louder in the middle; a variant has its clip's."""
        shape = (log_mel.frames(cfg), cfg.bands)
        pattern = np.sin(np.outer([0.3, 1.0, 2.4], np.arange(cfg.bands)))
        drawn = [
            20 * pattern[LABELS.index(row.clip_id.split("-")[0])] + self._rng(Row(row.clip_id)).normal(-40, 9, shape)
            for row in rows
        ]
        return np.array(drawn, np.float32).reshape(-1, *shape)

    def egemaps(self, rows: Sequence[Row]) -> FloatArray:
        return self.spectral(rows)

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        return ["" for _ in rows]

    def text(self, rows: Sequence[Row]) -> FloatArray:
        drawn = [self._rng(Row(row.clip_id)).normal(size=self.text_dim) for row in rows]
        return np.array(drawn, np.float32).reshape(-1, self.text_dim)

    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        """Three layers of dim / 2 units, of which each encoder hears something else."""
        own = np.array([self._one(Row(row.clip_id)) for row in rows], np.float32).reshape(-1, 1, 2, self.dim // 2)
        return np.concatenate([own, own[..., ::-1], len(encoder) * own], axis=1)

    def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Iterator[FloatArray]:
        """Noise of unequal length, but for one loud moment that tells the label and comes with a mark in unit 0."""
        for row in rows:
            rng = self._rng(Row(row.clip_id))
            one = rng.normal(size=(int(rng.integers(12, 30)), self.dim // 2)).astype(np.float16)
            at = int(rng.integers(len(one)))
            one[at] = 2 * self._one(Row(row.clip_id))[: self.dim // 2]
            one[:, 0] = 0
            one[at, 0] = 8
            yield one

    def class_scores(self, rows: Sequence[Row], checkpoint: str, revision: str | None, device: str) -> FloatArray:
        """One score for each label; that of the row's own label is the largest."""
        own = [LABELS.index(row.clip_id.split("-")[0]) for row in rows]
        noise = [self._rng(Row(row.clip_id)).normal(size=len(LABELS)) for row in rows]
        drawn = [3.0 * np.eye(len(LABELS))[i] + n for i, n in zip(own, noise, strict=True)]
        return np.array(drawn, np.float32).reshape(-1, len(LABELS))

    def of_speaker(self, speaker: str) -> list[Row]:
        named = (Row(f"{label}-{i}") for i in range(200, 231) for label in LABELS if LABELS[i % len(LABELS)] == label)
        return [row for row in named if f"s{int(row.clip_id.split('-')[1]) % 4}" == speaker]

    def pitch(self, rows: Sequence[Row]) -> list[Any]:
        return [None for _ in rows]

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        return [NO_PROSODY for _ in rows]

    def votes(self, rows: Sequence[Row]) -> list[Mapping[str, int] | None]:
        """Up to five votes a label; three rows in ten are tied, and one in ten has no votes."""
        numbers = [int(row.clip_id.split("-")[1]) % 10 for row in rows]
        tied = {0: dict.fromkeys(LABELS, 2), 1: {LABELS[0]: 3, LABELS[2]: 3}, 2: {LABELS[1]: 1, LABELS[2]: 1}}
        return [
            None if n == 9 else tied.get(n, {LABELS[n % 3]: 5, LABELS[(n + 1) % 3]: n // 3, "bored": 4})
            for n in numbers
        ]

    def soft_targets(self, rows: Sequence[Row], labels: Sequence[str]) -> FloatArray | None:
        return None

    def members(self) -> Sequence[FusionMember]:
        return (FakeMember("ear", 1.5), FakeMember("eye", 0.8))

    def speech_encoder(self, rows: Sequence[Row], encoder: str, revision: str | None, device: str) -> FloatArray:
        """Three layers of dim / 2 units; the first is noise."""
        own = np.array([self._one(Row(row.clip_id)) for row in rows], np.float32).reshape(-1, 1, 2, self.dim // 2)
        noise = np.array([self._rng(row).normal(size=self.dim) for row in rows], np.float32).reshape(own.shape)
        return np.concatenate([5 * noise, own, 2 * own + 1], axis=1)

    def _one(self, row: Row) -> FloatArray:
        noise = self._rng(row).normal(size=self.dim).astype(np.float32)
        centre = self.centres[LABELS.index(row.clip_id.split("-")[0])]
        one: FloatArray = centre + np.float32(self.spread) * noise
        return one

    @staticmethod
    def _rng(row: Row) -> np.random.Generator:
        return np.random.default_rng([ord(c) for c in row.clip_id + row.variant])


class FakeMember:
    """A stored run that leans to the clip's label by `skill`; both fakes abstain on the same few clips."""

    def __init__(self, name: str, skill: float) -> None:
        self.name = name
        self.run_id = f"{name}-run"
        self.skill = skill
        self.asked: list[tuple[Row, ...]] = []

    def predict(self, rows: Sequence[Row]) -> Predictions:
        self.asked.append(tuple(rows))
        scores = np.array([self._scores(row) for row in rows], np.float64).reshape(-1, len(LABELS))
        out = np.array([int(row.clip_id.split("-")[1]) % 29 == 0 for row in rows], dtype=np.bool_)
        scores[out] = 0.0
        odds = np.exp(scores)
        return Predictions(
            rows=tuple(rows),
            truth=tuple(row.clip_id.split("-")[0] for row in rows),
            labels=LABELS,
            probabilities=(odds / odds.sum(axis=1, keepdims=True)).astype(np.float32),
            abstained=out,
            latency_s=np.full(len(rows), 0.25, np.float32),
            cost_usd=np.full(len(rows), 0.5, np.float32),
        )

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """[N, 4]: the scores behind the answers, and noise, on scales of their own."""
        self.asked.append(tuple(rows))
        noise = [np.random.default_rng([ord(c) for c in row.clip_id + self.name]).normal() for row in rows]
        scores = [self._scores(row) for row in rows]
        found = [[*(50 + 9 * one), 0.01 * other] for one, other in zip(scores, noise, strict=True)]
        return np.array(found, np.float32).reshape(-1, len(LABELS) + 1)

    def _scores(self, row: Row) -> FloatArray:
        noise = np.random.default_rng([ord(c) for c in self.name + row.clip_id]).normal(size=len(LABELS))
        noise[LABELS.index(row.clip_id.split("-")[0])] += self.skill
        scores: FloatArray = noise.astype(np.float32)
        return scores


class FakeInputsWithMembers(FakeInputs):
    """Members of one's own."""

    def __init__(self, *members: FusionMember) -> None:
        super().__init__()
        self.own = members

    def members(self) -> Sequence[FusionMember]:
        return self.own


def accuracy_of(found: Predictions) -> float:
    """Share of rows answered correctly."""
    return float(np.mean([one == two for one, two in zip(found.truth, found.predicted, strict=True)]))


def rows(start: int, count: int) -> tuple[Row, ...]:
    """`count` rows, labels in turn."""
    return tuple(Row(f"{LABELS[i % len(LABELS)]}-{i}") for i in range(start, start + count))


def compose_config(*overrides: str) -> config.Config:
    """A typed configuration with these overrides."""
    config.register()
    with initialize_config_dir(str(config.PROJECT_ROOT / "conf"), version_base="1.3"):
        composed = compose("config", overrides=list(overrides))
    assert OmegaConf.is_config(composed)
    return config.to_config(composed)
