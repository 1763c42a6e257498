"""Output to a reader that may stop reading, as in `run.py --help | head`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class OutputToClosablePipe:
    """A text stream that discards what is written after the reader has closed the pipe, instead of raising an error.

    Everything but `write` and `flush` is passed to the stream behind it.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; return its length."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            discard_output(self._stream)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            discard_output(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def discard_output(stream: TextIO) -> None:
    """Let a stream write to the null device. Python flushes standard output at exit, which would fail otherwise."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


@contextlib.contextmanager
def tolerate_closed_pipes() -> Iterator[None]:
    """Replace standard output and standard error within a `with` block, so that closed pipes do not end the program."""
    out, err = OutputToClosablePipe(sys.stdout), OutputToClosablePipe(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
