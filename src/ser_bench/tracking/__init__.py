"""Everything that is kept of a run, in MLflow: the only package that imports mlflow.

- `store`: which store, and whether it answers, before anything long begins;
- `run`: one run being carried out, `parent`: the run above the runs of a sweep;
- `stored`: finding and reading what was kept; `evidence`: what an audit reads and writes;
- `facts`: what is said of a run in tags, parameters and inputs; `source`: the commit; `secrets`: what must not be said;
- `prompts`: MLflow's prompt registry; `traces`: requests to a language model;
- `torch_model`: a network as an MLflow model; `memory`: the peak of a run.

MLflow's active run is never used, and its global tracking URI only by `traces`, for as long as requests are made: every
other call names its store and its run, so that threads and parallel processes cannot log into each other's runs.
"""

from ser_bench.tracking.active_run import ActiveRun, start
from ser_bench.tracking.audit_records import log_audit, log_clips, stored_clips
from ser_bench.tracking.mlflow_store import open_store, results_page
from ser_bench.tracking.stored_runs import StoredRun, find_finished, load_run, newest, search
from ser_bench.tracking.sweep_run import adopt, describe_run, end_parent, log_files, log_text, start_parent
from ser_bench.tracking.traces import traced

__all__ = [
    "ActiveRun",
    "StoredRun",
    "adopt",
    "describe_run",
    "end_parent",
    "find_finished",
    "load_run",
    "log_audit",
    "log_clips",
    "log_files",
    "log_text",
    "newest",
    "open_store",
    "results_page",
    "search",
    "start",
    "start_parent",
    "stored_clips",
    "traced",
]
