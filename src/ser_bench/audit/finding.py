"""The findings of an audit, question by question, and the verdict that follows from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

LEAKS_NOTHING: frozenset[str] = frozenset()
ANNOUNCED: dict[str, frozenset[str]] = {
    "paper": frozenset({"clip", "sibling", "identical_audio", "near_identical_audio", "speaker"}),
    "clip": frozenset({"speaker", "val_speaker"}),
    "sentence": frozenset({"speaker", "val_speaker"}),
}
"""Leaks that a protocol announces beforehand (`splits.LEAKS`). Every other protocol excludes all leaks."""
AUDIO_AND_PEOPLE = {
    "clip": "clip",
    "sibling": "augmented sibling",
    "identical_audio": "identical audio",
    "near_identical_audio": "nearly identical audio",
    "speaker": "speaker",
}
"""What a test row must not share with training: name of the question → words for the verdict, in its order."""
RECOMPUTED = {
    "predictions": "rows and labels of the predictions",
    "scores": "logged scores",
    "repeated_predictions": "predictions by the stored predictor",
    "training_rows": "rows that the training has read",
    "scaler": "scaler",
    "checkpoint": "choice of the kept epoch by the logged losses",
    "val_loss": "validation loss of the kept epoch",
    "combiner": "combiner",
    "artifacts": "files by their SHA-256",
}
"""What is computed again and must agree with what the run stored: name of the question → words for the verdict."""
CONTRADICTIONS = frozenset({"predictions", "scores", "repeated_predictions", "artifacts"})
"""Questions of `RECOMPUTED` that find files or scores which were changed after the run. That is no leakage by itself,
but the figures of the run cannot be relied on. Tags and exit statuses count such findings as leaks."""
ADDED_LATER = ("scores", "repeated_predictions", "training_rows", "val_loss", "artifacts")
"""Questions that audits of versions without the tag `OPEN_TAG` did not ask."""
CHOICES = "choices made between runs"
NEVER_CHECKED = f"{CHOICES}, and the training data of pretrained weights"
"""What no audit can see in one stored run; only `CHOICES` where the question `PRETRAINING` was answered."""

PRETRAINING = "pretraining"
"""Name of the question whether a checkpoint was trained on the tested corpus; asked where a predictor can answer it."""
ADAPTATION = "adaptation"
"""Name of a finding that is no leak: which unlabelled clips of the tested speakers the predictor was given."""
IMPORTED = "imported"
"""Name of a finding that is no leak: the predictions came from a file, so nothing is known of the training."""
NOT_APPLICABLE = "not applicable"
OPEN_TAG, NOTHING_OPEN = "audit_not_checked", "none"
"""Tag with the names of the questions that apply but were not answered, and its value if there is none."""
TAG_WITHOUT_LEAKAGE, TAG_OF_LEAKAGE = "clean", "leaks: "
"""Stored values of the tag `audit`: the first one, or the second one followed by the names of the leaks."""
TAG_UNKNOWN = "unknown"
"""Stored value of the tag `audit` of a run whose training is not known, if its files and scores do not contradict."""
FOUND, NONE_FOUND, CONTRADICTED = "leakage found", "no leakage found", "contradiction found"
NOT_KNOWN = "leakage not known"


@dataclass(frozen=True)
class Finding:
    """The answer to one question.

    Attributes:
        name: of the question; the metric is `leak/<name>`.
        text: the answer in words, in one line.
        share: of the test rows, 0 to 1; for a yes-or-no question 1 (yes) or 0 (no); None if it was not or cannot be
            checked.
        leak: whether the answer is a leak.
    """

    name: str
    text: str
    share: float | None = None
    leak: bool = False

    @property
    def applies(self) -> bool:
        """False if the question does not apply to the run, for example that of the scaler if there is none."""
        return not self.text.startswith(NOT_APPLICABLE)


@dataclass(frozen=True)
class Audit:
    """All findings for one run.

    Attributes:
        protocol: of the split.
        test_rows: number of rows that the split tests.
        findings: one per question.
        notes: limits of this audit, for example that the audio was not available.
    """

    protocol: str
    test_rows: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def leaks(self) -> tuple[str, ...]:
        """Names of the leaks. A leak through validation rows is left out if training rows have the same leak."""
        names = [finding.name for finding in self.findings if finding.leak]
        return tuple(name for name in names if not name.startswith("val_") or name.removeprefix("val_") not in names)

    @property
    def leakage_found(self) -> bool:
        """Whether there is any leak, announced or not."""
        return bool(self.leaks)

    @property
    def unannounced(self) -> tuple[str, ...]:
        """Names of the leaks that the protocol does not announce."""
        return tuple(name for name in self.leaks if name not in ANNOUNCED.get(self.protocol, LEAKS_NOTHING))

    @property
    def tag(self) -> str:
        """Value of the run's tag `audit`: "clean", "unknown" (imported predictions), or "leaks: clip, speaker".

        `outcome_in_words` says it for readers.
        """
        if self.leaks:
            return TAG_OF_LEAKAGE + ", ".join(self.leaks)
        return TAG_UNKNOWN if self.training_unknown else TAG_WITHOUT_LEAKAGE

    @property
    def training_unknown(self) -> bool:
        """Whether the predictions, or those of a member of the fusion, were imported."""
        return any(finding.name == IMPORTED for finding in self.findings)

    @property
    def not_checked(self) -> tuple[str, ...]:
        """Names of the questions of the verdict that apply to the run, but were not answered."""
        asked = (*AUDIO_AND_PEOPLE, *RECOMPUTED, PRETRAINING)
        unanswered = {finding.name for finding in self.findings if finding.share is None and finding.applies}
        return tuple(name for name in asked if name in unanswered)

    @property
    def never_checked(self) -> str:
        """What this audit cannot see."""
        answered = any(finding.name == PRETRAINING for finding in self.findings)
        return CHOICES if answered else NEVER_CHECKED

    @property
    def tags(self) -> dict[str, str]:
        """The tags that a run gets: outcome, verdict, and names of the questions that were not answered."""
        return {"audit": self.tag, "audit_verdict": self.verdict, OPEN_TAG: " ".join(self.not_checked) or NOTHING_OPEN}

    @property
    def metrics(self) -> dict[str, float]:
        """`leak/<name>` of every question that was answered."""
        return {f"leak/{finding.name}": finding.share for finding in self.findings if finding.share is not None}

    @property
    def verdict(self) -> str:
        """The outcome in one line: "no leakage found: …", "leakage found: …", "leakage not known: …"; what is open."""
        by_name = {finding.name: finding for finding in self.findings}
        text = self._verdict_of_leakage(by_name) if self.leaks else self._verdict_without_leakage(by_name)
        text += f"; not checked: {_in_words(self.not_checked)}" if self.not_checked else ""
        return f"{text}; never checked: {self.never_checked}"

    def _verdict_of_leakage(self, by_name: dict[str, Finding]) -> str:
        shown = [by_name[name] for name in self.leaks]
        if "sibling" in self.leaks and by_name["sibling"].share == by_name["clip"].share:
            shown = [finding for finding in shown if finding.name != "clip"]  # the sibling's text states more
        text = f"{_outcome(self.leaks)}: " + "; ".join(finding.text for finding in shown)
        if self.unannounced:
            return f"{text} (split={self.protocol} does not announce {', '.join(self.unannounced)})"
        return f"{text} (split={self.protocol} announces it)"

    def _verdict_without_leakage(self, by_name: dict[str, Finding]) -> str:
        checked = {name for name, finding in by_name.items() if finding.share is not None}
        things = [words for name, words in AUDIO_AND_PEOPLE.items() if name in checked]
        text = f"{NONE_FOUND}: no {_joined(things, 'or')} of the {self.test_rows:,} test rows was in training"
        if self.training_unknown:
            text = f"{NOT_KNOWN}: {by_name[IMPORTED].text}"
        recomputed = [words for name, words in RECOMPUTED.items() if name in checked]
        text += f"; recomputed without contradiction: {_joined(recomputed, 'and')}" if recomputed else ""
        return text + (f"; {by_name[ADAPTATION].text}" if ADAPTATION in by_name else "")

    def as_json(self) -> str:
        """Return verdict, tag, leaks and all findings as JSON; the key `convicted` is `leakage_found`."""
        content = {
            "verdict": self.verdict,
            "tag": self.tag,
            "convicted": self.leakage_found,  # a stored name, read by programs
            "unannounced": self.unannounced,
            "not_checked": self.not_checked,
            "never_checked": self.never_checked,
            **asdict(self),
        }
        return json.dumps(content, indent=1, ensure_ascii=False)

    def as_text(self) -> str:
        """Return the verdict and one line per finding, for a terminal."""
        lines = [f"verdict  {self.verdict}", ""]
        for finding in self.findings:
            share = "n/a" if finding.share is None else f"{finding.share:.1%}"
            mark = "" if not finding.leak else "DIFF" if finding.name in CONTRADICTIONS else "LEAK"
            lines.append(f"  {mark:4} {finding.name:21} {share:>6}  {finding.text}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def outcome_in_words(tag: str) -> str:
    """Return the stored tag `audit` of a run in words for readers.

    >>> outcome_in_words("clean")
    'no leakage found'
    >>> outcome_in_words("unknown")
    'leakage not known, because the predictions were imported'
    >>> outcome_in_words("leaks: clip, speaker")
    'leakage found: clip, speaker'
    >>> outcome_in_words("leaks: artifacts")
    'contradiction found: artifacts'
    """
    if tag == TAG_WITHOUT_LEAKAGE:
        return NONE_FOUND
    if tag == TAG_UNKNOWN:
        return f"{NOT_KNOWN}, because the predictions were imported"
    names = tag.removeprefix(TAG_OF_LEAKAGE)
    return f"{_outcome(names.split(', '))}: {names}"


def _outcome(leaks: Sequence[str]) -> str:
    """Return "leakage found", or "contradiction found" if nothing but changes of files and scores was found."""
    return CONTRADICTED if set(leaks) <= CONTRADICTIONS else FOUND


def not_checked_in_words(tags: Mapping[str, str]) -> str:
    """Return what the audit of a run did not check, from the run's tags; "" if it checked everything or there is none.

    Audits of older versions did not list it. They recomputed less, whatever they could read.
    """
    if "audit" not in tags:
        return ""
    if OPEN_TAG not in tags:
        return f"{_in_words(ADDED_LATER)}, because an older version made the audit"
    return "" if tags[OPEN_TAG] == NOTHING_OPEN else _in_words(tags[OPEN_TAG].split())


def _in_words(names: Sequence[str]) -> str:
    words = AUDIO_AND_PEOPLE | RECOMPUTED | {PRETRAINING: "training data of the checkpoint"}
    return _joined([words.get(name, name) for name in names], "and")


def _joined(words: list[str], last: str) -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)
