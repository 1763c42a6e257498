"""What an audit found, question by question, and the verdict that follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

LEAKS_NOTHING: frozenset[str] = frozenset()
ANNOUNCED: dict[str, frozenset[str]] = {
    "paper": frozenset({"clip", "sibling", "identical_audio", "near_identical_audio", "speaker"}),
    "clip": frozenset({"speaker", "val_speaker"}),
    "sentence": frozenset({"speaker", "val_speaker"}),
}
"""What a protocol says beforehand that it leaks (`splits.LEAKS`); every other protocol promises that nothing does."""
AUDIO_AND_PEOPLE = {
    "clip": "clip",
    "sibling": "augmented sibling",
    "identical_audio": "identical audio",
    "near_identical_audio": "nearly identical audio",
    "speaker": "speaker",
}
"""Things of a test row that must not be in training, by the name of the question, in the order they are told in."""
PROCEDURES = {"scaler": "scaler", "checkpoint": "choice of checkpoint", "combiner": "combiner"}

ADAPTATION = "adaptation"
"""Not a leak, but another question: what the predictor was told of the tested speakers, without labels."""
NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        name: of the question; `leak/<name>` is the metric.
        text: the answer in words, one line.
        share: of the test rows, 0 to 1; 1 or 0 for a question of yes or no; None where it was not or cannot be checked.
        leak: whether this is held against the run.
    """

    name: str
    text: str
    share: float | None = None
    leak: bool = False

    @property
    def applies(self) -> bool:
        """False where the question does not arise for this run."""
        return not self.text.startswith(NOT_APPLICABLE)


@dataclass(frozen=True)
class Audit:
    """All answers for one run.

    Attributes:
        protocol: of the split.
        test_rows: how many rows the split tests.
        findings: one a question.
        notes: what a reader should know of the audit itself, such as that the audio was not at hand.
    """

    protocol: str
    test_rows: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> tuple[str, ...]:
        """Names of the questions that convict; an overlap with validation rows only where training has not the same."""
        guilty = [finding.name for finding in self.findings if finding.leak]
        return tuple(name for name in guilty if name.removeprefix("val_") == name or name[4:] not in guilty)

    @property
    def convicted(self) -> bool:
        """Whether anything leaked, announced or not."""
        return bool(self.leaks)

    @property
    def unannounced(self) -> tuple[str, ...]:
        """The leaks of which the protocol says nothing."""
        return tuple(name for name in self.leaks if name not in ANNOUNCED.get(self.protocol, LEAKS_NOTHING))

    @property
    def tag(self) -> str:
        """ "clean", or "leaks: clip, sibling, speaker"."""
        return "leaks: " + ", ".join(self.leaks) if self.leaks else "clean"

    @property
    def metrics(self) -> dict[str, float]:
        """`leak/<name>` of every question that was answered."""
        return {f"leak/{finding.name}": finding.share for finding in self.findings if finding.share is not None}

    @property
    def verdict(self) -> str:
        """One line for a person."""
        by_name = {finding.name: finding for finding in self.findings}
        if not self.leaks:
            return self._acquittal(by_name)
        told = [by_name[name] for name in self.leaks]
        if "sibling" in self.leaks and by_name["sibling"].share == by_name["clip"].share:
            told = [finding for finding in told if finding.name != "clip"]  # the same rows, said more exactly
        text = "leaks: " + "; ".join(finding.text for finding in told)
        hidden = self.unannounced
        announced = f"split={self.protocol} does not announce " + ", ".join(hidden) if hidden else (
            f"split={self.protocol} announces it"
        )  # fmt: skip
        return f"{text} ({announced})"

    def _acquittal(self, by_name: dict[str, Finding]) -> str:
        checked = {name for name, finding in by_name.items() if finding.share is not None}
        things = [word for name, word in AUDIO_AND_PEOPLE.items() if name in checked]
        text = f"clean: no {_listed(things, 'or')} of the {self.test_rows:,} test rows was in training"
        seen = [word for name, word in PROCEDURES.items() if name in checked]
        if seen:
            text += f"; {_listed(seen, 'and')} saw no test row"
        if ADAPTATION in by_name:
            text += f"; {by_name[ADAPTATION].text}"
        left = [word for name, word in AUDIO_AND_PEOPLE.items() if name in by_name and name not in checked]
        return text + (f"; not checked: {_listed(left, 'and')}" if left else "")

    def as_json(self) -> str:
        """Everything, for a program."""
        content = {
            "verdict": self.verdict,
            "tag": self.tag,
            "convicted": self.convicted,
            "unannounced": self.unannounced,
            **asdict(self),
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def as_text(self) -> str:
        """Everything, for a person: the verdict, then a line a question."""
        lines = [f"verdict  {self.verdict}", ""]
        for finding in self.findings:
            share = "n/a" if finding.share is None else f"{finding.share:.1%}"
            lines.append(f"  {'LEAK' if finding.leak else '':4} {finding.name:21} {share:>6}  {finding.text}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _listed(words: list[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
