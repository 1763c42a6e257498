"""`ser-bench export`: the predictor of a stored run as ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ser_bench import tracking
from ser_bench.cli.terminal_tables import print_json, print_table
from ser_bench.config import compose
from ser_bench.errors import ConfigError
from ser_bench.inference.predictor_files import PredictorFiles

FOLDER = "onnx_{}"
"""Default name of the folder, with the first digits of the run id."""
ID_LETTERS = 8


def run(
    overrides: Sequence[str],
    run_id: str,
    onnx: bool,
    int8: bool,
    out: Path | None,
    threads: int | None,
    score: bool,
    as_json: bool,
) -> None:
    """Write the files, and print size, difference and speed of each.

    Args:
        overrides: Hydra overrides; `tracking` decides the store, `corpus.root` the folder of the corpus for `score`.
        run_id: id of the run, or its first letters.
        onnx: the format; there is no other.
        int8: write the 8-bit file too.
        out: folder of the files; None: "onnx_" and the first digits of the run id, in the working directory.
        threads: of PyTorch and onnxruntime while they are timed; None: the number of cores.
        score: predict the test rows of the run with each file.
        as_json: print one object instead of a table.

    Raises:
        ConfigError: no format is named, the run cannot be exported, or the folder has files.
        RunNotFoundError: the run is not in the store.
        TrackingError: files of the run were changed after it had ended.
        SerBenchError: the export differs from the predictor, or the corpus for `score` is not there.
    """
    import torch

    from ser_bench.export import onnx_folder
    from ser_bench.export.fold_score import score_on_test_rows
    from ser_bench.export.onnx_predictor import OnnxPredictor

    if not onnx:
        raise ConfigError("name the format: ser-bench export RUN --onnx")
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads {threads}: give 1 or more")
        torch.set_num_threads(threads)
    cfg = compose(list(overrides))
    stored = tracking.load_run(cfg.tracking, run_id)
    folder = out or Path(FOLDER.format(stored.run_id[:ID_LETTERS]))
    export = onnx_folder.export_onnx(PredictorFiles.of_run(stored), cfg, folder, int8, threads)
    scores = None
    if score:
        exported = {file.precision: OnnxPredictor(folder, file.precision, threads) for file in export.files}
        scores = score_on_test_rows(stored, cfg, exported)
    records: list[dict[str, Any]] = [
        {
            "file": str(file.path),
            "precision": file.precision.value,
            "megabytes": round(file.size / 1e6, 1),
            "largest difference": float(f"{file.largest_difference:.1e}"),
            "ms": round(1e3 * file.seconds, 2),
            "share of PyTorch's time": round(file.seconds / export.predictor_seconds, 2),
        }
        | ({} if scores is None else {"UAR": round(scores.uar[file.precision], 4),
                                      "labels changed": scores.changed[file.precision]})
        for file in export.files
    ]  # fmt: skip
    facts: dict[str, Any] = {"folder": str(folder), "PyTorch ms": round(1e3 * export.predictor_seconds, 2)}
    if scores is not None:
        facts |= {"test rows": scores.rows, "UAR of the run": round(scores.stored, 4)}
    if as_json:
        print_json(facts | {"files": records})
        return
    shown = {"largest difference": "{:.0e}", "labels changed": "{:d}", "UAR": "{:.4f}"}
    rows = [[shown.get(name, "{}").format(value) for name, value in record.items()] for record in records]
    print_table(tuple(records[0]), rows)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
