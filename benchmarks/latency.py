"""From the end of a clip of 3 s to its label: p50 and p95 per predictor and stage, warm and cold, on one and two cores.

    python benchmarks/latency.py RUN [RUN ...]                        # a minute per run; KEY=VALUE are overrides
    python benchmarks/latency.py RUN --onnx FOLDER [FOLDER ...] --json latency.json
    python benchmarks/latency.py                                      # trains cnn and whisper_probe (tiny.en) before

Each row is a process of its own, bound to as many cores as it has threads. Clips are 3 s long, 16 kHz, in memory, one
per call (batch 1), each another section of the demo corpus, so that no cache helps. "warm" calls follow five that are
not counted. "cold" is the time from the start of a new process to its first label: imports, loading, and prediction;
the files are in the disk cache of the system. The time of a label includes every feature, the transcript, and the
checks for unsure input, and is divided into these stages. CPU time is summed over threads; on a loaded machine it tells
more than the clock. The real-time factor is p50 divided by 3 s. Peak memory is that of the process.

The exit status is 1 if a row misses its target (`TARGETS_S`, two cores, warm p95) and the machine was idle.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CLIP_S, RATE_HZ, WARM_UPS = 3.0, 16_000, 5
TARGETS_S = {"cnn": 0.030, "whisper_probe": 0.120, "whisper_probe onnx int8": 0.070}
TRAINED = (
    ("model=cnn", "size=eighth", "trainer.max_epochs=2"),
    ("model=whisper_probe", "model.encoders=[tiny.en]"),
)
IDLE_LOAD = 0.7
"""Load average of one minute up to which the machine counts as idle at the start."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="RUN|OVERRIDE")
    parser.add_argument("--onnx", nargs="*", default=[], metavar="FOLDER", help="what ser-bench export wrote")
    parser.add_argument("--repeats", type=int, default=100, help="warm calls per row")
    parser.add_argument("--cold", type=int, default=3, help="new processes per row; the median is shown")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    runs = [word for word in options.words if "=" not in word]
    overrides = [word for word in options.words if "=" in word]
    with tempfile.TemporaryDirectory() as scratch:
        load = os.getloadavg()[0]
        if not runs and not options.onnx:
            overrides = [*overrides, f"tracking.dir={scratch}/mlruns"]
            runs = [trained(words, overrides) for words in TRAINED]
        clips = Path(scratch) / "clips.npy"
        np.save(clips, sections(max(options.repeats, 1) + WARM_UPS, overrides))
        print(f"load     {load:.2f} of {os.cpu_count()} cores at the start; {options.repeats} warm calls per row")
        tasks = [{"run": run} for run in runs]
        tasks += [{"onnx": f, "precision": p} for f in options.onnx for p in ("float32", "int8")]
        rows = []
        for task in tasks:
            for threads in options.threads:
                row = measured({**task, "clips": str(clips), "overrides": overrides, "threads": threads}, options.cold)
                if row is not None:
                    rows.append(row)
                    print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"load": load, "cores": os.cpu_count(), "rows": rows}, indent=1))
    missed = [r for r in rows if r["threads"] == 2 and r["p95_s"] > TARGETS_S.get(r["name"], float("inf"))]
    for row in missed:
        goal_s = TARGETS_S[row["name"]]
        print(f"missed   {row['name']}: p95 {row['p95_s'] * 1000:.0f} ms, target {goal_s * 1000:.0f} ms")
    raise SystemExit(bool(missed) and load <= IDLE_LOAD)


def line(row: dict[str, Any]) -> str:
    """One row of the table as text."""
    stages = ", ".join(f"{name} {s * 1000:.1f}" for name, s in row["stages_s"].items() if s >= 5e-5)
    return (
        f"{row['name']:<26} {row['threads']} core{'s' * (row['threads'] > 1):<1}  warm p50 {row['p50_s'] * 1000:6.1f} "
        f"p95 {row['p95_s'] * 1000:6.1f} ms  CPU {row['cpu_s'] * 1000:6.1f} ms  RTF {row['p50_s'] / CLIP_S:.4f}  "
        f"cold {row['cold_s']:5.2f} s  {row['peak_mib']:5.0f} MiB  ({stages} ms)"
    )


