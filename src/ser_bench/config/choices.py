"""The keys that take one of a few words, and the words."""

from __future__ import annotations

from enum import Enum


# Enum members are what a user types: lower case, against the convention.
class LabelSet(Enum):
    """Which emotions are kept: the corpus's own, or the six that CREMA-D has."""

    native = "native"
    basic6 = "basic6"


class Target(Enum):
    """What is learnt: the emotion that the actor was asked for, that listeners chose, or the intensity asked for."""

    intended = "intended"
    votes = "votes"
    intensity = "intensity"


class Protocol(Enum):
    """What is split; see docs/protocols.md and `splits/protocols.py`."""

    speaker = "speaker"
    loso = "loso"
    sentence = "sentence"
    speaker_sentence = "speaker_sentence"
    clip = "clip"
    paper = "paper"
    fixed = "fixed"
    cross_corpus = "cross_corpus"


class ScoredRows(Enum):
    """Which rows are predicted and scored: the test rows, or validation rows to choose options on."""

    test = "test"
    validation = "validation"


class OnBadClip(Enum):
    """What to do with a file that cannot be used."""

    stop = "stop"
    skip = "skip"


class Engine(Enum):
    """Which library computes spectral features."""

    torch = "torch"
    librosa = "librosa"


class Pad(Enum):
    """Whether short clips are padded as audio or as feature vectors."""

    audio = "audio"
    vector = "vector"


class MfccOrder(Enum):
    """Order in which the MFCC matrix becomes a vector."""

    frame = "frame"
    coefficient = "coefficient"


class CacheMode(Enum):
    """Use of the cache of language-model answers."""

    off = "off"
    read = "read"
    readwrite = "readwrite"


class AnswerFormat(Enum):
    """What holds a language model to the form of its answer."""

    auto = "auto"
    schema = "schema"
    json = "json"
    text = "text"


class LlmApi(Enum):
    """Interface of a server of language models."""

    chat = "chat"
    responses = "responses"


class AudioForm(Enum):
    """How a message holds a recording."""

    input_audio = "input_audio"
    audio_url = "audio_url"


class ExampleChoice(Enum):
    """How the examples of a prompt are chosen among training clips; see `predictors/llm/prompting/prompt_data.py`."""

    random = "random"
    similar = "similar"


class LabelCorrection(Enum):
    """What a language model's probabilities of the labels are divided by; see `predictors/llm/label_correction.py`."""

    none = "none"
    contextual = "contextual"
    label_bias = "label_bias"
