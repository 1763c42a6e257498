"""Loading of the corpus of a run: one corpus, or a training and a test corpus under `split=cross_corpus`.

Loading a corpus finds its files, reads the fields of each clip by the data sheet, checks the audio, and selects the
clips with the labels of the run.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ser_bench import __version__, config
from ser_bench.audio import AudioInfo
from ser_bench.cache import Cache
from ser_bench.config import Config, CorpusConfig, LabelSet, OnBadClip, Protocol, Target
from ser_bench.corpora import audio_files, labels
from ser_bench.corpora.audio_files import default_root, level_warnings, search_folder, some
from ser_bench.corpora.data_sheet import ClipListing, DataSheet, Fields
from ser_bench.corpora.intensity_levels import label_by_intensity
from ser_bench.corpora.listener_votes import label_by_plurality, votes_of
from ser_bench.corpora.names import existing_form, find_alike, nfc
from ser_bench.corpora.sheets import sheet_of
from ser_bench.errors import BadClipError, ConfigError, CorpusError
from ser_bench.types import Clip, Corpus

MIN_SHARED_LABELS = 2
"""Smallest number of labels that two corpora must share: a single label cannot be classified."""


def load(cfg: Config) -> Corpus:
    """Load the corpus of a run.

    `Corpus.warnings` lists, with counts, what is missing from this copy, silent clips, and clips that the label set
    leaves out. `Corpus.skipped` lists the files that `on_bad_clip=skip` leaves out.

    Raises:
        CorpusError: if the folder does not exist or contains no audio, if a clip occurs twice, or if a label has no
            clip; for two corpora also if they share a recording or fewer than two labels.
        BadClipError: if a file cannot be used or its name cannot be parsed, unless `on_bad_clip=skip`.
        ConfigError: if the corpus is unknown; if `split.test_corpus` is missing, equal to `corpus`, or set under
            another protocol.
    """
    return replace(_load(cfg), scored=cfg.split.scored.value)


def _load(cfg: Config) -> Corpus:
    test = cfg.split.test_corpus
    if cfg.split.protocol is not Protocol.cross_corpus:
        if test is not None:
            raise ConfigError(
                f"split.test_corpus={test} has no effect under split={cfg.split.protocol.name}; remove it, "
                "or add split=cross_corpus"
            )
        return load_one(cfg)
    if test is None:
        raise ConfigError(
            "split=cross_corpus needs a test corpus; set split.test_corpus, for example split.test_corpus=emodb "
            "(and split.test_root=FOLDER if you have a copy)"
        )
    if test == cfg.corpus.name:
        raise ConfigError(
            f"split.test_corpus={test} is also the training corpus; choose another one, or use split=speaker"
        )
    if cfg.corpus.target is not Target.intended:
        raise ConfigError(
            f"corpus.target={cfg.corpus.target.value} cannot be combined with split=cross_corpus, which has two "
            "corpora; remove one of them"
        )
    return merge(load_one(cfg), _load_test_corpus(cfg, test))


def load_one(cfg: Config) -> Corpus:
    """Load the corpus that the configuration group `corpus` selects; see `load` for warnings and errors."""
    sheet = sheet_of(cfg.corpus.name, cfg.corpus.root)
    root = root_of(cfg)
    skip = cfg.on_bad_clip is OnBadClip.skip
    if sheet.read_database is not None:
        listing = sheet.read_database(root, cfg.corpus)
    else:
        listing = _list_table(sheet, root) if sheet.read_table is not None else list_files(sheet, root)
    if listing.refused and not skip:
        raise BadClipError(f"{next(iter(listing.refused.values()))} (on_bad_clip=skip leaves out and lists such files)")
    wanted = labels.choose(sheet.labels or [fields.emotion for _, fields in listing.clips], cfg.corpus.labels)
    chosen = [(path, fields) for path, fields in listing.clips if fields.emotion in wanted]
    label_set, target_warnings = wanted, []
    if cfg.corpus.target is Target.intensity:
        chosen, wanted, summary = label_by_intensity(sheet, chosen)
        target_warnings = [summary]
    cache = Cache(config.cache_dir(cfg) / "index")
    infos, bad = audio_files.probe_all([path for path, _ in chosen], root, cfg.corpus.max_duration_s, cache, skip)
    clips = _clips(sheet, root, [(path, fields) for path, fields in chosen if path in infos], infos)
    if cfg.corpus.target is Target.votes:
        labelled, summary = label_by_plurality(clips, votes_of(sheet, root), wanted, sheet.name)
        clips, target_warnings = tuple(labelled), [summary]
    present, label_warnings = _labels_with_clips(sheet, root, wanted, clips, skip)
    warnings = [
        *_missing_warnings(sheet, listing),
        *_label_set_warnings(sheet, listing, label_set, cfg.corpus.labels),
        *label_warnings,
        *target_warnings,
        *_content_warnings(sheet, clips, infos),
    ]
    return Corpus(
        name=sheet.name,
        clips=clips,
        labels=present,
        language=cfg.corpus.language,
        synthetic=sheet.synthetic,
        skipped={str(path): reason for path, reason in sorted({**listing.refused, **bad}.items())},
        warnings=tuple(warnings),
        target=cfg.corpus.target.value,
    )


def root_of(cfg: Config) -> Path:
    """Return the folder (or CSV file) of the corpus. A synthetic corpus is generated if it is not complete.

    Raises:
        CorpusError: if the corpus cannot be generated.
        ConfigError: if the corpus is unknown.
    """
    if cfg.corpus.root is not None:
        return existing_form(Path(cfg.corpus.root).expanduser())
    root = default_root(cfg.corpus.name, config.cache_dir(cfg))
    generate = sheet_of(cfg.corpus.name).generate
    if generate is None:
        return root
    root = root / f"{cfg.corpus.clips}-clips-seed-{cfg.corpus.seed}-version-{__version__}"
    generate(root, cfg.corpus.clips, cfg.corpus.seed)
    return root


def list_files(sheet: DataSheet, root: Path) -> ClipListing:
    """List the audio files below a folder, with the fields in their names.

    Raises:
        CorpusError: if the folder does not exist or contains no audio, or if a clip occurs twice.
    """
    if not root.is_dir():
        raise CorpusError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {_how_to_get(sheet)}")
    search = search_folder(root)
    listing = ClipListing(warnings=search.warnings(sheet.name))
    for path in search.audio:
        try:
            fields = sheet.parse(nfc(path.stem))
        except ValueError:
            listing.refused[path] = f"{path}: not a file name of {sheet.name} ({sheet.naming})"
            continue
        if fields is None:
            listing.other += 1
        else:
            listing.clips.append((path, fields))
    if not listing.clips and not listing.refused:
        raise CorpusError(
            f"{root}: no audio of {sheet.name} in this folder; {search.explanation()}; {_how_to_get(sheet)}"
        )
    _check_unique(listing.clips)
    return listing


def merge(train: Corpus, test: Corpus) -> Corpus:
    """Merge a training and a test corpus, over the labels that both have.

    Ids, speakers and sentences get the name of their corpus as a prefix ("emodb:03a01Wa"), so that equal codes of two
    corpora remain distinct. Clips with a label that only one corpus has are left out; the warnings give their number.

    Args:
        train: the training corpus; the first in the name ("ravdess-emodb") and in the languages.
        test: the test corpus.

    Returns:
        A corpus with clips sorted by id and labels in canonical order. `language` has both languages, separated by a
        space ("en de"), if they differ.

    Raises:
        CorpusError: if the corpora share fewer than two labels, or a recording (equal content of the file).
    """
    shared = labels.ordered(set(train.labels) & set(test.labels))
    if len(shared) < MIN_SHARED_LABELS:
        raise CorpusError(
            f"{train.name} ({', '.join(train.labels)}) and {test.name} ({', '.join(test.labels)}) share "
            f"{len(shared)} labels, {MIN_SHARED_LABELS} are needed; choose another split.test_corpus"
        )
    _check_no_shared_recording(train, test)
    clips = [_prefixed(clip, corpus) for corpus in (train, test) for clip in corpus.clips if clip.emotion in shared]
    return Corpus(
        name=f"{train.name}-{test.name}",
        clips=tuple(sorted(clips, key=lambda clip: clip.id)),
        labels=shared,
        language=" ".join(dict.fromkeys((train.language, test.language))),
        synthetic=train.synthetic or test.synthetic,
        skipped={**train.skipped, **test.skipped},
        warnings=(
            *train.warnings,
            *test.warnings,
            *_unshared_label_warnings(train, test, shared),
            *_unshared_label_warnings(test, train, shared),
        ),
    )


def _load_test_corpus(cfg: Config, name: str) -> Corpus:
    corpus = CorpusConfig(
        name=name,
        root=cfg.split.test_root,
        labels=cfg.corpus.labels,
        language=cfg.split.test_language or sheet_of(name, cfg.split.test_root).language,
        max_duration_s=cfg.corpus.max_duration_s,
    )
    try:
        return load_one(replace(cfg, corpus=corpus))
    except CorpusError as error:  # the message names the configuration key of the training corpus
        raise type(error)(str(error).replace("corpus.root", "split.test_root")) from error


def _prefixed(clip: Clip, corpus: Corpus) -> Clip:
    return replace(
        clip,
        id=f"{corpus.name}:{clip.id}",
        speaker=f"{corpus.name}:{clip.speaker}",
        sentence=f"{corpus.name}:{clip.sentence}" if clip.sentence else "",
        corpus=corpus.name,
        language=corpus.language,
    )


def _check_no_shared_recording(train: Corpus, test: Corpus) -> None:
    training_clips = {clip.digest: clip for clip in train.clips if clip.digest}
    pairs = [(training_clips[clip.digest], clip) for clip in test.clips if clip.digest in training_clips]
    if pairs:
        training_clip, test_clip = pairs[0]
        raise CorpusError(
            f"{training_clip.path} ({train.name}) and {test_clip.path} ({test.name}) are the same recording "
            f"({len(pairs):,} pairs of files have equal content); choose another split.test_corpus"
        )


def _list_table(sheet: DataSheet, table: Path) -> ClipListing:
    """List the clips of the table that the user gives as `corpus.root`."""
    assert sheet.read_table is not None
    clips, refused = sheet.read_table(table)
    if not clips and not refused:
        raise CorpusError(f"{table}: lists no clips; write one line per clip below the header")
    return ClipListing(clips=clips, refused={line: f"{table} {reason}" for line, reason in refused.items()})


def _check_unique(clips: Sequence[tuple[Path, Fields]]) -> None:
    """Raise CorpusError if two files contain the same clip (equal ids)."""
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path, fields in clips:
        by_id[fields.id].append(path)
    duplicates = [paths for paths in by_id.values() if len(paths) > 1]
    if duplicates:
        first, second = duplicates[0][:2]
        raise CorpusError(
            f"{first} and {second} are the same clip twice ({len(duplicates):,} such clips); "
            "point corpus.root at a folder that contains each clip once"
        )


def _how_to_get(sheet: DataSheet) -> str:
    if sheet.generate is not None:
        return "set corpus.root=FOLDER to a copy, or leave it out to generate the corpus"
    return sheet.how_to_get


def _clips(
    sheet: DataSheet, root: Path, chosen: Sequence[tuple[Path, Fields]], infos: Mapping[Path, AudioInfo]
) -> tuple[Clip, ...]:
    """Return the clips sorted by id."""
    sexes = sheet.sexes(root)
    clips = [
        Clip(
            id=fields.id,
            path=path,
            emotion=fields.emotion,
            speaker=fields.speaker,
            sentence=fields.sentence,
            text=fields.text,
            intensity=fields.intensity,
            sex=fields.sex or sexes.get(fields.speaker, ""),
            duration_s=infos[path].duration_s,
            digest=infos[path].digest,
            part=fields.part,
        )
        for path, fields in chosen
    ]
    return tuple(sorted(clips, key=lambda clip: clip.id))


def _labels_with_clips(
    sheet: DataSheet, root: Path, wanted: Sequence[str], clips: Sequence[Clip], skip: bool
) -> tuple[tuple[str, ...], list[str]]:
    """Return the labels that have clips, and a warning if some have none."""
    present = {clip.emotion for clip in clips}
    absent = [label for label in wanted if label not in present]
    if not present:
        raise CorpusError(f"{root}: no usable clip with one of the labels {', '.join(wanted)}")
    if absent and not skip:
        raise CorpusError(
            f"{root}: no clip has the label {' or '.join(absent)}; complete the corpus, or set on_bad_clip=skip "
            "to leave out these labels"
        )
    warning = [f"{sheet.name}: no clip has the label {' or '.join(absent)}; the label is left out"] if absent else []
    return tuple(label for label in wanted if label in present), warning


def _missing_warnings(sheet: DataSheet, listing: ClipListing) -> list[str]:
    speakers = len({fields.speaker for _, fields in listing.clips})
    lines = []
    if sheet.clips and not sheet.synthetic and len(listing.clips) != sheet.clips:
        lines.append(
            f"{sheet.name}: this copy has {len(listing.clips):,} of {sheet.clips:,} clips and "
            f"{speakers} of {sheet.speakers} speakers"
        )
    if listing.other:
        lines.append(f"{sheet.name}: {listing.other:,} files that are not speech clips (songs, videos) are left out")
    return lines + listing.warnings


def _label_set_warnings(
    sheet: DataSheet, listing: ClipListing, wanted: Sequence[str], label_set: LabelSet
) -> list[str]:
    excluded = labels.count_excluded((fields.emotion for _, fields in listing.clips), wanted)
    lines = []
    if excluded:
        lines.append(
            f"{sheet.name}: corpus.labels={label_set.name} leaves out {sum(excluded.values()):,} clips "
            f"({_counts(excluded)})"
        )
    other = Counter(fields.emotion for _, fields in listing.clips if fields.emotion not in labels.CANONICAL)
    if other and label_set is LabelSet.native:
        lines.append(f"{sheet.name}: labels that are not canonical: {_counts(dict(sorted(other.items())))}")
    return lines


def _unshared_label_warnings(corpus: Corpus, other: Corpus, shared: tuple[str, ...]) -> list[str]:
    excluded = labels.count_excluded((clip.emotion for clip in corpus.clips), shared)
    if not excluded:
        return []
    return [
        f"{corpus.name}: {sum(excluded.values()):,} clips with labels that {other.name} does not have are left out "
        f"({_counts(excluded)})"
    ]


def _content_warnings(sheet: DataSheet, clips: Sequence[Clip], infos: Mapping[Path, AudioInfo]) -> list[str]:
    """Report silent clips, clips with equal content but different labels or speakers, and sentences that look alike."""
    lines = level_warnings(sheet.name, {clip.id: infos[clip.path] for clip in clips})
    by_content: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_content[clip.digest].append(clip)
    for name, values in (("label", "emotion"), ("speaker", "speaker")):
        contradictory = [group for group in by_content.values() if len({getattr(c, values) for c in group}) > 1]
        if contradictory:
            pairs = some(["=".join(clip.id for clip in group) for group in contradictory])
            lines.append(f"{sheet.name}: {len(contradictory):,} recordings have more than one {name}: {pairs}")
    alike = find_alike(clip.sentence for clip in clips)
    if alike is not None:
        lines.append(
            f"{sheet.name}: the sentences {alike[0]!r} and {alike[1]!r} look like one but count as two under "
            "split=sentence; there may be more"
        )
    return lines


def _counts(by_label: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {label}" for label, count in by_label.items())
