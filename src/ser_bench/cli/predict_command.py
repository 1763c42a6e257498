"""`ser-bench predict`: the model of a stored run applied to new recordings, to a list of them, or along a long one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ser_bench import tracking
from ser_bench.cli import timeline_output
from ser_bench.cli.recording_list import ListedRecording, recordings_of
from ser_bench.cli.result_file import FILE, RUN_ID, STATUS, ResultFile, csv_line, format_of, json_line
from ser_bench.cli.terminal_tables import Cell, note, print_bytes, print_json, print_table
from ser_bench.config import OnBadClip, compose
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.inference.answer import DECIMALS, FAILED, TOTAL, Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording

log = logging.getLogger(__name__)

BATCH = 32
"""Recordings that are in memory together."""
BATCH_S = 300.0
"""A batch also ends at so many seconds of audio."""
FORMATS = ("table", "csv", "json", "jsonl")
"""Formats of answers about whole recordings."""


@dataclass(frozen=True)
class PredictOptions:
    """What the command line says beside runs, paths and overrides.

    Attributes:
        form: `--format`; None: that of `out`, else a table.
        out: file that receives the result; None: standard output.
        lists: files with paths.
        window_s: length of the windows of a timeline; None: one answer per recording.
        hop_s: distance between their starts.
        plot: PNG file of a timeline.
    """

    form: str | None = None
    out: Path | None = None
    lists: Sequence[str] = ()
    window_s: float | None = None
    hop_s: float | None = None
    plot: Path | None = None


def run(overrides: Sequence[str], words: Sequence[str], options: PredictOptions | None = None) -> None:
    """Print or write the answer about each recording, or the timeline of one.

    A recording that cannot be used is a row with its reason, and does not end the command.

    Args:
        overrides: Hydra overrides; they decide the store, the cache and the services that may be asked.
        words: the run's id or its first letters, then files, folders and `-`.
        options: of the command line.

    Raises:
        ConfigError: no run or no recording is named, a path does not exist, or options do not fit together.
        BadClipError: a recording could not be used, unless `on_bad_clip=skip`; or none could. The rows are written
            before.
        RunNotFoundError: the run is not in the store.
        LLMError: the run asks a service that these overrides and the user's configuration do not name.
        TrackingError: the predictor or the configuration of the run was changed after it had ended.
    """
    options = options or PredictOptions()
    if not words or (len(words) < 2 and not options.lists):
        raise ConfigError("no audio is named: ser-bench predict RUN FILE..., with the id that the run printed")
    run_id, *paths = words
    cfg = compose(list(overrides))
    if options.window_s is not None:
        timeline_output.check(options.form, options.out, options.window_s, options.hop_s, paths, options.lists)
    elif options.hop_s is not None or options.plot is not None:
        raise ConfigError("--hop and --plot are about a timeline: give --window SECONDS")
    else:
        _check_format(options.form, options.out)
    stored = tracking.load_run(cfg.tracking, run_id)
    if options.window_s is not None:
        predictor = AudioPredictor.from_run(stored, cfg)
        chosen = timeline_output.Chosen(options.window_s, options.hop_s, options.form, options.out, options.plot)
        timeline_output.run(predictor, paths[0], chosen)
        return
    predictor = AudioPredictor.from_run(stored, cfg, store_features=True)
    recordings = recordings_of(paths, options.lists)
    if options.out is None:
        outcome = _print_rows(predictor, recordings, options.form or FORMATS[0])
    else:
        outcome = _append_rows(predictor, recordings, options.out)
    outcome.report(cfg.on_bad_clip is OnBadClip.skip)


def _check_format(form: str | None, out: Path | None) -> None:
    """Raise ConfigError for a format that whole recordings do not have, or that the name of the file contradicts."""
    if form is not None and form not in FORMATS:
        raise ConfigError(f"--format {form}: without --window it is one of {', '.join(FORMATS)}")
    if out is not None and form not in (None, format_of(out)):
        raise ConfigError(f"--out {out}: its name says {format_of(out)}, and --format {form}")


class _Outcome:
    """How many recordings failed, and why."""

    def __init__(self) -> None:
        self.count = 0
        self.reasons: list[str] = []
        self.present = 0

    def add(self, answer: Answer) -> None:
        self.count += 1
        if answer.status == FAILED:
            self.reasons.append(_with_name(answer))

    def report(self, skip: bool) -> None:
        """Log what failed.

        Raises:
            BadClipError: a recording failed and `skip` is false, or all failed.
        """
        if not self.reasons:
            return
        failed, first = len(self.reasons), self.reasons[0]
        if failed == self.count and not self.present:
            raise BadClipError(f"{first}; no file can be used" if failed > 1 else first)
        if not skip:
            raise BadClipError(
                f"{failed} of {self.count} recordings have no answer, the first: {first} (with on_bad_clip=skip it is "
                "no error)"
            )
        for reason in self.reasons:
            log.warning("skipped  %s", reason)
        log.warning("skipped  %d of %d files (on_bad_clip=skip)", failed, self.count)


def _with_name(answer: Answer) -> str:
    return answer.reason if answer.name in answer.reason else f"{answer.name}: {answer.reason}"


def _print_rows(predictor: AudioPredictor, recordings: Sequence[ListedRecording], form: str) -> _Outcome:
    """Print the answers: rows of CSV and JSON Lines at once, tables and JSON at the end."""
    columns = columns_of(predictor.labels, _given_columns(recordings))
    outcome = _Outcome()
    kept: list[tuple[ListedRecording, Answer]] = []
    if form == "csv":
        print_bytes(csv_line(columns))
    for recording, answer in _answers(predictor, recordings):
        outcome.add(answer)
        if form == "csv":
            print_bytes(csv_line(list(csv_row(recording, answer, predictor.run_id, columns).values())))
        elif form == "jsonl":
            print_bytes(json_line(json_record(recording, answer, predictor.run_id)))
        else:
            kept.append((recording, answer))
    if form == "json":
        print_json([json_record(recording, answer, predictor.run_id) for recording, answer in kept])
    elif form == "table":
        print_table(*table_of([answer for _, answer in kept], predictor.labels))
    return outcome


def _append_rows(predictor: AudioPredictor, recordings: Sequence[ListedRecording], out: Path) -> _Outcome:
    """Append the answers to a file, and leave out recordings that it holds already."""
    columns = columns_of(predictor.labels, _given_columns(recordings))
    outcome = _Outcome()
    with ResultFile(out, columns, predictor.run_id) as file:
        waiting = [recording for recording in recordings if recording.name not in file.done]
        outcome.present = len(recordings) - len(waiting)
        if outcome.present:
            failed = sum(recording.name in file.failed for recording in recordings)
            again = f"; {failed} of them failed, remove their lines to try again" if failed else ""
            note(f"present  {outcome.present} of {len(recordings)} recordings are in {out}{again}")
        for recording, answer in _answers(predictor, waiting):
            outcome.add(answer)
            if file.form == "csv":
                file.append(csv_row(recording, answer, predictor.run_id, columns))
            else:
                file.append(json_record(recording, answer, predictor.run_id))
    note(f"written  {len(waiting)} rows to {out}")
    return outcome


def _given_columns(recordings: Sequence[ListedRecording]) -> list[str]:
    return list(dict.fromkeys(column for recording in recordings for column in recording.given))


def _answers(
    predictor: AudioPredictor, recordings: Sequence[ListedRecording]
) -> Iterator[tuple[ListedRecording, Answer]]:
    """Yield each recording with its answer, in order. At most one batch is in memory."""
    streams = sys.stdout.isatty()
    with tqdm(total=len(recordings), unit="clip", disable=True if streams else None, delay=1.0) as bar:
        batch: list[tuple[ListedRecording, Recording | Answer]] = []
        length_s = 0.0
        for recording in recordings:
            try:
                read: Recording | Answer = recording.read(predictor.max_duration_s)
            except BadClipError as error:
                read = Answer(recording.name, status=FAILED, reason=str(error))
            batch.append((recording, read))
            length_s += read.duration_s
            if len(batch) == BATCH or length_s >= BATCH_S:
                yield from _answered(predictor, batch)
                bar.update(len(batch))
                batch, length_s = [], 0.0
        yield from _answered(predictor, batch)
        bar.update(len(batch))


def _answered(
    predictor: AudioPredictor, batch: Sequence[tuple[ListedRecording, Recording | Answer]]
) -> Iterator[tuple[ListedRecording, Answer]]:
    usable = [read for _, read in batch if isinstance(read, Recording)]
    answers = iter(predictor.predict(usable) if usable else ())
    for recording, read in batch:
        yield recording, read if isinstance(read, Answer) else next(answers)


def columns_of(labels: Sequence[str], given: Sequence[str] = ()) -> list[str]:
    """Return the columns of CSV rows. A further column of a list whose name is taken becomes `given_NAME`."""
    own = [FILE, "label", *labels, "flags", "seconds", STATUS, "reason", "duration_s", "transcript", RUN_ID]
    return [FILE, *(f"given_{column}" if column in own else column for column in given), *own[1:]]


def csv_row(recording: ListedRecording, answer: Answer, run_id: str, columns: Sequence[str]) -> dict[str, Any]:
    """Return a row with a cell for each of the columns; probabilities are rounded to four decimals."""
    own = {
        FILE: answer.name,
        "label": answer.label,
        **{label: round(p, DECIMALS) for label, p in answer.probabilities.items()},
        "flags": " ".join(flag.code for flag in answer.flags),
        "seconds": round(answer.seconds[TOTAL], DECIMALS) if TOTAL in answer.seconds else "",
        STATUS: answer.status,
        "reason": answer.reason,
        "duration_s": round(answer.duration_s, DECIMALS),
        "transcript": answer.transcript or "",
        RUN_ID: run_id,
    }
    given = {f"given_{key}" if f"given_{key}" in columns else key: value for key, value in recording.given.items()}
    return {column: own.get(column, given.get(column, "")) for column in columns}


def json_record(recording: ListedRecording, answer: Answer, run_id: str) -> dict[str, Any]:
    """Return `Answer.as_dict` with the id of the run, and with the further columns of a list if there are any."""
    return {**answer.as_dict(), **({"given": dict(recording.given)} if recording.given else {}), RUN_ID: run_id}


def table_of(answers: Sequence[Answer], labels: Sequence[str]) -> tuple[list[str], list[list[Cell]]]:
    """Return headings and rows for the terminal: file, label, probabilities, seconds, and why an answer is unsure."""
    notes = [" ".join(flag.code for flag in answer.flags) or answer.reason for answer in answers]
    complete = all(answer.probabilities for answer in answers)
    rows: list[list[Cell]] = []
    for answer, why in zip(answers, notes, strict=True):
        numbers: list[Cell] = [answer.probabilities.get(label, "") for label in labels]
        numbers.append(answer.seconds.get(TOTAL, ""))
        if not complete:  # a column of numbers has no empty cell
            numbers = [number if isinstance(number, str) else f"{number:.3f}" for number in numbers]
        rows.append([answer.name, answer.label or f"({answer.status})", *numbers, *([why] if any(notes) else [])])
    return [FILE, "label", *labels, "seconds", *(["note"] if any(notes) else [])], rows
