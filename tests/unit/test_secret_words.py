"""Overrides and settings with a secret, and keys that do not exist, stop before anything is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from ser_bench import config, launcher, redaction
from ser_bench.config import secret_words
from ser_bench.errors import ConfigError
from tests.support.fake_inputs import compose_config

SECRET = "Zq7xW2vB9kT4mN8pL3yH"
KEY_LIKE = f"sk-{SECRET}"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    redaction.forget_secrets()


def assert_one_line_without_the_value(message: str) -> None:
    assert "\n" not in message
    assert not [SECRET[i : i + 5] for i in range(len(SECRET) - 4) if SECRET[i : i + 5] in message]


REFUSED = [
    (f"+llm.api_key={KEY_LIKE}", "environment variable.*llm.api_key_env=OPENAI_API_KEY"),
    (f"++llm.api_key={KEY_LIKE},b", "environment variable.*llm.api_key_env=OPENAI_API_KEY"),
    (f"llm.api_key={KEY_LIKE}", "environment variable.*llm.api_key_env=OPENAI_API_KEY"),
    (f"+api_key='{KEY_LIKE}'", "environment variable"),
    (f"+tracking.password={SECRET}", "environment variable"),
    (f"hydra.job.env_set.OPENAI_API_KEY={KEY_LIKE}", "export OPENAI_API_KEY="),
    (f"llm.api_key_env={KEY_LIKE}", "llm.api_key_env takes the name of an environment variable"),
    (f"llm.api_key_env={SECRET}", "llm.api_key_env takes the name of an environment variable"),
    (f"llm.api_key_env=gsk_{SECRET}", "llm.api_key_env takes the name of an environment variable"),
    (f'llm.api_key_env="{SECRET}=="', "llm.api_key_env takes the name of an environment variable"),
    (f"llm.api_key_env=OPENAI_API_KEY,{KEY_LIKE}", "llm.api_key_env takes the name of an environment variable"),
    (f"text.api_key_env={KEY_LIKE}", "text.api_key_env takes the name of an environment variable"),
    (f"llm.base_url=http://me:{SECRET}@host/v1", "llm.base_url: this address.*llm.api_key_env"),
    (f"llm.base_url='http://{SECRET}@host/v1'", "llm.base_url: this address"),
    (f"llm.base_url=http://host/v1?api-key={SECRET}", "llm.base_url: this address"),
    (f"text.base_url=http://host/v1?token={SECRET}", "text.base_url: this address"),
    (f"tracking.uri=http://me:{SECRET}@host:5000", "tracking.uri: this address.*MLFLOW_TRACKING_PASSWORD.*oc.env"),
    (f"tracking.uri=postgresql://me:{SECRET}@host/db", "tracking.uri: this address"),
    (f"corpus.root=https://me:{SECRET}@host/speech", "corpus.root: this address"),
]


@pytest.mark.parametrize(("word", "reason"), REFUSED, ids=[word.replace(SECRET, "SECRET") for word, _ in REFUSED])
def test_a_word_with_a_secret_is_refused_before_hydra_starts(
    word: str, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def task() -> None:
        raise AssertionError("Hydra would store the word")

    for words in ([word], ["model=llm", word, "-m"]):
        monkeypatch.setattr("sys.argv", ["run.py", *words])
        assert launcher.main(task) == launcher.EXIT_FAILED
        shown = capsys.readouterr()
        assert re.search(reason, shown.err)
        assert_one_line_without_the_value((shown.out + shown.err).rstrip("\n"))
    with pytest.raises(ConfigError, match=reason) as error:
        config.compose(["model=llm", word])
    assert_one_line_without_the_value(str(error.value))


@pytest.mark.parametrize(
    "word",
    [
        "llm.api_key_env=null",
        "llm.api_key_env=AZURE_OPENAI_API_KEY",
        "llm.api_key_env=OPENAI",
        "llm.api_key_env=${oc.env:WHICH}",
        "llm.api_key_env=A_KEY,null",
        "llm.base_url=http://127.0.0.1:8000/v1",
        "llm.base_url=${oc.env:MY_URL}",
        "llm.base_url=http://${oc.env:ME}:${oc.env:PW}@host/v1",
        "llm.base_url=https://host/openai/v1/?api-version=2",
        "tracking.uri=postgresql://me@host/db",
        "corpus.root=/data/me@host:3/audio",
        "+experiment=paper",
        "++seed=1",
        "+seed=1",
        "hydra/launcher=joblib",
        "+hydra.launcher.n_jobs=2",
        "hydra.job.env_set.TZ=UTC",
        "~experiment",
        "model.hidden=3",
    ],
)
def test_ordinary_words_pass(word: str) -> None:
    secret_words.check_words([word])


def test_a_long_name_that_is_set_is_the_name_of_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "value")
    secret_words.check_words([f"llm.api_key_env={SECRET}"])


@pytest.mark.parametrize(
    ("word", "nearest"),
    [
        ("+llm.temprature=1", "llm.temperature"),
        ("+max_epoch=3", "trainer.max_epochs"),
        ("++trainer.max_epoch=3", "trainer.max_epochs"),
        ("llm.base_urls=http://x", "llm.base_url"),
        ("+split.folds_=3", "split.folds"),
    ],
)
def test_a_key_that_does_not_exist_is_refused_with_the_nearest_one(word: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {re.escape(nearest)}"):
        secret_words.check_words([word])
    with pytest.raises(ConfigError, match=f"did you mean {re.escape(nearest)}"):
        config.compose([word])


def test_a_key_of_another_predictor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.channels is no key of the configuration"):
        config.compose(["model=llm", "+model.channels=[3]"])


def composed_of(*words: str) -> DictConfig:
    config.register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config.PROJECT_ROOT / "conf"), version_base="1.3"):
        return hydra.compose("config", ["model=llm", *words])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("llm.api_key_env", KEY_LIKE),
        ("llm.base_url", f"http://me:{SECRET}@host/v1"),
        ("tracking.uri", f"http://me:{SECRET}@host"),
        ("llm.gguf", f"https://host/?sig={SECRET}"),
    ],
)
def test_a_secret_in_a_configuration_file_stops_before_hydra_stores_it(
    path: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    composed = composed_of()
    OmegaConf.update(composed, path, value)
    with pytest.raises(SystemExit) as stop:
        launcher.SweepCallback().on_run_start(composed)
    assert stop.value.code == launcher.EXIT_FAILED
    shown = capsys.readouterr().err
    assert path in shown
    assert_one_line_without_the_value(shown.rstrip("\n"))
    with pytest.raises(SystemExit):
        launcher.SweepCallback().on_multirun_start(composed)


def test_an_address_from_the_environment_is_accepted_and_its_password_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_URL", f"http://me:{SECRET}@127.0.0.1:1/v1")
    monkeypatch.setenv("MY_VARIABLE", f"0{SECRET}")
    cfg = config.compose(["model=llm", "llm.base_url=${oc.env:MY_URL}", "llm.api_key_env=MY_VARIABLE"])
    assert cfg.llm.base_url == f"http://me:{SECRET}@127.0.0.1:1/v1"
    assert redaction.redact(f"sent {SECRET} and 0{SECRET}") == "sent *** and ***"


def test_the_folder_of_hydra_and_the_result_hold_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A child of a sweep is composed after the check of the sweep, and its error may repeat a key."""
    monkeypatch.setenv("SOME_VARIABLE", SECRET)

    def run(*_: object) -> None:
        raise ValueError(f"refused {SECRET}, sent {SECRET[:10]}")

    monkeypatch.setattr("ser_bench.pipeline.run", run)
    composed = composed_of("llm.api_key_env=SOME_VARIABLE")
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(f"- llm.model={SECRET}\n")
    hydra_config = OmegaConf.create(
        {"overrides": {"task": [f"llm.model={SECRET}"]}, "mode": "RUN", "runtime": {"output_dir": str(tmp_path)}}
    )
    monkeypatch.setattr(launcher.HydraConfig, "get", lambda: hydra_config)
    monkeypatch.setattr(launcher, "_share_cores", lambda *_: None)
    with pytest.raises(ValueError, match=r"refused \*\*\*, sent \*\*\*"):
        launcher.carry_out(composed)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET[:10] not in path.read_text(), path
    assert '"llm.model=***"' in (tmp_path / launcher.RESULT_FILE).read_text()


