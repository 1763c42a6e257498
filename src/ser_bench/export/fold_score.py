"""The score of exported files on the test rows of their run, computed from the audio of its corpus."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ser_bench import audio, corpora
from ser_bench.config import Config, run_here
from ser_bench.errors import ConfigError, NotComparableError
from ser_bench.evaluation.metrics import uar_of
from ser_bench.export.onnx_predictor import OnnxPredictor, Precision
from ser_bench.tracking import StoredRun

PROGRESS_AFTER_S = 2.0
"""A progress bar appears on a terminal when the work takes longer than this."""


@dataclass(frozen=True)
class FoldScore:
    """Scores of one export on the clean test rows of its run.

    Attributes:
        rows: their number.
        stored: UAR of the stored predictions of the run on them.
        uar: of each file.
        changed: number of rows whose label differs from the stored one, of each file.
    """

    rows: int
    stored: float
    uar: Mapping[Precision, float]
    changed: Mapping[Precision, int]


def score_on_test_rows(run: StoredRun, here: Config, exported: Mapping[Precision, OnnxPredictor]) -> FoldScore:
    """Predict the clean test rows of the run with each file.

    Args:
        run: whose predictor was exported.
        here: the user's configuration; `corpus.root` is the folder of the run's corpus.
        exported: files whose input are samples.

    Raises:
        ConfigError: the input of the files are features.
        CorpusError: the corpus is not there.
        NotComparableError: its content differs from what the run used.
        BadClipError: a clip cannot be read.
    """
    if any(one.sample_rate_hz is None for one in exported.values()):
        raise ConfigError("--score needs a graph that takes samples, so a run of model=whisper_probe")
    cfg = run_here(run.config(), here)
    cfg.corpus.root = here.corpus.root or cfg.corpus.root
    corpus = corpora.load(cfg)
    if corpus.digest != run.tags.get("corpus_digest"):
        raise NotComparableError(
            f"{corpora.root_of(cfg)}: not the copy of {corpus.name} that run {run.run_id} used; name it with "
            "corpus.root=FOLDER"
        )
    stored = run.predictions()
    index = {label: number for number, label in enumerate(stored.labels)}
    clean = [number for number, row in enumerate(stored.rows) if row.variant == "clean"]
    truth = np.array([index[stored.truth[number]] for number in clean])
    before = np.array([index.get(stored.predicted[number], len(index)) for number in clean])
    after = {precision: np.empty(len(clean), dtype=np.int64) for precision in exported}
    paths = [corpus.by_id[stored.rows[number].clip_id].path for number in clean]
    for position, path in enumerate(tqdm(paths, "test rows", unit="clip", delay=PROGRESS_AFTER_S, disable=None)):
        samples, rate = audio.read(path)
        for precision, one in exported.items():
            after[precision][position] = one.predict_samples(samples, rate).argmax()
    return FoldScore(
        len(clean),
        uar_of(truth, before, len(index)),
        {precision: uar_of(truth, found, len(index)) for precision, found in after.items()},
        {precision: int((found != before).sum()) for precision, found in after.items()},
    )
