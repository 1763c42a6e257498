"""torchaudio, whatever the build of torch: import it from here, never directly.

PyPI's Linux wheel of torchaudio holds a compiled extension that links CUDA. Beside a CPU-only torch, or a torch built
for another CUDA, `import torchaudio` raises, and takes `transformers` and `sentence_transformers` down with it. The
transforms used here are pure PyTorch and need no extension, so where it cannot be loaded it is declared absent, as
torchaudio itself does when it was built without one. Once this module was imported, a plain `import torchaudio` in
any other library finds the same working package.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["torchaudio"]


def _absent(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise RuntimeError("torchaudio's compiled extension does not fit this build of torch: forced alignment needs it")


def _forget_half_imported() -> None:
    for name in [name for name in sys.modules if name == "torchaudio" or name.startswith("torchaudio.")]:
        del sys.modules[name]


def _extension_declared_absent() -> ModuleType:
    """The names that torchaudio 2.8 to 2.11 asks of `torchaudio._extension`, all saying that nothing was compiled."""
    stub = ModuleType("torchaudio._extension", "Stands in for a compiled extension that cannot be loaded.")
    vars(stub).update(
        _IS_TORCHAUDIO_EXT_AVAILABLE=False,
        _IS_RIR_AVAILABLE=False,
        _IS_ALIGN_AVAILABLE=False,
        _check_cuda_version=lambda: None,
        _load_lib=lambda _name: False,
        fail_if_no_align=lambda _function: _absent,
        fail_if_no_rir=lambda _function: _absent,
        lazy_import_sox_ext=_absent,
    )
    return stub


try:
    import torchaudio
except (OSError, RuntimeError):  # a library that is not there; two CUDA versions
    _forget_half_imported()
    sys.modules["torchaudio._extension"] = _extension_declared_absent()
    import torchaudio
