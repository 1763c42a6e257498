"""`ser-bench audit`: stored runs audited one after the other, and printed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ser_bench import tracking
from ser_bench.audit.run_audit import audit_stored
from ser_bench.config import Config
from ser_bench.errors import ConfigError


def run(cfg: Config, run_ids: Sequence[str], as_json: bool) -> bool:
    """Audit, log and print each run; False where one leaks what its protocol does not announce.

    Args:
        cfg: where the store is (`tracking`), and, where given, `corpus.root` and `cache_dir`.
        run_ids: ids, or their first letters.
        as_json: print a list with one object a run.

    Raises:
        ConfigError: no run is named.
        SerBenchError: a run that cannot be found or audited; those before it have been.
    """
    if not run_ids:
        raise ConfigError("which run? ser-bench audit RUN, with the id that the run printed (make ui shows all)")
    passed, rows = True, []
    for run_id in run_ids:
        stored = tracking.load_run(cfg.tracking, run_id)
        found = audit_stored(stored, cfg.corpus.root, cfg.cache_dir)
        passed = passed and not found.unannounced
        rows.append({"run": stored.run_id, "name": stored.name} | json.loads(found.as_json()))
        if not as_json:
            print(f"run      {stored.run_id}  {stored.name}\n{found.as_text()}\n")
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
    return passed
