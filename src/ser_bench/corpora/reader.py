"""From a configuration to a `Corpus`: find the files, read their names, check their audio, choose the labels."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ser_bench import __version__, config
from ser_bench.audio import AudioInfo
from ser_bench.cache import Cache
from ser_bench.config import Config, LabelSet, OnBadClip, Target
from ser_bench.corpora import audio_index, csv_table, demo, labels, target
from ser_bench.corpora.catalogue import SHEETS, default_root, find, sheet_of
from ser_bench.corpora.data_sheet import Fields, Sheet
from ser_bench.errors import BadClipError, ConfigError, CorpusError
from ser_bench.types import Clip, Corpus

NAMED_AT_MOST = 5
"""How many clips a warning names before it says "and so on"."""


@dataclass
class _Found:
    """Files with what their names tell, and what was put aside on the way."""

    clips: list[tuple[Path, Fields]] = field(default_factory=list)
    refused: dict[Path, str] = field(default_factory=dict)
    other: int = 0


def load(cfg: Config) -> Corpus:
    """The one corpus that the group `corpus` names.

    What is missing from this copy, silent, or left out by the label set is in `Corpus.warnings`, with counts; files
    that `on_bad_clip=skip` left out are in `Corpus.skipped`.

    Raises:
        CorpusError: no such folder, no audio in it, one clip twice, or a label without a clip.
        BadClipError: a file that cannot be used, or a name that does not parse, unless `on_bad_clip=skip`.
        ConfigError: an unknown corpus.
    """
    sheet = sheet_of(cfg.corpus.name)
    root = root_of(cfg)
    skip = cfg.on_bad_clip is OnBadClip.skip
    found = _listed(root) if sheet is csv_table.SHEET else named(sheet, root)
    if found.refused and not skip:
        raise BadClipError(f"{next(iter(found.refused.values()))} (on_bad_clip=skip leaves such files out)")
    wanted = labels.choose(sheet.labels or [fields.emotion for _, fields in found.clips], cfg.corpus.labels)
    chosen = [(path, fields) for path, fields in found.clips if fields.emotion in wanted]
    cache = Cache(config.cache_dir(cfg) / "index")
    infos, bad = audio_index.probe_all([path for path, _ in chosen], root, cfg.corpus.max_duration_s, cache, skip)
    clips = _clips(sheet, root, [(path, fields) for path, fields in chosen if path in infos], infos)
    heard: list[str] = []
    if cfg.corpus.target is Target.votes:
        kept_clips, line = target.as_heard(clips, votes_of(sheet, root), wanted, sheet.name)
        clips, heard = tuple(kept_clips), [line]
    kept, without = _labels_with_clips(sheet, root, wanted, clips, skip)
    warnings = [
        *_missing(sheet, found),
        *_left_out(sheet, found, wanted, cfg.corpus.labels),
        *without,
        *heard,
        *_remarkable(sheet, clips, infos),
    ]
    return Corpus(
        name=sheet.name,
        clips=clips,
        labels=kept,
        language=cfg.corpus.language,
        synthetic=sheet.synthetic,
        skipped={str(path): reason for path, reason in sorted({**found.refused, **bad}.items())},
        warnings=tuple(warnings),
        target=cfg.corpus.target.value,
    )


def votes_of(sheet: Sheet, root: Path) -> Mapping[str, Mapping[str, int]]:
    """Clip id → emotion → people who heard it.

    Raises:
        ConfigError: nobody was asked about any clip of this corpus.
        CorpusError: people were, but this copy of the corpus has no readable table of their votes.
    """
    if sheet.votes is None:
        asked = ", ".join(name for name, other in SHEETS.items() if other.votes is not None)
        raise ConfigError(f"corpus {sheet.name} has no votes of listeners; choose corpus={asked}")
    return sheet.votes(root)


def root_of(cfg: Config) -> Path:
    """Folder (or CSV) of the corpus; the demo corpus is generated when it is not there yet."""
    if cfg.corpus.root is not None:
        return Path(cfg.corpus.root).expanduser()
    root = default_root(cfg.corpus.name, config.cache_dir(cfg))
    if cfg.corpus.name != demo.SHEET.name:
        return root
    root = root / f"{cfg.corpus.clips}-clips-seed-{cfg.corpus.seed}-version-{__version__}"
    if not root.is_dir():
        demo.generate(root, cfg.corpus.clips, cfg.corpus.seed)
    return root


def named(sheet: Sheet, root: Path) -> _Found:
    """Files below the folder with what their names tell.

    Raises:
        CorpusError: no such folder, no audio in it, or one clip twice.
    """
    if not root.is_dir():
        raise CorpusError(f"{root}: {'not a folder' if root.exists() else 'no such folder'}; {_how_to_get(sheet)}")
    found = _Found()
    for path in find(root):
        try:
            fields = sheet.parse(path.stem)
        except ValueError:
            found.refused[path] = f"{path}: not a name of {sheet.name} ({sheet.naming})"
            continue
        if fields is None:
            found.other += 1
        else:
            found.clips.append((path, fields))
    if not found.clips and not found.refused:
        raise CorpusError(f"{root}: no {sheet.name} audio in this folder; {_how_to_get(sheet)}")
    _refuse_twins(found.clips)
    return found


def _listed(csv: Path) -> _Found:
    clips, refused = csv_table.read(csv)
    if not clips and not refused:
        raise CorpusError(f"{csv}: lists no clip; one line a clip, under the header")
    reasons = {path: f"{csv} {reason}" for path, reason in refused.items()}
    return _Found(clips=clips, refused=reasons)


def _refuse_twins(clips: Sequence[tuple[Path, Fields]]) -> None:
    by_id: dict[str, list[Path]] = defaultdict(list)
    for path, fields in clips:
        by_id[fields.id].append(path)
    twins = [paths for paths in by_id.values() if len(paths) > 1]
    if twins:
        first, second = twins[0][:2]
        raise CorpusError(
            f"{first} and {second} are the same clip twice ({len(twins):,} such clips); "
            "point corpus.root at the folder that holds each clip once"
        )


def _how_to_get(sheet: Sheet) -> str:
    if sheet.remotes:
        return f"run `ser-bench corpora prepare {sheet.name}`, or point corpus.root=FOLDER at a copy"
    return "point corpus.root=FOLDER at a copy, or leave it out to have the corpus generated"


def _clips(
    sheet: Sheet, root: Path, chosen: Sequence[tuple[Path, Fields]], infos: Mapping[Path, AudioInfo]
) -> tuple[Clip, ...]:
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
        )
        for path, fields in chosen
    ]
    return tuple(sorted(clips, key=lambda clip: clip.id))


def _labels_with_clips(
    sheet: Sheet, root: Path, wanted: Sequence[str], clips: Sequence[Clip], skip: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The labels that have clips, and a warning where that is not all of them."""
    present = {clip.emotion for clip in clips}
    absent = [label for label in wanted if label not in present]
    if not present:
        raise CorpusError(f"{root}: no usable clip with a label among {', '.join(wanted)}")
    if absent and not skip:
        raise CorpusError(
            f"{root}: no clip is labelled {' or '.join(absent)}; complete the corpus, or give on_bad_clip=skip "
            "to go on without"
        )
    note = [f"{sheet.name}: no clip is labelled {' or '.join(absent)}; left out of the label list"] if absent else []
    return tuple(label for label in wanted if label in present), note


