"""The parts of the page as HTML: cards of answers with probability bars, the F0 curve, and the timeline.

Every text that comes from a run, a file or a recogniser is escaped. Figures are inline SVG with a title and a
description for screen readers. Colours are those of Gradio's theme, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from ser_bench.comparison.report_figures import COLOURS, INK, LINE_STYLES, to_svg
from ser_bench.config import PitchConfig
from ser_bench.evaluation.run_figures import literal_text
from ser_bench.features import prosody
from ser_bench.inference.answer import FAILED, TOTAL, Answer
from ser_bench.inference.recording import Recording
from ser_bench.inference.timeline import TimelineEntry, regions
from ser_bench.types import FloatArray
from ser_bench.webpage.disagreement import MIN_ROWS, DisagreementShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURE_INCHES = (5.0, 2.6)
"""Small, so that the text is still readable if a phone shrinks the figure to its width."""
F0_MAX_DURATION_S = 60.0
"""Longer recordings have a timeline instead of an F0 curve."""
STAGE_NAMES = {"classify": "classifier", "transcript": "transcript", "embedding": "embedding", "total": "all"}

STYLE = """
.gradio-container { max-width: 1280px !important; }
.gradio-container :focus-visible { outline: 3px solid #1d6fb8 !important; outline-offset: 2px; }
.gradio-container [role=tab].selected, .gradio-container .icon.selected { color: #1d4ed8 !important; }
.dark .gradio-container [role=tab].selected, .dark .gradio-container .icon.selected { color: #93c5fd !important; }
.gradio-container .controls, .gradio-container .controls *, .gradio-container .timestamps *,
.gradio-container .source-selection .icon:not(.selected) { color: var(--body-text-color) !important; }
.ser-cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 270px), 1fr)); gap: 12px; }
.ser-card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px 14px; min-width: 0;
  background: var(--background-fill-primary); overflow-wrap: anywhere; }
.gradio-container .ser-card h2 { margin: 0; font-size: 1rem; }
.ser-small { font-size: .85rem; color: var(--body-text-color); margin: 2px 0; }
.ser-label { font-size: 1.5rem; font-weight: 600; margin: 6px 0; }
.ser-bars { display: grid; grid-template-columns: max-content 1fr 3.2em; gap: 4px 8px; align-items: center;
  margin: 6px 0; }
