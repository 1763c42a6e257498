"""What a fusion inherits: an answer that knows what one of its members knows has leaked what that member leaked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ser_bench.audit.finding import ADAPTATION, Finding


def inherited(own: Sequence[Finding], members: Mapping[str, Sequence[Finding]]) -> list[Finding]:
    """One finding a question of the fusion's, in its order; members are named where the answer is theirs.

    A leak of any of them is the fusion's, the largest share first. Otherwise the fusion's own answer stands, but for
    questions that arise for members only (a scaler, an epoch): one member that could not be checked leaves them open.
    What a member was told of its speakers, the fusion was told too.

    Args:
        own: what the fusion's own rows and files say.
        members: name in the fusion → what an audit of that run says.
    """
    adapted = {name: one for name, found in members.items() for one in found if one.name == ADAPTATION}
    return ([_said(adapted)] if adapted else []) + [
        _one(mine, {name: one for name, found in members.items() for one in found if one.name == mine.name})
        for mine in own
    ]


def _one(own: Finding, members: Mapping[str, Finding]) -> Finding:
    leaks = {name: one for name, one in members.items() if one.leak and _share(one) > (_share(own) if own.leak else -1)}
    if leaks:
        most = max(map(_share, leaks.values()))
        return _said({name: one for name, one in leaks.items() if _share(one) == most})
    if own.leak or own.applies:
        return own
    arising = {name: one for name, one in members.items() if one.applies}
    unchecked = {name: one for name, one in arising.items() if one.share is None}
    return _said(unchecked or arising) if arising else own


def _said(members: Mapping[str, Finding]) -> Finding:
    """The answer that these members have in common, in the words of each."""
    first = next(iter(members.values()))
    text = "; ".join(f"member {name}: {one.text}" for name, one in members.items())
    return Finding(first.name, text, first.share, first.leak)


def _share(finding: Finding) -> float:
    return 0.0 if finding.share is None else finding.share
