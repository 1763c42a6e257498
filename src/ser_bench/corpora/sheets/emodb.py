"""Data sheet of EmoDB, the Berlin database of emotional speech: 10 speakers, 10 sentences, 7 emotions, German."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ser_bench.corpora.data_sheet import DataSheet, Fields, Host, Remote
from ser_bench.corpora.labels import ordered

SENTENCES: Mapping[str, str] = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
EMOTIONS: Mapping[str, str] = {
    "W": "angry",  # Wut
    "L": "bored",  # Langeweile
    "E": "disgust",  # Ekel
    "A": "fearful",  # Angst
    "F": "happy",  # Freude
    "T": "sad",  # Trauer
    "N": "neutral",
}
SEXES: Mapping[str, str] = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
"""Speaker → sex, from the publisher's table of speakers."""

NAME = re.compile(
    rf"(?P<speaker>{'|'.join(SEXES)})(?P<sentence>{'|'.join(SENTENCES)})(?P<emotion>[{''.join(EMOTIONS)}])[a-z]?"
)


def parse(stem: str) -> Fields:
    """Return the fields in the file name of a clip.

    Raises:
        ValueError: if the name does not belong to this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None:
        raise ValueError(stem)
    return Fields(
        id=stem,
        emotion=EMOTIONS[match["emotion"]],
        speaker=match["speaker"],
        sentence=match["sentence"],
        text=SENTENCES[match["sentence"]],
        sex=SEXES[match["speaker"]],
    )


SHEET = DataSheet(
    name="emodb",
    title="EmoDB: Berlin Database of Emotional Speech",
    citation=(
        "Burkhardt, F., Paeschke, A., Rolfes, M., Sendlmeier, W. F., & Weiss, B. (2005). A database of German "
        "emotional speech. Interspeech 2005, 1517-1520."
    ),
    doi="10.21437/Interspeech.2005-446",
    licence="free for research; the copy on Zenodo is CC BY 4.0",
    homepage="http://emodb.bilderbar.info",
    language="de",
    labels=ordered(EMOTIONS.values()),
    sentences=SENTENCES,
    clips=535,
    speakers=10,
    clips_per_label={
        "angry": 127,
        "disgust": 46,
        "fearful": 69,
        "happy": 71,
        "neutral": 79,
        "sad": 62,
        "bored": 81,
    },
    naming="SPEAKER TEXT EMOTION VERSION without spaces, such as 03a01Fa",
    parse=parse,
    examples=("03a01Fa", "16b10Wb", "08b09Nb"),
    remotes=(
        Remote(
            Host.archive,
            url="https://zenodo.org/records/7447302/files/emodb.zip?download=1",
            checksum="md5:9d21362dbc5676ef3ab4745d83ced0db",
            bytes=39_981_818,
        ),
        # The original site publishes no checksum. The CRCs in the ZIP file and each clip are checked.
        Remote(Host.archive, url="http://emodb.bilderbar.info/download/download.zip"),
    ),
    notes=(
        "Clips are 1.2 s to 9.0 s long. Do not use the copies in which every clip is cut to 2.00 s at 22,050 Hz.",
        "The language is German: speech recognisers and text embedders for English only are refused.",
    ),
)