.ser-bars dt, .ser-bars dd { margin: 0; }
.ser-bar { height: 12px; background: var(--background-fill-secondary); border: 1px solid var(--border-color-primary); }
.ser-bar > span { display: block; height: 100%; background: #1d6fb8; }
.ser-number { text-align: right; font-variant-numeric: tabular-nums; }
.ser-flags { margin: 6px 0; padding: 0; list-style: none; }
.ser-flags li { border-left: 4px solid #b45309; padding: 2px 8px; margin: 4px 0; }
.ser-note { border-left: 4px solid #1d6fb8; padding: 4px 12px; margin: 12px 0; }
.ser-error { border-left: 4px solid #b91c1c; padding: 4px 12px; margin: 12px 0; font-weight: 600; }
.ser-figure { margin: 12px 0; max-width: 560px; }
.ser-figure svg { width: 100%; height: auto; }
.ser-scroll { overflow: auto; max-width: 100%; max-height: 16rem; }
.gradio-container .ser-table { border-collapse: collapse; font-size: .85rem; border: 0; margin: 6px 0; }
.gradio-container table.ser-table, .ser-table tr, .ser-table tbody { border: 0 !important; }
.gradio-container .ser-table th, .gradio-container .ser-table td { text-align: left; padding: 3px 14px 3px 0;
  border: 0 !important; white-space: nowrap; }
.gradio-container .ser-table th[scope=row] { white-space: normal; overflow-wrap: anywhere; }
.gradio-container h2 { font-size: 1.15rem; margin: 10px 0 4px; }
.ser-note { overflow-wrap: anywhere; }
.ser-timelines { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 12px; }
.ser-timelines > * { min-width: 0; }
.ser-report { width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); background: white; }
.ser-log { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
"""


@dataclass(frozen=True)
class PredictorTitle:
    """What a card says about a predictor before its answer.

    Attributes:
        name: unique on the page.
        run_id: of its run.
        test: one sentence on its result in its own test.
    """

    name: str
    run_id: str
    test: str


def error_html(message: str) -> str:
    """Return an error as a paragraph that screen readers announce."""
    return f'<p class="ser-error" role="alert">{escape(message)}</p>'


def note_html(message: str) -> str:
    """Return a remark as a paragraph that screen readers announce when they are idle."""
    return f'<p class="ser-note" role="status">{escape(message)}</p>'


def percent(share: float) -> str:
    """Return a share in percent.

    >>> percent(0.724), percent(0.004), percent(float("nan"))
    ('72 %', '< 1 %', 'n/a')
    """
    if math.isnan(share):
        return "n/a"
    return "< 1 %" if 0.0 < share < 0.005 else f"{100 * share:.0f} %"


def bars_html(probabilities: Mapping[str, float]) -> str:
    """Return one bar per label, in the order given, with its value in percent."""
    rows = [
        f'<dt>{escape(label)}</dt><dd class="ser-bar" aria-hidden="true"><span style="width:{100 * share:.1f}%"></span>'
        f'</dd><dd class="ser-number">{percent(share)}</dd>'
        for label, share in probabilities.items()
    ]
    return f'<dl class="ser-bars" aria-label="probability of each label">{"".join(rows)}</dl>'


def answer_html(title: PredictorTitle, answer: Answer, adapted: Answer | None = None) -> str:
    """Return the card of one predictor.

    Args:
        title: of the predictor.
        answer: without enrolment.
        adapted: of the same predictor after enrolment; None: there was none.
    """
    parts = [f"<h2>{escape(title.name)}</h2>", f'<p class="ser-small">{escape(title.test)}</p>']
    if adapted is None:
        parts.append(_verdict_html(answer))
    else:
        parts += [f'<p class="ser-small"><strong>{when}</strong></p>{_verdict_html(given)}'
                  for when, given in (("before enrolment", answer), ("after enrolment", adapted))]  # fmt: skip
    if answer.transcript is not None:
        words = f"“{escape(answer.transcript)}”" if answer.transcript else "no words"
        parts.append(f'<p class="ser-small"><strong>transcript</strong> {words}</p>')
    if answer.seconds:
        parts.append(f'<p class="ser-small"><strong>time</strong> {escape(seconds_text(answer.seconds))}</p>')
    return f'<article class="ser-card">{"".join(parts)}</article>'


def _verdict_html(answer: Answer) -> str:
    """Return label, reason and bars."""
    if answer.status == FAILED:
        return f'<p class="ser-label">no answer</p><p>{escape(answer.reason)}</p>'
    label = escape(answer.label) if answer.label else "no label"
    reason = f"<p>{escape(answer.reason)}</p>" if answer.reason else ""
    kind = "" if answer.calibrated else '<p class="ser-small">the probabilities are not calibrated</p>'
    return f'<p class="ser-label">{label}</p>{reason}{bars_html(answer.probabilities)}{kind}'


def seconds_text(seconds: Mapping[str, float]) -> str:
    """Return the seconds of each stage, all of them first.

    >>> seconds_text({"spectral": 0.012, "classify": 0.0004, "total": 1.2})
    'all 1.20 s: spectral 12 ms, classifier < 1 ms'
    """
    stages = [f"{STAGE_NAMES.get(stage, stage)} {_duration(s)}" for stage, s in seconds.items() if stage != TOTAL]
    total = f"all {_duration(seconds[TOTAL])}" if TOTAL in seconds else ""
    return ": ".join(part for part in (total, ", ".join(stages)) if part)


def _duration(seconds: float) -> str:
    if seconds >= 1.0:
        return f"{seconds:.2f} s"
    return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "< 1 ms"


def flags_html(answer: Answer) -> str:
    """Return why the answers about this recording are unsure; "" if nothing is known against them."""
    if not answer.flags:
        return ""
    items = "".join(f"<li>{escape(flag.text)}</li>" for flag in answer.flags)
    heading = "<h2>Why the answers are unsure</h2>"
    return f'<section>{heading}<ul class="ser-flags">{items}</ul></section>'


def disagreement_html(
    shares: DisagreementShares, labels: Mapping[str, str], unseen: bool, synthetic: bool, adapted: Sequence[str] = ()
) -> str:
    """Return how often each predictor was right where they disagreed.

    Args:
        shares: of the test rows.
        labels: name of the predictor → what it says now.
        unseen: whether the test speakers were not in training.
        synthetic: whether the test clips are generated speech.
        adapted: names of the predictors that were tested with the statistics of each test speaker.
    """
    says = ", ".join(f"{name} says {label or 'nothing'}" for name, label in labels.items())
    who = "unseen speakers" if unseen else "speakers who were in training too"
    kind = "SYNTHETIC test clips" if synthetic else "test clips"
    head = "<strong>The predictors disagree</strong>"
    if not shares.rows:
        text = f"They never disagreed on the {shares.of_rows} {kind} that they share."
        return f'<div class="ser-note"><p>{head}: {escape(says)}. {escape(text)}</p></div>'
    rows = [
        f"<tr><th scope=row>{escape(name)}</th><td>{shares.right[name]} of {shares.rows}</td>"
        f"<td>{percent(shares.share(name))}</td></tr>"
        for name in labels
    ]
    where = "with just these labels" if shares.same_labels else f"(with just these labels on fewer than {MIN_ROWS})"
    caption = f"On {shares.rows} of {shares.of_rows} {kind} of {who} they disagreed {where}. There each was right on:"
    after = f'<p class="ser-small">Adapted to each test speaker: {escape(", ".join(adapted))}.</p>' if adapted else ""
    return (
        f'<div class="ser-note"><p>{head}: {escape(says)}.</p><p class="ser-small">{escape(caption)}</p>'
        f'<table class="ser-table">{"".join(rows)}</table>{after}</div>'
    )


def f0_html(recording: Recording, cfg: PitchConfig) -> str:
    """Return the F0 curve of a recording; a remark if it has none or is longer than `F0_MAX_DURATION_S`.

    Raises:
        ConfigError: Praat (praat-parselmouth) is not installed.
    """
    if recording.duration_s > F0_MAX_DURATION_S:
        return ""
    times_s, f0_hz = f0_curve(recording, cfg)
    voiced = f0_hz > 0
    if not voiced.any():
        return note_html("F0 curve: no voiced sound was found.")
    figure, axes = _figure("Fundamental frequency (F0)")
    axes.plot(times_s, np.where(voiced, f0_hz, np.nan), ".-", color=COLOURS[0], markersize=3, linewidth=1)
    axes.set_xlim(0, recording.duration_s)
    axes.set_ylabel("F0 (Hz)", color=INK)
    median, low, high = np.median(f0_hz[voiced]), f0_hz[voiced].min(), f0_hz[voiced].max()
    share = percent(float(voiced.mean()))
    words = f"Median F0 {median:.0f} Hz, from {low:.0f} to {high:.0f} Hz; {share} of the frames are voiced."
    return _figure_html(figure, "Fundamental frequency (F0)", words)


def f0_curve(recording: Recording, cfg: PitchConfig) -> tuple[FloatArray, FloatArray]:
    """Return the times [frames] in seconds, and F0 [frames] in Hz with 0 in unvoiced frames.

    Praat's frames are `0.75 / floor` seconds apart, and the middle one is in the middle of the recording.
    """
    f0_hz = prosody.track_f0(recording.samples, recording.sample_rate_hz, cfg)
    step_s = 0.75 / cfg.floor_hz
    first_s = (recording.duration_s - (len(f0_hz) - 1) * step_s) / 2
    return (first_s + step_s * np.arange(len(f0_hz))).astype(np.float32), f0_hz


def timeline_html(name: str, entries: Sequence[TimelineEntry], labels: Sequence[str], hop_s: float) -> str:
    """Return the probabilities of each window over time, and a table of the regions with one label.

    Args:
        name: of the predictor.
        entries: N windows in order, at least one; one without an answer leaves a gap.
        labels: of the predictor.
        hop_s: distance between the starts of windows, seconds.
    """
    middles = [(entry.start_s + entry.end_s) / 2 for entry in entries]
    title = f"Timeline of {name}"
    figure, axes = _figure(title, legend_rows=math.ceil(len(labels) / 3))
    for i, label in enumerate(labels):
        values = [entry.answer.probabilities.get(label, math.nan) if entry.answer else math.nan for entry in entries]
        axes.plot(middles, values, marker=".", color=COLOURS[i % len(COLOURS)], linewidth=1.5, markersize=3,
                  label=literal_text(label), linestyle=LINE_STYLES[i % len(LINE_STYLES)])  # fmt: skip
    axes.set_xlim(0.0, entries[-1].end_s)
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("probability", color=INK)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    rows = "".join(
        f"<tr><td>{region.start_s:.1f}</td><td>{region.end_s:.1f}</td><td>{escape(region.label)}</td>"
        f"<td>{percent(region.probability)}</td></tr>"
        for region in regions(entries, hop_s)
    )
    columns = ("from (s)", "to (s)", "label", "probability")
    head = "".join(f"<th scope=col>{column}</th>" for column in columns)
    table = (
        f'<div class="ser-scroll" tabindex="0" role="region" aria-label="regions of {escape(name, quote=True)}">'
        f'<table class="ser-table"><tr>{head}</tr>{rows}</table></div>'
    )
    return f"<section>{_figure_html(figure, title, speech_words(entries))}{table}</section>"


def speech_words(entries: Sequence[TimelineEntry]) -> str:
    """Return how many windows have speech, in one sentence."""
    if any(entry.speech is None for entry in entries):
        return f"{len(entries)} windows; whether there is speech in them is not known (no speech gate)."
    spoken = sum(entry.speech is True for entry in entries)
    return f"{spoken} of {len(entries)} windows have speech; the others are not predicted."


def report_html(page: str, caption: str) -> str:
    """Return a report in a frame that cannot reach the page around it."""
    return (
        f'<p class="ser-small">{escape(caption)}</p><iframe class="ser-report" title="comparison report" '
        f'sandbox="allow-scripts" srcdoc="{escape(page, quote=True)}"></iframe>'
    )


def _figure(title: str, legend_rows: int = 0) -> tuple[Figure, Axes]:
    """Return a figure with one panel, in the text colour of the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_INCHES[0], FIGURE_INCHES[1] + 0.2 * legend_rows), layout="constrained")
    axes = figure.subplots()
    axes.set_title(literal_text(title), fontsize=10, color=INK)
    axes.set_xlabel("time (s)", color=INK)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=INK, labelcolor=INK)
    axes.grid(color=INK, alpha=0.15)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side not in ("top", "right"))
    return figure, axes


def _figure_html(figure: Figure, title: str, words: str) -> str:
    spoken = escape(f"{title}. {words}", quote=True)
    svg = to_svg(figure).replace("<svg", f'<svg role="img" aria-label="{spoken}"', 1)
    return f'<figure class="ser-figure">{svg}<figcaption class="ser-small">{escape(words)}</figcaption></figure>'
