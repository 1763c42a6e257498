"""The time from the samples of a clip to its answer, measured on a few clips."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from ser_bench.errors import ConfigError
from ser_bench.inference.answer import FAILED, TOTAL
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording


def median_seconds(predictor: AudioPredictor, paths: Sequence[Path]) -> float:
    """Return the median time from samples to answer, seconds. Decoding of the file is not included.

    Nothing is read from the cache, and everything is loaded before, so it is the time of a server that runs already.

    Args:
        predictor: it must ask no language model, because its requests can cost money.
        paths: files of a few clips.

    Raises:
        ConfigError: the predictor asks a language model, or no clip has an answer.
        SerBenchError: nothing can be predicted, for example because a recogniser needs known sentences.
    """
    if predictor.asks_language_model:
        raise ConfigError("requests to a language model are not repeated for a measurement")
    recordings = [Recording.from_file(path, predictor.max_duration_s) for path in paths]
    predictor.predict(recordings[:1])  # loads weights, compiles
    answers = [predictor.predict([recording])[0] for recording in recordings]
    seconds = [answer.seconds[TOTAL] for answer in answers if answer.status != FAILED]
    if not seconds:
        raise ConfigError(answers[0].reason if answers else "there is no clip")
    return statistics.median(seconds)
