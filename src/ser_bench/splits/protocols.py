"""The split protocols: which rows are training, validation and test rows. A check that a split follows its protocol.

Augmented variants are training rows only, except under `paper`, which shuffles the rows after augmentation, as the
paper did. Validation rows come from the training speakers (or sentences, or clips), never from the test rows.

With `split.scored=validation`, options are compared on validation rows: these take the place of the test rows, which
are left out, and other training speakers become the validation speakers. Two predictors that differ in an option, such
as the prompt, can then be compared without a look at a test row.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ser_bench.config import Protocol, ScoredRows, SplitConfig
from ser_bench.errors import SplitError
from ser_bench.splits.speaker_lists import SPEAKER_LISTS
from ser_bench.types import CLEAN, Clip, Corpus, Row, Split

log = logging.getLogger(__name__)

LEAKS: dict[Protocol, str] = {
    Protocol.speaker: "no known leakage",
    Protocol.loso: "no known leakage",
    Protocol.sentence: "speakers leak: every speaker is in training and test",
    Protocol.speaker_sentence: "no known leakage",
    Protocol.clip: "speakers leak: every speaker is in training and test",
    Protocol.paper: "clips and speakers leak: augmented variants of test clips are in training",
    Protocol.fixed: "no known leakage",
    Protocol.cross_corpus: "no known leakage",
}
"""The known leakage of each protocol. It is printed at the start of every run and in reports."""

SPEAKERS_APART = frozenset(
    {Protocol.speaker, Protocol.loso, Protocol.speaker_sentence, Protocol.fixed, Protocol.cross_corpus}
)
"""Protocols under which no speaker is in two parts of a split."""

WITH_VALIDATION_SPEAKERS = (Protocol.speaker, Protocol.fixed)
"""Protocols whose validation rows can be scored in place of the test rows: both are all clips of some speakers."""


OWN_PARTS = "corpus"
"""Value of `split.list` for the parts that the corpus itself states (audformat databases)."""


@dataclass(frozen=True)
class _Parts:
    """Clips of the training, validation and test part."""

    train: list[Clip]
    val: list[Clip]
    test: list[Clip]


def make(corpus: Corpus, cfg: SplitConfig, variants: Sequence[str]) -> Split:
    """Split a corpus under the protocol of `cfg`.

    The result depends on the configuration and the clips only.

    Args:
        corpus: the clips.
        cfg: protocol, fold and seed.
        variants: augmentation variants of the training rows (under `paper`, of all rows).

    Raises:
        SplitError: if the corpus does not allow this split (too few speakers, unknown sentences, no such fold), if it
            has one emotion only, if the split violates its protocol, or if its validation rows cannot be scored.
    """
    _check_emotions(f"{corpus.name}: all clips have", corpus.clips)
    folds = fold_count(corpus, cfg)
    if not 0 <= cfg.fold < folds:
        raise SplitError(f"split.fold={cfg.fold} does not exist: {cfg.protocol.name} has folds 0 to {folds - 1} here")
    if cfg.scored is ScoredRows.validation and cfg.protocol not in WITH_VALIDATION_SPEAKERS:
        raise SplitError(
            f"split.scored=validation is not possible under split={cfg.protocol.name}; use "
            + " or ".join(f"split={protocol.name}" for protocol in WITH_VALIDATION_SPEAKERS)
        )
    if cfg.protocol is Protocol.paper:
        train, test = _paper_rows(corpus, cfg, variants)
        split = Split("paper", cfg.fold, folds, train, (), test)
    else:
        parts = _MAKERS[cfg.protocol](corpus, cfg, folds)
        parts = _with_validation_scored(parts, cfg) if cfg.scored is ScoredRows.validation else parts
        train = tuple(Row(clip.id, variant) for clip in parts.train for variant in variants)
        split = Split(cfg.protocol.name, cfg.fold, folds, train, _clean(parts.val), _clean(parts.test))
    check(split, corpus)
    if cfg.protocol is Protocol.loso and cfg.fold == 0:
        log.info("note     split=loso has one fold per speaker; to run all of them: -m 'split.fold=range(%d)'", folds)
    return split


def fold_count(corpus: Corpus, cfg: SplitConfig) -> int:
    """Return the number of folds of the protocol on this corpus."""
    if cfg.protocol is Protocol.loso:
        return len({clip.speaker for clip in corpus.clips})
    return 1 if cfg.protocol is Protocol.cross_corpus else cfg.folds


def check(split: Split, corpus: Corpus) -> None:
    """Check that a split follows its protocol.

    Raises:
        SplitError: if a part is empty, if a row is in two parts, if an augmented row is outside training, if the parts
            share a clip, speaker, sentence or corpus that they must not share, if `cross_corpus` does not test every
            clip of the test corpus, if a test emotion has no training rows, or if all training rows have one emotion.
    """
    protocol = Protocol[split.protocol]
    clips = corpus.by_id
    parts = {"training": split.train, "validation": split.val, "test": split.test}
    for name in ("training", "test"):
        if not parts[name]:
            raise SplitError(f"the {name} part of {split.protocol} fold {split.fold} is empty")
    _check_disjoint(split, parts, lambda row: f"row {row.clip_id}/{row.variant}")
    if protocol is not Protocol.paper:
        _check_disjoint(split, parts, lambda row: f"clip {row.clip_id}")
        for row in (*split.val, *split.test):
            if row.variant != CLEAN:
                raise SplitError(f"{split.protocol}: augmented row {row.clip_id}/{row.variant} is outside training")
    if protocol in SPEAKERS_APART:
        _check_disjoint(split, parts, lambda row: f"speaker {clips[row.clip_id].speaker}")
    if protocol in (Protocol.sentence, Protocol.speaker_sentence):
        train_test = {"training": split.train, "test": split.test}
        _check_disjoint(split, train_test, lambda row: f"sentence {clips[row.clip_id].sentence}")
    if protocol is Protocol.cross_corpus:
        _check_corpora(split, clips)
    if protocol is Protocol.loso and len({clips[row.clip_id].speaker for row in split.test}) != 1:
        raise SplitError("loso needs exactly one test speaker per fold")
    untrained = {clips[r.clip_id].emotion for r in split.test} - {clips[r.clip_id].emotion for r in split.train}
    if untrained:
        raise SplitError(
            f"{split.protocol} fold {split.fold}: these test emotions have no training rows: {sorted(untrained)}"
        )
    _check_emotions(
        f"{split.protocol} fold {split.fold}: all training rows have", (clips[row.clip_id] for row in split.train)
    )


def _check_emotions(subject: str, clips: Iterable[Clip]) -> None:
    """Raise SplitError if all clips have one emotion: every predictor would be right without learning anything."""
    emotions = {clip.emotion for clip in clips}
    if len(emotions) == 1:
        raise SplitError(f"{subject} the emotion {emotions.pop()!r}; a predictor needs clips of two or more emotions")


def _check_disjoint(split: Split, parts: dict[str, tuple[Row, ...]], unit_of: Callable[[Row], str]) -> None:
    """Raise SplitError if two parts share a unit (row, clip, speaker …), or if a part contains a row twice."""
    part_of: dict[str, str] = {}
    for part, rows in parts.items():
        if len(set(rows)) != len(rows):
            raise SplitError(f"{split.protocol}: the {part} part contains a row twice")
        for unit in {unit_of(row) for row in rows}:
            if unit in part_of:
                raise SplitError(f"{split.protocol} fold {split.fold}: {unit} is in {part_of[unit]} and in {part}")
            part_of[unit] = part


def _check_corpora(split: Split, clips: Mapping[str, Clip]) -> None:
    """Raise SplitError if a corpus is in training and test, or if a clip of the test corpus is not tested."""
    sides = {"training or validation": (*split.train, *split.val), "test": split.test}
    _check_disjoint(split, sides, lambda row: f"corpus {clips[row.clip_id].corpus}")
    tested = {row.clip_id for row in split.test}
    corpora = {clips[clip_id].corpus for clip_id in tested}
    missing = [clip.id for clip in clips.values() if clip.corpus in corpora and clip.id not in tested]
    if missing:
        raise SplitError(
            f"cross_corpus must test every clip of the test corpus; {len(missing)} are missing ({missing[0]} …)"
        )


def _with_validation_scored(parts: _Parts, cfg: SplitConfig) -> _Parts:
    """Return the validation part as the test part, and a new validation part from the training speakers.

    Raises:
        SplitError: if there is no validation part.
    """
    if not parts.val:
        raise SplitError(
            f"split.scored=validation: fold {cfg.fold} has no validation rows; set split.val_fraction above 0, with "
            "three or more training speakers"
        )
    speakers = _take_fraction(sorted({clip.speaker for clip in parts.train}), cfg)
    train = [clip for clip in parts.train if clip.speaker not in speakers]
    return _Parts(train, [clip for clip in parts.train if clip.speaker in speakers], parts.val)


def _speaker(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    return _by_speaker(corpus, cfg, _test_fold(_speakers(corpus), folds, cfg, "speakers"))


def _loso(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    if folds < 2:
        raise SplitError(f"split=loso needs at least two speakers and {corpus.name} has {folds}; try split=clip")
    return _by_speaker(corpus, cfg, {sorted(_speakers(corpus))[cfg.fold]})


def _by_speaker(corpus: Corpus, cfg: SplitConfig, test: set[str]) -> _Parts:
    val = _take_fraction([s for s in sorted(_speakers(corpus)) if s not in test], cfg)
    return _parts(corpus.clips, lambda c: "test" if c.speaker in test else "val" if c.speaker in val else "train")


def _sentence(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    test = _test_fold(_sentences(corpus), folds, cfg, "sentences")
    val = _take_fraction([s for s in sorted(_sentences(corpus)) if s not in test], cfg)
    return _parts(corpus.clips, lambda c: "test" if c.sentence in test else "val" if c.sentence in val else "train")


def _speaker_sentence(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    """Test the speakers of fold i with the sentences of fold i; leave out clips that share only one of the two."""
    speakers = _test_fold(_speakers(corpus), folds, cfg, "speakers")
    sentences = _test_fold(_sentences(corpus), folds, cfg, "sentences")
    val = _take_fraction([s for s in sorted(_speakers(corpus)) if s not in speakers], cfg)

    def part(clip: Clip) -> str:
        if (clip.speaker in speakers) != (clip.sentence in sentences):
            return "left out"
        return "test" if clip.speaker in speakers else "val" if clip.speaker in val else "train"

    return _parts(corpus.clips, part)


def _clip(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    emotions = {clip.id: clip.emotion for clip in corpus.clips}
    test = _test_fold(emotions, folds, cfg, "clips")
    rest = [clip_id for clip_id in sorted(emotions) if clip_id not in test]
    val: set[str] = set()
    if cfg.val_fraction > 0:
        from sklearn.model_selection import train_test_split

        labels = [emotions[clip_id] for clip_id in rest]
        with _sklearn_errors(corpus, "draw validation clips of every emotion", "split.val_fraction=0"):
            _, chosen = train_test_split(rest, test_size=cfg.val_fraction, stratify=labels, random_state=cfg.seed)
        val = set(chosen)
    return _parts(corpus.clips, lambda c: "test" if c.id in test else "val" if c.id in val else "train")


def _fixed(corpus: Corpus, cfg: SplitConfig, folds: int) -> _Parts:
    if cfg.list == OWN_PARTS:
        return _own_parts(corpus)
    choices = {name: item for name, item in SPEAKER_LISTS.items() if item.corpus == corpus.name}
    if cfg.list not in choices:
        raise SplitError(
            f"split.list={cfg.list} does not exist for {corpus.name}; choose one of: {', '.join(choices) or 'none'}"
        )
    chosen = choices[cfg.list]
    unlisted = set(_speakers(corpus)) - chosen.train - chosen.val - chosen.test
    if unlisted:
        raise SplitError(f"split.list={cfg.list} does not contain these speakers of the corpus: {sorted(unlisted)}")
    return _parts(
        corpus.clips,
        lambda c: "test" if c.speaker in chosen.test else "val" if c.speaker in chosen.val else "train",
    )


def _own_parts(corpus: Corpus) -> _Parts:
    """Return the parts that the corpus states; clips without one are left out."""
    parts = _parts(corpus.clips, lambda clip: clip.part or "left out")
    if not parts.train or not parts.test:
        raise SplitError(
            f"split.list={OWN_PARTS}: {corpus.name} states no {'test' if parts.train else 'training'} part; use "
            "split=speaker"
        )
    return parts


def _cross_corpus(corpus: Corpus, cfg: SplitConfig, _folds: int) -> _Parts:
    """Test every clip of the test corpus; take the validation speakers from the training corpus."""
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
    """Shuffle all rows and use `test_fraction` of them (rounded up, as in scikit-learn) as test rows."""
    from sklearn.model_selection import train_test_split

    rows = [Row(clip.id, variant) for clip in corpus.clips for variant in variants]
    with _sklearn_errors(corpus, "draw test rows", "split.test_fraction"):
        train, test = train_test_split(np.arange(len(rows)), test_size=cfg.test_fraction, random_state=cfg.seed)
    return tuple(rows[i] for i in train), tuple(rows[i] for i in test)


@contextlib.contextmanager
def _sklearn_errors(corpus: Corpus, purpose: str, key: str) -> Iterator[None]:
    """Raise SplitError instead of the ValueError of scikit-learn, which knows neither corpus nor key."""
    try:
        yield
    except ValueError as error:
        raise SplitError(
            f"{corpus.name} has too few clips ({len(corpus.clips)}) to {purpose}; change {key} or use more clips "
            f"({error})"
        ) from error


def _speakers(corpus: Corpus) -> dict[str, str]:
    """Return speaker → sex ("" if it is unknown)."""
    return {clip.speaker: clip.sex for clip in corpus.clips}


def _sentences(corpus: Corpus) -> dict[str, str]:
    """Return sentence → "" (folds of sentences are not stratified).

    Raises:
        SplitError: if the sentence of a clip is unknown.
    """
    unknown = [clip.id for clip in corpus.clips if not clip.sentence]
    if unknown:
        raise SplitError(
            f"{corpus.name}: the sentence of {len(unknown)} clips is unknown ({unknown[0]} …); use split=speaker or "
            "split=clip"
        )
    return {clip.sentence: "" for clip in corpus.clips}


def _test_fold(strata: dict[str, str], folds: int, cfg: SplitConfig, units: str) -> set[str]:
    """Return the names in test fold `cfg.fold`.

    Args:
        strata: name → stratum. Each stratum (sex, emotion) is distributed evenly over the folds.
        folds: number of folds.
        cfg: fold and seed.
        units: what the names are ("speakers"), for the error message.

    Raises:
        SplitError: if there are fewer names than folds.
    """
    from sklearn.model_selection import StratifiedKFold

    names = sorted(strata)
    if len(names) < 2:
        raise SplitError(
            f"the corpus has one {units.removesuffix('s')}, {names[0]!r}, and split={cfg.protocol.name} needs two or "
            "more; use more clips, or another split (split=clip is possible with one speaker, who is then in training "
            "and test)"
        )
    if folds < 2 or len(names) < folds:
        raise SplitError(
            f"{len(names)} {units} cannot be split into {folds} folds; set split.folds to a number from 2 to "
            f"{len(names)}"
        )
    counts = {stratum: list(strata.values()).count(stratum) for stratum in strata.values()}
    balanced = [strata[name] if min(counts.values()) >= folds else "" for name in names]
    splitter = StratifiedKFold(folds, shuffle=True, random_state=cfg.seed)
    _, test = list(splitter.split(names, balanced))[cfg.fold]
    return {names[i] for i in test}


def _take_fraction(names: Sequence[str], cfg: SplitConfig) -> set[str]:
    """Draw `val_fraction` of the names, at least one; none if the fraction is 0 or if there are fewer than 3 names."""
    if cfg.val_fraction <= 0 or len(names) < 3:
        return set()
    count = max(1, round(cfg.val_fraction * len(names)))
    chosen = np.random.default_rng([cfg.seed, cfg.fold]).permutation(len(names))[:count]
    return {names[i] for i in chosen}


def _parts(clips: Iterable[Clip], part: Callable[[Clip], str]) -> _Parts:
    """Distribute clips over the parts; `part` returns "train", "val", "test" or "left out"."""
    by_part: dict[str, list[Clip]] = {"train": [], "val": [], "test": [], "left out": []}
    for clip in clips:
        by_part[part(clip)].append(clip)
    return _Parts(by_part["train"], by_part["val"], by_part["test"])


def _clean(clips: Sequence[Clip]) -> tuple[Row, ...]:
    """Return the clean row of each clip."""
    return tuple(Row(clip.id) for clip in clips)
