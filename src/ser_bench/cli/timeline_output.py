"""`ser-bench predict --window`: the timeline of a recording as table, CSV, JSON, labels for Audacity, or picture."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from ser_bench.cli.recording_list import STDIN, STDIN_NAME, stdin_bytes
from ser_bench.cli.result_file import csv_line, json_line
from ser_bench.cli.terminal_tables import note, print_bytes
from ser_bench.durations import format_duration
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.file_access import access_errors
from ser_bench.inference.answer import DECIMALS
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.long_audio import LongRecording
from ser_bench.inference.timeline import (
    TIME_DECIMALS,
    TimelineEntry,
    TimelineRegion,
    check_windows,
    regions,
    timeline,
)
from ser_bench.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("table", "csv", "json", "jsonl", "audacity")
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".txt": "audacity"}
"""Suffix of a file → the format that it has unless another one is named."""
HOPS = 3
"""Windows that a moment is in, where no distance between them is given."""
NOTES_S = 30.0
"""Time between two lines about the progress where standard error is no terminal."""
PLOT_INCHES = (12.0, 3.6)
PLOT_DPI = 120
MAX_COLUMNS = 2_400
"""Columns of a picture: windows of a longer timeline are averaged."""


@dataclass(frozen=True)
class Chosen:
    """What the command line says about a timeline.

    Attributes:
        window_s: length of a window, seconds.
        hop_s: distance between the starts of windows; None: a third of the window.
        form: one of `FORMATS`; None: that of `out`, else a table.
        out: file that receives the timeline; None: standard output.
        plot: PNG file; None: none.
    """

    window_s: float
    hop_s: float | None = None
    form: str | None = None
    out: Path | None = None
    plot: Path | None = None

    @property
    def step_s(self) -> float:
        """Distance between the starts of windows, seconds."""
        return self.window_s / HOPS if self.hop_s is None else self.hop_s

    @property
    def chosen_form(self) -> str:
        """The format."""
        named = SUFFIXES.get(self.out.suffix.lower()) if self.out else None
        return self.form or named or FORMATS[0]


def check(
    form: str | None,
    out: Path | None,
    window_s: float,
    hop_s: float | None,
    paths: Sequence[str],
    lists: Sequence[str],
) -> None:
    """Check options before the model is loaded.

    Raises:
        ConfigError: there is not exactly one recording, or the format or the lengths are not possible.
    """
    if lists or len(paths) != 1 or (paths[0] != STDIN and Path(paths[0]).is_dir()):
        raise ConfigError("--window makes the timeline of one recording; name one file, or - for standard input")
    if form is not None and form not in FORMATS:
        raise ConfigError(f"--format {form}: with --window it is one of {', '.join(FORMATS)}")
    check_windows(window_s, window_s / HOPS if hop_s is None else hop_s)


def run(predictor: AudioPredictor, word: str, chosen: Chosen) -> None:
    """Write the timeline of a recording while it is read. Memory does not grow with its length.

    Args:
        predictor: of the run.
        word: the file, or `-`.
        chosen: of the command line.

    Raises:
        ConfigError: a window is longer than an utterance of the run may be.
        BadClipError: the recording cannot be used; the entries before the fault are written.
        FileAccessError: a file cannot be written.
    """
    check_windows(chosen.window_s, chosen.step_s, predictor.max_duration_s)
    long = LongRecording.from_bytes(stdin_bytes(), STDIN_NAME) if word == STDIN else LongRecording.open(word)
    chart = TimelineChart(predictor.labels, long.duration_s) if chosen.plot else None
    writer = _WRITERS[chosen.chosen_form](predictor.labels, chosen)
    windows = spoken = 0
    fault: BadClipError | None = None
    with contextlib.ExitStack() as stack:
        write = stack.enter_context(_output(chosen.out))
        write(writer.head())
        blocks = stack.enter_context(_progress(long, quiet=chosen.out is None and sys.stdout.isatty()))
        entries = timeline(predictor, blocks, long.sample_rate_hz, chosen.window_s, chosen.step_s, str(long.name))
        try:
            for entry in entries:
                windows += 1
                spoken += entry.speech is not False
                if chart is not None:
                    chart.add(entry)
                write(writer.entry(entry))
        except BadClipError as error:  # what was read before is complete
            fault = error
        write(writer.tail())
    where = f", in {chosen.out}" if chosen.out else ""
    length = format_duration(long.duration_s)
    note(f"timeline {length} of audio, {windows} windows, {spoken} with speech{where}")
    if chart is not None and chosen.plot is not None:
        with access_errors(chosen.plot):
            chart.figure(str(long.name)).savefig(chosen.plot, format="png")
        note(f"plot     {chosen.plot}")
    if fault is not None:
        raise fault


class _Write(Protocol):
    def __call__(self, content: bytes, /) -> object: ...


@contextlib.contextmanager
def _output(out: Path | None) -> Iterator[_Write]:
    """Yield a function that writes, to a file or to standard output; each write is handed on at once."""
    if out is None:
        yield print_bytes
        return
    with access_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        file = out.open("wb", buffering=0)
    with file, access_errors(out):
        yield file.write


@contextlib.contextmanager
def _progress(long: LongRecording, quiet: bool) -> Iterator[Iterable[FloatArray]]:
    """Yield the blocks; a bar on standard error shows the time in the recording, the speed and the time left."""
    shape = "{desc} {percentage:3.0f}% |{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}, {rate_noinv_fmt}]"
    terminal = sys.stderr.isatty()
    with tqdm(
        total=long.duration_s, unit="s", desc="predict", bar_format=shape, disable=quiet or not terminal, delay=1.0
    ) as bar:
        yield _counted(long, bar, terminal)


def _counted(long: LongRecording, bar: Any, terminal: bool) -> Iterator[FloatArray]:
    started = noted = time.monotonic()
    done_s = 0.0
    for block in long.blocks():
        yield block
        # The entries of a block are predicted before the next one is asked for.
        done_s += len(block) / long.sample_rate_hz
        bar.update(len(block) / long.sample_rate_hz)
        now = time.monotonic()
        if not terminal and now - noted >= NOTES_S:
            noted = now
            left_s = (long.duration_s - done_s) * (now - started) / done_s
            note(f"predict  {done_s:.0f} of {long.duration_s:.0f} s, {format_duration(left_s)} left")


class _TimelineWriter(Protocol):
    def head(self) -> bytes: ...

    def entry(self, entry: TimelineEntry) -> bytes: ...

    def tail(self) -> bytes: ...


class _CsvWriter:
    """One line per window: times, speech, label, probabilities, and why an answer is unsure."""

    def __init__(self, labels: Sequence[str], _: Chosen) -> None:
        self._labels = labels

    def head(self) -> bytes:
        columns = ["start_s", "end_s", "speech", "label", *self._labels, "flags", "status", "reason", "transcript"]
        return csv_line(columns)

    def entry(self, entry: TimelineEntry) -> bytes:
        times = [round(entry.start_s, TIME_DECIMALS), round(entry.end_s, TIME_DECIMALS)]
        speech = "" if entry.speech is None else str(entry.speech).lower()
        answer = entry.answer
        if answer is None:
            return csv_line([*times, speech, "", *[""] * len(self._labels), "", "", "", ""])
        found = [round(answer.probabilities[name], DECIMALS) if answer.probabilities else "" for name in self._labels]
        flags = " ".join(flag.code for flag in answer.flags)
        return csv_line(
            [*times, speech, answer.label, *found, flags, answer.status, answer.reason, answer.transcript or ""]
        )

    def tail(self) -> bytes:
        return b""


class _JsonLinesWriter:
    """One object per line."""

    def __init__(self, labels: Sequence[str], chosen: Chosen) -> None:
        pass

    def head(self) -> bytes:
        return b""

    def entry(self, entry: TimelineEntry) -> bytes:
        return json_line(entry.as_dict())

    def tail(self) -> bytes:
        return b""


class _JsonWriter(_JsonLinesWriter):
    """A list of objects."""

    def __init__(self, labels: Sequence[str], chosen: Chosen) -> None:
        super().__init__(labels, chosen)
        self._first = True

    def head(self) -> bytes:
        return b"["

    def entry(self, entry: TimelineEntry) -> bytes:
        start, self._first = (b"\n " if self._first else b",\n "), False
        return start + super().entry(entry).rstrip(b"\n")

    def tail(self) -> bytes:
        return b"\n]\n"


class _TableWriter:
    """Lines with aligned columns."""

    def __init__(self, labels: Sequence[str], _: Chosen) -> None:
        self._columns = ["start", "end", "speech", "label", *labels, "note"]
        self._widths = [8, 8, 6, max(11, *(len(label) for label in labels)), *(max(5, len(label)) for label in labels)]

    def head(self) -> bytes:
        return self._line(self._columns)

    def entry(self, entry: TimelineEntry) -> bytes:
        speech = "?" if entry.speech is None else "yes" if entry.speech else "no"
        times = [f"{entry.start_s:.2f}", f"{entry.end_s:.2f}"]
        labels = self._columns[4:-1]
        if entry.answer is None:
            return self._line([*times, speech, *[""] * (len(labels) + 2)])
        found = [f"{entry.answer.probabilities[name]:.3f}" if entry.answer.probabilities else "" for name in labels]
        note = " ".join(flag.code for flag in entry.answer.flags) or entry.answer.reason
        return self._line([*times, speech, entry.label or f"({entry.answer.status})", *found, note])

    def tail(self) -> bytes:
        return b""

    def _line(self, cells: Sequence[str]) -> bytes:
        texts = [
            cell.ljust(width) if i in (2, 3) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, self._widths, strict=False))
        ]
        return "  ".join([*texts, cells[-1]]).rstrip().encode("utf-8", errors="replace") + b"\n"


class _AudacityWriter:
    """One line per region of one label (File, Import, Labels in Audacity): start, end and text with tabs between."""

    def __init__(self, _: Sequence[str], chosen: Chosen) -> None:
        self._entries: list[TimelineEntry] = []
        self._step_s = chosen.step_s

    def head(self) -> bytes:
        return b""

    def entry(self, entry: TimelineEntry) -> bytes:
        self._entries.append(entry)
        return b""

    def tail(self) -> bytes:
        return b"".join(audacity_line(region) for region in regions(self._entries, self._step_s))


_WRITERS: dict[str, Any] = {
    "table": _TableWriter,
    "csv": _CsvWriter,
    "json": _JsonWriter,
    "jsonl": _JsonLinesWriter,
    "audacity": _AudacityWriter,
}


def audacity_line(region: TimelineRegion) -> bytes:
    r"""Return a line of a label track.

    >>> audacity_line(TimelineRegion(0.0, 2.5, "anger", 0.714))
    b'0.000000\t2.500000\tanger 71 %\n'
    """
    text = f"{region.start_s:.6f}\t{region.end_s:.6f}\t{region.label} {region.probability * 100:.0f} %\n"
    return text.encode()


class TimelineChart:
    """A picture of a timeline: the probabilities over time, stacked; no colour where there is no speech.

    Windows are averaged to at most `MAX_COLUMNS`, so its memory does not depend on the length.

    Args:
        labels: of the predictor.
        duration_s: length of the recording, seconds.
    """

    def __init__(self, labels: Sequence[str], duration_s: float) -> None:
        self._labels = tuple(labels)
        self._duration_s = duration_s
        self._columns = MAX_COLUMNS
        self._sums = np.zeros((self._columns, len(labels)))
        self._counts = np.zeros(self._columns)
        self._windows = 0

    def add(self, entry: TimelineEntry) -> None:
        """Add a window; it counts for each moment that it is about."""
        self._windows += 1
        if entry.answer is None or not entry.answer.probabilities:
            return
        scale = self._columns / self._duration_s
        first, after = int(entry.start_s * scale), min(self._columns, max(1, round(entry.end_s * scale)))
        self._sums[first:after] += [entry.answer.probabilities[label] for label in self._labels]
        self._counts[first:after] += 1

    def figure(self, name: str) -> Figure:
        """Return the picture: mean probabilities of all windows that a moment is in."""
        from matplotlib.figure import Figure

        from ser_bench.comparison.report_figures import COLOURS
        from ser_bench.evaluation.run_figures import literal_text

        times = (np.arange(self._columns) + 0.5) * self._duration_s / self._columns
        in_minutes = self._duration_s > 180
        times = times / 60 if in_minutes else times
        means = self._sums / np.maximum(self._counts, 1)[:, None]
        figure = Figure(figsize=PLOT_INCHES, dpi=PLOT_DPI, layout="constrained")
        axes = figure.subplots()
        axes.set_title(literal_text(f"{Path(name).name}: probability of each label ({self._windows:,} windows)"))
        axes.stackplot(
            times,
            *means.T,
            labels=[literal_text(label) for label in self._labels],
            colors=[COLOURS[i % len(COLOURS)] for i in range(len(self._labels))],
            step="mid",
            linewidth=0,
        )
        for i, container in enumerate(axes.collections):  # more labels than colours: a pattern tells them apart
            if i >= len(COLOURS):
                container.set_hatch("//")
        axes.set_xlim(0, times[-1] + times[0])
        axes.set_ylim(0, 1)
        axes.set_xlabel("time (min)" if in_minutes else "time (s)")
        axes.set_ylabel("probability; empty: no speech")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        return figure
