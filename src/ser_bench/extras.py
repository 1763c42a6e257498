"""Extras: packages that not every run needs, what needs them, and the command that installs them.

`EXTRAS` is the only list. A test compares it with pyproject.toml and with the table in docs/install.md. A module that
imports such a package calls `require` first, so that a missing package ends in one line with the command.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module, util

from ser_bench.errors import ConfigError, SerBenchError, one_line


@dataclass(frozen=True)
class Extra:
    """One extra.

    Attributes:
        modules: import name → name of the package, of those that this project imports itself.
        needed_for: what cannot run without it.
        includes: other extras that it brings.
        note: what a user should know before the installation; may be empty.
    """

    modules: dict[str, str]
    needed_for: str
    includes: tuple[str, ...] = ()
    note: str = ""


EXTRAS: dict[str, Extra] = {
    "asr": Extra(
        {"faster_whisper": "faster-whisper", "jiwer": "jiwer"},
        "`asr=faster_whisper`, the default recogniser, and `model=whisper_probe`",
    ),
    "text": Extra(
        {"sentence_transformers": "sentence-transformers", "jiwer": "jiwer"},
        "`text=minilm`: `model=cnn_text` and `model=text_only`, with a recogniser",
    ),
    "llm": Extra(
        {"openai": "openai", "parselmouth": "praat-parselmouth", "jiwer": "jiwer"},
        "`model=llm`, and `text=openai`",
    ),
    "whisper": Extra(
        {"whisper": "openai-whisper", "jiwer": "jiwer"},
        "`asr=whisper`, the recogniser of OpenAI's package",
        note="about 1 GB more on Linux",
    ),
    "ssl": Extra({"transformers": "transformers"}, "`model=ssl_probe`"),
    "egemaps": Extra(
        {"opensmile": "opensmile"},
        "`model=egemaps`",
        note="audEERING's licence: research, not commercial use",
    ),
    "serve": Extra(
        {
            "fastapi": "fastapi",
            "uvicorn": "uvicorn",
            "python_multipart": "python-multipart",
            "prometheus_client": "prometheus-client",
            "websockets": "websockets",
        },
        "`ser-bench serve`, the HTTP server",
    ),
    "app": Extra(
        {"gradio": "gradio", "parselmouth": "praat-parselmouth"},
        "`ser-bench app`, the page to try predictors",
    ),
    "onnx": Extra(
        {"onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
        "`ser-bench export --onnx`",
    ),
    "listen": Extra(
        {"sounddevice": "sounddevice"}, "`ser-bench listen` from a microphone", note="PortAudio must be installed too"
    ),
    "audformat": Extra(
        {"audformat": "audformat"}, "`corpus=audformat`, and `ser-bench export-split --audformat`"
    ),
    "lora": Extra(
        {
            "peft": "peft",
            "gguf": "gguf",
            "transformers": "transformers",
            "parselmouth": "praat-parselmouth",
        },
        "`model=llm_lora`, a language model that is fine-tuned",
    ),
    "demo": Extra(
        {"espeakng_loader": "espeakng-loader", "xllamacpp": "xllamacpp"},
        "the generated corpus (`corpus=demo`), `llm=local`, and all of `make demo`",
        includes=("text", "asr", "llm"),
    ),
}
"""Name of an extra → what it brings. A package in several extras is named with the first of them."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra beside the package, for a wheel and for a checkout alike.

    >>> install_command("text")
    "pip install 'ser-bench[text]'"
    """
    return f"pip install 'ser-bench[{extra}]'"


def extra_of(module: str) -> str:
    """Return the name of the extra that brings a module.

    Raises:
        KeyError: no extra brings it.
    """
    for name, extra in EXTRAS.items():
        if module in extra.modules:
            return name
    raise KeyError(module)


def is_installed(module: str) -> bool:
    """Return whether a package can be found; it is not imported."""
    try:
        return util.find_spec(module) is not None
    except (ImportError, ValueError):  # blocked, or put into `sys.modules` by hand
        return module in sys.modules and sys.modules[module] is not None


def missing_packages(extra: str) -> list[str]:
    """Return the names of the packages of an extra, and of those that it includes, which are not installed."""
    names = [extra, *EXTRAS[extra].includes]
    modules = {module: package for name in names for module, package in EXTRAS[name].modules.items()}
    return [package for module, package in modules.items() if not is_installed(module)]


def require(module: str, needed_for: str, kind: type[SerBenchError] = ConfigError, extra: str | None = None) -> None:
    """Import a package of an extra, or say in one line how to install it.

    Args:
        module: import name; a key of `Extra.modules`.
        needed_for: what the user has chosen, for example "model=egemaps"; the beginning of the message.
        kind: class of the error.
        extra: the extra to name; None: the first one that brings the module.

    Raises:
        SerBenchError: of class `kind`; the package is not installed, or is installed and cannot be imported.
    """
    name = extra or extra_of(module)
    package, note = EXTRAS[name].modules[module], EXTRAS[name].note
    if not is_installed(module):
        stated = f" ({note})" if note else ""
        raise kind(f"{needed_for} needs the package {package}, which is not installed: {install_command(name)}{stated}")
    try:
        import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        raise kind(
            f"{needed_for} needs the package {package}, which is installed but cannot be imported "
            f"({one_line(error)}). Install it again: pip install --force-reinstall {package}"
        ) from error


def markdown_rows() -> list[str]:
    """Return the rows of the table in docs/install.md, one per extra."""
    rows = []
    for name, extra in EXTRAS.items():
        brought = [*extra.modules.values(), *(f"the extra `{other}`" for other in extra.includes)]
        note = f" ({extra.note})" if extra.note else ""
        rows.append(f"| `{name}` | {', '.join(brought)}{note} | {extra.needed_for} |")
    return rows
