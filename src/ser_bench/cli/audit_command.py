"""`ser-bench audit`: check stored runs for leakage one after the other, and print the findings."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ser_bench import tracking
from ser_bench.audit import audit_stored
from ser_bench.cli.terminal_tables import print_json
from ser_bench.config import compose
from ser_bench.config.services import only_own_services
from ser_bench.errors import ConfigError


def run(overrides: Sequence[str], run_ids: Sequence[str], as_json: bool) -> bool:
    """Audit each run, log and print the result; return False if one has a leak that its protocol does not announce.

    Args:
        overrides: Hydra overrides; `tracking` decides the store, `corpus.root` and `cache_dir` where files are now.
        run_ids: ids or their first letters.
        as_json: print a list with one object per run.

    Raises:
        ConfigError: no run is named.
        SerBenchError: a run cannot be found or audited; the runs before it have been audited and logged.
    """
    if not run_ids:
        raise ConfigError(
            "no run is named: ser-bench audit RUN, with the id that the run printed (ser-bench runs lists all)"
        )
    cfg = compose(list(overrides))
    passed, records = True, []
    for run_id in run_ids:
        stored = tracking.load_run(cfg.tracking, run_id)
        with only_own_services(cfg):  # features of the run may come from a service
            audit = audit_stored(stored, cfg.corpus.root, cfg.cache_dir)
        passed = passed and not audit.unannounced
        records.append({"run": stored.run_id, "name": stored.name} | json.loads(audit.as_json()))
        if not as_json:
            print(f"run      {stored.run_id}  {stored.name}\n{audit.as_text()}\n")
    if as_json:
        print_json(records)
    return passed
