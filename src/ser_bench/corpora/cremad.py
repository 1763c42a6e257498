"""CREMA-D: 91 actors, twelve sentences, six emotions, American English."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from ser_bench.corpora import votes
from ser_bench.corpora.data_sheet import Fields, Host, Remote, Sheet
from ser_bench.corpora.labels import BASIC6
from ser_bench.errors import CorpusError

DEMOGRAPHICS = "VideoDemographics.csv"

SENTENCES: Mapping[str, str] = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
EMOTIONS: Mapping[str, str] = {
    "ANG": "angry",
    "DIS": "disgust",
    "FEA": "fearful",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
INTENSITIES: Mapping[str, str] = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
"""XX: no level was asked for; only the sentence IEO has levels."""

NAME = re.compile(
    rf"(?P<actor>\d{{4}})_(?P<sentence>{'|'.join(SENTENCES)})_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<level>LO|MD|HI|XX?)"
)


def parse(stem: str) -> Fields:
    """What the name of a clip tells.

    Raises:
        ValueError: the name is not of this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None:
        raise ValueError(stem)
    level = "XX" if match["level"] == "X" else match["level"]  # some copies call 1040_ITH_SAD_XX 1040_ITH_SAD_X
    return Fields(
        id=f"{match['actor']}_{match['sentence']}_{match['emotion']}_{level}",
        emotion=EMOTIONS[match["emotion"]],
        speaker=match["actor"],
        sentence=match["sentence"],
        text=SENTENCES[match["sentence"]],
        intensity=INTENSITIES[level],
    )


def sexes(root: Path) -> Mapping[str, str]:
    """Actor → sex from `VideoDemographics.csv` in `root` or beside it; empty where the table is not there.

    Raises:
        CorpusError: the table has other columns than it should.
    """
    for path in (root / DEMOGRAPHICS, root.parent / DEMOGRAPHICS):
        if path.is_file():
            with path.open(newline="", encoding="utf-8-sig") as file:
                try:
                    return {row["ActorID"].strip(): row["Sex"].strip().lower() for row in csv.DictReader(file)}
                except (KeyError, AttributeError, csv.Error, UnicodeDecodeError) as error:
                    raise CorpusError(f"{path}: needs columns ActorID and Sex; fetch it again or remove it") from error
    return {}


def heard(root: Path) -> votes.Votes:
    """Clip id → emotion → listeners who heard it in the voice alone.

    Raises:
        CorpusError: this copy has no readable table of votes.
    """
    return votes.read(root, lambda name: parse(name).id)


SHEET = Sheet(
    name="cremad",
    title="CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset",
    citation=(
        "Cao, H., Cooper, D. G., Keutmann, M. K., Gur, R. C., Nenkova, A., & Verma, R. (2014). CREMA-D: Crowd-sourced "
        "Emotional Multimodal Actors Dataset. IEEE Transactions on Affective Computing, 5(4), 377-390."
    ),
    doi="10.1109/TAFFC.2014.2336244",
    licence="ODbL 1.0, contents DbCL 1.0",
    homepage="https://github.com/CheyneyComputerScience/CREMA-D",
    language="en",
    labels=BASIC6,
    sentences=SENTENCES,
    clips=7442,
    speakers=91,
    per_emotion={label: 1087 if label == "neutral" else 1271 for label in BASIC6},
    naming="ACTOR_SENTENCE_EMOTION_LEVEL, such as 1001_DFA_ANG_XX",
    parse=parse,
    examples=("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1091_WSI_SAD_XX", "1040_ITH_SAD_X"),
    sexes=sexes,
    votes=heard,
    remotes=(
        Remote(
            Host.git_lfs,
            url="https://github.com/CheyneyComputerScience/CREMA-D",
            archive="https://github.com/CheyneyComputerScience/CREMA-D/archive/refs/heads/master.tar.gz",
        ),
        Remote(
            Host.git_lfs,
            url="https://gitlab.com/cs-cooper-lab/crema-d-mirror",
            # The plain archive of a GitLab project holds the audio itself; pointers are what can be checked one by one.
            archive=(
                "https://gitlab.com/api/v4/projects/cs-cooper-lab%2Fcrema-d-mirror/repository/archive.tar.gz"
                "?include_lfs_blobs=false"
            ),
        ),
    ),
    folder="AudioWAV",
    files=(DEMOGRAPHICS, "processedResults/tabulatedVotes.csv", "processedResults/summaryTable.csv"),
    notes=(
        "1076_MTI_SAD_XX holds no signal; it is kept.",
        "Three pairs are byte-identical under different labels: 1006_TIE HAP/NEU, 1013_WSI DIS/SAD, 1017_IWW ANG/FEA.",
        "The audio is in Git LFS: a plain archive of the repository holds pointers in its place.",
        "The repository also holds AudioMP3 with the same clips; point corpus.root at AudioWAV.",
    ),
)
