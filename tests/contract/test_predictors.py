"""What `types.Predictor` promises, held by every predictor of the registry."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from ser_bench import predictors
from ser_bench.config import PROJECT_ROOT, Config, LlmConfig
from ser_bench.errors import SerBenchError
from ser_bench.predictors.llm.prompting import question
from ser_bench.predictors.network_predictor import TRAINING_ROWS_FILE
from ser_bench.types import Predictions, Predictor, Row
from tests.support import fake_openai, tiny_audio_classifier, tiny_language_model
from tests.support.fake_inputs import LABELS, TINY, FakeInputs, FakeMember, compose_config, rows

TRAIN, VAL, TEST = rows(0, 48), rows(100, 12), rows(200, 31)
VARIANTS = tuple(Row(row.clip_id, "noise") for row in TRAIN)
NETWORKS = ("cnn", "cnn_text")
SMALL = {
    "crnn": ["model.channels=[4,4]", "model.recurrent=4", "model.attention=4", "model.log_mel.duration_s=0.3"],
    "llm_lora": ["model.layers=2", "model.rank=2"],
}
"""Settings that make a predictor quick."""
KEY_VARIABLE = "SER_BENCH_TEST_KEY"

each = pytest.mark.parametrize("name", predictors.names())


def imported_words(folder: Path) -> list[str]:
    """A file of predictions for the test rows, and the keys that name it."""
    answers = FakeMember("foreign", 1.5).predict(TEST).probabilities
    lines = [[row.clip_id, *map(str, numbers)] for row, numbers in zip(TEST, answers, strict=True)]
    (folder / "foreign.csv").write_text("\n".join(map(",".join, [["clip_id", *LABELS], *lines])))
    return [f"model.file={folder / 'foreign.csv'}", "model.title=foreign"]


class Liar(FakeInputs):
    """Says of test rows another label than theirs; all else stays as it was."""

    def truth(self, rows: Sequence[Row]) -> list[str]:
        asked = super().truth(rows)
        return [LABELS[(LABELS.index(t) + (row in TEST)) % 3] for row, t in zip(rows, asked, strict=True)]


@dataclass
class Case:
    """One fitted predictor."""

    cfg: Config
    predictor: Predictor
    predictions: Predictions


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, FakeInputs], Case]]:
    """Builds, fits and predicts; the language model is a server on loopback that tells one label of another."""

    def answer(body: dict[str, list[dict[str, str]]]) -> fake_openai.Reply:
        return fake_openai.label(LABELS[len(body["messages"][-1]["content"]) % len(LABELS)])

    with fake_openai.serve(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, "secret")

        def made(name: str, inputs: FakeInputs) -> Case:
            folder = tmp_path_factory.mktemp(name)
            tiny = TINY if name in NETWORKS else [word for word in TINY if not word.startswith("model.")]
            words = imported_words(folder) if name == "imported" else list(SMALL.get(name, ()))
            if name == "llm_lora":
                words.append(f"model.base={tiny_language_model.write(folder / 'base', LABELS)}")
            if name == "hf_classifier":
                words.append(f"model.id={tiny_audio_classifier.write(folder / 'checkpoint', LABELS)}")
            cfg = compose_config(f"model={name}", *tiny, *words, "trainer.max_epochs=1")
            llm = LlmConfig(name="fake", model="m", base_url=server.base_url, api_key_env=KEY_VARIABLE, max_retries=0)
            if name == "audio_llm":
                llm = replace(llm, prompt="audio")
                patch.setattr(question.audio, "load", lambda path, rate: np.zeros(rate, np.float32))
            cfg = replace(cfg, llm=llm, cache_dir=str(folder / "cache"))
            predictor = predictors.build(cfg, LABELS, inputs, folder, lambda epoch, metrics: None)
            predictor.fit(TRAIN + VARIANTS, VAL)
            return Case(cfg, predictor, predictor.predict(TEST))

        yield made


@pytest.fixture(scope="module")
def fitted(make: Callable[[str, FakeInputs], Case]) -> Callable[[str], Case]:
    """The same predictor for all tests."""
    made: dict[str, Case] = {}
    return lambda name: made[name] if name in made else made.setdefault(name, make(name, FakeInputs()))


@each
def test_every_row_is_predicted_once_and_in_order(name: str, fitted: Callable[[str], Case]) -> None:
    found = fitted(name).predictions
    assert found.rows == TEST
    assert found.labels == LABELS
    assert list(found.truth) == FakeInputs().truth(TEST)
    assert found.probabilities.shape == (len(TEST), len(LABELS)) and found.probabilities.dtype == np.float32
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0, atol=1e-5)
    assert (found.probabilities >= 0).all()
    np.testing.assert_allclose(found.probabilities[found.abstained], 1 / len(LABELS), atol=1e-6)
    assert np.isfinite(found.latency_s).all() and (found.latency_s >= 0).all() and (found.cost_usd >= 0).all()
    one_hot = bool((found.probabilities[~found.abstained].max(axis=1) == 1).all())
    assert one_hot is not found.gives_probabilities


@each
def test_no_rows_no_predictions(name: str, fitted: Callable[[str], Case]) -> None:
    assert fitted(name).predictor.predict(()).rows == ()


@each
def test_order_and_company_of_rows_change_no_answer(name: str, fitted: Callable[[str], Case]) -> None:
    case = fitted(name)
    order = np.random.default_rng(0).permutation(len(TEST))[: len(TEST) // 2]
    again = case.predictor.predict([TEST[i] for i in order])
    assert again.rows == tuple(TEST[i] for i in order)
    np.testing.assert_allclose(again.probabilities, case.predictions.probabilities[order], atol=1e-6)
    assert again.predicted == tuple(case.predictions.predicted[i] for i in order)


@each
def test_truth_of_test_rows_changes_no_answer(
    name: str, fitted: Callable[[str], Case], make: Callable[[str, FakeInputs], Case]
) -> None:
    lied_to = make(name, Liar()).predictions
    assert lied_to.truth != fitted(name).predictions.truth
    np.testing.assert_allclose(lied_to.probabilities, fitted(name).predictions.probabilities, atol=1e-6)


@each
def test_loaded_predictor_answers_alike_whatever_the_seed(
    name: str, fitted: Callable[[str], Case], tmp_path: Path
) -> None:
    case = fitted(name)
    case.predictor.save(tmp_path)
    loaded = predictors.load(tmp_path, replace(case.cfg, seed=77), LABELS, FakeInputs())
    again = loaded.predict(TEST)
    np.testing.assert_array_equal(again.probabilities, case.predictions.probabilities)
    assert (again.predicted, again.source) == (case.predictions.predicted, case.predictions.source)


@each
def test_nothing_stored_can_be_executed(name: str, fitted: Callable[[str], Case], tmp_path: Path) -> None:
    fitted(name).predictor.save(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.suffix in {".json", ".safetensors"}, f"{path.name} may be a pickle or an archive of one"
        assert not is_pickle(path.read_bytes())


def is_pickle(content: bytes) -> bool:
    try:
        return bool(list(pickletools.genops(content)))
    except Exception:  # whatever it stumbles over, it is no pickle
        return False


@each
@pytest.mark.parametrize("damage", ["truncated", "empty", "list", "missing"])
def test_damaged_files_are_named_in_one_line(
    name: str, damage: str, fitted: Callable[[str], Case], tmp_path: Path
) -> None:
    case = fitted(name)
    case.predictor.save(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        if damage == "missing" and path.name == TRAINING_ROWS_FILE:
            continue  # runs of older versions do not have it
        path.unlink()
        if damage != "missing":
            path.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "list": b"[1, 2]"}[damage])
        with pytest.raises(SerBenchError, match=rf"{tmp_path}.*(force=true|labels)") as caught:
            predictors.load(tmp_path, case.cfg, LABELS, FakeInputs())
        assert "\n" not in str(caught.value)
        path.write_bytes(content)


@pytest.mark.parametrize("name", [*NETWORKS, "crnn"])
def test_a_diverged_network_is_told_in_one_line(name: str, make: Callable[[str, FakeInputs], Case]) -> None:
    case = make(name, FakeInputs())
    network = case.predictor._network  # type: ignore[attr-defined]
    for parameter in network.parameters():
        parameter.data.mul_(3e38)  # finite, but products overflow
    with pytest.raises(SerBenchError, match=r"not finite.*lower trainer\.learning_rate"):
        case.predictor.predict(TEST)


@each
def test_other_labels_are_refused(name: str, fitted: Callable[[str], Case], tmp_path: Path) -> None:
    case = fitted(name)
    case.predictor.save(tmp_path)
    with pytest.raises(SerBenchError, match="anger"):
        predictors.load(tmp_path, case.cfg, (*LABELS[:2], "joy"), FakeInputs())


@each
def test_groups_are_groups(name: str, fitted: Callable[[str], Case]) -> None:
    groups = predictors.predictor_class(name).groups
    assert predictors.predictor_class(name).name == name
    assert all(hasattr(fitted(name).cfg, group) for group in groups)


@each
def test_the_page_of_predictors_names_it(name: str) -> None:
    assert f"`{name}`" in (PROJECT_ROOT / "docs" / "predictors.md").read_text(encoding="utf-8")
