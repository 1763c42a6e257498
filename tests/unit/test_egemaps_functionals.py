"""eGeMAPS functionals agree with openSMILE and are computed once; the predictor that uses them, and its audit."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import pipeline
from ser_bench.audit import Finding, outdated_features, run_audit
from ser_bench.audit.scaler import check_scaler, stored_scaler
from ser_bench.cache import Cache
from ser_bench.config import AugmentConfig, Config
from ser_bench.errors import BadClipError, ConfigError, SerBenchError
from ser_bench.features import augmentation, egemaps_functionals
from ser_bench.predictors.embeddings.egemaps import Egemaps
from ser_bench.types import VARIANTS, Clip, FloatArray, Row, Split
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows
from tests.support.signals import voice_like
from tests.support.tracked_runs import make_corpus, make_split

AUGMENT = AugmentConfig(name="paper", variants=list(VARIANTS))
TRAIN, VAL, TEST = rows(0, 90), rows(100, 12), rows(200, 60)

opensmile = pytest.importorskip("opensmile", reason="the extra egemaps is not installed")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Clip]:
    """Three clips of unlike lengths at unlike rates."""
    folder = tmp_path_factory.mktemp("clips")
    for i, (seconds, rate) in enumerate([(1.0, 16_000), (0.6, 48_000), (0.8, 16_000)]):
        soundfile.write(folder / f"clip{i}.wav", voice_like(int(seconds * rate), seed=i), rate)
    return {path.stem: Clip(path.stem, path, "", "") for path in sorted(folder.iterdir())}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def forbid(samples: FloatArray) -> FloatArray:
    raise AssertionError("computed, although it was cached")


def test_numbers_are_opensmiles_and_in_the_order_asked(clips: dict[str, Clip], cache: Cache) -> None:
    values = egemaps_functionals.extract([Row("clip2"), Row("clip0"), Row("clip2")], clips, AUGMENT, cache, processes=1)
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    expected = smile.process_file(str(clips["clip0"].path))
    assert values.shape == (3, egemaps_functionals.LENGTH) and values.dtype == np.float32
    np.testing.assert_allclose(values[1], expected.to_numpy()[0], rtol=1e-5)
    np.testing.assert_array_equal(values[0], values[2])
    assert egemaps_functionals.names() == list(expected.columns)
    assert np.abs(values[0] - values[1]).max() > 1


@pytest.mark.parametrize("variant", ["clean", "noise"])
def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap_around(
    variant: str, cache: Cache, tmp_path: Path
) -> None:
    """opensmile multiplies by 32,768 and casts to int16, which turns a peak of +1.1 into one of -0.9."""
    samples = voice_like(16_000)
    samples *= 1.15 / np.abs(samples).max()
    assert (np.abs(samples) >= 1).sum() > 10
    soundfile.write(tmp_path / "loud.wav", samples, 16_000, subtype="FLOAT")
    clip = Clip("loud", tmp_path / "loud.wav", "", "")
    values = egemaps_functionals.extract([Row("loud", variant)], {"loud": clip}, AUGMENT, cache)[0]
    heard = augmentation.noisy(samples, "loud", variant, AUGMENT)
    integers = np.clip(np.trunc(heard.astype(np.float64) * 32_768), -32_768, 32_767).astype(np.int16)
    soundfile.write(tmp_path / "clipped.wav", integers, 16_000, subtype="PCM_16")
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    np.testing.assert_allclose(values, smile.process_file(str(tmp_path / "clipped.wav")).to_numpy()[0], rtol=1e-4)


def test_full_scale_itself_does_not_wrap_around() -> None:
    square = np.sign(np.sin(2 * np.pi * 200 * np.arange(16_000) / 16_000 + 0.1)).astype(np.float32)
    np.testing.assert_allclose(
        egemaps_functionals.functionals(square), egemaps_functionals.functionals(square * 0.9999), rtol=0.02, atol=0.02
    )


def test_functionals_of_the_first_revision_are_computed_again(
    clips: dict[str, Clip], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(egemaps_functionals, "REVISION", 1)
        egemaps_functionals.extract([Row("clip0")], clips, AUGMENT, cache)
    monkeypatch.setattr(egemaps_functionals, "functionals", forbid)
    with pytest.raises(AssertionError, match="although"):
        egemaps_functionals.extract([Row("clip0")], clips, AUGMENT, cache)


def test_every_clip_is_computed_once(clips: dict[str, Clip], cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Row("clip0"), Row("clip1")]
    first = egemaps_functionals.extract(wanted, clips, AUGMENT, cache)
    monkeypatch.setattr(egemaps_functionals, "functionals", forbid)
    np.testing.assert_array_equal(egemaps_functionals.extract(wanted[::-1], clips, AUGMENT, cache), first[::-1])
    assert egemaps_functionals.extract([], clips, AUGMENT, cache).shape == (0, 88)
    with pytest.raises(AssertionError, match="although"):
        egemaps_functionals.extract([Row("clip2")], clips, AUGMENT, cache)


def test_several_processes_give_what_one_gives(
    clips: dict[str, Clip], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Row(name) for name in clips]
    alone = egemaps_functionals.extract(wanted, clips, AUGMENT, cache, processes=1)
    monkeypatch.setattr(egemaps_functionals, "ROWS_IN_THIS_PROCESS", 0)
    monkeypatch.setattr(egemaps_functionals, "functionals", forbid)  # in this process
    together = egemaps_functionals.extract(wanted, clips, AUGMENT, Cache(tmp_path / "other"), processes=2)
    np.testing.assert_array_equal(together, alone)


def test_variants_have_numbers_of_their_own(clips: dict[str, Clip], cache: Cache) -> None:
    rows_of_clip = [Row("clip0", variant) for variant in VARIANTS]
    values = egemaps_functionals.extract(rows_of_clip, clips, AUGMENT, cache)
    assert len({vector.tobytes() for vector in values}) == 4
    louder = egemaps_functionals.extract(rows_of_clip, clips, replace(AUGMENT, noise_amplitude=0.2), cache)
    changed = (louder != values).any(axis=1).tolist()
    assert changed == [False, True, False, True]
    semitones = egemaps_functionals.names().index("F0semitoneFrom27.5Hz_sma3nz_percentile50.0")
    higher = values[2, semitones] - values[0, semitones]
    assert higher == pytest.approx(AUGMENT.pitch_semitones, abs=0.3)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_clip_that_is_too_short_is_named(
    processes: int, clips: dict[str, Clip], cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egemaps_functionals, "ROWS_IN_THIS_PROCESS", 0)
    soundfile.write(tmp_path / "short.wav", voice_like(160), 16_000)
    more = {**clips, "short": Clip("short", tmp_path / "short.wav", "", "")}
    with pytest.raises(BadClipError, match=r"short\.wav: 0\.01 s are too short"):
        egemaps_functionals.extract([Row("clip0"), Row("short")], more, AUGMENT, cache, processes)


def test_without_opensmile_the_extra_is_named_and_the_cache_still_read(
    clips: dict[str, Clip], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = egemaps_functionals.extract([Row("clip0")], clips, AUGMENT, cache)
    monkeypatch.setitem(sys.modules, "opensmile", None)
    np.testing.assert_array_equal(egemaps_functionals.extract([Row("clip0")], clips, AUGMENT, cache), first)
    with pytest.raises(ConfigError, match=r"ser-bench\[egemaps\]"):
        egemaps_functionals.extract([Row("clip1")], clips, AUGMENT, cache)


# ---- the predictor


def build(cfg: Config, folder: Path, inputs: FakeInputs | None = None) -> Egemaps:
    def nothing(epoch: int, metrics: Mapping[str, float]) -> None:
        raise AssertionError("it has no epochs")

    return Egemaps(cfg, LABELS, inputs or FakeInputs(), folder, nothing)


def accuracy(predictor: Egemaps) -> float:
    predictions = predictor.predict(TEST)
    return float(np.mean(np.array(predictions.truth) == np.array(predictions.predicted)))


def config(*words: str) -> Config:
    return compose_config("experiment=none", "model=egemaps", *words)


@pytest.mark.parametrize("head", ["logistic", "svm"])
def test_it_learns_and_tells_what_was_chosen(head: str, tmp_path: Path) -> None:
    predictor = build(config(f"head={head}"), tmp_path)
    facts = predictor.fit(TRAIN, VAL)
    assert accuracy(predictor) > 0.9
    assert {"fit/seconds", "fit/val_uar", "params/total", f"head/{head}_c"} <= set(facts)


def test_shuffled_labels_fall_to_chance(tmp_path: Path) -> None:
    predictor = build(replace(config(), shuffle_labels=True), tmp_path)
    predictor.fit(TRAIN, VAL)
    assert accuracy(predictor) < 0.6


def test_rows_that_are_not_clean_are_not_trained_on(tmp_path: Path) -> None:
    noisy = tuple(Row(row.clip_id, "noise") for row in TRAIN)
    inputs = FakeInputs()
    with_noise, without = build(config(), tmp_path, inputs), build(config(), tmp_path)
    with_noise.fit(TRAIN + noisy, VAL)
    without.fit(TRAIN, VAL)
    assert all(row.variant == "clean" for asked in inputs.asked for row in asked)
    np.testing.assert_array_equal(with_noise.predict(TEST).probabilities, without.predict(TEST).probabilities)


def test_it_is_not_asked_before_it_is_trained(tmp_path: Path) -> None:
    predictor = build(config(), tmp_path)
    with pytest.raises(SerBenchError, match="not trained"):
        predictor.predict(TEST)
    with pytest.raises(SerBenchError, match="not trained"):
        predictor.save(tmp_path)
    predictor.fit(TRAIN, ())
    predictor.save(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"cut")
    with pytest.raises(SerBenchError, match="force=true"):
        Egemaps.load(tmp_path, config(), LABELS, FakeInputs())
    described = json.loads((tmp_path / "predictor.json").read_text())
    (tmp_path / "predictor.json").write_text(json.dumps(described | {"predictor": "prior"}))
    with pytest.raises(SerBenchError, match="prior"):
        Egemaps.load(tmp_path, config(), LABELS, FakeInputs())


# ---- the audit


@pytest.mark.parametrize(("refit", "text"), [
    ("true", "those of clean training and validation rows; no test row"),
    ("false", "those of training rows only"),
])  # fmt: skip
def test_the_audit_finds_the_rows_of_its_scaler(refit: str, text: str, tmp_path: Path) -> None:
    cfg = config(f"head.refit={refit}")
    noisy = tuple(Row(row.clip_id, "noise") for row in TRAIN)
    split = Split("speaker", 0, 5, TRAIN + noisy, VAL, TEST)

    def saved(train: Sequence[Row], folder: Path) -> Path:
        predictor = build(cfg, folder)
        predictor.fit(train, VAL)
        predictor.save(folder)
        return folder

    honest = stored_scaler(saved(split.train, tmp_path / "honest"))
    finding = check_scaler(honest, split, FakeInputs().egemaps)
    assert not finding.leak and text in finding.text
    leaky = stored_scaler(saved(TRAIN + TEST, tmp_path / "leaky"))
    finding = check_scaler(leaky, split, FakeInputs().egemaps)
    assert finding.leak and "test rows" in finding.text


def test_the_audit_of_clean_rows_computes_no_augmented_one(tmp_path: Path) -> None:
    predictor = build(config(), tmp_path)
    predictor.fit(TRAIN, VAL)
    predictor.save(tmp_path)
    noisy = tuple(Row(row.clip_id, "noise") for row in TRAIN)
    asked = FakeInputs()
    finding = check_scaler(stored_scaler(tmp_path), Split("speaker", 0, 5, TRAIN + noisy, VAL, TEST), asked.egemaps)
    assert finding.share == 0.0
    assert {row.variant for rows in asked.asked for row in rows} == {"clean"}


def test_the_audit_is_given_the_functionals_that_the_scaler_saw(tmp_path: Path) -> None:
    predictor = build(config(), tmp_path)
    predictor.fit(TRAIN, VAL)
    np.testing.assert_array_equal(predictor.vectors(TEST), FakeInputs().egemaps(TEST))


def test_it_adapts_to_speakers_as_every_probe_does(tmp_path: Path) -> None:
    predictor = build(config("adapt=speaker_stats", "split=speaker"), tmp_path)
    predictor.fit(TRAIN, ())
    speakers = np.array([clip.speaker for clip in FakeInputs().clips(TRAIN)])
    adapted = predictor.vectors(TRAIN)
    for speaker in set(speakers):
        np.testing.assert_allclose(adapted[speakers == speaker].mean(axis=0), 0, atol=1e-4)


# ---- predictors that were fitted to functionals of an earlier revision


def saved(folder: Path, revision: int) -> Path:
    predictor = build(config("head=logistic"), folder)
    predictor.fit(TRAIN, VAL)
    predictor._functionals_revision = revision
    predictor.save(folder)
    return folder


def stored_run(folder: Path, *members: object, model: str = "egemaps") -> Any:
    cfg = config("head=logistic")
    cfg.model.name = model
    return SimpleNamespace(config=lambda: cfg, artifact=lambda name: folder, members=lambda: list(members))


def test_a_predictor_of_an_earlier_revision_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = (saved(tmp_path / str(revision), revision) for revision in (1, 2))
    assert "functionals_revision" not in json.loads((old / "predictor.json").read_text()), "as it was stored then"
    reasons = [outdated_features(stored_run(folder)) for folder in (old, new)]
    assert "functionals of revision 1, and this version computes revision 2" in reasons[0] and not reasons[1]
    fusion = stored_run(tmp_path, stored_run(new), stored_run(old), model="fusion")
    assert outdated_features(fusion) == reasons[0]
    leak, none = Finding("scaler", "", 1.0, leak=True), Finding("scaler", "", 0.0)
    assert run_audit._doubts(stored_run(old), [none, leak]) == (
        f"{reasons[0]}; this alone may be the cause of: scaler",
    )
    assert not run_audit._doubts(stored_run(old), [none]) and not run_audit._doubts(stored_run(new), [leak])
    Egemaps.load(new, config("head=logistic"), LABELS, FakeInputs())
    assert not caplog.text
    again = Egemaps.load(old, config("head=logistic"), LABELS, FakeInputs())
    assert "revision 1" in caplog.text and "force=true" in caplog.text
    again.save(tmp_path / "again")
    assert (tmp_path / "again" / "predictor.json").read_bytes() == (old / "predictor.json").read_bytes()


def test_a_finished_run_of_an_earlier_revision_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class StartedError(Exception):
        pass

    def start(*args: object) -> None:
        raise StartedError

    corpus = make_corpus()
    monkeypatch.setattr(pipeline.corpora, "load", lambda cfg: corpus)
    monkeypatch.setattr(pipeline.splits, "make", lambda *args: make_split(corpus))
    monkeypatch.setattr(pipeline.tracking, "open_store", lambda cfg: None)
    monkeypatch.setattr(pipeline.tracking, "adopt", lambda *args: None)
    monkeypatch.setattr(pipeline.tracking, "start", start)
    for revision in (1, 2):
        run = stored_run(saved(tmp_path / str(revision), revision))
        run.run_id, run.tags, run.metrics = "abc", {}, {}
        monkeypatch.setattr(pipeline.tracking, "find_finished", lambda cfg, key, run=run: run)
        with caplog.at_level("INFO"), pytest.raises(StartedError) if revision == 1 else nullcontext():
            assert pipeline.run(config("head=logistic")).skipped
    assert "run abc finished before, but this predictor was fitted to eGeMAPS functionals of revision 1" in caplog.text
