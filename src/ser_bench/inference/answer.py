"""The answer of a predictor on one recording."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ser_bench.inference.input_checks import Flag

DECIMALS = 4
"""Of probabilities and seconds in `Answer.as_dict`."""
ANSWERED, FAILED = "answered", "failed"
TOTAL, CLASSIFY, CHECKS = "total", "classify", "checks"
"""Keys of `Answer.seconds`: all of the answer, the predictor without its features, and the checks of the input."""


@dataclass(frozen=True)
class Answer:
    """Label and probabilities of one recording.

    Attributes:
        name: name of the recording.
        label: the most probable label; "" if there is none.
        probabilities: label → probability, in the order of the run's labels; {} after a failure.
        status: "answered", "abstained" (the predictor gave no label) or "failed" (the recording or a request failed).
        reason: of an abstention or a failure; else "".
        flags: why the answer is unsure; () if nothing is known against it.
        seconds: stage → seconds; those of a batch are divided evenly. "classify" is the predictor
            itself, "checks" looks for `flags`, "total" is the sum of all stages.
        duration_s: length of the recording, seconds.
        transcript: the words that were recognised; None if the predictor uses none.
        calibrated: whether the probabilities were calibrated on validation speakers.
    """

    name: str
    label: str = ""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    status: str = ANSWERED
    reason: str = ""
    flags: tuple[Flag, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    duration_s: float = 0.0
    transcript: str | None = None
    calibrated: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the answer as JSON values: the same keys on the command line, from the server and in MLflow."""
        return {
            "name": self.name,
            "label": self.label,
            "status": self.status,
            "reason": self.reason,
            "probabilities": {label: round(p, DECIMALS) for label, p in self.probabilities.items()},
            "calibrated": self.calibrated,
            "flags": [{"code": flag.code, "text": flag.text} for flag in self.flags],
            "duration_s": round(self.duration_s, DECIMALS),
            "transcript": self.transcript,
            "seconds": {stage: round(s, DECIMALS) for stage, s in self.seconds.items()},
        }
