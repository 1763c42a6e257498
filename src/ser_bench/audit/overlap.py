"""What of the test rows was in training: counted from the rows of a split and the clips alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from ser_bench.audit.finding import Finding
from ser_bench.types import Clip, Predictions, Row, Split

SENTENCE_PROTOCOLS = ("sentence", "speaker_sentence")
"""Protocols that promise that no tested sentence was trained. Elsewhere a corpus shares its few sentences by design."""


def overlaps(split: Split, clips: Mapping[str, Clip]) -> list[Finding]:
    """Share of test rows whose clip, sibling, bytes, speaker or sentence is in training, or in validation.

    Args:
        split: the rows; every clip of theirs is in `clips`.
        clips: by id. Clips without a digest, or without a sentence, cannot match in it.
    """
    variants: dict[str, set[str]] = defaultdict(set)
    for row in split.train:
        variants[row.clip_id].add(row.variant)
    digests: dict[str, set[str]] = defaultdict(set)
    for clip_id in variants:
        digests[clips[clip_id].digest].add(clip_id)
    speakers = {clips[clip_id].speaker for clip_id in variants}

    def identical(row: Row) -> bool:
        digest = clips[row.clip_id].digest
        return bool(digest) and bool(digests.get(digest, set()) - {row.clip_id})

    found = [
        _share(split, "clip", "{} their clip in training", lambda row: row.clip_id in variants),
        _share(split, "sibling", "{} another variant of their clip in training",
               lambda row: bool(variants.get(row.clip_id, set()) - {row.variant})),
        _share(split, "identical_audio", "{} identical audio under another name in training", identical),
        _share(split, "speaker", "{} their speaker in training", lambda row: clips[row.clip_id].speaker in speakers),
        _sentence(split, clips, variants),
    ]  # fmt: skip
    val_clips = {row.clip_id for row in split.val}
    val_speakers = {clips[clip_id].speaker for clip_id in val_clips}
    if split.val:
        found += [
            _share(split, "val_clip", "{} their clip in validation", lambda row: row.clip_id in val_clips),
            _share(split, "val_speaker", "{} their speaker in validation",
                   lambda row: clips[row.clip_id].speaker in val_speakers),
        ]  # fmt: skip
    return found


def near_identical(split: Split, clips: Mapping[str, Clip], pairs: Iterable[tuple[str, str]]) -> Finding:
    """Share of test rows that have a recording in training which differs in its bytes alone.

    Args:
        split: the rows.
        clips: by id.
        pairs: (clip of a test row, clip of a training row) with fingerprints alike; the same clip, and pairs of the
            same bytes, are questions of their own and not counted here.
    """
    alike = {test for test, train in pairs if test != train and not _same_bytes(clips[test], clips[train])}
    return _share(
        split, "near_identical_audio", "{} nearly identical audio in training", lambda row: row.clip_id in alike
    )


def predictions_match(split: Split, predictions: Predictions, clips: Mapping[str, Clip], limit: str) -> Finding:
    """Whether exactly the split's test rows were predicted, with the corpus' labels for truth.

    Args:
        split: the rows.
        predictions: as stored.
        clips: by id.
        limit: the key of the configuration that lets the predictor answer for some of the rows only, or "".
    """
    predicted, tested = set(predictions.rows), set(split.test)
    strange, missing = predicted - tested, tested - predicted
    wrong = [
        row for row, truth in zip(predictions.rows, predictions.truth, strict=True)
        if row.clip_id in clips and clips[row.clip_id].emotion != truth
    ]  # fmt: skip
    said = [f"{len(strange):,} predicted rows are not test rows of the split"] if strange else []
    said += [f"{len(wrong):,} rows have another truth than the corpus"] if wrong else []
    if missing and not limit:
        said.append(f"{len(missing):,} of {len(tested):,} test rows were left out")
    leak = bool(said)
    if missing and limit and not leak:
        said.append(f"{len(predicted):,} of {len(tested):,} test rows, as {limit} allows, with the corpus' labels")
    text = "; ".join(said) or "exactly the test rows of the split, with the corpus' labels"
    return Finding("predictions", text, float(leak), leak)


def _sentence(split: Split, clips: Mapping[str, Clip], trained: Collection[str]) -> Finding:
    sentences = {clips[clip_id].sentence for clip_id in trained} - {""}
    if not any(clips[row.clip_id].sentence for row in split.test):
        return Finding("sentence", "not checked: the sentences are not known")
    found = _share(split, "sentence", "{} their sentence in training",
                   lambda row: clips[row.clip_id].sentence in sentences)  # fmt: skip
    if found.leak and split.protocol not in SENTENCE_PROTOCOLS:
        return Finding("sentence", f"{found.text}; a corpus of fixed sentences shares them by design", found.share)
    return found


def _share(split: Split, name: str, text: str, is_seen: Callable[[Row], bool]) -> Finding:
    count = sum(map(is_seen, split.test))
    total = len(split.test)
    share = count / total if total else 0.0
    return Finding(name, text.format(_who(count, total)), share, count > 0)


def _who(count: int, total: int) -> str:
    """The subject of a sentence: "99.2 % of test rows have", with the number where a share would hide it."""
    if count == 0:
        return "no test row has"
    if count == total:
        return "all test rows have"
    if count / total < 0.01:
        return f"{count:,} of {total:,} test rows {'has' if count == 1 else 'have'}"
    return f"{100 * count / total:.1f} % of test rows have"


def _same_bytes(one: Clip, other: Clip) -> bool:
    return bool(one.digest) and one.digest == other.digest
