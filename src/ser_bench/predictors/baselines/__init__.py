"""Baseline predictors: what the training labels, the words, or human listeners reach.

- `majority`: the most frequent training label, or labels drawn from their shares (`prior`);
- `text_only`: the transcript alone; `listeners`: the votes of people who listened to the clip.
"""

from ser_bench.predictors.baselines.listeners import Listeners
from ser_bench.predictors.baselines.majority import Majority, Prior
from ser_bench.predictors.baselines.text_only import TextOnly, TextOnlyConfig

__all__ = ["Listeners", "Majority", "Prior", "TextOnly", "TextOnlyConfig"]