def _missing(sheet: Sheet, found: _Found) -> list[str]:
    speakers = len({fields.speaker for _, fields in found.clips})
    lines = []
    if sheet.clips and not sheet.synthetic and len(found.clips) != sheet.clips:
        lines.append(
            f"{sheet.name}: {len(found.clips):,} of {sheet.clips:,} clips, "
            f"{speakers} of {sheet.speakers} speakers are here"
        )
    if found.other:
        lines.append(f"{sheet.name}: {found.other:,} files that are not speech clips (songs, videos) are left out")
    return lines


def _left_out(sheet: Sheet, found: _Found, wanted: Sequence[str], label_set: LabelSet) -> list[str]:
    dropped = labels.left_out((fields.emotion for _, fields in found.clips), wanted)
    lines = []
    if dropped:
        counts = ", ".join(f"{n:,} {label}" for label, n in dropped.items())
        lines.append(
            f"{sheet.name}: corpus.labels={label_set.name} leaves out {sum(dropped.values()):,} clips ({counts})"
        )
    own = Counter(fields.emotion for _, fields in found.clips if fields.emotion not in labels.CANONICAL)
    if own and label_set is LabelSet.native:
        counts = ", ".join(f"{label} ({n:,})" for label, n in sorted(own.items()))
        lines.append(f"{sheet.name}: labels that no other corpus here has: {counts}")
    return lines


def _remarkable(sheet: Sheet, clips: Sequence[Clip], infos: Mapping[Path, AudioInfo]) -> list[str]:
    """Silent clips, and clips whose bytes are those of a clip with another label."""
    lines = []
    silent = [clip.id for clip in clips if infos[clip.path].silent]
    if silent:
        lines.append(f"{sheet.name}: {len(silent):,} of {len(clips):,} clips without any signal, kept: {_some(silent)}")
    twins: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        twins[clip.digest].append(clip)
    torn = [group for group in twins.values() if len({clip.emotion for clip in group}) > 1]
    if torn:
        pairs = _some(["=".join(clip.id for clip in group) for group in torn])
        lines.append(f"{sheet.name}: {len(torn):,} recordings stand under more than one label: {pairs}")
    return lines


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED_AT_MOST]) + (", …" if len(names) > NAMED_AT_MOST else "")
