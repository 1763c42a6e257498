"""Runs in MLflow: how they are written and read back. The only package that imports mlflow.

- `mlflow_store`: which store, and whether it can be reached, before a run computes anything;
- `database_errors`: a database that is locked, full, read-only or damaged;
- `moved_store`: locations of artifacts after the store was moved;
- `active_run`: a run in progress, from creation to its final status; `sweep_run`: the parent run of a sweep;
- `run_description`: name, tags, code version, parameters and inputs of a run;
- `run_writer`: tags, metrics and artifacts are written here; `epoch_metrics`: metrics per epoch;
- `artifact_manifest`: the SHA-256 of every artifact;
- `model_card`: data, figures, limits and licences of a predictor in Markdown;
- `stored_runs`: runs are found and read back here; `audit_records`: the table of clips and the result of an audit;
- `prompt_registry`, `traces`: prompts of a language model and requests to it;
- `torch_model`: a network as an MLflow model; `peak_memory`: the peak memory of a run.

Every call names its store and its run, so that threads and parallel processes cannot log to each other's runs. MLflow's
active run is never used. Its global tracking URI is set only by `traces`, while requests are made.
"""

from ser_bench.tracking.active_run import ActiveRun, start
from ser_bench.tracking.artifact_manifest import check_artifacts, log_manifest, refuse_changed
from ser_bench.tracking.audit_records import log_audit, log_clips, log_fit_rows, stored_clips, stored_fit_rows
from ser_bench.tracking.mlflow_store import how_to_browse, open_store, results_page
from ser_bench.tracking.model_card import log_model_card, model_card_text
from ser_bench.tracking.run_writer import describe_run, log_files, log_metrics, log_text, storable
from ser_bench.tracking.stored_runs import StoredRun, find_finished, latest_experiment, load_run, newest, search
from ser_bench.tracking.sweep_run import adopt, end_parent, start_parent, start_sweep
from ser_bench.tracking.traces import traced

__all__ = [
    "ActiveRun",
    "StoredRun",
    "adopt",
    "check_artifacts",
    "describe_run",
    "end_parent",
    "find_finished",
    "how_to_browse",
    "latest_experiment",
    "load_run",
    "log_audit",
    "log_clips",
    "log_files",
    "log_fit_rows",
    "log_manifest",
    "log_metrics",
    "log_model_card",
    "log_text",
    "model_card_text",
    "newest",
    "open_store",
    "refuse_changed",
    "results_page",
    "search",
    "start",
    "start_parent",
    "start_sweep",
    "storable",
    "stored_clips",
    "stored_fit_rows",
    "traced",
]
