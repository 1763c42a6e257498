"""The overrides that compose a stored run's configuration again."""

from __future__ import annotations

import pytest

from ser_bench.config import compose, to_plain
from ser_bench.config.repetition import repeating_overrides

RUNS = (
    [],
    ["model=cnn_text", "trainer.max_epochs=6", "split.fold=1", "seed=3"],
    ["experiment=none", "corpus=cremad", 'corpus.root="/data/a b,(c)=ü"', "model=whisper_probe", "head=svm"],
    ["experiment=crnn", "corpus.root=AudioWAV", "trainer.patience=null"],
    ["experiment=none", "corpus=emodb", "split=loso", "model=egemaps", "adapt=speaker_stats", "adapt.enrol=5"],
    ["experiment=none", "corpus=table", "corpus.root=clips.csv", "model=fusion", "model.members=[cnn,crnn]"],
    ["experiment=paper", "size=quarter", "model=llm", "llm=gpt4o", "llm.limit=200", "shuffle_labels=true"],
    ["experiment=none", "split=cross_corpus", "corpus=ravdess", "split.test_corpus=emodb", "split.test_root=x"],
)


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_they_compose_the_same_configuration(words: list[str]) -> None:
    cfg = compose(words)
    again = repeating_overrides(cfg)
    composed, original = to_plain(compose(again)), to_plain(cfg)
    for plain in (composed, original):
        plain.pop("experiment_name")
        plain["tracking"].pop("experiment")
    assert composed == original
    assert len(again) <= max(len(words), 1) + 3, again


def test_they_are_short() -> None:
    assert repeating_overrides(compose(["model=majority", "split.fold=1"])) == [
        "experiment=demo", "model=majority", "split.fold=1",
    ]  # fmt: skip
