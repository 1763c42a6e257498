"""Recordings in memory, and a loaded predictor that answers on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import audio, config, predictors
from ser_bench.cache import Cache, MemoryFolder
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.evaluation.calibration import Calibration
from ser_bench.features.feature_store import Features
from ser_bench.inference.audio_predictor import AudioPredictor, predict_with_each
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.types import Clip, Predictions, Row, clean_rows

LABELS = ("anger", "sadness")
RATE_HZ = 16_000


def tone(frequency_hz: float, seconds: float = 1.0, amplitude: float = 0.3) -> np.ndarray:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (amplitude * np.sin(2 * np.pi * frequency_hz * times)).astype(np.float32)


def recording(frequency_hz: float, name: str = "", speaker: str = "", **wave: Any) -> Recording:
    return Recording.from_samples(tone(frequency_hz, **wave), RATE_HZ, name or f"{frequency_hz:g} Hz", speaker)


def trained(folder: Path, *words: str) -> PredictorFiles:
    """The files of a predictor that tells high tones from low ones."""
    pytest.importorskip("opensmile")
    cfg = config.compose(["experiment=none", "split=speaker", f"cache_dir={folder}/cache", *words])
    clips: dict[str, Clip] = {}
    for number in range(24):
        label = LABELS[number % 2]
        path = folder / f"{number}.wav"
        soundfile.write(path, tone(120.0 if number % 2 else 400.0 + number, amplitude=0.2 + 0.02 * number), RATE_HZ)
        clips[str(number)] = Clip(str(number), path, label, f"s{number // 6}", duration_s=1.0)
    rows = clean_rows(clips)
    predictor = predictors.build(cfg, LABELS, Features(cfg, clips, "en"), folder, lambda epoch, values: None)
    predictor.fit(rows[:18], rows[18:])
    predictor.save(folder / "predictor")
    return PredictorFiles(f"{cfg.model.name} speaker fold 0", "ab" * 16, cfg, LABELS, folder / "predictor")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PredictorFiles:
    return trained(tmp_path_factory.mktemp("egemaps"), "model=egemaps", "head=logistic")


def loaded(files: PredictorFiles, *words: str, **kwargs: Any) -> AudioPredictor:
    return AudioPredictor(files, config.compose(list(words)), **kwargs)


def test_files_bytes_and_samples_are_the_same_recording(tmp_path: Path) -> None:
    samples, path = tone(200.0), tmp_path / "tone.flac"
    soundfile.write(path, samples, RATE_HZ)
    of_file, of_bytes = Recording.from_file(path), Recording.from_bytes(path.read_bytes(), "upload")
    np.testing.assert_array_equal(of_file.samples, of_bytes.samples)
    np.testing.assert_allclose(of_file.samples, samples, atol=1 / 32768)
    assert of_file.digest == of_bytes.digest == audio.content_digest(path)
    assert of_file.duration_s == 1.0 and of_bytes.name == "upload"
    whole = np.round(samples * 32768).astype(np.int16)
    np.testing.assert_allclose(Recording.from_samples(whole, RATE_HZ).samples, samples, atol=1 / 32768)
    assert Recording.from_samples(whole, RATE_HZ).digest != Recording.from_samples(whole, 8000).digest
    part = of_file.section(0.25, 0.5)
    assert part.duration_s == 0.25 and part.digest != of_file.digest
    np.testing.assert_array_equal(part.samples, of_file.samples[4000:8000])


def test_channels_that_cancel_are_flagged(files: PredictorFiles, tmp_path: Path) -> None:
    wave = tone(120.0)
    soundfile.write(tmp_path / "both.wav", np.stack([wave, -wave * 0.99], axis=1), RATE_HZ)
    (answer,) = loaded(files).predict([Recording.from_file(tmp_path / "both.wav")])
    assert "channels_cancelled" in {flag.code for flag in answer.flags}


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"no audio", "not audio"), (b"RIFF\x00\x01\x00\x00WAVEfmt ", "upload: ")],
    ids=["empty", "text", "truncated"],
)
def test_bytes_that_are_no_audio_are_refused(content: bytes, message: str) -> None:
    with pytest.raises(BadClipError, match=message):
        Recording.from_bytes(content, "upload")


def test_a_truncated_upload_and_a_long_one_are_refused() -> None:
    file = io.BytesIO()
    soundfile.write(file, tone(200.0), RATE_HZ, format="WAV")
    with pytest.raises(BadClipError, match="upload: truncated"):
        Recording.from_bytes(file.getvalue()[:-999], "upload")
    with pytest.raises(BadClipError, match="1 s long, the limit"):
        Recording.from_bytes(file.getvalue(), "upload", max_duration_s=0.5)


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        (np.zeros((2, 9), np.float32), ConfigError),
        (np.zeros(9, np.uint8), ConfigError),
        (np.zeros(0, np.float32), BadClipError),
        (np.full(9, np.nan, np.float32), BadClipError),
    ],
    ids=["stereo", "type", "none", "nan"],
)
def test_samples_that_are_no_recording_are_refused(samples: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error):
        Recording.from_samples(samples, RATE_HZ)


def test_held_samples_are_read_like_a_file(tmp_path: Path) -> None:
    samples = tone(300.0, 2.0)
    soundfile.write(tmp_path / "a.wav", samples, RATE_HZ, subtype="FLOAT")
    with audio.held(samples, RATE_HZ, "a.wav") as path:
        for section in ({}, {"offset_s": 0.5}, {"offset_s": 1.5, "duration_s": 9.0}):
            expected = audio.load(tmp_path / "a.wav", 22_050, **section)
            np.testing.assert_array_equal(audio.load(path, 22_050, **section), expected)
        assert audio.is_held(path)
        with pytest.raises(BadClipError, match="limit"):
            audio.read(path, 1.0)
    assert not audio.is_held(path)
    with pytest.raises(BadClipError, match="cannot be read"):
        audio.read(path)


def test_a_cache_below_a_memory_folder_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    memory = MemoryFolder()
    first, second = Cache(memory.path / "asr"), Cache(memory.path / "asr")
    first.write_json("0a", ["words"])
    assert first.in_memory and second.read_json("0a") == ["words"] and second.write_first_json("0a", 1) is not None
    assert Cache(memory.path / "text").read_json("0a") is None
    memory.clear()
    assert first.read("0a") is None and not list(tmp_path.iterdir())
    assert not Cache(tmp_path).in_memory


def test_answers_have_label_probabilities_and_seconds(files: PredictorFiles, tmp_path: Path) -> None:
    predictor = loaded(files, f"cache_dir={tmp_path}")
    low, high, again = predictor.predict([recording(120.0), recording(430.0), recording(120.0, "the same")])
    assert (low.label, high.label) == ("sadness", "anger") and low.status == "answered"
    assert low.probabilities == again.probabilities and again.name == "the same"
    assert sum(low.probabilities.values()) == pytest.approx(1.0, abs=1e-5)
    assert set(low.seconds) == {"egemaps", "classify", "checks", "total"} and low.transcript is None
    assert low.seconds["total"] == pytest.approx(sum(low.seconds.values()) / 2)
    assert {flag.code for flag in low.flags} & {"no_speech", "no_speech_gate"}
    assert 0 < low.seconds["egemaps"] < low.seconds["total"]
    assert low.as_dict()["label"] == "sadness" and low.as_dict()["duration_s"] == 1.0
    assert predictor.predict([]) == []
    assert not list(tmp_path.iterdir()), "nothing of the audio is stored"


def test_a_recording_that_cannot_be_used_does_not_disturb_the_others(files: PredictorFiles) -> None:
    predictor = loaded(files)
    bad, good = predictor.predict([recording(200.0, "short.wav", seconds=0.01), recording(120.0)])
    assert bad.status == "failed" and bad.reason.startswith("short.wav: ") and "too short" in bad.reason
    assert not bad.label and not bad.probabilities and good.label == "sadness"


def test_answers_equal_those_of_files_with_stored_features(files: PredictorFiles, tmp_path: Path) -> None:
    (here,) = loaded(files).predict([recording(120.0)])
    stored = loaded(files, f"cache_dir={tmp_path}", store_features=True)
    assert stored.predict([recording(120.0)])[0].probabilities == here.probabilities
    assert list((tmp_path / "egemaps").rglob("*"))


def test_features_are_shared_between_predictors(files: PredictorFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    from ser_bench.features import egemaps_functionals

    computed: list[int] = []
    functionals = egemaps_functionals.functionals
    monkeypatch.setattr(egemaps_functionals, "functionals", lambda wave: computed.append(1) or functionals(wave))
    both = predict_with_each([loaded(files), loaded(files)], [recording(120.0)])
    assert both[0][0].label == both[1][0].label == "sadness" and len(computed) == 1
    loaded(files).predict([recording(120.0)])
    assert len(computed) == 2, "nothing is kept after the answer"


def test_enrolment_changes_the_answers_of_the_speaker_alone(tmp_path: Path) -> None:
    files = trained(tmp_path, "model=egemaps", "head=logistic", "adapt=speaker_stats", "adapt.enrol=4")
    predictor = loaded(files)
    assert predictor.adapts
    before = predictor.predict([recording(180.0), recording(180.0, speaker="me")])
    assert before[0].probabilities == before[1].probabilities, "two unknown speakers"
    predictor.enrol([recording(hz, amplitude=0.1) for hz in (150.0, 200.0, 250.0, 300.0)], "me")
    stranger, me = predictor.predict([recording(180.0), recording(180.0, speaker="me")])
    assert stranger.probabilities == before[0].probabilities and me.probabilities != stranger.probabilities
    with pytest.raises(ConfigError, match="at least one recording"):
        predictor.enrol([], "me")


def test_what_cannot_be_done_is_said(files: PredictorFiles) -> None:
    with pytest.raises(ConfigError, match="adapt=speaker_stats"):
        loaded(files).enrol([recording(120.0)], "me")
    listeners = config.compose(["experiment=none", "model=listeners", "corpus=cremad"])
    with pytest.raises(ConfigError, match="model=listeners cannot predict new audio"):
        loaded(PredictorFiles("listeners", "ab" * 16, listeners, LABELS, Path("absent")))


def test_a_fusion_answers_by_its_members(files: PredictorFiles, tmp_path: Path) -> None:
    cfg = config.compose(["experiment=none", "model=fusion", "model.members=[one,two]", "model.combine=mean"])

    class Half:
        """A member that gives one half to each label."""

        def __init__(self, name: str) -> None:
            self.name = self.run_id = name

        def predict(self, rows: Sequence[Row]) -> Predictions:
            n = len(rows)
            zeros = np.zeros(n, np.float32)
            half = np.full((n, 2), 0.5, np.float32)
            return Predictions(tuple(rows), ("",) * n, LABELS, half, zeros > 0, zeros, zeros)

        def vectors(self, rows: Sequence[Row]) -> Any:
            raise NotImplementedError

    features = Features(cfg, {}, "en", [Half("one"), Half("two")])
    fusion = predictors.build(cfg, LABELS, features, tmp_path, lambda *_: None)
    fusion.fit((), ())
    fusion.save(tmp_path / "fusion")
    members = {name: replace(files, run_id=name) for name in ("one", "two")}
    mean = PredictorFiles("fusion", "ef" * 16, cfg, LABELS, tmp_path / "fusion", members=members)
    (alone,), (both,) = loaded(files).predict([recording(120.0)]), loaded(mean).predict([recording(120.0)])
    assert both.probabilities == pytest.approx(alone.probabilities)
    assert both.seconds["egemaps"] > 0


def test_probabilities_are_calibrated_where_the_run_has_a_temperature(files: PredictorFiles, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(Calibration(2.0, 9, 3, 0.2, 0.1, 1.0, 0.9).as_json(), encoding="utf-8")
    (raw,) = loaded(files).predict([recording(120.0)])
    (calibrated,) = loaded(replace(files, calibration=path)).predict([recording(120.0)])
    odds, tempered = (answer.probabilities["anger"] / answer.probabilities["sadness"] for answer in (raw, calibrated))
    assert tempered == pytest.approx(odds**0.5, rel=1e-3)
    assert calibrated.calibrated and not raw.calibrated and calibrated.label == raw.label


def test_warming_up_leaves_nothing_behind(files: PredictorFiles) -> None:
    predictor = loaded(files)
    predictor.warm_up()
    assert predictor.predict([recording(120.0)])[0].label == "sadness"
