"""Exported files answer as the predictor does, run without this package, and say what cannot be exported."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from ser_bench import config, corpora, predictors, tracking
from ser_bench.cli import app as cli
from ser_bench.errors import BadClipError, ConfigError, NotComparableError, SerBenchError
from ser_bench.evaluation.calibration import CALIBRATION_FILE, Calibration, tempered
from ser_bench.export import onnx_folder
from ser_bench.export.exportable import generated_signal
from ser_bench.export.fold_score import score_on_test_rows
from ser_bench.export.head_graph import add_head
from ser_bench.export.onnx_predictor import OnnxPredictor, Precision
from ser_bench.export.whisper_graph import probe_graph
from ser_bench.features.feature_store import Features
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.types import Clip, Corpus, Predictions, Row, clean_rows
from tests.support.fake_inputs import LABELS, TINY, FakeInputs, compose_config, rows
from tests.support.tiny_whisper import BLOCKS, write_tiny

pytest.importorskip("onnxruntime")
RATE_HZ = 16_000
RUN_ID = "ab" * 16


def probe_files(folder: Path, *words: str) -> PredictorFiles:
    """A Whisper probe with random encoders, trained on generated voices of three pitches."""
    encoders = [str(write_tiny(folder / f"weights{seed}", seed)) for seed in range(2 if "two" in words else 1)]
    cfg = config.compose(
        [
            *("experiment=none", "model=whisper_probe", "split=speaker", f"cache_dir={folder}/cache"),
            *(f"model.encoders=[{','.join(encoders)}]", "head.epochs=5", "head.hidden=16", "head.seeds=2"),
            *(word for word in words if word != "two"),
        ]
    )
    clips: dict[str, Clip] = {}
    for number in range(30):
        path = folder / f"{number}.wav"
        times = np.arange(4_000 + 500 * (number % 3)) / RATE_HZ
        noise = np.random.default_rng(number).normal(scale=0.05, size=len(times))
        soundfile.write(path, 0.2 * np.sin(2 * np.pi * 150 * (1 + number % 3) * times) + noise, RATE_HZ)
        speaker, duration_s = f"s{number // 6}", len(times) / RATE_HZ
        clips[str(number)] = Clip(str(number), path, LABELS[number % 3], speaker, duration_s=duration_s)
    every = clean_rows(clips)
    predictor = predictors.build(cfg, LABELS, Features(cfg, clips, "en"), folder, lambda epoch, values: None)
    predictor.fit(every[:24], every[24:])
    predictor.save(folder / "predictor")
    return PredictorFiles("whisper_probe speaker fold 0", RUN_ID, cfg, LABELS, folder / "predictor")


def network_files(folder: Path, model: str, *words: str) -> PredictorFiles:
    cfg = compose_config("experiment=none", f"model={model}", *words, *TINY[3:])
    predictor = predictors.predictor_class(model)(cfg, LABELS, FakeInputs(), folder, lambda epoch, values: None)
    predictor.fit(rows(0, 24), rows(100, 9))
    predictor.save(folder / "predictor")
    return PredictorFiles(f"{model} speaker fold 0", RUN_ID, cfg, LABELS, folder / "predictor")


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> PredictorFiles:
    return probe_files(tmp_path_factory.mktemp("probe"), "head=blend")


@pytest.fixture(scope="module")
def exported(probe: PredictorFiles, tmp_path_factory: pytest.TempPathFactory) -> onnx_folder.OnnxExport:
    """A calibrated probe, with both precisions."""
    folder = tmp_path_factory.mktemp("export")
    calibration = folder / CALIBRATION_FILE
    calibration.write_text(Calibration(2.0, 9, 3, 0.2, 0.1, 1.0, 0.9).as_json())
    files = PredictorFiles(probe.name, RUN_ID, probe.cfg, LABELS, probe.folder, calibration)
    return onnx_folder.export_onnx(files, config.compose([]), folder / "onnx", int8=True, threads=1)


def answers_of(files: PredictorFiles, waves: list[Any], rate_hz: int = RATE_HZ) -> np.ndarray:
    found = AudioPredictor(files, config.compose([])).predict([Recording.from_samples(w, rate_hz) for w in waves])
    return np.array([list(answer.probabilities.values()) for answer in found])


def test_the_graph_answers_as_the_probe_does(probe: PredictorFiles) -> None:
    """The default head, clips shorter than a window, of odd lengths and beyond 30 s, and batches."""
    import onnxruntime

    session = onnxruntime.InferenceSession(probe_graph(probe).model.SerializeToString())
    waves = [generated_signal(seconds, seed) for seed, seconds in enumerate((0.01, 0.0251, 1.0, 2.3457, 31.0))]
    expected = answers_of(probe, waves)
    alone = np.concatenate([session.run(None, {"samples": wave[None]})[0] for wave in waves])
    np.testing.assert_allclose(alone, expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.01, "the answers differ, so that an error would show"
    together = session.run(None, {"samples": np.stack([0.3 * waves[2], waves[2]])})[0]
    np.testing.assert_allclose(together[1], expected[2], atol=1e-5)
    silence = np.zeros(8_000, np.float32)
    np.testing.assert_allclose(
        session.run(None, {"samples": silence[None]})[0], answers_of(probe, [silence]), atol=1e-5
    )


@pytest.mark.parametrize(
    ("words", "blocks"),
    [
        (("head=logistic", "model.layers=[1]"), 1),
        (("head=logistic", "model.layers=[2]", "model.pooling=attentive", "model.attention.seeds=2", "two"), 2),
    ],
    ids=["first block", "attentive, two encoders"],
)
def test_only_blocks_that_the_head_reads_are_in_the_graph(tmp_path: Path, words: tuple[str, ...], blocks: int) -> None:
    files = probe_files(tmp_path, *words)
    export = onnx_folder.export_onnx(files, config.compose([]), tmp_path / "out", int8=False, threads=1)
    assert export.files[0].largest_difference < 1e-4
    products = probe_graph(files).products
    assert len(products) == 4 * blocks * (2 if "two" in words else 1) and blocks < BLOCKS


def test_the_folder_states_what_it_holds(exported: onnx_folder.OnnxExport, probe: PredictorFiles) -> None:
    described = json.loads((exported.folder / "model.json").read_text())
    assert described["labels"] == list(LABELS) and described["sample_rate_hz"] == RATE_HZ
    assert described["run"]["id"] == RUN_ID and described["temperature"] == 2.0
    assert [file.precision for file in exported.files] == [Precision.float32, Precision.int8]
    assert all(described["files"][file.precision.value]["bytes"] == file.size for file in exported.files)
    assert exported.files[0].largest_difference < 1e-5 < exported.files[1].largest_difference < 0.2
    assert min(file.seconds for file in exported.files) > 0 and exported.predictor_seconds > 0
    texts = [(exported.folder / name).read_text() for name in ("model.json", "README.md")]
    assert not [text for text in texts if str(probe.folder.parent) in text], "no path of this machine"
    with pytest.raises(ConfigError, match="has files already"):
        onnx_folder.export_onnx(probe, config.compose([]), exported.folder, int8=False, threads=1)


def test_an_onnx_predictor_gives_calibrated_probabilities(
    exported: onnx_folder.OnnxExport, probe: PredictorFiles
) -> None:
    wave = generated_signal(1.5, 3)
    calibrated = tempered(answers_of(probe, [wave]), 2.0)[0]
    predictor = OnnxPredictor(exported.folder)
    np.testing.assert_allclose(predictor.predict_samples(wave, RATE_HZ), calibrated, atol=1e-5)
    assert predictor.labels == LABELS and predictor.run_id == RUN_ID and predictor.sample_rate_hz == RATE_HZ
    int8 = OnnxPredictor(exported.folder, Precision.int8, threads=1).predict_samples(wave, RATE_HZ)
    assert 0 < np.abs(int8 - calibrated).max() < 0.2 and np.isclose(int8.sum(), 1.0)
    other_rate = tempered(answers_of(probe, [wave], 22_050), 2.0)[0]
    np.testing.assert_allclose(predictor.predict_samples(wave, 22_050), other_rate, atol=1e-5)
    assert np.abs(other_rate - calibrated).max() > 1e-3
    for bad in (np.full(9, np.nan), np.zeros(0)):
        with pytest.raises(BadClipError):
            predictor.predict_samples(bad, RATE_HZ)
    with pytest.raises(ConfigError, match="mono"):
        predictor.predict_samples(np.zeros((2, 9)), RATE_HZ)
    with pytest.raises(ConfigError, match="takes samples"):
        predictor.predict_features(np.zeros((1, 9), np.float32))


def test_the_code_of_the_readme_runs(
    exported: onnx_folder.OnnxExport, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = re.findall(r"```python\n(.*?)```", (exported.folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(exported.folder)
    wave = generated_signal(1.0, 5)
    soundfile.write("clip.wav", wave, RATE_HZ, subtype="FLOAT")
    exec(code, {})
    Path("clip.wav").unlink()
    printed = eval(capsys.readouterr().out)
    expected = OnnxPredictor(exported.folder).predict_samples(wave, RATE_HZ)
    np.testing.assert_allclose(tempered(np.array([list(printed.values())]), 2.0)[0], expected, atol=1e-5)
    assert tuple(printed) == LABELS


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.onnx").write_bytes(b"other"), "its sha256 is not that of model.json"),
        (lambda f: (f / "model.onnx").unlink(), "cannot be read"),
        (lambda f: (f / "model.json").write_text("{"), "no readable description"),
        (lambda f: (f / "model.json").write_text('{"format": 1}'), "it lacks files"),
        (lambda f: rewritten(f, format=9), "exported in format 9"),
        (lambda f: rewritten(f, files={}), "has no float32 file"),
    ],
    ids=["changed", "missing", "cut", "empty", "format", "precision"],
)
def test_damaged_folders_are_refused(
    exported: onnx_folder.OnnxExport, tmp_path: Path, damage: Any, message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported.folder, folder)
    damage(folder)
    with pytest.raises(SerBenchError, match=message):
        OnnxPredictor(folder)


def rewritten(folder: Path, **changes: Any) -> None:
    described = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(described | changes))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[PredictorFiles, onnx_folder.OnnxExport]:
    folder = tmp_path_factory.mktemp("cnn")
    files = network_files(folder, "cnn", *TINY[1:3])
    return files, onnx_folder.export_onnx(files, config.compose([]), folder / "onnx", int8=False, threads=1)


def test_a_network_is_exported_with_its_standardisation(
    network: tuple[PredictorFiles, onnx_folder.OnnxExport], capsys: pytest.CaptureFixture[str]
) -> None:
    files, export = network
    assert export.files[0].largest_difference < 1e-4
    predictor = OnnxPredictor(export.folder)
    inputs = FakeInputs()
    asked = rows(200, 7)
    loaded = predictors.load(files.folder, files.cfg, LABELS, inputs)
    expected = loaded.predict(asked).probabilities
    np.testing.assert_allclose(predictor.predict_features(inputs.spectral(asked)), expected, atol=1e-5)
    described = json.loads((export.folder / "model.json").read_text())
    assert described["input"]["shape"] == ["batch", 40] and described["input"]["features"]["sample_rate_hz"] == 22_050
    assert described["sample_rate_hz"] is None and described["licences"] == []
    with pytest.raises(ConfigError, match="takes features"):
        predictor.predict_samples(np.zeros(99), RATE_HZ)
    with pytest.raises(ConfigError, match="takes features"):
        predictor.predict_features(np.zeros((1, 41), np.float32))


def test_an_export_that_differs_is_not_written(
    network: tuple[PredictorFiles, onnx_folder.OnnxExport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, export = network
    monkeypatch.setattr(onnx_folder, "_write_graphs", lambda source, folder, int8: copied(export.folder, folder))
    monkeypatch.setattr(OnnxPredictor, "predict_features", lambda self, features: np.zeros((len(features), 3)))
    with pytest.raises(SerBenchError, match="differs from the predictor"):
        onnx_folder.export_onnx(files, config.compose([]), tmp_path / "out", int8=False, threads=1)
    assert not list(tmp_path.iterdir())


def copied(source: Path, folder: Path) -> dict[Precision, str]:
    shutil.copy(source / "model.onnx", folder)
    return {Precision.float32: "model.onnx"}


@pytest.mark.parametrize(
    ("words", "int8", "message"),
    [
        (("model=egemaps",), False, "cannot be exported to ONNX; cnn, cnn_text, crnn, mlp, whisper_probe can"),
        (("model=llm",), False, "model=llm cannot be exported"),
        (("model=whisper_probe", "adapt=speaker_stats"), False, "export a run with adapt=none"),
        (("model=mlp",), True, "leave out --int8"),
    ],
    ids=["egemaps", "llm", "adapted", "int8"],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    tmp_path: Path, words: tuple[str, ...], int8: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ser_bench.export.exportable._ExportableNetwork.__init__", lambda *_: None)
    files = PredictorFiles("a run", RUN_ID, compose_config("experiment=none", *words), LABELS, tmp_path)
    with pytest.raises(ConfigError, match=message) as caught:
        onnx_folder.export_onnx(files, config.compose([]), tmp_path / "out", int8=int8, threads=1)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_head_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(json.dumps({"format": 1, "classes": 3, "members": {"ordinal": {}}}))
    with pytest.raises(ConfigError, match="ordinal, which cannot be exported; logistic, mlp, svm can"):
        add_head(SimpleNamespace(), "x", tmp_path)  # type: ignore[arg-type]


class FakeRun:
    """A stored run of the probe, whose corpus are its own clips."""

    def __init__(self, files: PredictorFiles, corpus: Corpus, predictions: Predictions) -> None:
        self.run_id, self.name, self.tags = files.run_id, files.name, {"corpus_digest": corpus.digest}
        self.config, self.predictions = lambda: files.cfg, lambda: predictions


@pytest.fixture
def stored(probe: PredictorFiles, monkeypatch: pytest.MonkeyPatch) -> FakeRun:
    """A run with the test rows 0, 1, 2 (and a variant), of which the second was answered wrongly."""
    folder = probe.folder.parent
    clips = [Clip(str(n), folder / f"{n}.wav", LABELS[n], "s0", digest=str(n)) for n in range(3)]
    corpus = Corpus("tones", tuple(clips), LABELS, "en")
    answers = answers_of(probe, [soundfile.read(clip.path, dtype="float32")[0] for clip in clips])
    answers = np.concatenate([answers, answers[:1]])
    answers[1] = np.eye(3)[(answers[1].argmax() + 1) % 3]
    asked = (*(Row(clip.id) for clip in clips), Row("0", "noise"))
    truth = tuple(LABELS[answers[n].argmax()] for n in (0, 1, 2, 0))
    zeros = np.zeros(4, np.float32)
    run = FakeRun(probe, corpus, Predictions(asked, truth, LABELS, answers, zeros.astype(bool), zeros, zeros))
    monkeypatch.setattr(tracking, "load_run", lambda cfg, run_id: run)
    monkeypatch.setattr(PredictorFiles, "of_run", lambda stored: probe)
    monkeypatch.setattr(corpora, "load", lambda cfg: corpus)
    monkeypatch.setattr(corpora, "root_of", lambda cfg: Path("here"))
    return run


def test_the_command_states_size_speed_and_score(
    stored: FakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_folder, "REPEATS", 1)
    assert cli.main(["export", "abab", "--onnx", "--int8", "--score", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == "onnx_abababab" and printed["test rows"] == 3, "variants are not scored"
    float32, int8 = printed["files"]
    assert printed["UAR of the run"] == 1.0 and float32["labels changed"] == 1
    truth = stored.predictions().truth[:3]
    assert float32["UAR"] == pytest.approx(1 - 1 / truth.count(truth[1]) / len(set(truth)), abs=1e-4)
    assert (float32["precision"], int8["precision"]) == ("float32", "int8")
    assert min(float32["megabytes"], float32["ms"], printed["PyTorch ms"]) > 0
    assert float32["largest difference"] < 1e-5 and (tmp_path / "onnx_abababab" / "model.int8.onnx").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["abab"], "name the format: ser-bench export RUN --onnx"),
        (["abab", "cdcd", "--onnx"], "name one run, not 2"),
        (["abab", "--onnx", "--threads", "0"], "give 1 or more"),
    ],
    ids=["format", "run", "threads"],
)
def test_the_command_says_what_is_missing(
    stored: FakeRun, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", *words]) == cli.EXIT_FAILED
    assert message in capsys.readouterr().err


def test_another_copy_of_the_corpus_is_not_scored(stored: FakeRun, exported: onnx_folder.OnnxExport) -> None:
    stored.tags["corpus_digest"] = "other"
    with pytest.raises(NotComparableError, match="not the copy of tones"):
        score_on_test_rows(stored, config.compose([]), {Precision.float32: OnnxPredictor(exported.folder)})  # type: ignore[arg-type]
