"""What the page answers: the loaded runs applied to a recording, as HTML. It does not import Gradio."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ser_bench import comparison, tracking
from ser_bench.comparison import paired
from ser_bench.comparison.report import FILE_NAME
from ser_bench.config import Config, PitchConfig
from ser_bench.errors import BadClipError, ConfigError, NotComparableError, SerBenchError
from ser_bench.inference.answer import FAILED, Answer
from ser_bench.inference.audio_predictor import AudioPredictor, predict_with_each
from ser_bench.inference.recording import Recording
from ser_bench.inference.timeline import MIN_WINDOW_S, TimelineEntry, timeline
from ser_bench.splits import SPEAKERS_APART
from ser_bench.tracking import StoredRun
from ser_bench.types import FloatArray
from ser_bench.webpage import page_figures
from ser_bench.webpage.disagreement import Disagreements, PredictorTest
from ser_bench.webpage.page_figures import PredictorTitle

log = logging.getLogger(__name__)

MAX_DURATION_S = 1800.0
"""Longest recording that the page reads; it is in memory as a whole."""
TIMELINE_FROM_S = 8.0
"""Longer recordings have a timeline."""
WINDOW_S, HOP_S = 3.0, 1.0
"""Defaults of the timeline."""
MIN_HOP_S = 0.1
BLOCK_S = 10.0
"""A timeline reads the recording in blocks of this length."""
REPORTS = Path("outputs", "compare")
"""Where `ser-bench compare` writes its reports, in the working directory."""
REPORT_FILE = f"{FILE_NAME}.html"
NO_REPORT = "There is no comparison yet. ser-bench compare writes one; load two runs or more to see one of them here."
SHARED_FEATURES = (
    '<p class="ser-small">Features that several predictors need are computed once: their time is that of the first.</p>'
)
NO_RECORDING = "Record or upload a clip first."

Progress = Callable[[float, str], None]
"""Receives the share that is done, 0 to 1, and what is being done."""


@dataclass(frozen=True)
class LoadedRun:
    """A stored run and its predictor."""

    title: PredictorTitle
    stored: StoredRun
    predictor: AudioPredictor

    @property
    def unseen(self) -> bool:
        """Whether the test speakers were not in training."""
        return self.stored.tags["protocol"] in {protocol.name for protocol in SPEAKERS_APART}

    @property
    def synthetic(self) -> bool:
        """Whether the test clips are generated speech."""
        return self.stored.tags.get("synthetic") == "true"


class LoadedRuns:
    """The runs that the page asks. Several threads may use it.

    Args:
        cfg: the user's configuration: store, cache, and the services that may be asked.
    """

    def __init__(self, cfg: Config) -> None:
        self._cfg = cfg
        self._runs: list[LoadedRun] = []
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LoadedRun]:
        return iter(tuple(self._runs))

    @property
    def adapt(self) -> bool:
        """Whether a run adapts to speakers."""
        return any(run.predictor.adapts for run in self)

    def load(self, run_id: str) -> None:
        """Load the predictor of a run; a run that is loaded already is not loaded again.

        Raises:
            SerBenchError: there is no such run, or its predictor cannot be loaded.
        """
        stored = tracking.load_run(self._cfg.tracking, run_id)
        if any(run.stored.run_id == stored.run_id for run in self):
            return
        predictor = AudioPredictor.from_run(stored, self._cfg)
        self.add(stored, predictor)

    def add(self, stored: StoredRun, predictor: AudioPredictor) -> None:
        """Add a predictor that is loaded already."""
        with self._changing:
            name = stored.tags.get("model", stored.name)
            if any(run.title.name == name for run in self._runs):
                name = f"{name} ({stored.run_id[:8]})"
            title = PredictorTitle(name, stored.run_id, result_sentence(stored))
            self._runs.append(LoadedRun(title, stored, predictor))

    def warm_up(self) -> None:
        """Load what a first prediction loads, so that the first answer takes no longer than others."""
        for run in self:
            run.predictor.warm_up()


def result_sentence(stored: StoredRun) -> str:
    """Return the result of a run in its own test, in one sentence."""
    tags = stored.tags
    speech = f"{tags['corpus']}{' (SYNTHETIC speech)' if tags.get('synthetic') == 'true' else ''}"
    uar = stored.metrics.get("test/uar")
    apart = tags["protocol"] in {protocol.name for protocol in SPEAKERS_APART}
    who = "unseen speakers" if apart else "speakers who were in training too"
    scored = "no UAR is stored" if uar is None else f"UAR {uar:.3f} on {who}".replace("0.", ".", 1)
    chance = 1.0 / len(tags["labels"].split()) if tags.get("labels") else None
    adapted = ", adapted to each of them" if stored.params.get("adapt.name", "none") != "none" else ""
    level = "" if chance is None else f" (chance level {chance:.3f})".replace("0.", ".", 1)
    subject = "Intensity that the actor was asked for. " if stored.params.get("corpus.target") == "intensity" else ""
    return f"{subject}Trained on {speech}, split={tags['protocol']}: {scored}{adapted}{level}"


def read_recording(path: str | None, speaker: str = "") -> Recording:
    """Read the file that the page received. Its name in answers is "your recording".

    Raises:
        ConfigError: there is no file.
        BadClipError: it cannot be used.
    """
    if not path:
        raise ConfigError(NO_RECORDING)
    try:
        recording = Recording.from_file(path, MAX_DURATION_S)
    except BadClipError as error:  # without the temporary folder of the page
        raise BadClipError(str(error).replace(str(path), Path(path).name)) from error
    return replace(recording, name="your recording", speaker=speaker)


def answers_html(runs: LoadedRuns, recording: Recording, enrolled: bool = False) -> str:
    """Return flags, one card per predictor, the disagreement, and the F0 curve.

    Args:
        runs: at least one.
        recording: its speaker is the one who was enrolled.
        enrolled: whether predictors that adapt answer twice, without and with the statistics of the speaker.

    Raises:
        SerBenchError: nothing can be predicted.
    """
    loaded = list(runs)
    variants = [replace(recording, speaker="")] + ([recording] if enrolled else [])
    answers = predict_with_each([run.predictor for run in loaded], variants)
    cards = []
    for run, given in zip(loaded, answers, strict=True):
        adapted = given[1] if enrolled and run.predictor.adapts else None
        cards.append(page_figures.answer_html(run.title, given[0], adapted))
    last = [given[-1] if run.predictor.adapts else given[0] for run, given in zip(loaded, answers, strict=True)]
    parts = [
        page_figures.flags_html(next((given[0] for given in answers if given[0].flags), answers[0][0])),
        f'<div class="ser-cards">{"".join(cards)}</div>',
        SHARED_FEATURES * (len(loaded) > 1),
        *disagreements_html(loaded, last),
        pitch_html(recording),
    ]
    return "".join(parts)


def pitch_html(recording: Recording) -> str:
    """Return the F0 curve, or one line that says why there is none."""
    try:
        return page_figures.f0_html(recording, PitchConfig())
    except SerBenchError as error:
        return page_figures.note_html(f"F0 curve: {error}")


def disagreements_html(runs: Sequence[LoadedRun], answers: Sequence[Answer]) -> list[str]:
    """Return a remark for each set of labels over which several of these predictors disagree."""
    by_labels: dict[frozenset[str], list[int]] = {}
    for i, run in enumerate(runs):
        if answers[i].status != FAILED:
            by_labels.setdefault(frozenset(run.predictor.labels), []).append(i)
    remarks = []
    for members in by_labels.values():
        given = {runs[i].title.name: answers[i].label for i in members}
        if len(set(given.values())) < 2:
            continue
        try:
            tested = [
                PredictorTest(runs[i].title.name, runs[i].stored.tags["partition"], runs[i].stored.predictions())
                for i in members
            ]
            shares = Disagreements(tested).like(list(given.values()))
        except SerBenchError as error:
            says = ", ".join(f"{name} says {label or 'nothing'}" for name, label in given.items())
            why = f"How often each was right in such cases is not known: {error}."
            remarks.append(page_figures.note_html(f"The predictors disagree: {says}. {why}"))
            continue
        first = runs[members[0]]
        adapted = [runs[i].title.name for i in members if runs[i].predictor.adapts]
        remarks.append(page_figures.disagreement_html(shares, given, first.unseen, first.synthetic, adapted))
    return remarks


def timelines_html(runs: LoadedRuns, recording: Recording, window_s: float, hop_s: float, progress: Progress) -> str:
    """Return the timeline of each predictor; "" for a short recording.

    Raises:
        ConfigError: the window is too short, or the hop is not between `MIN_HOP_S` and the window.
        SerBenchError: nothing can be predicted.
    """
    if not window_s >= MIN_WINDOW_S or not MIN_HOP_S <= hop_s <= window_s:
        raise ConfigError(f"a window has at least {MIN_WINDOW_S:g} s, and a hop {MIN_HOP_S:g} s up to a window")
    if recording.duration_s < max(TIMELINE_FROM_S, window_s):
        return ""
    asked = _AllPredictors(list(runs))
    entries: list[TimelineEntry] = []
    for entry in timeline(asked, blocks_of(recording), recording.sample_rate_hz, window_s, hop_s, recording.name):
        entries.append(entry)
        progress(entry.end_s / recording.duration_s, f"{entry.end_s:.0f} of {recording.duration_s:.0f} s")
    heading = f"<h2>Timeline: windows of {window_s:g} s, one every {hop_s:g} s</h2>"
    timelines = "".join(
        page_figures.timeline_html(run.title.name, of_run, run.predictor.labels, hop_s)
        for run, of_run in zip(asked.runs, asked.timelines(entries), strict=True)
    )
    return f'{heading}<div class="ser-timelines">{timelines}</div>'


def blocks_of(recording: Recording) -> Iterator[FloatArray]:
    """Yield the samples of a recording in blocks of `BLOCK_S`."""
    size = round(BLOCK_S * recording.sample_rate_hz)
    for start in range(0, len(recording.samples), size):
        yield recording.samples[start : start + size]


class _AllPredictors:
    """Several predictors in the place of one in a timeline, so that they share features and windows."""

    def __init__(self, runs: Sequence[LoadedRun]) -> None:
        self.runs = runs
        self._answers: list[list[Answer]] = [[] for _ in runs]

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        """Return the answers of the first predictor, and keep those of all."""
        given = predict_with_each([run.predictor for run in self.runs], recordings)
        for kept, answers in zip(self._answers, given, strict=True):
            kept += answers
        return given[0]

    def timelines(self, entries: Sequence[TimelineEntry]) -> Iterator[list[TimelineEntry]]:
        """Yield the timeline of each predictor, given that of the first."""
        for answers in self._answers:
            following = iter(answers)
            yield [replace(entry, answer=next(following)) if entry.answer else entry for entry in entries]


def enrol(runs: LoadedRuns, paths: Sequence[str], speaker: str) -> int:
    """Adapt every run that can to a speaker, by recordings of any content; return how many runs adapted.

    Raises:
        BadClipError: a recording cannot be used.
        ConfigError: there is no recording, or no run adapts.
    """
    recordings = [read_recording(path, speaker) for path in paths]
    if not recordings:
        raise ConfigError("Record at least one sentence first.")
    adapting = [run for run in runs if run.predictor.adapts]
    if not adapting:
        raise ConfigError("no loaded run adapts to speakers; train one with adapt=speaker_stats")
    for run in adapting:
        run.predictor.enrol(recordings, speaker)
    return len(adapting)


def report_page(runs: LoadedRuns, folder: Path = REPORTS) -> str:
    """Return the newest report of `ser-bench compare`, or else one on the loaded runs; a remark if there is none."""
    found = sorted(folder.glob(f"*/{REPORT_FILE}"), key=lambda path: path.stat().st_mtime)
    if found:
        return page_figures.report_html(found[-1].read_text(encoding="utf-8"), f"The newest report: {found[-1]}")
    loaded = [run.stored for run in runs]
    if len(loaded) < 2:
        return page_figures.note_html(NO_REPORT)
    try:
        report = comparison.Report.of(comparison.REPORT_TITLE, [paired.compare(loaded)])
        return page_figures.report_html(report.html(), "A report on the loaded runs, made now.")
    except NotComparableError as error:
        return page_figures.note_html(f"The loaded runs cannot be compared: {error}")
    except SerBenchError as error:
        return page_figures.error_html(str(error))
