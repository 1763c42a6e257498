"""Train a small predictor on the generated demo corpus, for a user who has no run yet."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Sequence

from ser_bench import extras, pipeline, weights
from ser_bench.config import compose
from ser_bench.config.services import only_own_services
from ser_bench.errors import SerBenchError

DEMO_WORDS = ("corpus=demo", "experiment=none")
CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "whisper_probe": (("model=whisper_probe", "model.encoders=[tiny.en]"), ("faster_whisper", "espeakng_loader")),
    "egemaps": (("model=egemaps",), ("opensmile", "espeakng_loader")),
    "cnn": (("model=cnn", "size=eighth", "trainer=demo"), ("espeakng_loader",)),
}
"""Model → overrides, and packages that it needs; the first one that can run is trained."""
ENCODER_WEIGHTS = "whisper-tiny.en"
WAIT_S = 0.5


def choose_model() -> str:
    """Return the name of the predictor that can be trained with what is installed.

    `whisper_probe` is chosen only if its weights were downloaded before, so that nothing is downloaded. If packages are
    missing everywhere, return "cnn", whose training then says which.
    """
    for name, (_, modules) in CHOICES.items():
        if name == "whisper_probe" and weights.find(ENCODER_WEIGHTS) is None:
            continue
        if all(extras.is_installed(module) for module in modules):
            return name
    return "cnn"


def training_words(model: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides of the run that trains a model of `CHOICES`."""
    return [*DEMO_WORDS, *CHOICES[model][0], *overrides]


class QuickTraining:
    """A run in another thread. Iterate over `lines` while it trains, then read `run_id`.

    Args:
        words: overrides of the run.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.run_id = ""
        self._words = list(words)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._error: BaseException | None = None

    def lines(self) -> Iterator[str]:
        """Start the run and yield each line that it logs; "" if nothing was logged for a while.

        Raises:
            SerBenchError: the run failed.
        """
        handler = _QueueHandler(self._lines)
        logger = logging.getLogger("ser_bench")
        level = logger.level
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        thread = threading.Thread(target=self._train, name="quick training", daemon=True)
        try:
            thread.start()
            while thread.is_alive() or not self._lines.empty():
                try:
                    yield self._lines.get(timeout=WAIT_S)
                except queue.Empty:
                    yield ""
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)
        if isinstance(self._error, SerBenchError):
            raise self._error
        if self._error is not None:
            raise SerBenchError(f"the training failed: {self._error}") from self._error

    def _train(self) -> None:
        try:
            cfg = compose(self._words)
            with only_own_services(cfg):
                self.run_id = pipeline.run(cfg, None).run_id
        except BaseException as error:  # it is raised again in the thread that reads the lines
            self._error = error


class _QueueHandler(logging.Handler):
    def __init__(self, lines: queue.SimpleQueue[str]) -> None:
        super().__init__(logging.INFO)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(record.getMessage())