def measured(task: dict[str, Any], cold: int) -> dict[str, Any] | None:
    """Measure in new processes; the first ones answer once only. None: the folder has no file of this precision."""
    firsts = [child({**task, "repeats": 0}) for _ in range(cold)]
    row = child({**task, "repeats": True})
    if row is None:
        return None
    row["cold_s"] = float(np.median([first["cold_s"] for first in firsts if first] or [row["cold_s"]]))
    return row


def child(task: dict[str, Any]) -> dict[str, Any] | None:
    """Run `answer_all` in a new process."""
    threads = task["threads"]
    cores = sorted(os.sched_getaffinity(0))[:threads]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    words = [sys.executable, __file__, "--child", json.dumps({**task, "cores": cores, "started": time.time()})]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr.strip()[-2000:] or "the process failed")
    found: dict[str, Any] | None = json.loads(done.stdout.splitlines()[-1])
    return found


def answer_all(task: dict[str, Any]) -> dict[str, Any] | None:
    """Load a predictor, answer, and return times; in a process of its own."""
    os.sched_setaffinity(0, task["cores"])
    clips = np.load(task["clips"], mmap_mode="r")
    if "onnx" in task:
        from ser_bench.export.onnx_predictor import OnnxPredictor, Precision

        description = json.loads((Path(task["onnx"]) / "model.json").read_text())
        if task["precision"] not in description["files"]:
            return None
        onnx = OnnxPredictor(task["onnx"], Precision(task["precision"]), task["threads"])
        name = f"{description['predictor']} onnx {task['precision']}"

        def answer(samples: Any) -> dict[str, float]:
            onnx.predict_samples(samples, RATE_HZ)
            return {}
    else:
        from ser_bench import tracking
        from ser_bench.config import compose
        from ser_bench.inference.audio_predictor import AudioPredictor
        from ser_bench.inference.recording import Recording

        cfg = compose(task["overrides"])
        predictor = AudioPredictor.from_run(tracking.load_run(cfg.tracking, task["run"]), cfg)
        name = predictor.model

        def answer(samples: Any) -> dict[str, float]:
            (found,) = predictor.predict([Recording.from_samples(samples, RATE_HZ, "clip")])
            if not found.label:
                raise SystemExit(f"{name}: no label ({found.reason})")
            return dict(found.seconds)

    answer(np.array(clips[0]))
    cold_s = time.time() - task["started"]
    if not task["repeats"]:
        return {"cold_s": cold_s}
    for clip in clips[:WARM_UPS]:
        answer(np.array(clip))
    wall, stages = [], []
    cpu = time.process_time()
    for clip in clips[WARM_UPS:]:
        samples = np.array(clip)
        began = time.perf_counter()
        stages.append(answer(samples))
        wall.append(time.perf_counter() - began)
    cpu_s = (time.process_time() - cpu) / len(wall)
    names = [name for name in dict.fromkeys(key for one in stages for key in one) if name != "total"]
    return {
        "name": name,
        "run": task.get("run", task.get("onnx")),
        "threads": task["threads"],
        "p50_s": float(np.percentile(wall, 50)),
        "p95_s": float(np.percentile(wall, 95)),
        "cpu_s": cpu_s,
        "cold_s": cold_s,
        "stages_s": {key: float(np.median([one.get(key, 0.0) for one in stages])) for key in names},
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def sections(count: int, overrides: list[str]) -> Any:
    """[count, 48,000] float32: sections of the demo corpus's clips, joined, each from another start."""
    from ser_bench import audio, corpora
    from ser_bench.config import compose

    kept = [word for word in overrides if word.startswith("cache_dir=")]
    corpus = corpora.load(compose(["experiment=none", "corpus=demo", *kept]))
    wave = np.concatenate([audio.load(clip.path, RATE_HZ) for clip in corpus.clips[:60]])
    size = round(CLIP_S * RATE_HZ)
    starts = np.random.default_rng(0).choice(len(wave) - size, count, replace=False)
    return np.stack([wave[start : start + size] for start in starts])


def trained(words: tuple[str, ...], overrides: list[str]) -> str:
    """Train on the demo corpus, and return the id of the run."""
    import ser_bench

    return ser_bench.run(["experiment=none", "corpus=demo", *words, *overrides], verbose=False).run_id


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(answer_all(json.loads(sys.argv[2]))))
    else:
        main()
