"""One training step of the paper's audio CNN: ours, channels fastest in memory, against plain PyTorch on [N, C, L].

    python benchmarks/network.py                          # size=eighth: half a minute
    python benchmarks/network.py --size paper --steps 2   # the paper's widths: a few minutes on two cores

The reference is the same table of layers built of `torch.nn`'s own modules for signals. Both train on the same batch of
32 random vectors of 2,376 numbers with Adam, and take turns; CPU seconds are summed over threads and tell more than the
clock where a machine does other things as well. The hours are those of 745 steps × 30 epochs, the paper's training.
"""

from __future__ import annotations

import argparse
import time
from itertools import pairwise

import torch
from torch import Tensor, nn

from ser_bench.config import compose
from ser_bench.predictors.cnn import CnnConfig
from ser_bench.predictors.cnn.paper_network import PaperCNN

INPUTS, CLASSES, BATCH = 2376, 6, 32
PAPER_STEPS = 745 * 30


def plain(cfg: CnnConfig) -> nn.Module:
    """The same layers on [N, C, L]."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, INPUTS))]
    shapes = zip(pairwise([1, *cfg.channels]), cfg.kernels, cfg.pools, strict=True)
    for block, ((before, after), kernel, pool) in enumerate(shapes, start=1):
        layers += [nn.Conv1d(before, after, kernel, padding="same"), nn.ReLU(), nn.BatchNorm1d(after)]
        layers += [nn.MaxPool1d(pool, cfg.pool_stride, padding=(pool - 1) // 2, ceil_mode=True)]
        layers += [nn.Dropout(cfg.dropout)] if block in cfg.dropout_after else []
    layers += [nn.Flatten(), nn.LazyLinear(cfg.hidden), nn.ReLU(), nn.BatchNorm1d(cfg.hidden)]
    return nn.Sequential(*layers, nn.Linear(cfg.hidden, CLASSES))


def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> tuple[float, float]:
    """CPU seconds and seconds of one step."""
    cpu_s, began_s = time.process_time(), time.perf_counter()
    loss = nn.functional.cross_entropy(network(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return time.process_time() - cpu_s, time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="eighth", help="eighth, quarter, half or paper")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, after one that is not")
    words = parser.parse_args()
    cfg: CnnConfig = compose([f"size={words.size}", "model=cnn"]).model
    torch.manual_seed(0)
    x, y = torch.randn(BATCH, INPUTS), torch.randint(0, CLASSES, (BATCH,))
    networks = {"torch.nn on [N, C, L]": plain(cfg), "ours": PaperCNN.from_config(cfg, INPUTS, CLASSES)}
    networks["torch.nn on [N, C, L]"](x)  # tells the lazy layer its inputs
    optimizers = {name: torch.optim.Adam(network.parameters()) for name, network in networks.items()}
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
    for _ in range(words.steps + 1):
        for name, network in networks.items():
            spent[name].append(step(network, optimizers[name], x, y))
    means = {name: torch.tensor(times[1:]).mean(0).tolist() for name, times in spent.items()}
    print(f"size={words.size}, batch of {BATCH}, {torch.get_num_threads()} threads, mean of {words.steps} steps")
    for name, (cpu_s, clock_s) in means.items():
        hours = clock_s * PAPER_STEPS / 3600
        print(f"{name:22} {cpu_s:6.2f} CPU s  {clock_s:6.2f} s a step  {hours:6.1f} h for the paper's training")
    reference_s, ours_s = (means[name][0] for name in networks)
    print(f"{reference_s / ours_s:.1f} times less CPU time")


if __name__ == "__main__":
    main()
