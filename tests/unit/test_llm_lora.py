"""`model=llm_lora`: text of a clip, cut blocks against the whole model, training, resuming, storing, bad input."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ser_bench import predictors
from ser_bench.config import Config
from ser_bench.errors import ConfigError, SerBenchError, WeightsError
from ser_bench.features.prosody import NO_PROSODY, Prosody
from ser_bench.predictors.llm.prompting import prosody_norms
from ser_bench.predictors.llm_lora import LlmLora, base_model, compact_prompt
from ser_bench.predictors.llm_lora.label_network import LabelNetwork, LoraSettings, WarmUpCosine
from ser_bench.types import Row
from tests.support import tiny_language_model
from tests.support.fake_inputs import LABELS, FakeInputs, accuracy_of, compose_config, rows

TRAIN, VAL, TEST = rows(0, 48), rows(100, 12), rows(200, 24)
USUAL = (0.0, 6.0, 0.0, 60.0, 4.0, 10.0, 1.0, 5.0, 15.0)
WORDS = (*compact_prompt.SHORT_NAMES.values(), "usual", "much", "higher", "lower", "louder", "softer", "eleven o'clock")
SETTINGS = LoraSettings(2, 4, 8.0, 0.0, ("q_proj", "v_proj"))


class TalkingInputs(FakeInputs):
    """Each label has its own pitch and loudness; the transcript says nothing about it."""

    def prosody(self, rows: Sequence[Row]) -> list[Any]:
        measured = []
        for row in rows:
            kind, noise = LABELS.index(row.clip_id.split("-")[0]), self._rng(Row(row.clip_id)).normal(0, 0.5, 2)
            values = np.array(USUAL)
            values[0] += 4 * (kind - 1) + noise[0]
            values[3] += 8 * (kind == 2) + noise[1]
            measured.append(Prosody(*values.tolist()))
        return measured

    def transcripts(self, rows: Sequence[Row]) -> list[str]:
        return ["It's eleven o'clock" for _ in rows]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_language_model.write(tmp_path_factory.mktemp("base"), (*LABELS, *WORDS))


def configured(base: Path | str, *words: str) -> Config:
    return compose_config(
        "experiment=none", "model=llm_lora", f"model.base={base}", "trainer=lora", "trainer.progress=false",
        "trainer.max_epochs=8", "trainer.learning_rate=0.005", "trainer.batch_size=8", "trainer.patience=null",
        "model.layers=4", "model.dropout=0.0",
        "model.rank=4", "model.max_tokens=200", *words,
    )  # fmt: skip


def built(cfg: Config, folder: Path, inputs: FakeInputs | None = None) -> LlmLora:
    folder.mkdir(exist_ok=True, parents=True)
    made = predictors.build(cfg, LABELS, inputs or TalkingInputs(), folder, lambda epoch, metrics: None)
    assert isinstance(made, LlmLora)
    return made


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[LlmLora, dict[str, float], Config]:
    cfg = configured(base)
    predictor = built(cfg, tmp_path_factory.mktemp("work"))
    return predictor, dict(predictor.fit(TRAIN, VAL)), cfg


def test_voice_text_has_the_words_and_thresholds_of_the_prompts_or_tenths() -> None:
    norms = prosody_norms.ProsodyNorms(
        {name: (usual, 2.0) for name, usual in zip(compact_prompt.SHORT_NAMES, USUAL, strict=True)}, {}
    )
    clip = Prosody(3.2, 8.0, 0.9, 57.0, None, 90.0, 1.0, 5.0, 15.0)
    assert compact_prompt.voice_text(clip, norms, numbers=False) == (
        "pitch much higher, range wider, slope usual, loudness much softer, pauses much more, jitter usual, "
        "shimmer usual, harmonics usual"
    )
    assert compact_prompt.voice_text(clip, norms, numbers=True) == (
        "pitch +16, range +10, slope +4, loudness -15, pauses +99, jitter +0, shimmer +0, harmonics +0"
    )
    assert compact_prompt.voice_text(NO_PROSODY, norms, numbers=True) == compact_prompt.NOT_MEASURED
    assert set(compact_prompt.SHORT_NAMES) == {measure.field for measure in prosody_norms.MEASURES}


def test_clips_of_seen_and_unseen_speakers_have_the_same_text(
    trained: tuple[LlmLora, dict[str, float], Config],
) -> None:
    """The prompts describe a clip relative to its own speaker where training rows hold ten clips of that speaker."""
    predictor, _, _ = trained
    row = TRAIN[0]
    [text] = predictor.texts([row])
    assert predictor._norms is not None and not predictor._norms.speakers
    prosodies = predictor._inputs.prosody(TRAIN)
    assert text.startswith(
        compact_prompt.before_transcript(
            compact_prompt.voice_text(prosodies[0], compact_prompt.learn_norms(prosodies), numbers=False)
        )
    )


def test_before_training_the_logits_are_those_of_the_whole_model(base: Path) -> None:
    whole, cut = base_model.load(str(base)), base_model.load(str(base))
    answers, tokens = whole.answer_tokens(LABELS)
    assert answers == [f" {label}" for label in LABELS]
    texts = [whole.token_ids(text) for text in ("Voice: pitch higher\nEmotion:", "Emotion:")]
    network = LabelNetwork(cut.model, tokens, SETTINGS).eval()
    with torch.no_grad():
        expected = torch.stack([whole.model(torch.tensor([ids])).logits[0, -1, tokens] for ids in texts])
        found = network(network.states(texts, len(texts[0]) + 3))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-5)


def test_only_lora_of_the_last_blocks_and_the_head_are_trained_and_stored_in_checkpoints(base: Path) -> None:
    loaded = base_model.load(str(base))
    network = LabelNetwork(loaded.model, [1, 2, 3], SETTINGS)
    blocks = {int(name.split("/")[2]) for name in network.adapter}
    assert blocks == {2, 3} and all("lora_" in name for name in network.adapter)
    assert len(network.adapter) == 2 * 2 * 2  # blocks, layers, matrices
    assert set(network.state_dict()) == {f"adapter.{n}" for n in network.adapter} | {"head.weight", "head.bias"}
    assert network.total_parameters > 10 * sum(weight.numel() for weight in network.adapter.parameters())


def test_letters_answer_where_two_labels_begin_alike(tmp_path: Path) -> None:
    loaded = base_model.load(str(tiny_language_model.write(tmp_path)))  # every label begins with the byte of the space
    answers, tokens = loaded.answer_tokens(LABELS)
    assert answers == [" A", " B", " C"] and len(set(tokens)) == 3


def test_it_learns_prosody_and_the_metrics_say_what_was_done(trained: tuple[LlmLora, dict[str, float], Config]) -> None:
    predictor, facts, _ = trained
    assert accuracy_of(predictor.predict(TEST)) > 0.9
    assert facts["fit/epochs"] == 8 and facts["fit/clips"] == len(TRAIN)
    assert facts["params/trainable"] < facts["params/total"]
    assert predictor.texts(TEST[:1])[0].startswith("Voice: pitch ")


def test_test_rows_reach_no_weight(tmp_path: Path, trained: tuple[LlmLora, dict[str, float], Config]) -> None:
    again = built(trained[2], tmp_path)
    again.fit(TRAIN, VAL, TEST)
    np.testing.assert_array_equal(again.predict(TEST).probabilities, trained[0].predict(TEST).probabilities)


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, trained: tuple[LlmLora, dict[str, float], Config]
) -> None:
    cfg = trained[2]

    def stop(epoch: int, metrics: Any) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    first = predictors.build(cfg, LABELS, TalkingInputs(), tmp_path, stop)
    with pytest.raises((SerBenchError, KeyboardInterrupt)):
        first.fit(TRAIN, VAL)
    resumed = built(cfg, tmp_path)
    resumed.fit(TRAIN, VAL)
    np.testing.assert_allclose(
        resumed.predict(TEST).probabilities, trained[0].predict(TEST).probabilities, atol=1e-6
    )


def test_train_clips_are_stratified_and_nothing_else_is_read(base: Path, tmp_path: Path) -> None:
    predictor = built(configured(base, "model.train_clips=12", "trainer.max_epochs=1"), tmp_path / "a")
    assert predictor.fit(TRAIN, VAL)["fit/clips"] == 12
    predictor.save(tmp_path / "stored")
    read = [clip_id for clip_id, _ in json.loads((tmp_path / "stored" / "training_rows.json").read_text())["rows"]]
    assert Counter(name.split("-")[0] for name in read) == dict.fromkeys(LABELS, 4)


def test_another_language_model_is_refused_on_loading(
    tmp_path: Path, trained: tuple[LlmLora, dict[str, float], Config]
) -> None:
    predictor, _, cfg = trained
    predictor.save(tmp_path / "stored")
    other = tiny_language_model.write(tmp_path / "other", (*LABELS, "joy"))
    with pytest.raises(SerBenchError, match=r"not the language model.*model\.base"):
        predictors.load(tmp_path / "stored", configured(other), LABELS, TalkingInputs())
    stored = (tmp_path / "stored" / "predictor.json").read_text()
    assert cfg.model.base not in stored  # type: ignore[attr-defined]  # no path of the user


def test_transcripts_are_cut_to_the_longest_text(base: Path, tmp_path: Path) -> None:
    inputs = TalkingInputs()
    inputs.transcripts = lambda rows: ["word " * 200 for _ in rows]  # type: ignore[method-assign]
    predictor = built(configured(base, "model.max_tokens=140", "trainer.max_epochs=1"), tmp_path, inputs)
    assert predictor.fit(TRAIN, VAL)["fit/longest_tokens"] == 140


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.rank=0", "model.rank=0: must be at least 1"),
        ("model.train_clips=0", "model.train_clips=0"),
        ("model.dropout=1.0", "below 1"),
        ("model.targets=[]", "at least one name"),
        ("model.targets=[nothing]", "no such linear layers"),
        ("model.max_tokens=5", "the prosody alone takes"),
        ("model.base=no_such_model", "SmolLM2-135M-Instruct-Q4_1"),
    ],
)
def test_a_key_that_cannot_be_is_one_line(word: str, expected: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        built(configured(base, word), tmp_path).fit(TRAIN, VAL)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_pickles_and_damaged_weights_are_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((base / "config.json").read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(WeightsError, match=r"no \.safetensors"):
        base_model.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot load this model"):
        base_model.load(str(tmp_path))
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(WeightsError, match="cannot load this model"):
        base_model.load(str(tmp_path / "x.gguf"))


def test_the_rate_rises_and_falls_to_zero() -> None:
    network = torch.nn.Linear(2, 2)
    made = WarmUpCosine(weight_decay=0.1, steps_per_epoch=10, warm_up=0.2).optimizer(network, 1.0, 1e-8, 5)
    rates = []
    for _ in range(50):
        rates.append(made["optimizer"].param_groups[0]["lr"])
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0) and max(rates) == 1.0
    assert rates[30] == pytest.approx(0.5) and rates[-1] < 0.01
    assert made["optimizer"].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)


def test_labels_must_be_those_of_the_rows(base: Path, tmp_path: Path) -> None:
    predictor = built(configured(base), tmp_path)
    with pytest.raises(ConfigError, match="are not among"):
        predictor.fit((*TRAIN, Row("joy-7")), VAL)
    with pytest.raises(SerBenchError, match="not trained"):
        predictor.predict(TEST)
