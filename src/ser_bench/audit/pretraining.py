"""Was a pretrained checkpoint trained on the corpus that it is tested on?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ser_bench.audit.finding import PRETRAINING, Finding


def check_pretraining(trained_on: Mapping[str, Sequence[str] | None], tested: Collection[str]) -> Finding:
    """Return a leak if a checkpoint was trained on a tested corpus; not checked if what it was trained on is not known.

    Only the names of corpora are compared: a corpus may contain recordings of another one.

    Args:
        trained_on: name of a checkpoint → names of the corpora that it was trained on; None if they are not known.
        tested: names of the corpora of the test rows.
    """
    stated = {name: {corpus.lower() for corpus in of} for name, of in trained_on.items() if of is not None}
    both = {name: sorted(of & {corpus.lower() for corpus in tested}) for name, of in stated.items()}
    leaks = [f"{name} was trained on {', '.join(shared)}" for name, shared in both.items() if shared]
    if leaks:
        return Finding(PRETRAINING, f"{'; '.join(leaks)}, on which it is tested", 1.0, leak=True)
    unknown = [name for name, of in trained_on.items() if of is None]
    if unknown:
        text = f"not checked: what {', '.join(unknown)} was trained on is not known; model.trained_on states it"
        return Finding(PRETRAINING, text)
    of_all = [f"{name}: {', '.join(sorted(of)) or 'no corpus of emotions'}" for name, of in stated.items()]
    return Finding(PRETRAINING, f"as stated, no tested corpus ({'; '.join(of_all)})", 0.0)
