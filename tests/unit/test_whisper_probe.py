"""The probe over fake embeddings: layers, what the speaker's own clips change, and who is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench.errors import ConfigError, SerBenchError
from ser_bench.predictors.embeddings.whisper_probe import WhisperProbe, chosen
from ser_bench.types import Clip, FloatArray, Row
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows

TRAIN, VAL = rows(0, 90), rows(100, 30)
SPEAKERS = 5
TEST = tuple(Row(f"{LABELS[i % 3]}-{i}") for i in range(200, 260))
SMALL = ("head=logistic", "head.logistic_c=[0.1]")


class Voices(FakeInputs):
    """Every speaker's vectors are shifted and stretched; without the speaker's statistics little can be told."""

    def __init__(self, shift: float = 6.0) -> None:
        super().__init__(spread=0.5)
        self.shift = shift
        self.emotions_seen: list[str] = []

    def clips(self, rows: Sequence[Row]) -> list[Clip]:
        return [Clip(r.clip_id, Path("x.wav"), r.clip_id.split("-")[0], speaker_of(r)) for r in rows]

    def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
        plain = super().embedding(rows, encoder, others, device)
        voices = [np.random.default_rng([ord(c) for c in speaker_of(r)]) for r in rows]
        moved = [(1 + g.random()) * one + self.shift * g.normal(size=one.shape)
                 for g, one in zip(voices, plain, strict=True)]  # fmt: skip
        return np.array(moved, np.float32).reshape(plain.shape)

    def of_speaker(self, speaker: str) -> list[Row]:
        return [row for row in TEST + VAL if speaker_of(row) == speaker]


def speaker_of(row: Row) -> str:
    number = int(row.clip_id.split("-")[1])
    return f"{'train' if number < 100 else 'val' if number < 200 else 'test'}{number // 3 % SPEAKERS}"


def probe(inputs: FakeInputs, *overrides: str) -> WhisperProbe:
    cfg = compose_config("experiment=none", "model=whisper_probe", "model.encoders=[tiny.en]", *SMALL, *overrides)
    return WhisperProbe(cfg, LABELS, inputs, Path(), lambda epoch, values: None)


def fitted(inputs: FakeInputs, *overrides: str) -> WhisperProbe:
    made = probe(inputs, *overrides)
    made.fit(TRAIN, VAL)
    return made


def accuracy(found: Any) -> float:
    return float(np.mean([a == b for a, b in zip(found.predicted, found.truth, strict=True)]))


def test_it_learns_from_clean_rows_and_hears_chosen_layers_only() -> None:
    inputs = FakeInputs()
    assert accuracy(fitted(inputs, "model.layers=null").predict(TEST)) > 0.9
    narrow, wide = probe(inputs, "model.layers=[1]"), probe(inputs, "model.layers=[1,-1]", "model.encoders=[a,bb]")
    assert narrow._raw(TEST).shape == (60, 40) and wide._raw(TEST).shape == (60, 160)
    np.testing.assert_array_equal(wide._raw(TEST)[:, 120:], 2 * narrow._raw(TEST))  # encoder "bb", its last layer
    noisy = TRAIN + tuple(Row(row.clip_id, "noise") for row in TRAIN)
    again = probe(inputs, "model.layers=null")
    again.fit(noisy, VAL)
    np.testing.assert_array_equal(
        again.predict(TEST).probabilities, fitted(inputs, "model.layers=null").predict(TEST).probabilities
    )


@pytest.mark.parametrize(
    ("layers", "count", "places"),
    [(None, 3, [0, 1, 2]), ([1, -1], 5, [0, 4]), ([2, 6, 9], 5, [1]), ([-2, 4], 5, [3]), ([3, 2, 2], 4, [1, 2])],
)
def test_layers_are_counted_from_one(layers: list[int] | None, count: int, places: list[int]) -> None:
    assert chosen(layers, count) == places


@pytest.mark.parametrize("layers", [[0], [9], [], [0, 1]])
def test_layers_that_no_encoder_has_are_refused(layers: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"model\.layers"):
        chosen(layers, 5)


@pytest.mark.parametrize("encoders", ["[]", "[tiny.en,tiny.en]"])
def test_encoders_that_are_none_are_refused(encoders: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.encoders"):
        fitted(FakeInputs(), f"model.encoders={encoders}")


def test_the_speakers_own_clips_take_the_voice_out() -> None:
    plain = accuracy(fitted(Voices()).predict(TEST))
    everything = fitted(Voices(), "adapt=speaker_stats").predict(TEST)
    assert everything.rows == TEST, "all are scored"
    assert accuracy(everything) > 0.9 > plain + 0.1


def test_enrolled_clips_are_not_scored_and_few_are_among_many() -> None:
    asked = {}
    for count in (0, 2, 5):
        found = fitted(Voices(), "adapt=speaker_stats", f"adapt.enrol={count}").predict(TEST)
        left_out = set(TEST) - set(found.rows)
        assert found.rows == tuple(row for row in TEST if row not in left_out)
        by_speaker = [speaker_of(row) for row in left_out]
        assert all(by_speaker.count(f"test{i}") == count for i in range(SPEAKERS))
        asked[count] = left_out
    assert asked[0] < asked[2] < asked[5]
    other = fitted(Voices(), "adapt=speaker_stats", "adapt.enrol=5", "adapt.seed=1").predict(TEST)
    assert set(TEST) - set(other.rows) != asked[5]


def test_scored_clips_do_not_tell_of_their_speaker() -> None:
    """With clips set aside, an answer depends on these and itself: whatever else the speaker says changes nothing."""

    class Changed(Voices):
        def embedding(self, rows: Sequence[Row], encoder: str, others: Sequence[str], device: str) -> FloatArray:
            plain = super().embedding(rows, encoder, others, device)
            spoilt = np.array([row in scored[1:] for row in rows])
            return np.where(spoilt.reshape(-1, 1, 1, 1), 100, plain).astype(np.float32)

    model = fitted(Voices(), "adapt=speaker_stats", "adapt.enrol=4")
    found = model.predict(TEST)
    scored = found.rows
    other = fitted(Changed(), "adapt=speaker_stats", "adapt.enrol=4").predict(TEST)
    np.testing.assert_allclose(other.probabilities[0], found.probabilities[0], atol=1e-6)
    assert np.abs(other.probabilities[1:] - found.probabilities[1:]).max() > 0.1


def test_labels_of_new_speakers_are_not_used_unless_one_emotion_is_asked_for() -> None:
    class Unlabelled(Voices):
        def truth(self, rows: Sequence[Row]) -> list[str]:
            return [LABELS[0] if row in TEST else label for row, label in zip(rows, super().truth(rows), strict=True)]

    for words in (("adapt=speaker_stats",), ("adapt=speaker_stats", "adapt.enrol=3")):
        one, two = fitted(Voices(), *words).predict(TEST), fitted(Unlabelled(), *words).predict(TEST)
        assert one.rows == two.rows
        np.testing.assert_array_equal(one.probabilities, two.probabilities)
    found = fitted(Voices(), "adapt=speaker_stats", "adapt.enrol=3", "adapt.enrol_emotion=fear").predict(TEST)
    left_out = set(TEST) - set(found.rows)
    assert len(left_out) == 3 * SPEAKERS and all(row.clip_id.startswith("fear") for row in left_out)

    class French(Voices):
        def truth(self, rows: Sequence[Row]) -> list[str]:
            return [{"fear": "p\u00e9ur"}.get(row.clip_id.split("-")[0], "x") if row in TEST else label
                    for row, label in zip(rows, super().truth(rows), strict=True)]  # fmt: skip

    words = ("adapt=speaker_stats", "adapt.enrol=3", "adapt.enrol_emotion='pe\u0301ur'")
    assert set(TEST) - set(fitted(French(), *words).predict(TEST).rows) == left_out


def test_the_statistics_are_drawn_towards_those_of_training_speakers() -> None:
    words = ("adapt=speaker_stats", "adapt.enrol=2")
    trusting = fitted(Voices(), *words, "adapt.prior=1e9").predict(TEST)
    nothing = fitted(Voices(), "adapt=speaker_stats", "adapt.enrol=0").predict(TEST)
    kept = [i for i, row in enumerate(nothing.rows) if row in trusting.rows]
    np.testing.assert_allclose(trusting.probabilities, nothing.probabilities[kept], atol=1e-4)
    with np.errstate(divide="raise", invalid="raise"):
        alone = fitted(Voices(), *words, "adapt.prior=0").predict(TEST)
    assert np.abs(alone.probabilities - trusting.probabilities).max() > 0.05


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("split=clip", "split=clip"),
        ("adapt.enrol=-1", r"adapt\.enrol=-1"),
        ("adapt.prior=-1", r"adapt\.prior=-1"),
        ("adapt.name=magic", "magic"),
    ],
)
def test_adaptations_that_make_no_sense_are_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fitted(Voices(), "adapt=speaker_stats", override)


@pytest.mark.parametrize("words", [(), ("adapt=speaker_stats", "adapt.enrol=3"), ("adapt=speaker_stats",)])
def test_a_stored_probe_answers_alike(words: tuple[str, ...], tmp_path: Path) -> None:
    model = fitted(Voices(), *words)
    model.save(tmp_path)
    again = WhisperProbe.load(tmp_path, model._cfg, LABELS, Voices())
    np.testing.assert_array_equal(again.predict(TEST).probabilities, model.predict(TEST).probabilities)
    np.testing.assert_array_equal(again.vectors(TRAIN), model.vectors(TRAIN))


def test_misuse_is_said(tmp_path: Path) -> None:
    with pytest.raises(SerBenchError, match="not trained"):
        probe(FakeInputs()).predict(TEST)
    with pytest.raises(SerBenchError, match="fit before save"):
        probe(FakeInputs()).save(tmp_path)
    fitted(FakeInputs()).save(tmp_path)
    (tmp_path / "speakers.safetensors").unlink()
    with pytest.raises(SerBenchError, match="force=true"):
        WhisperProbe.load(tmp_path, probe(FakeInputs())._cfg, LABELS, FakeInputs())


def test_shuffled_labels_teach_nothing() -> None:
    model = probe(FakeInputs())
    model._cfg = replace(model._cfg, shuffle_labels=True)
    model.fit(TRAIN, ())
    assert accuracy(model.predict(TEST)) < accuracy(fitted(FakeInputs()).predict(TEST)) - 0.3


def test_shuffled_validation_labels_teach_nothing_either() -> None:
    """With `head.refit` validation rows are trained on: their labels must not be the true ones."""
    model = probe(FakeInputs())
    model._cfg = replace(model._cfg, shuffle_labels=True)
    model.fit(TRAIN[:6], TRAIN[6:])
    assert accuracy(model.predict(TEST)) < accuracy(fitted(FakeInputs()).predict(TEST)) - 0.3


ATTENTIVE = (
    *("model.pooling=attentive", "model.layers=[2]", "model.attention.epochs=15", "model.attention.batch_size=16"),
    *("model.attention.learning_rate=0.01", "model.attention.hidden=8"),
)


def test_attention_finds_the_moment_that_tells(tmp_path: Path) -> None:
    inputs = FakeInputs()
    attentive = fitted(inputs, *ATTENTIVE)
    assert attentive._raw(TEST).shape == (60, 40)
    mark = attentive._raw(TEST)[:, 0]  # unit 0 of standardised frames: under equal weights 0 on average
    assert mark.mean() > 1.0 and (mark > 0).mean() > 0.9
    found = attentive.predict(TEST)
    assert accuracy(found) > 0.8
    alone = attentive.predict(TEST[7:8])
    np.testing.assert_array_equal(alone.probabilities, found.probabilities[7:8])
    attentive.save(tmp_path)
    again = WhisperProbe.load(tmp_path, attentive._cfg, LABELS, FakeInputs())
    np.testing.assert_array_equal(again.predict(TEST).probabilities, found.probabilities)
    (tmp_path / "pooling_0.safetensors").write_bytes(b"nothing")
    with pytest.raises(SerBenchError, match="no readable stored model"):
        WhisperProbe.load(tmp_path, attentive._cfg, LABELS, FakeInputs())


def test_attention_has_seen_training_rows_alone_and_follows_its_seed() -> None:
    class Watched(FakeInputs):
        heard: tuple[set[str], ...] = ()

        def frames(self, rows: Sequence[Row], encoder: str, layer: int, device: str) -> Any:
            self.heard += ({row.clip_id for row in rows},)
            return super().frames(rows, encoder, layer, device)

    inputs = Watched()
    one = fitted(inputs, *ATTENTIVE)
    assert inputs.heard[0] == {row.clip_id for row in TRAIN}
    np.testing.assert_array_equal(one._raw(TEST), fitted(FakeInputs(), *ATTENTIVE)._raw(TEST))
    assert np.abs(one._raw(TEST) - fitted(FakeInputs(), *ATTENTIVE, "seed=1")._raw(TEST)).max() > 1e-3
    both = fitted(FakeInputs(), *ATTENTIVE, "model.attention.seeds=2", "model.encoders=[a,bb]")
    assert both._raw(TEST).shape == (60, 160)


def test_attention_reads_one_layer() -> None:
    with pytest.raises(ConfigError, match=r"model\.layers=\[1, 2\].*these are 2; name one"):
        fitted(FakeInputs(), *ATTENTIVE, "model.layers=[1,2]")
    with pytest.raises(SerBenchError, match="not trained"):
        probe(FakeInputs(), *ATTENTIVE)._raw(TEST)
