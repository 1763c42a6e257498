"""A predictor in a folder without its store, the texts that stand for audio, and the packages that its model needs."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_bench import config, predictors
from ser_bench.errors import ArtifactError, BadClipError
from ser_bench.evaluation.calibration import Calibration
from ser_bench.features.feature_store import Features
from ser_bench.inference import audio_column
from ser_bench.inference.audio_column import ALLOW_PATHS, AudioColumn, recording_of
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.bundle import read_bundle, write_bundle
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.tracking import audio_model
from ser_bench.tracking.model_requirements import model_requirements
from ser_bench.types import Clip, FloatArray, clean_rows

LABELS = ("anger", "sadness")
RATE_HZ = 16_000
SECRET = "swordfish-0123456789"
LIMIT_S = 60.0


def tone(seconds: float = 1.0) -> FloatArray:
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return (0.3 * np.sin(2 * np.pi * 200.0 * times)).astype(np.float32)


def audio_bytes(container: str = "WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(), RATE_HZ, format=container)
    return file.getvalue()


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def trained(folder: Path) -> PredictorFiles:
    """The files of a majority predictor that says anger with 2/3."""
    words = (f"cache_dir={folder}/cache", f"corpus.root={folder}/audio", f"tracking.dir={folder}/mlruns")
    cfg = config.compose(["experiment=none", "model=majority", "features.device=cuda:3", *words])
    clips = {str(i): Clip(str(i), Path(f"{i}.wav"), LABELS[i % 3 == 0], f"s{i}") for i in range(9)}
    predictor = predictors.build(cfg, LABELS, Features(cfg, clips, "en"), folder, lambda epoch, values: None)
    predictor.fit(clean_rows(clips), ())
    predictor.save(folder / "majority")
    return PredictorFiles("majority speaker fold 0", "ab" * 16, cfg, LABELS, folder / "majority", longest_s=4.5)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> PredictorFiles:
    folder = tmp_path_factory.mktemp("trained")
    calibration = folder / "calibration.json"
    calibration.write_text(Calibration(0.5, 9, 3, 0.2, 0.1, 0.7, 0.6).as_json(), encoding="utf-8")
    return replace(trained(folder), calibration=calibration)


@pytest.fixture(scope="module")
def bundle(files: PredictorFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "bundle"
    write_bundle(files, folder, "# Model card")
    return folder


@pytest.fixture(scope="module")
def column(bundle: Path) -> AudioColumn:
    return AudioColumn(bundle)


def test_a_bundle_gives_what_was_written_into_it(files: PredictorFiles, bundle: Path) -> None:
    read = read_bundle(bundle)
    assert (read.name, read.run_id, read.labels, read.longest_s) == (files.name, files.run_id, LABELS, 4.5)
    assert (bundle / "model_card.md").read_text(encoding="utf-8") == "# Model card"
    assert config.run_here(read.cfg, files.cfg) == files.cfg  # only keys of the machine differ
    recording, here = Recording.from_samples(tone(), RATE_HZ), config.compose([])
    of_bundle, of_files = (
        predictor.predict([recording])[0]
        for predictor in (AudioPredictor.from_folder(bundle, here), AudioPredictor(files, here))
    )
    assert of_bundle.probabilities == of_files.probabilities
    assert of_bundle.calibrated and of_bundle.probabilities["anger"] == pytest.approx(0.8)  # (2/3)², normalised


def test_a_bundle_has_no_path_of_the_machine_and_no_secret(
    files: PredictorFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERVICE_API_KEY", SECRET)
    cfg = replace(files.cfg, llm=replace(files.cfg.llm, base_url=f"http://me:{SECRET}@host/v1"))
    write_bundle(replace(files, cfg=cfg), tmp_path / "bundle", f"card {SECRET}")
    text = "\n".join(path.read_text() for path in (tmp_path / "bundle").rglob("*") if path.is_file())
    assert SECRET not in text and "host/v1" in text
    assert str(files.folder.parent) not in text and "cuda:3" not in text


def test_a_fusion_takes_its_members_along(files: PredictorFiles, tmp_path: Path) -> None:
    cfg = config.compose(["experiment=none", "model=fusion", "model.members=[one,two]", "model.combine=mean"])
    inner = {name: replace(files, run_id=name, calibration=None) for name in ("one", "two")}
    fusion = replace(files, cfg=cfg, members=inner, calibration=None)
    write_bundle(fusion, tmp_path / "bundle")
    read = read_bundle(tmp_path / "bundle")
    assert list(read.members) == ["one", "two"] and [m.run_id for m in read.members.values()] == ["one", "two"]
    assert all(member.folder.is_relative_to(tmp_path) for member in read.members.values())


@pytest.mark.parametrize("damage", ["no file", "another format", "cut off", "no predictor"])
def test_a_folder_that_is_no_bundle_is_told_in_one_line(bundle: Path, tmp_path: Path, damage: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    if damage == "no file":
        (copy / "bundle.json").unlink()
    elif damage == "another format":
        described = json.loads((copy / "bundle.json").read_text())
        (copy / "bundle.json").write_text(json.dumps(described | {"format": 99}))
    elif damage == "cut off":
        (copy / "config.yaml").write_text("model: {name: maj")
    else:
        (copy / "config.yaml").write_text((copy / "config.yaml").read_text().replace("name: majority", "name: nobody"))
    with pytest.raises(ArtifactError) as told:
        read_bundle(copy)
    assert "\n" not in str(told.value) and str(copy) in str(told.value)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG"])
def test_base64_of_a_file_is_a_recording(container: str) -> None:
    content = audio_bytes(container)
    expected = Recording.from_bytes(content, "x", LIMIT_S)
    wrapped = base64.encodebytes(content).decode()
    for text in (text_of(content), wrapped, f"data:audio/{container.lower()};base64,{text_of(content)}"):
        read = recording_of(text, "row 0", LIMIT_S)
        assert read.digest == expected.digest and read.name == "row 0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no text"),
        (None, "no text"),
        (float("nan"), "no text"),
        ("not base64!", "paths are not allowed"),
        ("data:audio/wav;base64,???", "data: URI"),
        ("data:audio/wav,RIFF", "data: URI"),
        (text_of(b"some bytes"), "not audio"),
        (text_of(audio_bytes()[:-999]), "truncated"),
        ("https://example.org/clip.wav", "addresses are not fetched"),
        ("s3://bucket/clip.wav", "addresses are not fetched"),
    ],
)
def test_other_texts_are_refused(text: object, said: str) -> None:
    with pytest.raises(BadClipError, match=said) as told:
        recording_of(text, "row 0", LIMIT_S)
    assert str(told.value).startswith("row 0: ") and "\n" not in str(told.value)


def test_a_path_is_read_only_where_paths_are_allowed(tmp_path: Path) -> None:
    there, missing = tmp_path / "clip one.wav", tmp_path / "none.wav"
    there.write_bytes(audio_bytes())
    refusals = []
    for text in (str(there), str(missing), there.as_uri(), missing.as_uri()):
        with pytest.raises(BadClipError) as told:
            recording_of(text, "row 0", LIMIT_S)
        refusals.append(str(told.value))
    assert len(set(refusals)) == 1, "the answer tells which files exist"
    for text in (str(there), there.as_uri(), f"file://localhost{there.as_uri().removeprefix('file://')}"):
        assert recording_of(text, "row 0", LIMIT_S, allow_paths=True).duration_s == 1.0
    assert recording_of(text_of(audio_bytes()), "row 0", LIMIT_S, allow_paths=True).duration_s == 1.0
    elsewhere = f"file://elsewhere{there.as_uri().removeprefix('file://')}"
    for text in (str(missing), elsewhere, "http://127.0.0.1/clip.wav", "a\0b.wav", "file:///a%00"):
        with pytest.raises(BadClipError):
            recording_of(text, "row 0", LIMIT_S, allow_paths=True)


def test_a_path_of_base64_characters_is_a_path_if_the_file_exists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("abcd").write_bytes(audio_bytes())
    assert recording_of("abcd", "row 0", LIMIT_S, allow_paths=True).name == "abcd"


def test_rows_are_answered_in_order_and_a_bad_one_stops_none(
    column: AudioColumn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_column, "BATCH", 2)
    good = text_of(audio_bytes())
    records = column.records([good, "nothing", good, good, None])
    assert [record["status"] for record in records] == ["answered", "failed", "answered", "answered", "failed"]
    assert [record["name"] for record in records] == [f"row {i}" for i in range(5)]
    assert records[0]["run_id"] == "ab" * 16 and records[0]["label"] == "anger" and records[1]["label"] == ""
    json.dumps(records, allow_nan=False)
    assert column.records([]) == []


@pytest.mark.parametrize(
    ("variable", "argument", "status"), [("", False, "failed"), ("1", False, "answered"), ("", True, "answered")]
)
def test_the_environment_or_the_caller_allows_paths(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, argument: bool, status: str
) -> None:
    monkeypatch.setenv(ALLOW_PATHS, variable)
    (tmp_path / "clip.wav").write_bytes(audio_bytes())
    column = AudioColumn(bundle, allow_paths=argument)
    assert column.records([str(tmp_path / "clip.wav")])[0]["status"] == status


def test_requirements_are_pinned_and_those_of_the_predictor() -> None:
    cfg = config.compose(["llm=local"])

    def packages(*names: str) -> set[str]:
        models = [replace(cfg, model=replace(cfg.model, name=name)) for name in names]
        return {line.partition("==")[0] for line in model_requirements(models)}

    lines = model_requirements([replace(cfg, model=replace(cfg.model, name="majority"))])
    assert all("==" in line and "+" not in line for line in lines) and lines == sorted(lines)
    core = packages("majority")
    assert {"mlflow", "torch", "librosa"} <= core and not {"ser-bench", "gradio", "fastapi", "opensmile"} & core
    for name, package in (
        ("cnn_text", "sentence-transformers"),
        ("egemaps", "opensmile"),
        ("llm", "xllamacpp"),
        ("llm", "praat-parselmouth"),
    ):
        assert package in packages(name) - core, name
    assert {"opensmile", "sentence-transformers"} <= packages("egemaps", "cnn_text")


def test_the_source_that_is_shipped_is_an_installed_package(tmp_path: Path) -> None:
    audio_model.copy_source(tmp_path / "ser_bench")
    assert (tmp_path / "ser_bench/conf/config.yaml").is_file()  # by which `config.folders` knows an installed package
    assert (tmp_path / "ser_bench/experiments/demo.yaml").is_file()
    assert not list(tmp_path.rglob("*.pyc"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 3_000_000


def test_the_input_example_is_a_short_recording() -> None:
    example = recording_of(audio_model.example_audio(), "row 0", LIMIT_S)
    assert example.duration_s == 0.5 and example.sample_rate_hz == 8_000
    assert 0.1 < np.abs(example.samples).max() < 1.0

