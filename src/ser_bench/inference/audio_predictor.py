"""A trained predictor that takes recordings and computes transcript, F0 and every other feature itself."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ser_bench import audio, predictors, stored_predictors
from ser_bench.cache import MemoryFolder
from ser_bench.config import Config, Target, run_here
from ser_bench.config.services import only_own_services
from ser_bench.errors import BadClipError, ConfigError
from ser_bench.evaluation.calibration import Calibration
from ser_bench.features.feature_store import Features
from ser_bench.features.torch_threads import one_torch_thread
from ser_bench.inference import input_checks
from ser_bench.inference.answer import CHECKS, CLASSIFY, FAILED, TOTAL, Answer
from ser_bench.inference.bundle import read_bundle
from ser_bench.inference.input_checks import TrainedOn
from ser_bench.inference.predictor_files import PredictorFiles
from ser_bench.inference.recording import Recording
from ser_bench.predictors import AdaptsToSpeaker, AnswersFromFile, GivesVectors, Need
from ser_bench.tracking import StoredRun
from ser_bench.types import Clip, FloatArray, Predictions, Predictor, Row, clean_rows

WARM_UP_S = 2.0
WARM_UP_RATE_HZ = 16_000
_computing = threading.RLock()
"""One prediction at a time: a prediction uses all cores, and the services that may be asked belong to the process."""
_memory = MemoryFolder()
"""Features of the recordings that are being predicted, which several predictors share."""


@dataclass(frozen=True)
class _LoadedMember:
    """A run that a fusion combines (`types.FusionMember`)."""

    name: str
    run_id: str
    predictor: Predictor

    def predict(self, rows: Sequence[Row]) -> Predictions:
        """Return the predictions of these rows."""
        return self.predictor.predict(rows)

    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] vectors of the run's classifier."""
        return predictors.require_capability(self.predictor, GivesVectors).vectors(rows)


