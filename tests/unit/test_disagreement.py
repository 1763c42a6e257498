"""How often each predictor was right where several of them disagreed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from ser_bench.errors import NotComparableError
from ser_bench.types import Predictions, Row
from ser_bench.webpage.disagreement import MIN_ROWS, Disagreements, PredictorTest

LABELS = ("angry", "happy", "sad")


def run(
    name: str, predicted: Sequence[str], truth: Sequence[str], partition: str = "p", first: int = 0
) -> PredictorTest:
    n = len(predicted)
    probabilities = np.full((n, 3), 1 / 3, np.float32)
    for i, label in enumerate(predicted):
        if label:
            probabilities[i] = np.eye(3)[LABELS.index(label)]
    return PredictorTest(
        name,
        partition,
        Predictions(
            rows=tuple(Row(str(first + i)) for i in range(n)),
            truth=tuple(truth),
            labels=LABELS,
            probabilities=probabilities,
            abstained=np.array([not label for label in predicted]),
            latency_s=np.zeros(n, np.float32),
            cost_usd=np.zeros(n, np.float32),
        ),
    )


def test_shares_of_all_disagreements_count_by_hand() -> None:
    truth = ["angry", "angry", "happy", "sad", "sad"]
    first = run("a", ["angry", "angry", "sad", "sad", "happy"], truth)
    second = run("b", ["angry", "happy", "happy", "", "angry"], truth)  # differs from a on the last four
    shares = Disagreements([first, second]).all()
    assert (shares.rows, shares.of_rows) == (4, 5)
    assert dict(shares.right) == {"a": 2, "b": 1}
    assert shares.share("a") == 0.5 and not shares.same_labels


def test_only_common_rows_count_and_their_order_does_not_matter() -> None:
    truth = ["angry"] * 4
    first = run("a", ["angry", "angry", "happy", "sad"], truth)
    second = run("b", ["sad", "angry", "angry"], truth[:3], first=2)  # rows 2, 3 and 4
    shares = Disagreements([first, second]).all()
    assert (shares.rows, shares.of_rows, dict(shares.right)) == (2, 2, {"a": 0, "b": 1})


@pytest.mark.parametrize(("same", "is_used"), [(MIN_ROWS, True), (MIN_ROWS - 1, False)])
def test_rows_with_the_same_labels_are_preferred_if_there_are_enough(same: int, is_used: bool) -> None:
    truth = ["angry"] * same + ["happy"] * 3
    first = run("a", ["angry"] * same + ["happy"] * 3, truth)
    second = run("b", ["sad"] * same + ["angry"] * 3, truth)
    shares = Disagreements([first, second]).like(["angry", "sad"])
    assert shares.same_labels is is_used
    assert shares.rows == (same if is_used else same + 3)
    swapped = Disagreements([first, second]).like(["sad", "angry"])  # a said sad: never on these rows
    assert not swapped.same_labels and swapped.rows == same + 3


def test_predictors_that_never_disagree_have_no_share() -> None:
    shares = Disagreements([run("a", ["sad"], ["sad"]), run("b", ["sad"], ["sad"])]).all()
    assert shares.rows == 0 and math.isnan(shares.share("a"))


def test_runs_of_different_splits_and_labels_are_refused() -> None:
    with pytest.raises(NotComparableError, match="b and a were tested on different splits"):
        Disagreements([run("a", ["sad"], ["sad"]), run("b", ["sad"], ["sad"], partition="q")])
    other = run("b", ["sad"], ["sad"])
    vars(other.predictions)["labels"] = ("angry", "happy", "calm")
    with pytest.raises(NotComparableError, match="different labels"):
        Disagreements([run("a", ["sad"], ["sad"]), other])
