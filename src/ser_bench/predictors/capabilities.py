"""What some predictors offer beyond `fit`, `predict`, `save` and `load`; a class declares it by inheriting.

`registry.has_capability(name, GivesVectors)` asks a class, `registry.require_capability(predictor, GivesVectors)` an
object. Nothing is inferred from the names of methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_bench.config import Config
from ser_bench.types import Corpus, FloatArray, Predictions, Row, Split
from ser_bench.weights import LicensedPart

if TYPE_CHECKING:
    from torch import nn


class GivesVectors(ABC):
    """It classifies a fixed vector of each clip, which another classifier can use too."""

    @abstractmethod
    def vectors(self, rows: Sequence[Row]) -> FloatArray:
        """Return [N, D] vectors in the order of the rows, not standardised."""

    @classmethod
    def reason_without_vectors(cls, cfg: Config) -> str:
        """Return why a run with this configuration has no fixed vector of every clip; "" if it has."""
        return ""


class ScalesFeatures(ABC):
    """It standardises features by statistics that it stores as `mean` and `std`."""

    @abstractmethod
    def scaler_inputs(self, rows: Sequence[Row]) -> FloatArray:
        """Return [M, D], the features that the statistics were computed of; the audit computes them again.

        M is the number of rows, or rows times frames where one scaler serves all frames of a clip.
        """

    @classmethod
    def reason_outdated(cls, folder: Path) -> str:
        """Return why this version computes other features than the stored predictor was fitted to; "" if it does not.

        Args:
            folder: what `save` wrote.
        """
        return ""


class AdaptsToSpeaker(ABC):
    """It can adapt to a speaker by clips without labels."""

    @abstractmethod
    def enrol(self, speaker: str, rows: Sequence[Row]) -> None:
        """Adapt to the speaker of these clips: later clips with this speaker's name are predicted accordingly.

        Raises:
            ConfigError: the run does not adapt to speakers.
        """


class PredictsHeldOut(ABC):
    """After `fit` it gives predictions of the validation rows by a model that was fitted to training rows alone.

    They show how far its probabilities agree with its accuracy on unseen speakers (`evaluation/calibration.py`).
    """

    @abstractmethod
    def held_out(self, val: Sequence[Row]) -> Predictions:
        """Return predictions of the rows that were given to `fit` as `val`, in the same order.

        Raises:
            SerBenchError: it was loaded and not fitted.
        """

    @classmethod
    def reason_without_held_out(cls, cfg: Config) -> str:
        """Return why a run with this configuration has no such predictions, or should not ask for them; else ""."""
        return ""


class HasNetwork(ABC):
    """It is a PyTorch network, and is logged as an MLflow model."""

    @abstractmethod
    def torch_module(self) -> tuple[nn.Module, FloatArray]:
        """Return the module from raw features [N, …] to probabilities [N, C], and an input example of two rows."""

    @classmethod
    @abstractmethod
    def untrained_network(cls, cfg: Config, classes: int) -> tuple[nn.Module, tuple[int, ...]]:
        """Return the network that `cfg` describes, and the shape of one row of its input."""


class HasPrompt(ABC):
    """It sends prompts to a language model."""

    @abstractmethod
    def prompt_templates(self) -> dict[str, Any]:
        """Return the prompt for a prompt registry: name, messages with placeholders, digest, version."""

    @abstractmethod
    def estimate_lines(self, rows: Sequence[Row]) -> list[str]:
        """Return what predicting these rows would ask, cost and take, as lines of text; send no request."""

    def prediction_tags(self) -> Mapping[str, str]:
        """Return tags of a run that are known after `predict`; {} if there are none."""
        return {}


class CombinesRuns(ABC):
    """It combines the answers of other runs."""

    @abstractmethod
    def without_each(self, rows: Sequence[Row]) -> Mapping[str, Predictions]:
        """Return member → predictions of the same combination without that member."""


class UsesLicensedParts(ABC):
    """It uses weights or software under a licence of their own, which its model card states.

    Those that the groups `asr`, `text` and `llm` choose need no declaration.
    """

    @classmethod
    @abstractmethod
    def licensed_parts(cls, cfg: Config) -> list[LicensedPart]:
        """Return what a run with this configuration uses; paths as `weights.licensed_part` writes them."""


class StatesTrainingData(ABC):
    """Its pretrained weights may have been trained on the corpus that it is tested on."""

    @classmethod
    @abstractmethod
    def training_data(cls, cfg: Config) -> dict[str, tuple[str, ...] | None]:
        """Return name of the checkpoint → names of the corpora that it was trained on; None if they are not known."""


class AnswersFromFile(ABC):
    """Its answers were made elsewhere and are read from a file: there is no model, and its training is not known."""

    @classmethod
    @abstractmethod
    def check_answers(cls, cfg: Config, corpus: Corpus, split: Split) -> dict[str, str]:
        """Check the file before a run is created, and return tags of the run; a digest of the file goes into `cfg`.

        Raises:
            ConfigError: the file cannot be used, or its answers are not about the test rows of the split.
        """

    @classmethod
    @abstractmethod
    def origin(cls, cfg: Config) -> str:
        """Return name and digest of the file, for readers."""