class AudioPredictor:
    """A trained predictor, loaded once. Several threads may use it; they wait for each other.

    Args:
        files: of the trained predictor.
        here: the user's own configuration, which decides devices, cache and the services that may be asked.
        store_features: store computed features (transcripts, answers of language models) in the cache on the disk, as
            runs do. By default nothing of the audio is written.

    Raises:
        ConfigError: the predictor cannot predict new audio.
        LLMError: the run asks a service that `here` does not name.
        SerBenchError: a file cannot be read.
    """

    def __init__(self, files: PredictorFiles, here: Config, store_features: bool = False) -> None:
        self.name = files.name
        self.run_id = files.run_id
        self.labels = files.labels
        self.cfg = files.cfg
        self.needs: frozenset[Need] = predictors.predictor_class(files.cfg.model.name).needs
        self._calibration = None if files.calibration is None else Calibration.load(files.calibration)
        self._trained_on = TrainedOn(files.longest_s, files.cfg.corpus.language)
        self.check_language = False
        """Whether to look for another language than that of the training (`input_checks.spoken_language`), which takes
        longer than most predictors."""
        self._here = here
        self._cache_dir = here.cache_dir if store_features else str(_memory.path)
        self._clips: dict[str, Clip] = {}
        self._features: list[Features] = []
        self._adaptable: list[AdaptsToSpeaker] = []
        self._speakers: set[str] = set()
        self.asks_language_model = False
        """Whether the run, or a run that it combines, sends requests to a language model."""
        with _computing, only_own_services(here):
            self._predictor = self._loaded(files)

    @classmethod
    def from_run(cls, stored: StoredRun, here: Config, store_features: bool = False) -> AudioPredictor:
        """Load the predictor of a stored run.

        Raises:
            TrackingError: files of the run were changed after it had ended.
            SerBenchError: as the class says.
        """
        return cls(PredictorFiles.of_run(stored), here, store_features)

    @classmethod
    def from_folder(cls, folder: Path, here: Config) -> AudioPredictor:
        """Load the predictor from a bundle (`inference/bundle.py`); no store is needed.

        Raises:
            SerBenchError: the folder is no bundle, or as the class says.
        """
        return cls(read_bundle(folder), here)

    @property
    def max_duration_s(self) -> float:
        """Longest recording that is one utterance, seconds."""
        return self.cfg.corpus.max_duration_s

    @property
    def adapts(self) -> bool:
        """Whether `enrol` is possible: the run, or a run that it combines, has `adapt=speaker_stats`."""
        return bool(self._adaptable)

    @property
    def kind_of_label(self) -> str:
        """What the labels are: "emotion" or "intensity"."""
        return "intensity" if self.cfg.corpus.target is Target.intensity else "emotion"

    @property
    def model(self) -> str:
        """Name that chose the predictor, for example "cnn"."""
        return self.cfg.model.name

    def predict(self, recordings: Sequence[Recording]) -> list[Answer]:
        """Return one answer per recording, in order. A recording that cannot be used has the status "failed".

        Raises:
            SerBenchError: nothing can be predicted, for example because weights are missing or a service is not set up.
        """
        return predict_with_each([self], recordings)[0]

    def enrol(self, recordings: Sequence[Recording], speaker: str) -> None:
        """Adapt to a speaker by recordings without labels; later recordings with this `speaker` are predicted so.

        Only their statistics are kept.

        Raises:
            ConfigError: the run has `adapt=none`, the name is empty, or there are no recordings.
            BadClipError: a recording cannot be used.
        """
        if not self.adapts:
            raise ConfigError(f"run {self.run_id} ({self.name}) has adapt=none; enrolment needs adapt=speaker_stats")
        if not speaker or not recordings:
            raise ConfigError("enrolment needs the name of the speaker and at least one recording")
        with _computing, contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            self._clips.update(self._clip(stack, recording) for recording in recordings)
            rows = clean_rows(self._clips)
            for adaptable in self._adaptable:
                adaptable.enrol(speaker, rows)
            self._speakers.add(speaker)

    def warm_up(self) -> None:
        """Load weights and compile what is compiled on first use, so that the first answer takes no longer than others.

        Nothing is sent to a language model.
        """
        if self.asks_language_model:
            return
        noise = np.random.default_rng(0).normal(0.0, 0.1, round(WARM_UP_S * WARM_UP_RATE_HZ)).astype(np.float32)
        self.predict([Recording.from_samples(noise, WARM_UP_RATE_HZ, "warm-up")])

    def _loaded(self, files: PredictorFiles) -> Predictor:
        """Load a predictor, and before it the members of a fusion."""
        name = files.cfg.model.name
        if Need.votes in predictors.predictor_class(name).needs:
            raise ConfigError(f"model={name} cannot predict new audio: it needs votes of listeners; choose another run")
        if predictors.has_capability(name, AnswersFromFile):
            raise ConfigError(
                f"run {files.run_id} ({files.name}) has no model that could predict new audio: its predictions were "
                "imported from a file; choose another run"
            )
        cfg = run_here(deepcopy(files.cfg), self._here)
        cfg.cache_dir = self._cache_dir
        cfg.llm.limit = None
        stored_predictors.check_services(cfg)
        self.asks_language_model |= "llm" in predictors.predictor_class(name).groups
        members = [
            _LoadedMember(member_name, member.run_id, self._loaded(member))
            for member_name, member in files.members.items()
        ]
        features = Features(cfg, self._clips, cfg.corpus.language, members)
        self._features.append(features)
        predictor = predictors.load(files.folder, cfg, files.labels, features)
        if isinstance(predictor, AdaptsToSpeaker) and cfg.adapt.name != "none":
            self._adaptable.append(predictor)
        return predictor

    def _answers(self, recordings: Sequence[Recording]) -> list[Answer]:
        """As `predict`, while no other thread predicts."""
        failed: dict[int, str] = {}
        with contextlib.ExitStack() as stack, only_own_services(self._here):
            stack.callback(self._forget)
            clips: dict[int, Clip] = {}
            for position, recording in enumerate(recordings):
                try:
                    _, clips[position] = self._clip(stack, recording)
                except BadClipError as error:
                    failed[position] = str(error)
            if len(clips) == 1:
                stack.enter_context(one_torch_thread())
            started = time.perf_counter()
            predictions = self._predictions(clips, recordings, failed)
            if predictions is not None and self._calibration is not None and predictions.gives_probabilities:
                predictions = self._calibration.applied(predictions)
            total_s = (time.perf_counter() - started) / max(1, len(clips))
            transcripts = {i: words for features in self._features for i, words in features.transcripts_by_id.items()}
            seconds: dict[str, float] = {}
            for features in self._features:
                for stage, spent_s in features.seconds.items():
                    seconds[stage] = seconds.get(stage, 0.0) + spent_s / max(1, len(clips))
        seconds[CLASSIFY] = total_s - sum(seconds.values())
        seconds[TOTAL] = total_s
        rows = {row.clip_id: i for i, row in enumerate(predictions.rows)} if predictions else {}
        answers = []
        for position, recording in enumerate(recordings):
            if predictions is None or position in failed:
                answers.append(
                    Answer(recording.name, "", {}, FAILED, failed[position], duration_s=recording.duration_s)
                )
                continue
            clip_id = clips[position].id
            answers.append(self._answer(recording, predictions, rows[clip_id], seconds, transcripts.get(clip_id)))
        return answers

    def _clip(self, stack: contextlib.ExitStack, recording: Recording) -> tuple[str, Clip]:
        """Hold the samples as long as the stack, and return id and clip. Equal recordings have one id."""
        path = stack.enter_context(audio.held(recording.samples, recording.sample_rate_hz, recording.name))
        speaker = recording.speaker if recording.speaker in self._speakers else ""
        clip_id = f"{recording.digest} {speaker}".strip()
        clip = Clip(clip_id, path, "", speaker, duration_s=recording.duration_s, digest=recording.digest)
        return clip_id, clip

    def _predictions(
        self, clips: Mapping[int, Clip], recordings: Sequence[Recording], failed: dict[int, str]
    ) -> Predictions | None:
        """Return the predictions of the clips that can be used, by position; `failed` receives the others' reasons."""
        while usable := {position: clip for position, clip in clips.items() if position not in failed}:
            self._clips.clear()
            self._clips.update({clip.id: clip for clip in usable.values()})
            try:
                return self._predictor.predict(clean_rows(self._clips))
            except BadClipError as error:
                text = str(error)
                refused = [p for p, clip in usable.items() if text.startswith((f"{clip.path}:", f"{clip.id}:"))]
                if not refused:
                    raise
                ids = {usable[position].id for position in refused}
                for position, clip in usable.items():
                    if clip.id in ids:
                        failed[position] = text.replace(str(usable[refused[0]].path), recordings[position].name)
        return None

    def _answer(
        self,
        recording: Recording,
        predictions: Predictions,
        row: int,
        seconds: Mapping[str, float],
        transcript: str | None,
    ) -> Answer:
        status, reason = predictions.status[row], ""
        if status == FAILED:
            reason = predictions.notes[row] if predictions.notes else predictions.causes[row]
        elif predictions.reasons:
            reason = predictions.reasons[row]
        probabilities = predictions.probabilities[row]
        checked = time.perf_counter()
        flags = input_checks.flags(
            recording, self._trained_on, recording.cancelled, self.check_language
        )
        checks_s = time.perf_counter() - checked
        return Answer(
            name=recording.name,
            label=predictions.predicted[row],
            probabilities=dict(zip(self.labels, map(float, probabilities), strict=True)) if status != FAILED else {},
            status=status,
            reason=reason,
            flags=flags,
            seconds={**seconds, CHECKS: checks_s, TOTAL: seconds[TOTAL] + checks_s},
            duration_s=recording.duration_s,
            transcript=transcript,
            calibrated=self._calibration is not None and predictions.gives_probabilities,
        )

    def _forget(self) -> None:
        self._clips.clear()
        for features in self._features:
            features.forget()

    def __repr__(self) -> str:
        return f"<predictor of run {self.run_id[:8]} ({self.name}): {', '.join(self.labels)}>"


def predict_with_each(predictors_: Sequence[AudioPredictor], recordings: Sequence[Recording]) -> list[list[Answer]]:
    """Return the answers of each predictor on the same recordings. Features that several need are computed once.

    Raises:
        SerBenchError: as in `AudioPredictor.predict`.
    """
    with _computing, _cleared():
        return [predictor._answers(recordings) for predictor in predictors_]


@contextlib.contextmanager
def _cleared() -> Iterator[None]:
    try:
        yield
    finally:
        _memory.clear()