@pytest.mark.parametrize(
    ("path", "value"), [("llm.api_key_env", KEY_LIKE), ("llm.base_url", f"http://me:{SECRET}@host/v1")]
)
def test_a_child_of_a_sweep_with_a_secret_in_its_file_is_cleaned_and_fails(
    path: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    composed = composed_of()
    OmegaConf.update(composed, path, value)
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(composed, tmp_path / ".hydra" / "config.yaml")
    hydra_config = OmegaConf.create(
        {"overrides": {"task": ["llm=mine"]}, "mode": "MULTIRUN", "runtime": {"output_dir": str(tmp_path)}}
    )
    monkeypatch.setattr(launcher.HydraConfig, "get", lambda: hydra_config)
    launcher.carry_out(composed)
    assert path in caplog.text and SECRET not in caplog.text
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or SECRET not in file.read_text(), file
    assert OmegaConf.is_dict(OmegaConf.load(tmp_path / ".hydra" / "config.yaml")), "it is still YAML"


def test_what_is_stored_of_an_older_run_can_still_be_read() -> None:
    """Only new words and files are refused: the configuration of a stored run is not checked."""
    cfg = compose_config("model=llm")
    stored = OmegaConf.structured(replace(cfg, llm=replace(cfg.llm, base_url="http://me:password@host/v1")))
    assert config.to_config(stored).llm.base_url == "http://me:password@host/v1"
