"""Start runs and sweeps: error messages, exit statuses, and the parent run of a sweep (`-m`).

The parent run is created before the first child. Its id is written to the sweep's folder, where the children read it,
whichever Hydra launcher starts them. Each child writes a `result.json` beside its log. The status of the sweep is
computed from these files.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ser_bench.closed_pipes import tolerate_closed_pipes
from ser_bench.config import Config, ModelConfig, TrackingConfig, named_overrides, roles, to_config
from ser_bench.config.compose import message_of
from ser_bench.config.override_words import check_overrides
from ser_bench.config.secret_words import check_composed, check_words, register_secrets
from ser_bench.config.services import only_own_services
from ser_bench.errors import ConfigError, FileAccessError, InterruptedRunError, SerBenchError
from ser_bench.file_access import access_errors
from ser_bench.redaction import redact, redact_error, redact_files, redact_logs, redact_message

log = logging.getLogger(__name__)

HYDRA_FULL_ERROR = "HYDRA_FULL_ERROR"
PARENT_FILE = "mlflow_parent_run"
RESULT_FILE = "result.json"
HYDRA_FOLDER = ".hydra"
"""Subfolder of a child in which Hydra stores its configuration."""
EXIT_FAILED, EXIT_INTERRUPTED = 2, 130

_sweep_dir: Path | None = None
_tracking: TrackingConfig | None = None
_statuses: list[str] = []


def main(task: Callable[[], Any]) -> int:
    """Call Hydra's entry point and return the exit status: 0, 2 (an error, or a run failed) or 130 (interrupted).

    Runs continue if the reader of their output has gone (`run.py … | head`).
    """
    with tolerate_closed_pipes():
        return _exit_status(task)


def _exit_status(task: Callable[[], Any]) -> int:
    sys.argv[1:] = multirun_first(sys.argv[1:])
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    interrupted = False
    logging.raiseExceptions = False  # a log file on a full disk must not add a traceback to every line
    try:
        _check_words(sys.argv[1:])
        with access_errors():
            _call(task)
    except (ConfigError, FileAccessError) as error:
        print(f"error    {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        interrupted = True
    finally:
        failed = _close_sweep(interrupted) if _sweep_dir else "failed" in _statuses
        gc.freeze()  # otherwise Python's last garbage collection takes a second at exit
    if interrupted or "interrupted" in _statuses:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failed else 0


def _check_words(words: Sequence[str]) -> None:
    """Raise ConfigError for an override that holds a secret, or that Hydra would not read as it was typed."""
    arguments = get_args_parser().parse_args(list(words))
    if not arguments.shell_completion:
        own_files = bool(arguments.config_dir or arguments.config_path or arguments.config_name)
        check_words(arguments.overrides, own_files)  # first, because other messages may quote a word
        check_overrides(arguments.overrides, sweep=arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides)


def _call(task: Callable[[], Any]) -> None:
    """Call Hydra's entry point; errors of the composition become a ConfigError.

    Hydra prints its errors on several lines and exits with status 1. With `HYDRA_FULL_ERROR` it raises them. If the
    user has set this variable, they are shown with their traceback.
    """
    if HYDRA_FULL_ERROR in os.environ:
        task()
        return
    os.environ[HYDRA_FULL_ERROR] = "1"
    try:
        task()
    except (HydraException, OmegaConfBaseException) as error:
        if _statuses and not isinstance(error, HydraException):
            raise  # a run has started, so this is a bug in its code
        raise ConfigError(redact(message_of(error))) from error
    finally:
        del os.environ[HYDRA_FULL_ERROR]


def _as_ctrl_c(*_: object) -> None:
    """Handle SIGTERM, which schedulers and `kill` send, like Ctrl-C: the run is closed and can be resumed."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)  # asyncio and Lightning install handlers of their own
    else:
        raise KeyboardInterrupt  # SIGINT is ignored in background jobs of a shell


def multirun_first(words: Sequence[str]) -> list[str]:
    """Return the words with `-m` first, because Hydra rejects overrides on both sides of it.

    >>> multirun_first(["corpus=cremad", "-m", "model=cnn,llm"])
    ['-m', 'corpus=cremad', 'model=cnn,llm']
    """
    flags = [word for word in words if word in ("-m", "--multirun")]
    return flags + [word for word in words if word not in flags]


