"""The options --corpus, --split and --fold of `ser-bench import` and `ser-bench export-split`, as overrides."""

from __future__ import annotations

from collections.abc import Sequence

from ser_bench.errors import ConfigError

ALL_FOLDS = "all"
"""Value of --fold for every fold of the protocol."""


def with_options(
    overrides: Sequence[str], corpus: str | None, split: str | None, fold: str | None
) -> tuple[list[str], bool]:
    """Return overrides that compose corpus and split, and whether all folds are meant.

    The options are short forms: `--corpus cremad` is `corpus=cremad`, `--split loso` is `split=loso`, `--fold 2` is
    `split.fold=2`. Further keys (`corpus.root`, `split.folds`, `tracking.dir` …) are overrides. No experiment is
    composed, and training rows are not augmented, except under split=paper, which splits augmented rows.

    Args:
        overrides: as typed.
        corpus: value of --corpus, or None.
        split: value of --split, or None.
        fold: value of --fold: a number, "all", or None.

    Raises:
        ConfigError: an option and an override contradict each other, no corpus is named, the fold is no number, or an
            override is about the model.
    """
    words = list(overrides)
    given = {word.partition("=")[0].lstrip("+"): word.partition("=")[2] for word in words}
    about_model = [word for word in words if word.startswith("model")]
    if about_model:
        raise ConfigError(f"{about_model[0]}: this command trains no model; leave it out")
    if fold is not None and fold != ALL_FOLDS and not fold.isdecimal():
        raise ConfigError(f"--fold {fold}: give a number from 0, or {ALL_FOLDS}")
    number = None if fold == ALL_FOLDS else fold
    for option, key, value in (("corpus", "corpus", corpus), ("split", "split", split), ("fold", "split.fold", number)):
        if value is None:
            continue
        if given.get(key, value) != value:
            raise ConfigError(f"--{option} {value} and {key}={given[key]} contradict each other; remove one of them")
        if key not in given:
            words.append(f"{key}={value}")
            given[key] = value
    if fold == ALL_FOLDS and "split.fold" in given:
        raise ConfigError(f"--fold {ALL_FOLDS} and split.fold={given['split.fold']} contradict each other; remove one")
    if "corpus" not in given and "corpus.name" not in given:
        raise ConfigError("name the corpus: --corpus NAME, as `ser-bench corpora list` shows it")
    defaults = {"experiment": "none"} | ({} if given.get("split") == "paper" else {"augment": "none"})
    return [*(f"{key}={value}" for key, value in defaults.items() if key not in given), *words], fold == ALL_FOLDS
