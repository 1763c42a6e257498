"""Tokens evaluated and seconds per clip of the local language models, and what reusing a prompt's beginning saves.

    python benchmarks/llm.py                                          # SYNTHETIC speech, the small model; two minutes
    python benchmarks/llm.py --models qwen2.5-coder-1.5b --prompts prosody
    python benchmarks/llm.py --prompts paper prosody few_shot corpus=cremad corpus.root=AudioWAV

Words with "=" are overrides of the configuration. The bodies of the requests are those of `model=llm`. Each clip is
asked twice in turn: as in a run, where llama.cpp keeps what it computed for the beginning that a prompt shares with the
one before; and as "whole", the reference in the same run, where it evaluates the whole prompt (`cache_prompt=false`).
Tokens and times of evaluation are those that llama.cpp reports. The ratio of the two says more than either on a busy
machine; CPU time is that of all threads. The first clip is not counted, because nothing can be reused for it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ser_bench import corpora, predictors, splits, weights
from ser_bench.config import Config, compose
from ser_bench.features.feature_store import Features
from ser_bench.predictors.llm import local_server, request_body
from ser_bench.predictors.llm.cost_estimate import context_tokens, token_counter
from ser_bench.predictors.llm.local_server import LocalServer
from ser_bench.predictors.llm.parsing import model_answer
from ser_bench.predictors.llm.parsing.model_answer import GRAMMAR, TokenUsage
from ser_bench.predictors.llm.prompting import prompt_template
from ser_bench.predictors.llm.prompting.question import Question

SMALL_MODEL = "SmolLM2-135M-Instruct-Q4_1"
TRAINING_ROWS = 200
"""Training rows from which norms and examples are taken, spread evenly; their number does not change the speed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--models", nargs="+", default=[SMALL_MODEL], choices=weights.language_models())
    parser.add_argument("--prompts", nargs="+", default=["paper", "prosody"])
    parser.add_argument("--clips", type=int, default=5, help="clips that are counted")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    options = parser.parse_args()
    print(f"load     {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores at the start; {options.threads} threads")
    rows = []
    for prompt in options.prompts:
        cfg = compose(["experiment=none", "model=llm", "llm=local", f"llm.prompt={prompt}", *options.overrides])
        labels, asked = questions(cfg, options.clips + 1)
        for model in options.models:
            row = measured(cfg, model, labels, asked, options.threads)
            rows.append(row)
            print(line(row), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def questions(cfg: Config, count: int) -> tuple[tuple[str, ...], list[Question]]:
    """Return the labels and the questions about `count` test clips, spread evenly."""
    corpus = corpora.load(cfg)
    split = splits.make(corpus, cfg.split, cfg.augment.variants)
    kind = ", SYNTHETIC speech" if corpus.synthetic else ""
    print(f"corpus   {corpus.name}{kind}, split {cfg.split.protocol}, fold {cfg.split.fold}, prompt {cfg.llm.prompt}")
    with tempfile.TemporaryDirectory() as scratch:
        features = Features(cfg, corpus.by_id, corpus.language)
        predictor: Any = predictors.build(cfg, corpus.labels, features, Path(scratch), lambda epoch, values: None)
        predictor.fit(spread(split.train, TRAINING_ROWS), spread(split.val, TRAINING_ROWS))
        test_clips = list(dict.fromkeys(row.clip_id for row in split.test))
        return corpus.labels, predictor._questions(predictor._prompt, spread(test_clips, count))


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """Return `count` items at equal distances, or all."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]


def measured(
    cfg: Config, model: str, labels: tuple[str, ...], asked: Sequence[Question], threads: int
) -> dict[str, Any]:
    """Ask a model about all clips in both ways; return means per clip, without the first one."""
    with_reason = prompt_template.load(cfg.llm.prompt).reason
    context = context_tokens(asked, token_counter(model), cfg.llm, with_reason, local_server.CONTEXT_TOKENS)
    parameters = request_body.parameters(cfg.llm, with_reason) | {"model": model}
    reused, whole, undecided = [], [], 0
    with (
        local_server.serve(weights.fetch(model), 1, threads, context) as server,
        httpx.Client(trust_env=False, timeout=None) as client,
    ):
        for number, question in enumerate(asked):
            body = parameters | request_body.content(GRAMMAR, question, labels, with_reason, not with_reason)
            answer, times = ask(client, server, body)
            _, reference = ask(client, server, body | {"cache_prompt": False})
            if number:
                reused.append(times)
                whole.append(reference)
                read = model_answer.read(answer, labels, TokenUsage(0, 0, 0), GRAMMAR, with_reason)
                undecided += read.probabilities is None
    means = {key: float(np.mean([times[key] for times in reused])) for key in reused[0]}
    reference_means = {f"whole_{key}": float(np.mean([times[key] for times in whole])) for key in whole[0]}
    settings = {"model": model, "prompt": cfg.llm.prompt, "corpus": cfg.corpus.name, "threads": threads}
    return settings | {"clips": len(reused), "without_probabilities": undecided} | means | reference_means


def ask(client: httpx.Client, server: LocalServer, body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
    """Return a completion, and what it took."""
    sent = {key: value for key, value in body.items() if key != "extra_body"} | body.get("extra_body", {})
    cpu, began = time.process_time(), time.perf_counter()
    response = client.post(
        f"{server.base_url}/chat/completions", json=sent, headers={"Authorization": f"Bearer {server.key}"}
    )
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    response.raise_for_status()
    completion: dict[str, Any] = response.json()
    timings = completion["timings"]
    return completion, {
        "prompt_tokens": completion["usage"]["prompt_tokens"],
        "evaluated_tokens": timings["prompt_n"],
        "answer_tokens": timings["predicted_n"],
        "evaluation_s": timings["prompt_ms"] / 1000,
        "answer_s": timings["predicted_ms"] / 1000,
        "wall_s": wall_s,
        "cpu_s": cpu_s,
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table as text."""
    per_token_ms = 1000 * row["evaluation_s"] / row["evaluated_tokens"]
    missing = row["without_probabilities"]
    return (
        f"{row['model']:<28} {row['prompt']:<10} prompt {row['prompt_tokens']:6.0f} tokens, evaluated "
        f"{row['evaluated_tokens']:6.0f}, answer {row['answer_tokens']:4.1f}   {row['wall_s']:6.2f} s a clip (CPU "
        f"{row['cpu_s']:6.2f}), {per_token_ms:5.1f} ms a token   whole {row['whole_wall_s']:6.2f} s (CPU "
        f"{row['whole_cpu_s']:6.2f}), ratio {row['whole_wall_s'] / row['wall_s']:.2f} (CPU "
        f"{row['whole_cpu_s'] / row['cpu_s']:.2f})" + (f"   {missing} without probabilities" if missing else "")
    )


if __name__ == "__main__":
    main()
