"""Baseline predictors: what can be reached without hearing the clip, and what human listeners reach.

- `majority`: the most frequent training label, or labels drawn from their shares (`prior`);
- `text_only`: the transcript alone; `listeners`: the votes of people who heard the clip.
"""
