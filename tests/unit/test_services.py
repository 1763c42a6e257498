"""A restored run asks only the service, with only the variable, that the user's own configuration names."""

from __future__ import annotations

import wave
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench import config, predictors, redaction, stored_predictors, tracking
from ser_bench.cache import Cache
from ser_bench.cli import predict_command
from ser_bench.config import Config
from ser_bench.config.services import only_own_services, own_service
from ser_bench.errors import LLMError
from ser_bench.features import text_embedding
from ser_bench.inference import audio_predictor
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.types import Predictions, Row
from tests.support import fake_openai as fake
from tests.support.fake_inputs import LABELS, FakeInputs

VARIABLE = "SOMEBODY_ELSES_VARIABLE"
KEY = "a-secret-of-the-user-1234"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv(VARIABLE, KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "the-key-at-openai-1234")
    yield
    redaction.forget_secrets()


class SpokenInputs(FakeInputs):
    """Inputs of any clip."""

    seconds: Mapping[str, float] = {}
    transcripts_by_id: Mapping[str, str] = {}

    def forget(self) -> None:
        pass

    def truth(self, rows: Sequence[Row]) -> list[str]:
        return ["" for _ in rows]

    def clips(self, rows: Sequence[Row]) -> list[Any]:
        return [config_clip(row.clip_id) for row in rows]


def config_clip(name: str) -> Any:
    from ser_bench.types import Clip

    return Clip(name, Path(name), "", "")


class EditedRun:
    """A finished run of a language model whose configuration somebody has edited."""

    run_id, name = "0" * 32, "llm speaker fold 0"

    def __init__(self, cfg: Config, folder: Path) -> None:
        self.cfg, self.folder = cfg, folder

    def config(self) -> Config:
        return replace(self.cfg)

    def artifact(self, path: str) -> Path:
        return self.folder / path

    def members(self) -> list[Any]:
        return []

    def predictions(self) -> Any:
        class OfRun:
            labels = LABELS

        return OfRun()


@pytest.fixture
def own(tmp_path: Path) -> tuple[str, ...]:
    return (f"tracking.dir={tmp_path}/mlruns", f"cache_dir={tmp_path}/cache")


def edited_run(server: fake.FakeOpenAI, own: tuple[str, ...], folder: Path, *words: str) -> EditedRun:
    cfg = config.compose(["model=llm", f"llm.base_url={server.base_url}", f"llm.api_key_env={VARIABLE}", *words, *own])
    (folder / "predictor").mkdir()
    built = predictors.build(cfg, LABELS, FakeInputs(), folder, lambda epoch, values: None)
    built.save(folder / "predictor")
    return EditedRun(cfg, folder)


@pytest.fixture
def clip(tmp_path: Path) -> str:
    path = tmp_path / "clip.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(range(256)) * 125)
    return str(path)


