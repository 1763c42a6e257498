"""TESS: two actresses, "Say the word …" with 200 words, seven emotions, Canadian English."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ser_bench.corpora.data_sheet import Fields, Host, Remote, Sheet
from ser_bench.corpora.labels import ordered

EMOTIONS: Mapping[str, str] = {
    "angry": "angry",
    "disgust": "disgust",
    "fear": "fearful",
    "happy": "happy",
    "neutral": "neutral",
    "ps": "surprised",  # pleasant surprise
    "sad": "sad",
}
SPEAKERS = ("OAF", "YAF")
"""The older (64) and the younger (26) actress."""
CARRIER = "Say the word {word}"

NAME = re.compile(rf"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<emotion>{'|'.join(EMOTIONS)})", re.IGNORECASE)


def parse(stem: str) -> Fields:
    """What the name of a clip tells.

    Raises:
        ValueError: the name is not of this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None:
        raise ValueError(stem)
    speaker = "YAF" if match["speaker"].upper() == "YAF" else "OAF"  # the release has one OA_bite_neutral
    word, emotion = match["word"].lower(), match["emotion"].lower()
    return Fields(
        id=f"{speaker}_{word}_{emotion}",
        emotion=EMOTIONS[emotion],
        speaker=speaker,
        sentence=word,
        text=CARRIER.format(word=word),
        sex="female",
    )


SHEET = Sheet(
    name="tess",
    title="TESS: Toronto Emotional Speech Set",
    citation="Pichora-Fuller, M. K., & Dupuis, K. (2020). Toronto emotional speech set (TESS) (Version 1.0). Borealis.",
    doi="10.5683/SP2/E8H2MF",
    licence="CC BY-NC-ND 4.0",
    homepage="https://doi.org/10.5683/SP2/E8H2MF",
    language="en",
    labels=ordered(EMOTIONS.values()),
    clips=2800,
    speakers=2,
    per_emotion=dict.fromkeys(ordered(EMOTIONS.values()), 400),
    naming="SPEAKER_WORD_EMOTION, such as OAF_back_angry",
    parse=parse,
    examples=("OAF_back_angry", "YAF_youth_ps", "OA_bite_neutral"),
    remotes=(Remote(Host.dataverse, url="https://borealisdata.ca", archive="doi:10.5683/SP2/E8H2MF"),),
    notes=(
        "Two speakers: a speaker-independent split has two folds and one speaker on each side.",
        "One file is called OA_bite_neutral; it is read as OAF_bite_neutral.",
        "A copy in circulation holds every file twice, in a folder within the folder; use one of them.",
    ),
)
