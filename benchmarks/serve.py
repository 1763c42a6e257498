"""Load test of `ser-bench serve` on 127.0.0.1: clips per second and latency with 1, 8 and 64 clients.

    python benchmarks/serve.py RUN --clips FOLDER                # a minute; further words are overrides
    python benchmarks/serve.py RUN --clips FOLDER --seconds 30 tracking.dir=FOLDER

The bare predictor decodes and predicts the same clips, one after the other, in a process of its own, before and after
the server. The server is a process too, with the same environment (set OMP_NUM_THREADS for both). Each client sends its
next clip when it has the answer to the last one. The clients share this process, and the cores, with nothing else.

The exit status is 1 if a request was lost or refused, an answer differs from that of the bare predictor by more than
0.01, or the server with 8 clients or more has less than 80 % of the rate of the bare predictor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx

CLIENTS = (1, 8, 64)
LEAST_SHARE = 0.8
LARGEST_DIFFERENCE = 0.01
"""Of a probability: batches and rounding change the last digits."""
DEADLINE_S = "120"
"""Of the server; on a loaded machine 64 clients wait longer than the default, 30 s."""
MAX_CLIPS = 64
BARE = """
import json, sys, time
from pathlib import Path
from ser_bench import tracking
from ser_bench.config import compose
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording
run, seconds, clips, overrides = json.loads(sys.argv[1])
cfg = compose(overrides)
predictor = AudioPredictor.from_run(tracking.load_run(cfg.tracking, run), cfg)
predictor.warm_up()
contents = [Path(clip).read_bytes() for clip in clips]
answers, spent, start = {}, [], time.perf_counter()
while time.perf_counter() < start + seconds or len(answers) < len(clips):
    began, i = time.perf_counter(), len(spent) % len(clips)
    (answer,) = predictor.predict([Recording.from_bytes(contents[i], "clip", predictor.max_duration_s)])
    spent.append(time.perf_counter() - began)
    answers[clips[i]] = answer.as_dict()["probabilities"]
print(json.dumps([spent, answers]))
"""


def bare(run: str, seconds: float, clips: list[str], overrides: list[str]) -> tuple[list[float], dict[str, dict]]:
    """Seconds of each prediction in a loop, and the probabilities of each clip."""
    words = [sys.executable, "-c", BARE, json.dumps([run, seconds, clips, overrides])]
    spent, answers = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    return spent, answers


def started(run: str, overrides: list[str]) -> tuple[subprocess.Popen[str], str]:
    """The server, and its address."""
    command = [sys.executable, "-m", "ser_bench.cli", "serve", run, "--port", "0", "--deadline", DEADLINE_S, *overrides]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    for line in process.stdout or ():
        if found := re.match(r"serving  (http://\S+)", line):
            return process, found[1]
    raise SystemExit("the server did not start")


async def load(url: str, clients: int, seconds: float, contents: dict[str, bytes], expected: dict) -> dict:
    """Ask with so many clients at once; return latencies, counts, and the largest difference of a probability."""
    names = list(contents)
    spent: list[float] = []
    refused: list[str] = []
    sent = 0
    largest = 0.0
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        until = time.perf_counter() + seconds

        async def ask(number: int) -> None:
            nonlocal sent, largest
            while time.perf_counter() < until:
                name = names[(number + sent) % len(names)]
                sent += 1
                began = time.perf_counter()
                try:
                    response = await client.post("/v1/predict", files={"audio": ("clip", contents[name])})
                except httpx.HTTPError as error:
                    refused.append(type(error).__name__)
                    continue
                if response.status_code != 200:
                    refused.append(str(response.status_code))
                    continue
                spent.append(time.perf_counter() - began)
                answer = response.json()["probabilities"]
                largest = max(largest, *(abs(answer[label] - p) for label, p in expected[name].items()))

        began = time.perf_counter()
        await asyncio.gather(*(ask(number) for number in range(clients)))
        took = time.perf_counter() - began
    return {"sent": sent, "spent": spent, "refused": refused, "took": took, "largest": largest}


def batches(url: str) -> tuple[float, float]:
    """Number of batches, and of clips in them."""
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return float(values["ser_bench_batch_clips_count"]), float(values["ser_bench_batch_clips_sum"])


def p95(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, round(0.95 * (len(values) - 1)))]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="id of a run, or its first letters")
    parser.add_argument("--clips", type=Path, required=True, help="folder of audio files")
    parser.add_argument("--seconds", type=float, default=10.0, help="time of each measurement")
    parser.add_argument("overrides", nargs="*", help="for example tracking.dir=FOLDER")
    words = parser.parse_intermixed_args()
    suffixes = (".wav", ".flac", ".ogg", ".mp3")
    clips = [str(path) for path in sorted(words.clips.iterdir()) if path.suffix.lower() in suffixes][:MAX_CLIPS]
    contents = {clip: Path(clip).read_bytes() for clip in clips}
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    cores, loaded = os.cpu_count(), os.getloadavg()[0]
    print(f"{len(clips)} clips, {cores} cores, OMP_NUM_THREADS {threads}, load average before: {loaded:.1f}")
    spent, expected = bare(words.run, words.seconds, clips, words.overrides)
    process, url = started(words.run, words.overrides)
    wrong = False
    rows = []
    try:
        for clients in CLIENTS:
            before = batches(url)
            found = asyncio.run(load(url, clients, words.seconds, contents, expected))
            after = batches(url)
            mean = (after[1] - before[1]) / max(1.0, after[0] - before[0])
            lost = found["sent"] - len(found["spent"])
            rows.append((clients, len(found["spent"]) / found["took"], found["spent"], lost, found["refused"], mean))
            wrong |= bool(lost) or found["largest"] > LARGEST_DIFFERENCE
            rate = len(found["spent"]) / found["took"]
            print(f"{clients} clients: {rate:.1f} clips/s, largest difference {found['largest']:.4f}", flush=True)
    finally:
        process.terminate()
        status = process.wait(60)
    wrong |= status != 0
    spent += bare(words.run, words.seconds, clips, words.overrides)[0]
    bare_rate = 1 / statistics.mean(spent)
    print(f"{'':12}{'clips/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'of bare':>9}{'lost':>6}{'batch':>7}")
    median, high = 1e3 * statistics.median(spent), 1e3 * p95(spent)
    print(f"{'bare loop':12}{bare_rate:9.1f}{median:9.1f}{high:9.1f}{'':9}{'':6}{1:7.1f}")
    for clients, rate, times, lost, refused, mean in rows:
        median, high = (1e3 * statistics.median(times), 1e3 * p95(times)) if times else (0.0, 0.0)
        share = rate / bare_rate
        wrong |= clients > 1 and share < LEAST_SHARE
        told = f"  {sorted(set(refused))}" if refused else ""
        print(f"{f'{clients} clients':12}{rate:9.1f}{median:9.1f}{high:9.1f}{share:9.2f}{lost:6}{mean:7.1f}{told}")
    print(f"exit status of the server after SIGTERM: {status}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