def test_predict_asks_no_service_that_only_the_stored_run_names(
    own: tuple[str, ...], clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake.serve(lambda body: fake.label("fear")) as server:
        run = edited_run(server, own, tmp_path)
        monkeypatch.setattr(tracking, "load_run", lambda *_: run)
        files = PredictorFiles(run.name, run.run_id, run.config(), LABELS, run.artifact("predictor"))
        monkeypatch.setattr(PredictorFiles, "of_run", lambda *_: files)
        monkeypatch.setattr(audio_predictor, "Features", lambda *_: SpokenInputs())
        address, variable = f"llm.base_url={server.base_url}", f"llm.api_key_env={VARIABLE}"
        for words in ((), (address,), (variable,), ("llm=local",)):
            with pytest.raises(LLMError, match="Nothing was sent") as error:
                predict_command.run([*own, *words], [run.run_id, clip], predict_command.PredictOptions("json"))
            message = str(error.value)
            assert address in message and variable in message and KEY not in message and "\n" not in message
        assert not server.asked
        predict_command.run([*own, address, variable], [run.run_id, clip], predict_command.PredictOptions("json"))
        assert [headers["authorization"] for headers in server.headers] == [f"Bearer {KEY}"]
    assert '"label": "fear"' in capsys.readouterr().out


def predictions_of_none() -> Predictions:
    nothing = np.zeros(0, np.float32)
    return Predictions((), (), LABELS, np.zeros((0, len(LABELS)), np.float32), nothing > 0, nothing, nothing)


def test_a_member_of_a_fusion_is_not_loaded_with_a_foreign_service(own: tuple[str, ...]) -> None:
    foreign = config.compose(["model=llm", "llm.base_url=http://10.0.0.1/v1", f"llm.api_key_env={VARIABLE}", *own])
    run: Any = None
    member = stored_predictors.RestoredMember("llm", run, LABELS, run, foreign, predictions_of_none())
    with only_own_services(config.compose(["model=fusion", *own])), pytest.raises(LLMError, match=r"10\.0\.0\.1"):
        member.predict([Row("anger-1")])


def test_embeddings_are_not_computed_by_a_foreign_service(own: tuple[str, ...], tmp_path: Path) -> None:
    with fake.serve() as server:
        foreign = config.compose(
            ["text=openai", f"text.base_url={server.base_url}", f"text.api_key_env={VARIABLE}", *own]
        )
        with only_own_services(config.compose(list(own))), pytest.raises(LLMError, match=r"text=openai text\.base_url"):
            text_embedding.embed(["words"], foreign.text, "en", Cache(tmp_path))
        cnn_text = replace(foreign, model=config.compose(["model=cnn_text", *own]).model)
        with only_own_services(config.compose(list(own))), pytest.raises(LLMError, match="Nothing was sent"):
            stored_predictors.check_services(cnn_text)
        with only_own_services(foreign):
            stored_predictors.check_services(cnn_text)
    assert not server.asked


def test_what_may_be_asked(own: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    openai = "https://api.openai.com/v1"
    assert own_service("http://anything/v1", "ANY") == "http://anything/v1", "outside the block"
    with only_own_services(config.compose([*own, "llm=gpt4o"])):
        assert own_service(None, "OPENAI_API_KEY") == openai
        assert own_service(f"{openai}/", None) == openai, "no key is less than the own key"
        for address, variable in ((None, VARIABLE), ("http://api.openai.com/v1", "OPENAI_API_KEY")):
            with pytest.raises(LLMError, match="Nothing was sent"):
                own_service(address, variable)
    with only_own_services(config.compose(list(own))), pytest.raises(LLMError, match="names no service"):
        own_service(None, "OPENAI_API_KEY")  # the default experiment runs a model on this machine
    assert own_service(None, "ANY") == openai, "the block has ended"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://me:password-1@host/v1")
    with only_own_services(config.compose([*own, "llm=gpt4o"])):
        assert own_service("http://***@host/v1", "OPENAI_API_KEY") == "http://me:password-1@host/v1"
        with pytest.raises(LLMError) as error:
            own_service("http://x\n\x1b[2J/v1", VARIABLE)
        assert "password-1" not in str(error.value)
        assert str(error.value).isprintable(), "a stored text does not control the terminal"
        with pytest.raises(LLMError) as error:
            own_service("http://host/v1", "sk-a-key-and-no-name")  # an older version stored it
        assert "a-key-and" not in str(error.value)


@pytest.mark.parametrize("group", ["llm", "text"])
@pytest.mark.parametrize("address", [None, "http://127.0.0.1:8000/v1"])
@pytest.mark.parametrize("variable", [None, VARIABLE])
def test_the_words_of_the_message_allow_the_service(
    group: str, address: str | None, variable: str | None, own: tuple[str, ...]
) -> None:
    with only_own_services(config.compose(list(own))), pytest.raises(LLMError) as error:
        own_service(address, variable, group)
    words = str(error.value).partition("say so: ")[2].split()
    with only_own_services(config.compose([*own, *words])):
        own_service(address, variable, group)
