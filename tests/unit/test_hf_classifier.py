"""`model=hf_classifier`: labels of checkpoint and corpus, scores as those of transformers, refusals, the audit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax

from ser_bench import audio, predictors
from ser_bench.audit.finding import Audit, Finding
from ser_bench.audit.pretraining import check_pretraining
from ser_bench.cache import Cache
from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError, WeightsError
from ser_bench.features.encoders import audio_classifier
from ser_bench.predictors.hf_classifier.checkpoint_labels import match, probabilities_of
from ser_bench.types import Row
from tests.support import tiny_audio_classifier, tiny_speech_encoder
from tests.support.fake_inputs import LABELS, FakeInputs, compose_config, rows

CORPUS = ("angry", "disgust", "fearful", "happy", "neutral", "sad")
ALIASES = {"ang": "angry", "neu": "neutral", "exc": "happy"}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_audio_classifier.write(tmp_path_factory.mktemp("checkpoint"), LABELS)


def configured(checkpoint: Path | str) -> Config:
    return compose_config("experiment=none", "model=hf_classifier", f"model.id='{checkpoint}'")


def built(cfg: Config, labels: tuple[str, ...] = LABELS) -> predictors.base.LightPredictor:
    return predictors.build(cfg, labels, FakeInputs(), Path(), lambda epoch, metrics: None)


def test_labels_stand_for_those_of_the_corpus_and_the_others_are_named() -> None:
    labels = match(("ANG", "exc", "joy", "surprise", "Neu", "LABEL_5"), CORPUS, ALIASES)
    assert labels.columns == (0, 3, 3, -1, 4, -1)
    assert labels.supported == ("angry", "happy", "neutral")
    assert labels.missing == ("disgust", "fearful", "sad") and labels.dropped == ("surprise", "LABEL_5")


def test_probabilities_are_the_softmax_over_the_labels_of_the_corpus() -> None:
    labels = match(("ANG", "exc", "joy", "surprise", "Neu"), CORPUS, ALIASES)
    scores = np.array([[1.0, 2.0, -1.0, 900.0, 0.5], [-800.0, -801.0, -802.0, 0.0, -803.0]])
    shares = softmax(scores[:, [0, 1, 2, 4]], axis=1)
    expected = np.zeros((2, 6))
    expected[:, 0], expected[:, 3], expected[:, 4] = shares[:, 0], shares[:, 1] + shares[:, 2], shares[:, 3]
    np.testing.assert_allclose(probabilities_of(scores, labels, 6), expected, rtol=1e-12)


def test_scores_are_those_of_transformers_and_are_computed_once(checkpoint: Path, tmp_path: Path) -> None:
    clips = tiny_speech_encoder.clips(tmp_path, 0.6, 0.01)
    cache = Cache(tmp_path / "cache")
    scores = audio_classifier.class_scores(clips, str(checkpoint), None, "cpu", cache)
    assert audio_classifier.own_labels(str(checkpoint), None) == LABELS and scores.shape == (2, 3)
    import transformers

    model = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(checkpoint).eval()
    wave = audio.load(clips[0].path, 16_000)
    normalised = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    with torch.inference_mode():
        expected = model(torch.from_numpy(normalised[None].astype(np.float32))).logits[0].numpy()
    np.testing.assert_allclose(scores[0], expected, atol=1e-5)
    clips[0].path.unlink()
    np.testing.assert_array_equal(audio_classifier.class_scores(clips, str(checkpoint), None, "cpu", cache), scores)


def test_unknown_labels_are_reported_and_the_supported_ones_have_a_score_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny_audio_classifier.write(tmp_path / "two", ("anger", "sadness", "surprise"))
    predictor = built(configured(folder))
    with caplog.at_level("INFO"):
        predictor.fit((), ())
    assert "does not know fear" in caplog.text and "left out: surprise" in caplog.text
    test = rows(0, 30)
    predictions = predictor.predict(test)
    assert not predictions.probabilities[:, LABELS.index("fear")].any()
    known = [i for i, truth in enumerate(predictions.truth) if truth != "fear"]
    recall = [
        np.mean([predictions.predicted[i] == label for i in known if predictions.truth[i] == label])
        for label in ("anger", "sadness")
    ]
    assert predictor.facts() == {"hf/supported_labels": 2.0, "hf/uar_supported": pytest.approx(np.mean(recall))}


def test_what_cannot_be_used_is_one_line(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"add its commit: model.id=user/name@COMMIT"):
        built(configured("user/name")).fit((), ())
    with pytest.raises(ConfigError, match=r"model.id names no checkpoint; set model.id=FOLDER"):
        built(configured("")).fit((), ())
    strange = tiny_audio_classifier.write(tmp_path / "strange", ("LABEL_0", "LABEL_1"))
    with pytest.raises(ConfigError, match=r"LABEL_0, LABEL_1, of which the corpus has none; .*model.aliases=\{label_0"):
        built(configured(strange)).fit((), ())
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError, match=r"no \.safetensors, and pickled weights are not loaded"):
        built(configured(pickled)).fit((), ())
    (pickled / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(WeightsError, match="no audio classifier that transformers can load"):
        audio_classifier.AudioClassifier(pickled, "cpu")


def test_a_stored_run_refuses_another_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    predictor = built(configured(checkpoint))
    predictor.fit((), ())
    predictor.save(tmp_path / "stored")
    assert str(checkpoint) not in (tmp_path / "stored" / "predictor.json").read_text()
    other = tiny_audio_classifier.write(tmp_path / "other", LABELS, seed=1)
    with pytest.raises(SerBenchError, match="not the checkpoint of this run"):
        type(predictor).load(tmp_path / "stored", configured(other), LABELS, FakeInputs())


@pytest.mark.parametrize(
    ("trained_on", "share", "text"),
    [
        (("iemocap", "CREMAD"), 1.0, "x was trained on cremad, on which it is tested"),
        (("iemocap",), 0.0, "as stated, no tested corpus (x: iemocap)"),
        ((), 0.0, "as stated, no tested corpus (x: no corpus of emotions)"),
        (None, None, "not checked: what x was trained on is not known; model.trained_on states it"),
    ],
)
def test_the_audit_compares_the_training_data_with_the_tested_corpus(
    trained_on: tuple[str, ...] | None, share: float | None, text: str
) -> None:
    finding = check_pretraining({"x": trained_on}, {"cremad"})
    assert finding == Finding("pretraining", text, share, leak=share == 1.0)
    audit = Audit("speaker", 3, (finding,))
    assert audit.tag == ("leaks: pretraining" if finding.leak else "clean")
    assert ("not checked: training data of the checkpoint" in audit.verdict) is (trained_on is None)
    assert "training data of pretrained weights" not in audit.verdict


def test_the_training_data_are_those_of_the_configuration(checkpoint: Path) -> None:
    cfg = configured(checkpoint)
    stated = replace(cfg, model=replace(cfg.model, trained_on=["CREMAD"]))
    cls = predictors.predictor_class("hf_classifier")
    assert list(cls.training_data(cfg).values()) == [None]
    assert list(cls.training_data(stated).values()) == [("cremad",)]
    assert str(checkpoint) not in str(cls.training_data(cfg))


def test_variants_have_the_scores_of_their_clip(checkpoint: Path) -> None:
    predictor = built(configured(checkpoint))
    clean, noisy = predictor.predict([Row("fear-1")]), predictor.predict([Row("fear-1", "noise")])
    np.testing.assert_array_equal(clean.probabilities, noisy.probabilities)