def carry_out(composed: DictConfig) -> None:
    """Carry out one run; log an error in one line, and write the outcome to `result.json`.

    Raises:
        KeyboardInterrupt: a child of a sweep was interrupted; the sweep ends.
        Exception: an unexpected error of a single run, which keeps its traceback.
    """
    hydra = HydraConfig.get()
    result: dict[str, Any] = {"status": "failed", "overrides": list(hydra.overrides.task)}
    redact_logs()
    try:
        check_composed(composed)
        cfg = to_config(composed)
        register_secrets(cfg)
        _share_cores(cfg, _parallel_children(hydra))
        from ser_bench import pipeline  # imports PyTorch, which reads the number of threads

        gc.freeze()  # imported objects live until the end; the garbage collector need not visit them
        with access_errors(), only_own_services(cfg):  # a fusion restores runs
            outcome = pipeline.run(cfg, _parent_of(hydra))
        result |= {"status": "finished", "run_id": outcome.run_id, "skipped": outcome.skipped}
    except (KeyboardInterrupt, InterruptedRunError) as interrupt:
        result |= {"status": "interrupted"}
        log.error("stopped  %s", str(interrupt) or "interrupted; the same command resumes the run")
        if OmegaConf.select(composed, "force", default=False):
            log.error("note     with force=true, every start of this command begins with the first epoch")
        if hydra.mode is RunMode.MULTIRUN:
            raise KeyboardInterrupt from interrupt
    except SerBenchError as error:
        result |= {"error": str(error)}
        log.error("error    %s", error)
    except Exception as error:
        redact_error(error)  # Python or Hydra prints it with its traceback
        result |= {"error": f"{type(error).__name__}: {error}"}
        if hydra.mode is not RunMode.MULTIRUN:
            raise
        log.exception("error    this run failed; the sweep continues with the next one")
    finally:
        folder = Path(hydra.runtime.output_dir)
        try:
            with access_errors(folder):
                (folder / RESULT_FILE).write_text(redact_message(json.dumps(result, indent=1)))
                redact_files(folder / HYDRA_FOLDER)  # Hydra writes it before a run; a child of a sweep is checked later
        except FileAccessError as error:
            result["status"] = "interrupted" if result["status"] == "interrupted" else "failed"
            log.error("error    %s", error)
        _statuses.append(result["status"])


