"""Data sheet of RAVDESS, speech part: 24 actors, 2 statements, 8 emotions, 2 intensities, North American English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import product

from ser_bench.corpora.data_sheet import DataSheet, Fields, Host, Remote
from ser_bench.corpora.labels import ordered

SENTENCES: Mapping[str, str] = {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}
EMOTIONS: Mapping[str, str] = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
INTENSITIES: Mapping[str, str] = {"01": "normal", "02": "strong"}
ACTORS = tuple(f"{actor:02d}" for actor in range(1, 25))
AUDIO_ONLY, SPEECH = "03", "01"

NAME = re.compile(
    r"(?P<modality>0[1-3])-(?P<channel>0[12])-(?P<emotion>0[1-8])-(?P<intensity>0[12])-(?P<statement>0[12])"
    r"-0[12]-(?P<actor>\d\d)"
)


def parse(stem: str) -> Fields | None:
    """Return the fields in the file name of a clip; None for songs and for the sound of videos.

    Raises:
        ValueError: if the name does not belong to this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None or match["actor"] not in ACTORS:
        raise ValueError(stem)
    if (match["modality"], match["channel"]) != (AUDIO_ONLY, SPEECH):
        return None
    return Fields(
        id=stem,
        emotion=EMOTIONS[match["emotion"]],
        speaker=match["actor"],
        sentence=match["statement"],
        text=SENTENCES[match["statement"]],
        intensity=INTENSITIES[match["intensity"]],
        sex="male" if int(match["actor"]) % 2 else "female",
    )


def clip_ids() -> tuple[str, ...]:
    """Return all 1,440 ids: every combination of the codes, except strong neutral, which was not recorded."""
    grid = product(EMOTIONS, INTENSITIES, SENTENCES, ("01", "02"), ACTORS)
    return tuple("-".join((AUDIO_ONLY, SPEECH, *codes)) for codes in grid if codes[:2] != ("01", "02"))


SHEET = DataSheet(
    name="ravdess",
    title="RAVDESS: Ryerson Audio-Visual Database of Emotional Speech and Song (speech, audio only)",
    citation=(
        "Livingstone, S. R., & Russo, F. A. (2018). The Ryerson Audio-Visual Database of Emotional Speech and Song "
        "(RAVDESS): A dynamic, multimodal set of facial and vocal expressions in North American English. PLoS ONE, "
        "13(5), e0196391."
    ),
    doi="10.1371/journal.pone.0196391",
    licence="CC BY-NC-SA 4.0",
    homepage="https://zenodo.org/records/1188976",
    language="en",
    labels=ordered(EMOTIONS.values()),
    sentences=SENTENCES,
    intensities=tuple(INTENSITIES.values()),
    clips=1440,
    speakers=24,
    clips_per_label={label: 96 if label == "neutral" else 192 for label in ordered(EMOTIONS.values())},
    naming="MODALITY-CHANNEL-EMOTION-INTENSITY-STATEMENT-REPETITION-ACTOR, such as 03-01-05-02-01-01-07",
    parse=parse,
    examples=("03-01-01-01-01-01-01", "03-01-05-02-01-01-24", "03-01-08-01-02-02-10"),
    clip_ids=clip_ids(),
    remotes=(
        Remote(
            Host.archive,
            url="https://zenodo.org/records/1188976/files/Audio_Speech_Actors_01-24.zip?download=1",
            checksum="md5:bc696df654c87fed845eb13823edef8a",
            bytes=208_468_073,
        ),
    ),
    notes=(
        "Five files (of actors 01, 05 and 20) are stereo; their channels are averaged.",
        "03-01-03-01-02-01-07 and 03-01-03-01-02-02-07 have the same content.",
        "Each clip starts with about half a second of silence.",
        "Songs (channel 02) in the same folder are left out; a warning gives their number.",
    ),
)
