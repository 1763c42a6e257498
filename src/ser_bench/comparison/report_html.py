"""A report as one self-contained HTML page (`report.html.j2`), with figures and audio, for use without a network."""

from __future__ import annotations

import base64
import io
import logging
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ser_bench import audio, corpora
from ser_bench.comparison import report_figures, report_tables
from ser_bench.comparison.claims import Claim
from ser_bench.comparison.paired import Comparison
from ser_bench.comparison.verdict import heading, leakage_statements, share, verdict
from ser_bench.errors import SerBenchError
from ser_bench.evaluation import metrics
from ser_bench.types import Clip

if TYPE_CHECKING:
    from jinja2 import Template

    from ser_bench.comparison.report import Report

log = logging.getLogger(__name__)

AUDIO_RATE_HZ = 16_000
MAX_AUDIO_S = 6.0
"""Longer clips are cut, so that the audio of twelve clips stays below half a megabyte."""
MAX_OPEN_ROWS = 30
"""Longer tables are folded."""
MAX_OPEN_PAIRS = 6
"""With more pairs, their table is folded."""
HEAT_OPACITY = 0.75
"""Opacity of the background of a cell with the value 1."""


@dataclass(frozen=True)
class HeatTable:
    """A confusion matrix, or a difference of two, whose cells are coloured by value; values from -1 to 1."""

    title: str
    columns: list[str]
    rows: list[tuple[str, list[float]]]


def as_html(report: Report) -> str:
    """Return the page. Its size depends on the tables and the audio, and not on the number of clips."""
    sections = [_section(comparison, report.claims_on(comparison)) for comparison in report.comparisons]
    refused = [str(error) for error in report.refused]
    return _template().render(title=report.title, protocols=_protocols(report), sections=sections, refused=refused)


def _protocols(report: Report) -> list[dict[str, Any]]:
    """Return figure and table of the predictors that were run under several protocols, one entry per corpus."""
    entries = []
    for corpus in dict.fromkeys(comparison.corpus for comparison in report.comparisons):
        comparisons = [comparison for comparison in report.comparisons if comparison.corpus == corpus]
        results = report_tables.across_protocols(comparisons)
        if results:
            figure = report_figures.protocol_figure(results, report.claims.get(corpus, []))
            name = f"{corpus} (SYNTHETIC speech)" if comparisons[0].synthetic else corpus
            headings, rows = report_tables.protocol_table(results)
            entries.append({"corpus": name, "figure": figure, "columns": headings, "rows": rows})
    return entries


def _section(comparison: Comparison, claims: list[Claim]) -> dict[str, Any]:
    headings, rows = report_tables.main_table(comparison)
    by_clip_group = [(name, report_tables.by_clip_group(comparison, name)) for name in report_tables.CLIP_GROUPS]
    matrices, differences = _confusion_matrices(comparison)
    support = metrics.per_class(comparison.baseline.predictions)
    return {
        "heading": heading(comparison),
        "verdict": verdict(comparison),
        "columns": headings,
        "rows": rows,
        "votes": report_tables.votes_table(comparison),
        "pairs": report_tables.pairs_table(comparison) if comparison.pairs else None,
        "detectable": report_tables.detectable_remark(comparison),
        "max_open_pairs": MAX_OPEN_PAIRS,
        "kind_of_label": comparison.kind_of_label,
        "leakage": leakage_statements(comparison),
        "claims": _plain(report_tables.claims_table(claims)) if claims else None,
        "remark": report_tables.sentence_remark(comparison),
        "figures": report_figures.figures_of(comparison),
        "matrices": matrices,
        "differences": differences,
        "support": ", ".join(f"{label} {score.support:,}" for label, score in support.items()),
        "by_class": [
            (metrics.METRICS[name].title, _plain(report_tables.by_class(comparison, name)))
            for name in report_tables.CLASS_METRICS
        ],
        "by_clip_group": [(name, _plain(frame)) for name, frame in by_clip_group if frame is not None],
        "disagreements": _disagreements(comparison),
        "max_open_rows": MAX_OPEN_ROWS,
    }


