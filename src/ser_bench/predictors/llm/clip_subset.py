"""Which clips are asked about where not all can be paid for."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ser_bench.errors import ConfigError
from ser_bench.types import Clip


def subset(clips: Sequence[Clip], limit: int, seed: int) -> dict[str, Clip]:
    """At most `limit` clips by id, stratified by label and speaker; the same clips for the same seed.

    Each label gets its share of the limit (largest remainder); within a label the next clip is one of the speaker who
    has the fewest so far. The order of `clips` does not influence the choice, and is the order of the result.

    Raises:
        ConfigError: the limit is below 1.
    """
    if limit < 1:
        raise ConfigError(f"llm.limit={limit}: at least one clip has to be asked about; null asks about all")
    draw = random.Random(seed)
    piles: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip in draw.sample(sorted(clips, key=lambda clip: clip.id), len(clips)):
        piles[clip.emotion][clip.speaker].append(clip.id)
    quotas = _quotas({label: sum(map(len, pile.values())) for label, pile in sorted(piles.items())}, limit)
    taken: Counter[str] = Counter()
    chosen: set[str] = set()
    for label, quota in quotas.items():
        speakers = draw.sample(sorted(piles[label]), len(piles[label]))
        for _ in range(quota):
            speaker = min((s for s in speakers if piles[label][s]), key=lambda s: taken[s])
            chosen.add(piles[label][speaker].pop())
            taken[speaker] += 1
    return {clip.id: clip for clip in clips if clip.id in chosen}


def _quotas(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """`limit` shared out in proportion to the sizes, none above its size (largest remainder)."""
    total = sum(sizes.values())
    if limit >= total:
        return dict(sizes)
    quotas = {label: limit * size // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(limit * sizes[label] % total), label))
    for label in by_remainder[: limit - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
