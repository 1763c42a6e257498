"""`ser-bench app`: load runs and serve the page."""

from __future__ import annotations

from collections.abc import Sequence

from ser_bench import extras
from ser_bench.config import compose
from ser_bench.webpage.page import COMMAND
from ser_bench.webpage.page_answers import LoadedRuns
from ser_bench.webpage.page_server import serve_page


def run(overrides: Sequence[str], run_ids: Sequence[str], port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        overrides: Hydra overrides; they decide the store, the cache and the services that may be asked.
        run_ids: ids of runs, or their first letters; none: the page offers to train one.
        port: of the loopback address.

    Raises:
        ConfigError: Gradio is not installed, a run cannot predict new audio, or the port cannot be used.
        RunNotFoundError: a run is not in the store.
        SerBenchError: files of a run or weights are missing.
    """
    extras.require("gradio", COMMAND)
    runs = LoadedRuns(compose(list(overrides)))
    for run_id in run_ids:
        runs.load(run_id)
    for loaded in runs:
        print(f"loaded   {loaded.title.run_id[:8]} {loaded.title.name}: {loaded.title.test}", flush=True)
    runs.warm_up()
    serve_page(runs, port, overrides)
