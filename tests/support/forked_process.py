"""Commands in processes that are forked from one that has imported the libraries, which saves each the imports.

The imports of torch, Lightning, MLflow and librosa are most of the processor time of a short run. Such a process has
its own memory, output, signals and exit status. It does not show a missing import or a wrong order of imports:
`test_installed`, `test_core_installation` and `test_files` start programs from scratch.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

LIBRARIES = "tests.support.loaded_libraries"


class ForkedProcess:
    """`python SCRIPT words` or `python -m MODULE words`, with the methods of `subprocess.Popen` that the tests use.

    Args:
        program: path of a script, or `-m` and the name of a module, and the words of the command line.
        folder: working directory.
        output: a new file for standard output, and for standard error too if `error` is None.
        error: a new file for standard error.
        environment: the variables of the process; those of this process by default.
    """

    def __init__(
        self,
        program: Sequence[str],
        folder: Path,
        output: Path,
        error: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.output, self.error = output, error
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([LIBRARIES])
        variables = dict(os.environ if environment is None else environment)
        self._process = context.Process(target=_carry_out, args=(list(program), folder, output, error, variables))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the number of a signal, or None while the process runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for the end; return standard output and standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(str(self.output), timeout, self.said())
        return self.said(), self.error.read_text(encoding="utf-8") if self.error else ""

    def said(self) -> str:
        """Return what the process has printed so far."""
        return self.output.read_text(encoding="utf-8") if self.output.exists() else ""


def _carry_out(
    program: list[str], folder: Path, output: Path, error: Path | None, environment: dict[str, str]
) -> None:
    """Run a program in this process, which ends with its exit status."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _redirect(output, error)
    status = 0
    try:
        if program[0] == "-m":
            sys.argv = program[1:]
            runpy.run_module(program[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = program
            runpy.run_path(program[0], run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    if loky is not None and loky._executor is not None:
        loky._executor.shutdown(kill_workers=True)  # in a forked process its exit handler waits 300 s for idle workers
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _redirect(output: Path, error: Path | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    out = os.open(output, flags, 0o644)
    err = out if error is None else os.open(error, flags, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
