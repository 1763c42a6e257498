"""Data sheet of CREMA-D: 91 actors, 12 sentences, 6 emotions, American English, with votes of listeners.

The table of votes, `processedResults/tabulatedVotes.csv`, has three lines per clip. Its first column has no name; its
value is 100,000 × query type + number of the clip, with query type 1 for voice only, 2 for face only and 3 for both
(`tabulateVotesV2.r` and the README of the corpus's repository). The columns A D F H N S contain the number of votes per
emotion, and `fileName` the clip. The authors left out practice clips, repetitions, and answers whose first click came
more than ten seconds after the clip (`processFinishedResponses.R`). A file `voice_votes.csv` with the same columns, for
voice only, is also accepted.

Each listener also rated how intense the chosen emotion was, from 0 to 100. The columns meanAngerResp … meanSadResp
contain the mean of these ratings over the listeners who chose the emotion, and −1 if nobody chose it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ser_bench.corpora.csv_tables import CsvLine, read_rows
from ser_bench.corpora.data_sheet import DataSheet, Fields, HeardIntensity, Host, Remote, Votes
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
LEVELS = ("low", "medium", "high")
INTENSITIES: Mapping[str, str] = {"LO": "low", "MD": "medium", "HI": "high", "XX": ""}
"""XX: no intensity was requested. Only the sentence IEO has intensities."""

VOTE_TABLES = ("voice_votes.csv", "tabulatedVotes.csv", "processedResults/tabulatedVotes.csv")
"""Tables of votes in the order in which they are searched for; `prepare` writes the second, a clone has the third."""
VOTE_COLUMNS: Mapping[str, str] = {
    "A": "angry",
    "D": "disgust",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
}
RATING_COLUMNS: Mapping[str, str] = {
    "A": "meanAngerResp",
    "D": "meanDisgustResp",
    "F": "meanFearResp",
    "H": "meanHappyResp",
    "S": "meanSadResp",
}
"""Column of votes → column of the mean rating of these listeners; ratings of neutral are not used."""
HIGHEST_RATING = 100.0
ROW_NAME = ""
"""Column of row names, as R writes it."""
CLIPS_PER_QUERY_TYPE = 100_000
VOICE_ONLY = 1

NAME = re.compile(
    rf"(?P<actor>\d{{4}})_(?P<sentence>{'|'.join(SENTENCES)})_(?P<emotion>{'|'.join(EMOTIONS)})_(?P<level>LO|MD|HI|XX?)"
)


def parse(stem: str) -> Fields:
    """Return the fields in the file name of a clip.

    Raises:
        ValueError: if the name does not belong to this corpus.
    """
    match = NAME.fullmatch(stem)
    if match is None:
        raise ValueError(stem)
    level = "XX" if match["level"] == "X" else match["level"]  # 1040_ITH_SAD_XX is called 1040_ITH_SAD_X in some copies
    return Fields(
        id=f"{match['actor']}_{match['sentence']}_{match['emotion']}_{level}",
        emotion=EMOTIONS[match["emotion"]],
        speaker=match["actor"],
        sentence=match["sentence"],
        text=SENTENCES[match["sentence"]],
        intensity=INTENSITIES[level],
    )


def sexes(root: Path) -> Mapping[str, str]:
    """Return actor → sex from `VideoDemographics.csv` in `root` or its parent folder; {} if there is no such table.

    Raises:
        CorpusError: if the table cannot be read, or does not have the columns ActorID and Sex.
    """
    for path in (root / DEMOGRAPHICS, root.parent / DEMOGRAPHICS):
        if path.is_file():
            advice = "needed are the columns ActorID and Sex; download the table again or remove it"
            lines = read_rows(path, ("ActorID", "Sex"), advice)
            return {line.cells["ActorID"]: line.cells["Sex"].lower() for line in lines}
    return {}


def votes(root: Path) -> Votes:
    """Return clip id → emotion → number of listeners who chose it, given the voice only.

    The first of `VOTE_TABLES` that exists in `root` or its parent folder is read.

    Raises:
        CorpusError: if there is no such table, or if it cannot be read.
    """
    for path in _vote_tables(root):
        return _read_votes(path)
    raise CorpusError(
        f"{root}: no table of listeners' votes ({VOTE_TABLES[0]} or {VOTE_TABLES[1]}) in this folder or its parent; "
        "`ser-bench corpora prepare cremad` downloads one with the corpus"
    )


def heard_intensity(root: Path) -> HeardIntensity:
    """Return clip id → mean intensity of the emotion that was heard, 0 to 100, given the voice only.

    A listener who chose an emotion other than neutral counts with the rating, one who chose neutral with 0. Ratings of
    neutral are left out, because they state how neutral a voice is. The first table of votes that has ratings is read.

    Returns:
        {} if no table of this copy has ratings.

    Raises:
        CorpusError: if the table cannot be read.
    """
    for path in _vote_tables(root):
        columns = ("fileName", *VOTE_COLUMNS, *RATING_COLUMNS.values())
        advice = f"needed is a table of votes with the columns {', '.join(columns)}; download it again or remove it"
        lines = read_rows(path, ("fileName", *VOTE_COLUMNS), advice)
        if lines and not set(columns) <= set(lines[0].cells):
            continue
        heard: dict[str, float] = {}
        for line in lines:
            try:
                if _is_voice_only(line):
                    clip_id, counts = _vote_counts(line)
                    heard |= {clip_id: _mean_rating(line, counts)} if sum(counts.values()) else {}
            except ValueError as error:
                raise CorpusError(f"{path} line {line.number}: {error}; {advice}") from error
        return heard
    return {}


def _vote_tables(root: Path) -> list[Path]:
    """Return the tables of votes of this copy, the first to be read first."""
    paths = [folder / name for folder in (root, root.parent) for name in VOTE_TABLES]
    return [path for path in paths if path.is_file()]


def _mean_rating(line: CsvLine, counts: Mapping[str, int]) -> float:
    """Return the mean rating of a clip with at least one vote, votes for neutral counted as 0.

    Raises:
        ValueError: if a rating is not a number from 0 to 100.
    """
    total = 0.0
    for column, rated in RATING_COLUMNS.items():
        votes_for = counts[VOTE_COLUMNS[column]]
        if votes_for:
            rating = float(line.cells[rated])
            if not 0 <= rating <= HIGHEST_RATING:
                raise ValueError(f"{rated} is {line.cells[rated]}, not a rating from 0 to {HIGHEST_RATING:g}")
            total += votes_for * rating
    return total / sum(counts.values())


def _read_votes(path: Path) -> dict[str, dict[str, int]]:
    columns = ("fileName", *VOTE_COLUMNS)
    advice = f"needed is a table of votes with the columns {', '.join(columns)}; download it again or remove it"
    of_clip: dict[str, dict[str, int]] = {}
    for line in read_rows(path, columns, advice):
        try:
            if _is_voice_only(line):
                clip_id, counts = _vote_counts(line)
                if of_clip.setdefault(clip_id, counts) != counts:
                    raise ValueError(f"other votes for {clip_id} than in an earlier line")
        except ValueError as error:
            raise CorpusError(f"{path} line {line.number}: {error}; {advice}") from error
    return of_clip


def _is_voice_only(line: CsvLine) -> bool:
    return ROW_NAME not in line.cells or int(line.cells[ROW_NAME]) // CLIPS_PER_QUERY_TYPE == VOICE_ONLY


def _vote_counts(line: CsvLine) -> tuple[str, dict[str, int]]:
    """Return clip id, and emotion → number of votes.

    Raises:
        ValueError: if the name is not that of a clip, or if a number of votes is not a number from 0.
    """
    try:
        clip_id = parse(line.cells["fileName"]).id
    except ValueError as error:
        raise ValueError(f"{line.cells['fileName']!r} is not the name of a clip") from error
    counts = {emotion: int(line.cells[column]) for column, emotion in VOTE_COLUMNS.items()}
    if min(counts.values()) < 0:
        raise ValueError("a number of votes is negative")
    return clip_id, counts


SHEET = DataSheet(
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
    clips_per_label={label: 1087 if label == "neutral" else 1271 for label in BASIC6},
    naming="ACTOR_SENTENCE_EMOTION_LEVEL, such as 1001_DFA_ANG_XX",
    parse=parse,
    examples=("1001_DFA_ANG_XX", "1001_IEO_HAP_LO", "1091_WSI_SAD_XX", "1040_ITH_SAD_X"),
    sexes=sexes,
    votes=votes,
    intensities=LEVELS,
    heard_intensity=heard_intensity,
    remotes=(
        Remote(
            Host.git_lfs,
            url="https://github.com/CheyneyComputerScience/CREMA-D",
            archive="https://github.com/CheyneyComputerScience/CREMA-D/archive/refs/heads/master.tar.gz",
        ),
        Remote(
            Host.git_lfs,
            url="https://gitlab.com/cs-cooper-lab/crema-d-mirror",
            # By default, GitLab replaces the pointers in an archive by the audio. The pointers contain the checksums.
            archive=(
                "https://gitlab.com/api/v4/projects/cs-cooper-lab%2Fcrema-d-mirror/repository/archive.tar.gz"
                "?include_lfs_blobs=false"
            ),
        ),
    ),
    lfs_folder="AudioWAV",
    lfs_tables=(DEMOGRAPHICS, "processedResults/tabulatedVotes.csv", "processedResults/summaryTable.csv"),
    notes=(
        "1076_MTI_SAD_XX is silent; it is not left out.",
        "Three pairs are identical but have different labels: 1006_TIE HAP/NEU, 1013_WSI DIS/SAD, 1017_IWW ANG/FEA.",
        "The audio is in Git LFS: an archive of the repository contains pointers instead of audio.",
        "The repository also contains AudioMP3 with the same clips; set corpus.root to AudioWAV.",
    ),
)
