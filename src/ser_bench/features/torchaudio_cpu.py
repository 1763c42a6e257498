"""torchaudio for every build of torch: import torchaudio from this module, not directly.

PyPI's Linux wheel of torchaudio contains a compiled extension that is linked with CUDA. With a CPU-only torch, or a
torch that was built for another CUDA, `import torchaudio` fails, and so do the imports of `transformers` and
`sentence_transformers`. The transforms used here are pure PyTorch and do not need the extension. If it cannot be
loaded, this module declares it absent, as torchaudio itself does when it was built without it. After this module was
imported, `import torchaudio` works in every other library.
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
    """A module with the names that torchaudio 2.8 to 2.11 uses of `torchaudio._extension` if nothing was compiled."""
    stub = ModuleType("torchaudio._extension", "Replaces a compiled extension that cannot be loaded.")
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
except (OSError, RuntimeError):  # a shared library is missing; two CUDA versions
    _forget_half_imported()
    sys.modules["torchaudio._extension"] = _extension_declared_absent()
    import torchaudio
