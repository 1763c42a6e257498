"""Which rows train, validate and test: the protocols, and the check that a split keeps its promise.

Augmented variants are training rows only, except under `paper`, which shuffles rows after augmentation as the paper
did. Validation rows are taken from training speakers (or sentences, or clips), never from the test part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ser_bench.config import Protocol, SplitConfig
from ser_bench.errors import SplitError
from ser_bench.splits.speaker_lists import SPEAKER_LISTS
from ser_bench.types import CLEAN, Clip, Corpus, Row, Split

log = logging.getLogger(__name__)

LEAKS: dict[Protocol, str] = {
    Protocol.speaker: "nothing known leaks",
    Protocol.loso: "nothing known leaks",
    Protocol.sentence: "speakers leak: every speaker is in training and in test",
    Protocol.speaker_sentence: "nothing known leaks, neither speakers nor sentences",
    Protocol.clip: "speakers leak: every speaker is in training and in test",
    Protocol.paper: "clips AND speakers leak: augmented siblings of test rows are in training",
    Protocol.fixed: "nothing known leaks",
    Protocol.cross_corpus: "nothing known leaks: another corpus is tested",
}
"""What a reader must know before believing a figure, said at the start of every run."""

SPEAKERS_APART = frozenset(
    {Protocol.speaker, Protocol.loso, Protocol.speaker_sentence, Protocol.fixed, Protocol.cross_corpus}
)
"""Protocols under which nobody is heard in two parts."""


@dataclass(frozen=True)
class _Parts:
    """Clips of each part, before they become rows."""

    train: list[Clip]
    val: list[Clip]
    test: list[Clip]


def make(corpus: Corpus, cfg: SplitConfig, variants: Sequence[str]) -> Split:
    """Split a corpus under one protocol; the result depends on the configuration and the clips alone.

    Raises:
        SplitError: the corpus cannot be split so (too few speakers, unknown sentences, no such fold), or the split
            breaks its promise.
    """
    folds = fold_count(corpus, cfg)
    if not 0 <= cfg.fold < folds:
        raise SplitError(f"split.fold={cfg.fold} does not exist: {cfg.protocol.name} has folds 0 to {folds - 1} here")
    if cfg.protocol is Protocol.paper:
        train, test = _paper_rows(corpus, cfg, variants)
        split = Split("paper", cfg.fold, folds, train, (), test)
    else:
        parts = _MAKERS[cfg.protocol](corpus, cfg, folds)
        train = tuple(Row(clip.id, variant) for clip in parts.train for variant in variants)
        split = Split(cfg.protocol.name, cfg.fold, folds, train, _clean(parts.val), _clean(parts.test))
    check(split, corpus)
    if cfg.protocol is Protocol.loso and cfg.fold == 0:
        log.info("loso has one fold a speaker; all of them: -m 'split.fold=range(%d)'", folds)
    return split


def fold_count(corpus: Corpus, cfg: SplitConfig) -> int:
    """How many folds the protocol has on this corpus."""
    if cfg.protocol is Protocol.loso:
        return len({clip.speaker for clip in corpus.clips})
    return 1 if cfg.protocol is Protocol.cross_corpus else cfg.folds


def check(split: Split, corpus: Corpus) -> None:
    """Raise where a split breaks the promise of its protocol.

    Raises:
        SplitError: a row in two parts, a variant outside training, a shared clip, speaker, sentence or corpus, an
            empty part, a clip of the test corpus that is not tested, or a tested emotion that is never trained.
    """
    protocol = Protocol[split.protocol]
    clips = corpus.by_id
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    for name in ("training", "test"):
        if not parts[name]:
            raise SplitError(f"the {name} part of {split.protocol} fold {split.fold} is empty")
    _disjoint(split, parts, lambda row: f"row {row.clip_id}/{row.variant}")
    if protocol is not Protocol.paper:
        _disjoint(split, parts, lambda row: f"clip {row.clip_id}")
        for row in (*split.val, *split.test):
            if row.variant != CLEAN:
                raise SplitError(f"{split.protocol}: augmented row {row.clip_id}/{row.variant} is outside training")
    if protocol in SPEAKERS_APART:
        _disjoint(split, parts, lambda row: f"speaker {clips[row.clip_id].speaker}")
    if protocol in (Protocol.sentence, Protocol.speaker_sentence):
        train_test = {"training": split.train, "test": split.test}
        _disjoint(split, train_test, lambda row: f"sentence {clips[row.clip_id].sentence}")
    if protocol is Protocol.cross_corpus:
        _corpora_apart(split, clips)
    if protocol is Protocol.loso and len({clips[row.clip_id].speaker for row in split.test}) != 1:
        raise SplitError("loso tests exactly one speaker a fold")
    untrained = {clips[r.clip_id].emotion for r in split.test} - {clips[r.clip_id].emotion for r in split.train}
    if untrained:
        raise SplitError(
            f"{split.protocol} fold {split.fold} tests emotions without training rows: {sorted(untrained)}"
        )


def _disjoint(split: Split, parts: dict[str, tuple[Row, ...]], what: Callable[[Row], str]) -> None:
    """Raise where the same thing is in two parts, or a row twice in one."""
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        if len(set(rows)) != len(rows):
            raise SplitError(f"{split.protocol}: a row stands twice in the {part} part")
        for thing in {what(row) for row in rows}:
            if thing in seen:
                raise SplitError(f"{split.protocol} fold {split.fold}: {thing} is in {seen[thing]} and in {part}")
            seen[thing] = part


def _corpora_apart(split: Split, clips: Mapping[str, Clip]) -> None:
    """Raise where a corpus is on both sides, or where a clip of the test corpus is not tested."""
    sides = {"training or validation": (*split.train, *split.val), "test": split.test}
    _disjoint(split, sides, lambda row: f"corpus {clips[row.clip_id].corpus}")
    tested = {row.clip_id for row in split.test}
    corpora = {clips[clip_id].corpus for clip_id in tested}
    missing = [clip.id for clip in clips.values() if clip.corpus in corpora and clip.id not in tested]
    if missing:
        raise SplitError(f"cross_corpus tests a corpus whole, and {len(missing)} of its clips ({missing[0]} …) are not")


def _speaker(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    held = _fold_members(_speakers(corpus), folds, cfg, "speakers")
    return _by_speaker(corpus, cfg, held)


def _loso(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    if folds < 2:
        raise SplitError(f"loso needs at least two speakers and {corpus.name} has {folds}; try split=clip")
    return _by_speaker(corpus, cfg, {sorted(_speakers(corpus))[cfg.fold]})


def _by_speaker(corpus: Corpus, cfg: SplitConfig, test: set[str]) -> _Parts:
    val = _take_fraction([s for s in sorted(_speakers(corpus)) if s not in test], cfg)
    return _parts(corpus.clips, lambda c: "test" if c.speaker in test else "val" if c.speaker in val else "train")


def _sentence(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    test = _fold_members(_sentences(corpus), folds, cfg, "sentences")
    val = _take_fraction([s for s in sorted(_sentences(corpus)) if s not in test], cfg)
    return _parts(corpus.clips, lambda c: "test" if c.sentence in test else "val" if c.sentence in val else "train")


def _speaker_sentence(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    """Fold i tests speaker fold i on sentence fold i; clips that share one of the two with a test clip are left out."""
    speakers = _fold_members(_speakers(corpus), folds, cfg, "speakers")
    sentences = _fold_members(_sentences(corpus), folds, cfg, "sentences")
    val = _take_fraction([s for s in sorted(_speakers(corpus)) if s not in speakers], cfg)

    def part(clip: Clip) -> str:
        if (clip.speaker in speakers) != (clip.sentence in sentences):
            return "left out"
        return "test" if clip.speaker in speakers else "val" if clip.speaker in val else "train"

    return _parts(corpus.clips, part)


def _clip(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    emotions = {clip.id: clip.emotion for clip in corpus.clips}
    test = _fold_members(emotions, folds, cfg, "clips")
    rest = [clip_id for clip_id in sorted(emotions) if clip_id not in test]
    val: set[str] = set()
    if cfg.val_fraction > 0:
        from sklearn.model_selection import train_test_split

        labels = [emotions[clip_id] for clip_id in rest]
        _, held = train_test_split(rest, test_size=cfg.val_fraction, stratify=labels, random_state=cfg.seed)
        val = set(held)
    return _parts(corpus.clips, lambda c: "test" if c.id in test else "val" if c.id in val else "train")


def _fixed(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    known = {name: item for name, item in SPEAKER_LISTS.items() if item.corpus == corpus.name}
    if cfg.list not in known:
        raise SplitError(f"split.list={cfg.list} is not known for {corpus.name}; known: {', '.join(known) or 'none'}")
    chosen = known[cfg.list]
    unlisted = set(_speakers(corpus)) - chosen.train - chosen.val - chosen.test
    if unlisted:
        raise SplitError(f"split.list={cfg.list} does not say where these speakers belong: {sorted(unlisted)}")
    return _parts(
        corpus.clips,
        lambda c: "test" if c.speaker in chosen.test else "val" if c.speaker in chosen.val else "train",
    )


def _cross_corpus(corpus: Corpus, cfg: SplitConfig, _folds: int) -> _Parts:
    """Every clip of the test corpus is tested; validation speakers are of the training corpus."""
    val = _take_fraction(sorted({c.speaker for c in corpus.clips if c.corpus != cfg.test_corpus}), cfg)
    return _parts(
        corpus.clips, lambda c: "test" if c.corpus == cfg.test_corpus else "val" if c.speaker in val else "train"
    )


_MAKERS: dict[Protocol, Callable[[Corpus, SplitConfig, int], _Parts]] = {
    Protocol.speaker: _speaker,
    Protocol.loso: _loso,
    Protocol.sentence: _sentence,
    Protocol.speaker_sentence: _speaker_sentence,
    Protocol.clip: _clip,
    Protocol.fixed: _fixed,
    Protocol.cross_corpus: _cross_corpus,
}


def _paper_rows(corpus: Corpus, cfg: SplitConfig, variants: Sequence[str]) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """All rows shuffled, `test_fraction` of them tested (rounded up, as scikit-learn does): the leak itself."""
    from sklearn.model_selection import train_test_split

    rows = [Row(clip.id, variant) for clip in corpus.clips for variant in variants]
    train, test = train_test_split(np.arange(len(rows)), test_size=cfg.test_fraction, random_state=cfg.seed)
    return tuple(rows[i] for i in train), tuple(rows[i] for i in test)


def _speakers(corpus: Corpus) -> dict[str, str]:
    """Speaker → sex ("" where not known)."""
    return {clip.speaker: clip.sex for clip in corpus.clips}


def _sentences(corpus: Corpus) -> dict[str, str]:
    """Sentence → "" (nothing to balance by)."""
    unknown = [clip.id for clip in corpus.clips if not clip.sentence]
    if unknown:
        raise SplitError(
            f"{corpus.name}: {len(unknown)} clips have no known sentence ({unknown[0]} …); choose split=speaker or clip"
        )
    return {clip.sentence: "" for clip in corpus.clips}


def _fold_members(strata: dict[str, str], folds: int, cfg: SplitConfig, what: str) -> set[str]:
    """Names in test fold `cfg.fold`, each stratum (sex, emotion) spread evenly over the folds."""
    from sklearn.model_selection import StratifiedKFold

    names = sorted(strata)
    if folds < 2 or len(names) < folds:
        raise SplitError(
            f"{folds} folds cannot be made of {len(names)} {what}; set split.folds to a number from 2 to {len(names)}"
        )
    counts = {stratum: list(strata.values()).count(stratum) for stratum in strata.values()}
    balanced = [strata[name] if min(counts.values()) >= folds else "" for name in names]
    splitter = StratifiedKFold(folds, shuffle=True, random_state=cfg.seed)
    _, test = list(splitter.split(names, balanced))[cfg.fold]
    return {names[i] for i in test}


def _take_fraction(names: Sequence[str], cfg: SplitConfig) -> set[str]:
    """A seeded `val_fraction` of the names: at least one where there are three, none where the fraction is 0."""
    if cfg.val_fraction <= 0 or len(names) < 3:
        return set()
    count = max(1, round(cfg.val_fraction * len(names)))
    chosen = np.random.default_rng([cfg.seed, cfg.fold]).permutation(len(names))[:count]
    return {names[i] for i in chosen}


def _parts(clips: Iterable[Clip], part: Callable[[Clip], str]) -> _Parts:
    by_part: dict[str, list[Clip]] = {"train": [], "val": [], "test": [], "left out": []}
    for clip in clips:
        by_part[part(clip)].append(clip)
    return _Parts(by_part["train"], by_part["val"], by_part["test"])


def _clean(clips: Sequence[Clip]) -> tuple[Row, ...]:
    return tuple(Row(clip.id) for clip in clips)
