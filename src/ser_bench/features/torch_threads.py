"""The number of threads that PyTorch uses for one clip."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Use one PyTorch thread inside a `with` block; without PyTorch, do nothing.

    The arrays of one clip are so small that threads wait for each other: `benchmarks/latency.py` with tiny.en on two
    cores measured 139 ms with two threads and 69 ms with one. Several clips in parallel are the better use of cores.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