def _confusion_matrices(comparison: Comparison) -> tuple[list[HeatTable], list[HeatTable]]:
    """Return the confusion matrix of every predictor, and the difference of every other one to the baseline's."""
    shares = {result.name: report_tables.confusion_shares(result) for result in comparison.results}
    columns = [*comparison.labels, "abstained"]
    if not any(matrix[:, -1].any() for matrix in shares.values()):
        shares, columns = {name: matrix[:, :-1] for name, matrix in shares.items()}, columns[:-1]
    baseline = comparison.baseline.name

    def table(title: str, matrix: np.ndarray[Any, Any]) -> HeatTable:
        return HeatTable(title, columns, list(zip(comparison.labels, matrix.tolist(), strict=True)))

    matrices = [table(name, matrix) for name, matrix in shares.items()]
    differences = [
        table(f"{name} minus {baseline}", matrix - shares[baseline])
        for name, matrix in shares.items()
        if name != baseline
    ]
    return matrices, differences


def _disagreements(comparison: Comparison) -> dict[str, Any] | None:
    """Return the clips on which predictors differ most, with their audio if it is available."""
    frame = report_tables.disagreements(comparison)
    if frame.empty:
        return None
    clips = _clips(comparison)
    sounds = [_mp3_url(clips[clip_id]) if clip_id in clips else None for clip_id in frame["clip"]]
    return _plain(frame) | {"sounds": sounds}


def _clips(comparison: Comparison) -> dict[str, Clip]:
    """Return the clips with their files; {} if the corpus is no longer where the first run read it."""
    run = comparison.baseline.group.all[0]
    try:
        return corpora.load(run.config()).by_id
    except (SerBenchError, OSError) as error:
        log.warning("warning  the report has no audio: %s", error)
        return {}


def _mp3_url(clip: Clip) -> str | None:
    """Return the clip as an MP3 data URL; None if the file cannot be read."""
    import soundfile

    try:
        samples = audio.load(clip.path, AUDIO_RATE_HZ, duration_s=MAX_AUDIO_S)
    except (SerBenchError, OSError) as error:
        log.warning("warning  the report has no audio of %s: %s", clip.id, error)
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), AUDIO_RATE_HZ, format="MP3")
    return "data:audio/mpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _plain(frame: pd.DataFrame) -> dict[str, Any]:
    """Return column names, and rows of `report_tables.Cell`."""
    return {"columns": list(frame.columns), "rows": [[_cell(v) for v in row] for row in frame.itertuples(index=False)]}


def _cell(value: object) -> report_tables.Cell:
    if isinstance(value, float):
        return report_tables.Cell(share(value), value)
    return report_tables.Cell(str(value), value if isinstance(value, int) else str(value))


@lru_cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"share": short_share, "breakable": breakable, "opacity": opacity}
    return environment.from_string((Path(__file__).parent / "report.html.j2").read_text(encoding="utf-8"))


def opacity(value: float) -> str:
    """Return the opacity of a cell's background: proportional to the absolute value, with two decimals."""
    return f"{HEAT_OPACITY * abs(value):.2f}"


def breakable(text: str) -> str:
    """Return escaped text with <wbr> after the separators of a name, where a browser may then break the line.

    >>> str(breakable("whisper_probe+speaker_stats_10"))
    'whisper_<wbr>probe+<wbr>speaker_<wbr>stats_<wbr>10'
    >>> str(breakable("cnn +1.5, 7,192,710 parameters"))
    'cnn +1.5, 7,192,710 parameters'
    """
    from markupsafe import Markup, escape

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[^\W\d][_+=,])(?=\w)|(?<=\d[_+])(?=\w)", text))


def short_share(value: float) -> str:
    """Format a share with two decimals and without the leading zero.

    >>> short_share(0.071), short_share(-0.12), short_share(1.0)
    ('.07', '−.12', '1')
    """
    text = f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")
    return "1" if text == "1.00" else text.replace("0.", ".", 1)
