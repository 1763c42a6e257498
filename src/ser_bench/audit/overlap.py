"""Overlap of test rows with training and validation rows, counted from the split and the table of clips."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from ser_bench.audit.finding import Finding
from ser_bench.types import Clip, Predictions, Row, Split

SENTENCE_PROTOCOLS = ("sentence", "speaker_sentence")
"""Protocols under which no tested sentence is in training. Otherwise corpora of few sentences share them by design."""


def overlaps(split: Split, clips: Mapping[str, Clip]) -> list[Finding]:
    """Return the share of test rows whose clip, sibling, bytes, speaker or sentence is in training or validation.

    Args:
        split: the rows.
        clips: by id; every clip of the split. Clips without a digest, or without a sentence, do not match in it.
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

    findings = [
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
        findings += [
            _share(split, "val_clip", "{} their clip in validation", lambda row: row.clip_id in val_clips),
            _share(split, "val_speaker", "{} their speaker in validation",
                   lambda row: clips[row.clip_id].speaker in val_speakers),
        ]  # fmt: skip
    return findings


def near_identical(split: Split, clips: Mapping[str, Clip], pairs: Iterable[tuple[str, str]]) -> Finding:
    """Return the share of test rows whose recording is in training as another file with other bytes.

    Args:
        split: the rows.
        clips: by id.
        pairs: (clip of a test row, clip of a training row) with the same recording. A clip with itself, and clips
            with the same bytes, are other questions and not counted here.
    """
    alike = {test for test, train in pairs if test != train and not _same_bytes(clips[test], clips[train])}
    return _share(
        split, "near_identical_audio", "{} nearly identical audio in training", lambda row: row.clip_id in alike
    )


def predictions_match(
    split: Split,
    predictions: Predictions,
    clips: Mapping[str, Clip],
    limit: str,
    table: Mapping[str, Iterable[object]] | None = None,
) -> Finding:
    """Check that exactly the split's test rows were predicted, and that their truth is the label in the corpus.

    Args:
        split: the rows.
        predictions: as stored.
        clips: by id.
        limit: the configuration key that allows the predictor to leave out rows; "" if there is none.
        table: name → column of the table in which the predictions are stored, in their order. Its speakers and
            sentences must be those of the corpus, because intervals are computed by speaker, and its column of
            predictions must follow from the probabilities.
    """
    predicted, tested = set(predictions.rows), set(split.test)
    unexpected, missing = predicted - tested, tested - predicted
    wrong = [
        row for row, truth in zip(predictions.rows, predictions.truth, strict=True)
        if row.clip_id in clips and clips[row.clip_id].emotion != truth
    ]  # fmt: skip
    parts = [f"{len(unexpected):,} predicted rows are not test rows of the split"] if unexpected else []
    parts += [f"{len(wrong):,} rows have another truth than the corpus"] if wrong else []
    parts += _contradictions(table or {}, predictions, clips)
    if missing and not limit:
        parts.append(f"{len(missing):,} of {len(tested):,} test rows were left out")
    leak = bool(parts)
    if missing and limit and not leak:
        parts.append(f"{len(predicted):,} of {len(tested):,} test rows, as {limit} allows, with the corpus' labels")
    text = "; ".join(parts) or "exactly the test rows of the split, with the corpus' labels"
    return Finding("predictions", text, float(leak), leak)


def _contradictions(
    table: Mapping[str, Iterable[object]], predictions: Predictions, clips: Mapping[str, Clip]
) -> list[str]:
    """Return one text for each column of the table that contradicts the corpus or the probabilities."""
    known = [clips.get(row.clip_id) for row in predictions.rows]
    expected: dict[str, tuple[str, list[str | None]]] = {
        "speaker": ("the corpus", [None if clip is None else clip.speaker for clip in known]),
        "sentence": ("the corpus", [None if clip is None else clip.sentence for clip in known]),
        "predicted": ("their probabilities", list(predictions.predicted)),
    }
    texts = []
    for name, (source, values) in expected.items():
        pairs = zip(table.get(name, ()), values, strict=False)  # a table of an older version may lack a column
        wrong = sum(value is not None and str(stored) != value for stored, value in pairs)
        texts += [f"{wrong:,} rows have another {name} than {source}"] if wrong else []
    return texts


def _sentence(split: Split, clips: Mapping[str, Clip], trained: Collection[str]) -> Finding:
    sentences = {clips[clip_id].sentence for clip_id in trained} - {""}
    if not any(clips[row.clip_id].sentence for row in split.test):
        return Finding("sentence", "not checked: the sentences are not known")
    finding = _share(
        split, "sentence", "{} their sentence in training", lambda row: clips[row.clip_id].sentence in sentences
    )
    if finding.leak and split.protocol not in SENTENCE_PROTOCOLS:
        return Finding("sentence", f"{finding.text}; a corpus of fixed sentences shares them by design", finding.share)
    return finding


def _share(split: Split, name: str, text: str, is_seen: Callable[[Row], bool]) -> Finding:
    count = sum(map(is_seen, split.test))
    total = len(split.test)
    share = count / total if total else 0.0
    return Finding(name, text.format(_subject(count, total)), share, count > 0)


def _subject(count: int, total: int) -> str:
    """Return the subject of a finding, such as "99.2 % of test rows have"; below 1 % it gives the number of rows."""
    if count == 0:
        return "no test row has"
    if count == total:
        return "all test rows have"
    if count / total < 0.01:
        return f"{count:,} of {total:,} test rows {'has' if count == 1 else 'have'}"
    return f"{100 * count / total:.1f} % of test rows have"


def _same_bytes(clip: Clip, other: Clip) -> bool:
    return bool(clip.digest) and clip.digest == other.digest
