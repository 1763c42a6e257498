"""Findings that a fusion inherits from its members: a leak of a member is a leak of the fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ser_bench.audit.finding import ADAPTATION, AUDIO_AND_PEOPLE, IMPORTED, Finding

UNKNOWN = "not checked: the training of a member, whose predictions were imported, is not known"


def inherited(of_fusion: Sequence[Finding], of_members: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """Return one finding per question of the fusion, in its order; a text taken from a member names the member.

    - If a member has a larger leak than the fusion itself, the finding is that of the member with the largest share.
    - Otherwise the fusion's own finding stays.
    - A question that does not apply to the fusion but to members (scaler, checkpoint) gets the members' findings. If
      one of these members could not be checked, the question is not checked.
    - The adaptation of a member to its speakers, and that its predictions were imported, is reported for the fusion
      too. What test rows share with the training of imported predictions is not checked.

    Args:
        of_fusion: findings about the fusion's own rows and files.
        of_members: name of the member → findings about its run.
    """
    stated = [of_question for name in (IMPORTED, ADAPTATION) if (of_question := _of_question(name, of_members))]
    merged = [_merged(finding, _of_question(finding.name, of_members)) for finding in of_fusion]
    if _of_question(IMPORTED, of_members):
        merged = [Finding(f.name, UNKNOWN) if f.name in AUDIO_AND_PEOPLE and not f.leak else f for f in merged]
    return [*map(_attributed, stated), *merged]


def _of_question(name: str, of_members: Mapping[str, Sequence[Finding]]) -> dict[str, Finding]:
    return {member: finding for member, findings in of_members.items() for finding in findings if finding.name == name}


def _merged(of_fusion: Finding, of_members: Mapping[str, Finding]) -> Finding:
    largest_leak = _share(of_fusion) if of_fusion.leak else -1.0
    leaks = {name: finding for name, finding in of_members.items() if finding.leak and _share(finding) > largest_leak}
    if leaks:
        largest_leak = max(map(_share, leaks.values()))
        return _attributed({name: finding for name, finding in leaks.items() if _share(finding) == largest_leak})
    if of_fusion.leak or of_fusion.applies:
        return of_fusion
    applicable = {name: finding for name, finding in of_members.items() if finding.applies}
    unchecked = {name: finding for name, finding in applicable.items() if finding.share is None}
    return _attributed(unchecked or applicable) if applicable else of_fusion


def _attributed(of_members: Mapping[str, Finding]) -> Finding:
    """Return one finding with the texts of all these members, each with the member's name."""
    first = next(iter(of_members.values()))
    text = "; ".join(f"member {name}: {finding.text}" for name, finding in of_members.items())
    return Finding(first.name, text, first.share, first.leak)


def _share(finding: Finding) -> float:
    return 0.0 if finding.share is None else finding.share
