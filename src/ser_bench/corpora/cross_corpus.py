"""The corpus of a run: one, or, under `split=cross_corpus`, the training corpus and the test corpus as one."""

from __future__ import annotations

from dataclasses import replace

from ser_bench.config import Config, CorpusConfig, Protocol, Target
from ser_bench.corpora import labels, reader
from ser_bench.corpora.catalogue import sheet_of
from ser_bench.errors import ConfigError, CorpusError
from ser_bench.types import Clip, Corpus

FEWEST_LABELS = 2
"""With one shared label there is nothing to tell apart."""


def load(cfg: Config) -> Corpus:
    """The corpus of a run; see `reader.load` for one corpus and `merge` for two.

    Raises:
        CorpusError: no such folder, no audio in it, one clip twice, or a label without a clip; two corpora that share
            recordings, or fewer than two labels.
        BadClipError: a file that cannot be used, or a name that does not parse, unless `on_bad_clip=skip`.
        ConfigError: an unknown corpus; `split.test_corpus` missing, equal to `corpus`, or given to another protocol.
    """
    test = cfg.split.test_corpus
    if cfg.split.protocol is not Protocol.cross_corpus:
        if test is not None:
            raise ConfigError(f"split.test_corpus={test} means nothing to this protocol; add split=cross_corpus")
        return reader.load(cfg)
    if test is None:
        raise ConfigError(
            "split=cross_corpus tests another corpus, and none is named: split.test_corpus=emodb "
            "(split.test_root=FOLDER where you have a copy)"
        )
    if test == cfg.corpus.name:
        raise ConfigError(f"split.test_corpus={test} is the corpus that is trained on; name another, or split=speaker")
    if cfg.corpus.target is not Target.intended:
        raise ConfigError("corpus.target=votes is of one corpus; split=cross_corpus has two: leave it out")
    return merge(reader.load(cfg), _load_test(cfg, test))


def merge(train: Corpus, test: Corpus) -> Corpus:
    """Two corpora as one, over the labels that both have.

    Ids, speakers and sentences are prefixed by their corpus ("emodb:03a01Wa"), so that equal codes of two corpora
    never pass for the same thing. Clips with a label of one corpus alone are left out, with a count in the warnings.

    Args:
        train: the corpus that is trained on; it stands first in the name ("ravdess-emodb") and in the languages.
        test: the corpus that is tested.

    Returns:
        Clips by id; labels in canonical order; `language` of both, or "en de" where they differ.

    Raises:
        CorpusError: fewer than two shared labels, or a recording that is in both, byte for byte.
    """
    shared = labels.ordered(set(train.labels) & set(test.labels))
    if len(shared) < FEWEST_LABELS:
        raise CorpusError(
            f"{train.name} ({', '.join(train.labels)}) and {test.name} ({', '.join(test.labels)}) share "
            f"{len(shared)} labels: choose another split.test_corpus"
        )
    _refuse_shared_recordings(train, test)
    clips = [_named(clip, one) for one in (train, test) for clip in one.clips if clip.emotion in shared]
    return Corpus(
        name=f"{train.name}-{test.name}",
        clips=tuple(sorted(clips, key=lambda clip: clip.id)),
        labels=shared,
        language=" ".join(dict.fromkeys((train.language, test.language))),
        synthetic=train.synthetic or test.synthetic,
        skipped={**train.skipped, **test.skipped},
        warnings=(*train.warnings, *test.warnings, *_left_out(train, test, shared), *_left_out(test, train, shared)),
    )


def _load_test(cfg: Config, name: str) -> Corpus:
    corpus = CorpusConfig(
        name=name,
        root=cfg.split.test_root,
        labels=cfg.corpus.labels,
        language=cfg.split.test_language or sheet_of(name).language,
        max_duration_s=cfg.corpus.max_duration_s,
    )
    try:
        return reader.load(replace(cfg, corpus=corpus))
    except CorpusError as error:  # the reader names the key of the corpus that is trained on
        raise type(error)(str(error).replace("corpus.root", "split.test_root")) from error


def _named(clip: Clip, corpus: Corpus) -> Clip:
    return replace(
        clip,
        id=f"{corpus.name}:{clip.id}",
        speaker=f"{corpus.name}:{clip.speaker}",
        sentence=f"{corpus.name}:{clip.sentence}" if clip.sentence else "",
        corpus=corpus.name,
        language=corpus.language,
    )


def _left_out(corpus: Corpus, other: Corpus, shared: tuple[str, ...]) -> list[str]:
    dropped = labels.left_out((clip.emotion for clip in corpus.clips), shared)
    if not dropped:
        return []
    counts = ", ".join(f"{n:,} {label}" for label, n in dropped.items())
    return [
        f"{corpus.name}: {sum(dropped.values()):,} clips with labels that {other.name} lacks are left out ({counts})"
    ]


def _refuse_shared_recordings(train: Corpus, test: Corpus) -> None:
    trained = {clip.digest: clip for clip in train.clips if clip.digest}
    both = [(trained[clip.digest], clip) for clip in test.clips if clip.digest in trained]
    if both:
        one, other = both[0]
        raise CorpusError(
            f"{one.path} ({train.name}) and {other.path} ({test.name}) are the same recording, byte for byte "
            f"({len(both):,} such clips): test a corpus that shares none"
        )
