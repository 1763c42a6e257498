"""The subset of clips that `llm.limit` selects."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from ser_bench.errors import ConfigError
from ser_bench.types import Clip


def subset(clips: Sequence[Clip], limit: int, seed: int) -> dict[str, Clip]:
    """Return at most `limit` clips by id, stratified by label and speaker; the same clips for the same seed.

    Each label gets its share of the limit (largest remainder). Within a label, the next clip comes from the speaker
    with the fewest clips so far. The order of `clips` does not affect the choice; the result has the same order.

    Args:
        clips: all clips.
        limit: number of clips to choose.
        seed: of the random choice.

    Raises:
        ConfigError: if the limit is below 1.
    """
    if limit < 1:
        raise ConfigError(f"llm.limit={limit}: must be at least 1; null selects all clips")
    draw = random.Random(seed)
    clip_ids: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for clip in draw.sample(sorted(clips, key=lambda clip: clip.id), len(clips)):
        clip_ids[clip.emotion][clip.speaker].append(clip.id)
    quotas = _quotas({label: sum(map(len, of_label.values())) for label, of_label in sorted(clip_ids.items())}, limit)
    taken: Counter[str] = Counter()
    chosen: set[str] = set()
    for label, quota in quotas.items():
        speakers = draw.sample(sorted(clip_ids[label]), len(clip_ids[label]))
        for _ in range(quota):
            speaker = min((s for s in speakers if clip_ids[label][s]), key=lambda s: taken[s])
            chosen.add(clip_ids[label][speaker].pop())
            taken[speaker] += 1
    return {clip.id: clip for clip in clips if clip.id in chosen}


def _quotas(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """Return `limit` divided in proportion to the sizes (largest remainder); no quota exceeds its size."""
    total = sum(sizes.values())
    if limit >= total:
        return dict(sizes)
    quotas = {label: limit * size // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(limit * sizes[label] % total), label))
    for label in by_remainder[: limit - sum(quotas.values())]:
        quotas[label] += 1
    return quotas
