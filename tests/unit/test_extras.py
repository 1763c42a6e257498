"""Extras: one list, as in pyproject.toml and docs/install.md; a missing package is one line with the command."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ser_bench import asr, extras, predictors
from ser_bench.asr import faster_whisper, openai_whisper
from ser_bench.cache import Cache
from ser_bench.cli import app_command, listen_command, serve_command
from ser_bench.cli.serve_command import ServeOptions
from ser_bench.config import AsrConfig, PitchConfig, TextConfig, compose
from ser_bench.corpora.audformat_tables import write_audformat
from ser_bench.corpora.demo_speech import espeak
from ser_bench.errors import ConfigError, CorpusError, LLMError, SerBenchError
from ser_bench.export.onnx_folder import export_onnx
from ser_bench.features import egemaps_functionals, prosody, text_embedding
from ser_bench.features.encoders import huggingface_encoder, whisper_states
from ser_bench.predictors.llm import local_server
from ser_bench.predictors.llm_lora import base_model

ROOT = Path(__file__).resolve().parents[2]
TOOLS = {"dev", "docs"}
"""Extras for development; nothing in the package imports what they bring."""
IMPORTED_AFTER_A_CHECK = {
    *("openai_client.py", "response_limit.py", "client.py", "endpoint.py", "request.py", "batches.py"),  # openai
    *("application.py", "uploads.py", "server_metrics.py", "web_server.py"),  # the extra serve
}
"""Modules that import an extra at the top; every module that imports them has called `extras.require`, or is one."""
TEXT = TextConfig(name="minilm", model="all-MiniLM-L6-v2", dim=384)


def fit_llm() -> None:
    cfg = compose(["model=llm", "llm=local"])
    predictors.build(cfg, ("angry", "sad"), None, Path(), lambda epoch, values: None).fit((), ())  # type: ignore[arg-type]




def export_nothing() -> None:
    nothing: Any = None
    export_onnx(nothing, nothing, nothing, False, None)


USES: list[tuple[str, str, Callable[[], Any]]] = [
    ("jiwer", "asr", lambda: asr.transcribe([], AsrConfig(name="reference"), "en", Cache(Path("unused")))),
    ("faster_whisper", "asr", lambda: faster_whisper.Whisper(AsrConfig(name="faster_whisper"), "en")),
    ("faster_whisper", "asr", lambda: next(whisper_states._encoded([], "cpu", lambda *_: iter(())))),
    ("whisper", "whisper", openai_whisper._package),
    ("sentence_transformers", "text", lambda: next(text_embedding._minilm(["a"], TEXT))),
    ("openai", "llm", lambda: next(text_embedding._openai(["a"], TEXT))),
    ("openai", "llm", fit_llm),
    ("parselmouth", "llm", lambda: prosody.track_f0(np.zeros(9, np.float32), 16_000, PitchConfig())),
    ("parselmouth", "llm", lambda: prosody.prosody_of(np.zeros(9, np.float32), 16_000, PitchConfig())),
    ("transformers", "ssl", lambda: huggingface_encoder.load(Path("unused"))),
    ("transformers", "ssl", lambda: huggingface_encoder._fetched("unused/unused", None)),
    ("opensmile", "egemaps", egemaps_functionals.check_installed),
    ("xllamacpp", "demo", local_server.require_xllamacpp),
    ("espeakng_loader", "demo", espeak._locate),
    ("gradio", "app", lambda: app_command.run([], [], 0)),
    *((name, "serve", lambda: serve_command.run([], ["8b97"], ServeOptions())) for name in serve_command.PACKAGES),
    *((name, "onnx", export_nothing) for name in ("onnx", "onnxruntime", "onnxscript")),
    ("audformat", "audformat", lambda: write_audformat(Path("unused"), None, {}, {}, None)),  # type: ignore[arg-type]
    *((name, "lora", base_model.check_installed) for name in ("peft", "gguf")),
    ("sounddevice", "listen", lambda: listen_command._Microphone(None)),
]


def packages_of(requirements: list[str]) -> set[str]:
    """Names of packages, and of this package's own extras in brackets."""
    names: set[str] = set()
    for text in requirements:
        own = re.fullmatch(r"ser-bench\[([\w,]+)\]", text)
        names |= {f"[{name}]" for name in own[1].split(",")} if own else {re.split(r"[>=<\[]", text)[0]}
    return names


def test_the_list_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {name: packages_of(texts) for name, texts in project["optional-dependencies"].items()}
    assert {name: packages for name, packages in declared.items() if name not in TOOLS} == {
        name: set(extra.modules.values()) | {f"[{other}]" for other in extra.includes}
        for name, extra in extras.EXTRAS.items()
    }
    core = packages_of(project["dependencies"])
    assert not core & {package for extra in extras.EXTRAS.values() for package in extra.modules.values()}
    assert {"[demo]", "[egemaps]", "[ssl]"} <= declared["dev"]


def test_the_table_of_the_page_on_installation_is_that_of_the_list() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if re.match(r"\| `(?!dev|docs)\w+` \|", line)]
    assert rows == extras.markdown_rows()


def test_every_package_of_an_extra_has_a_use_below() -> None:
    assert {module for module, _, _ in USES} == {module for extra in extras.EXTRAS.values() for module in extra.modules}


@pytest.mark.parametrize(("module", "extra", "use"), USES)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(
    module: str, extra: str, use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SerBenchError) as error:
        use()
    assert "\n" not in str(error.value) and f"pip install 'ser-bench[{extra}]'" in str(error.value)
    assert "which is not installed" in str(error.value)


def test_the_class_of_the_error_is_that_of_the_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, kind in (("whisper", ConfigError), ("xllamacpp", LLMError), ("espeakng_loader", CorpusError)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(kind):
            extras.require(module, "this", kind)


def test_a_package_that_is_installed_but_broken_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "xllamacpp.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    with pytest.raises(LLMError, match=r"installed but cannot be imported \(libgomp.*--force-reinstall xllamacpp"):
        extras.require("xllamacpp", "llm=local", LLMError)


def test_no_module_imports_a_package_of_an_extra_at_its_top() -> None:
    """What a core installation imports must not need one."""
    brought = {module for extra in extras.EXTRAS.values() for module in extra.modules} | {"ctranslate2", "tokenizers"}
    for path in sorted((ROOT / "src" / "ser_bench").rglob("*.py")):
        if path.name in IMPORTED_AFTER_A_CHECK:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & brought, path