class SweepCallback(Callback):
    """Check the configuration before Hydra stores it, and create the parent run of a sweep before the first child."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the configuration of a single run."""
        try:
            check_composed(config)
        except SerBenchError as error:
            print(f"error    {error}", file=sys.stderr)
            raise SystemExit(EXIT_FAILED) from None  # Hydra turns any other exception into a warning

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the parent run and write its id to the sweep's folder; a new store gets its schema here."""
        global _sweep_dir, _tracking
        from ser_bench import tracking
        from ser_bench.features import numba_cache

        try:
            check_composed(config)
            settings = OmegaConf.to_object(config.tracking)
            assert isinstance(settings, TrackingConfig)
            _tracking = settings
            if OmegaConf.select(config.hydra, "launcher.n_jobs", default=1) != 1:
                numba_cache.fill()
            model = OmegaConf.get_type(config.model) or ModelConfig
            words = named_overrides(list(config.hydra.overrides.task), roles(Config, model), list(config))
            overrides = " ".join(words)
            tracking.open_store(_tracking)
            parent, resumed = tracking.start_sweep(
                _tracking,
                _tracking.experiment,
                name=f"sweep {overrides}".strip(),
                tags={"overrides": overrides, "corpus": str(config.corpus.name), "kind": "sweep"},
                words=list(config.hydra.overrides.task),
            )
            if resumed:
                print(f"sweep    {parent} was killed and goes on; its finished runs are not repeated", file=sys.stderr)
            folder = Path(config.hydra.sweep.dir).absolute()
            try:
                with access_errors(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                    (folder / PARENT_FILE).write_text(parent)
            except FileAccessError:
                tracking.end_parent(_tracking, parent, "FAILED")
                raise
        except SerBenchError as error:
            print(f"error    {error}", file=sys.stderr)
            raise SystemExit(EXIT_FAILED) from None
        _sweep_dir = folder


def _close_sweep(interrupted: bool) -> bool:
    """Compare the children and close the parent run with their status; return whether one failed."""
    from ser_bench import tracking

    assert _sweep_dir is not None and _tracking is not None
    parent = (_sweep_dir / PARENT_FILE).read_text()
    results = [_read_result(child) for child in children_of(_sweep_dir)]
    failed = [result for result in results if result["status"] == "failed"]
    for result in failed:
        print(f"failed   {' '.join(result['overrides'])}: {result['error']}", file=sys.stderr)
    status = "KILLED" if interrupted else "FAILED" if failed or not results else "FINISHED"
    try:
        with access_errors():
            _report(_tracking, parent, _sweep_dir)
    except SerBenchError as error:
        print(f"error    {error}", file=sys.stderr)
    finally:  # the parent run is closed even if the report fails
        try:
            with access_errors(_sweep_dir):
                redact_files(_sweep_dir)  # Hydra writes the words of the sweep there
            tracking.end_parent(_tracking, parent, status)
        except SerBenchError as error:
            status = "FAILED"
            print(f"error    the sweep could not be closed: {error}", file=sys.stderr)
    return status == "FAILED"


def _report(cfg: TrackingConfig, parent: str, folder: Path) -> None:
    """Compare the finished children: print the result, write it to the sweep's folder, log it to the parent run."""
    from ser_bench import comparison
    from ser_bench.comparison import paired

    comparisons = paired.comparisons_of_sweep(cfg, parent)
    if not comparisons:
        print("no finished run to compare")
        return
    document = comparison.Report.of(comparison.REPORT_TITLE, comparisons)
    print(comparison.all_as_text(comparisons))
    print(f"\nreport   {comparison.publish(document, cfg, parent, folder)}")


def children_of(sweep_dir: Path) -> list[Path]:
    """Return the folders of all children that were started, sorted by job number.

    `hydra.sweep.subdir` may be anything, also a path with several levels: a child is recognised by the folder
    `.hydra`, which Hydra writes when it starts the child.
    """
    children = {path.parent for path in sweep_dir.rglob(HYDRA_FOLDER) if path.is_dir()}
    children |= {path.parent for path in sweep_dir.rglob(RESULT_FILE)}
    return sorted(children, key=lambda child: (_job_number(child), str(child)))


def _job_number(child: Path) -> int:
    try:
        return int(OmegaConf.load(child / HYDRA_FOLDER / "hydra.yaml").hydra.job.num)
    except (OSError, ValueError, TypeError, OmegaConfBaseException):
        return sys.maxsize  # Hydra's file cannot be read: the child is listed last


def _read_result(child: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((child / RESULT_FILE).read_text())
        return {"status": str(result["status"]), "overrides": result.get("overrides", []), "error": result.get("error")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"status": "failed", "overrides": [child.name], "error": f"ended without a result; see {child}"}


def _parent_of(hydra: Any) -> str | None:
    if hydra.mode is not RunMode.MULTIRUN:
        return None
    path = Path(hydra.sweep.dir) / PARENT_FILE
    return path.read_text() if path.exists() else None


def _parallel_children(hydra: Any) -> int:
    """Return how many runs share this machine at the same time."""
    n_jobs = OmegaConf.select(hydra, "launcher.n_jobs", default=1) if hydra.mode is RunMode.MULTIRUN else 1
    cores = len(os.sched_getaffinity(0))
    return cores if n_jobs is None or n_jobs < 0 else min(int(n_jobs), cores)


def _share_cores(cfg: Config, children: int) -> None:
    """Divide the cores among parallel children, because more threads than cores slow every child down."""
    if cfg.trainer.threads is None:
        cfg.trainer.threads = max(1, len(os.sched_getaffinity(0)) // children)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(cfg.trainer.threads))
    import torch

    torch.set_num_threads(cfg.trainer.threads)
