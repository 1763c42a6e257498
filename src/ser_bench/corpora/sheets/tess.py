"""Data sheet of TESS: 2 actresses, "Say the word …" with 200 words, 7 emotions, Canadian English."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ser_bench.corpora.data_sheet import DataSheet, Fields, Host, Remote
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
"""The older (aged 64) and the younger (aged 26) actress."""
CARRIER = "Say the word {word}"

NAME = re.compile(rf"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<emotion>{'|'.join(EMOTIONS)})", re.IGNORECASE)


def parse(stem: str) -> Fields:
    """Return the fields in the file name of a clip.

    Raises:
        ValueError: if the name does not belong to this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None:
        raise ValueError(stem)
    speaker = "YAF" if match["speaker"].upper() == "YAF" else "OAF"  # one file of the release is called OA_bite_neutral
    word, emotion = match["word"].lower(), match["emotion"].lower()
    return Fields(
        id=f"{speaker}_{word}_{emotion}",
        emotion=EMOTIONS[emotion],
        speaker=speaker,
        sentence=word,
        text=CARRIER.format(word=word),
        sex="female",
    )


SHEET = DataSheet(
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
    clips_per_label=dict.fromkeys(ordered(EMOTIONS.values()), 400),
    naming="SPEAKER_WORD_EMOTION, such as OAF_back_angry",
    parse=parse,
    examples=("OAF_back_angry", "YAF_youth_ps", "OA_bite_neutral"),
    remotes=(Remote(Host.dataverse, url="https://borealisdata.ca", archive="doi:10.5683/SP2/E8H2MF"),),
    notes=(
        "Two speakers: a split by speaker has two folds, with one training speaker and one test speaker.",
        "One file is called OA_bite_neutral; it is read as OAF_bite_neutral.",
        "Some copies contain every file twice, the second time in a subfolder; use one of the folders.",
    ),
)
