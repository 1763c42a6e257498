"""The demo corpus: SYNTHETIC. Twelve espeak-ng voices say CREMA-D's sentences in six emotions; no human spoke.

It exists so that everything runs where nothing can be downloaded, and says nothing about real speech. Files are named
as in CREMA-D, with actors 9001 to 9012 so that nobody takes them for people. How emotions sound: `prosody.py`.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from ser_bench.corpora import cremad, speaking_style
from ser_bench.corpora.data_sheet import Fields, Sheet
from ser_bench.corpora.espeak import Delivery, Synthesizer
from ser_bench.corpora.labels import BASIC6
from ser_bench.errors import CorpusError

SAMPLE_RATE_HZ = 16_000  # as CREMA-D
SENTENCES_PER_VOICE = 6  # of the twelve, each in every emotion
LEAD_S = (0.45, 0.65)  # silence before speech, so that a window that starts at 0.6 s finds speech
TRAIL_S = (0.25, 0.45)
NOTICE = "README.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class Voice:
    """One speaker: an espeak-ng voice and where its neutral speech lies."""

    espeak: str
    sex: str
    neutral: Delivery


VOICES: Mapping[str, Voice] = {
    "9001": Voice("en-us+f1", "female", Delivery(rate_wpm=150, pitch=44)),
    "9002": Voice("en-us+m1", "male", Delivery(rate_wpm=147, pitch=53)),
    "9003": Voice("en-us+f2", "female", Delivery(rate_wpm=156, pitch=50)),
    "9004": Voice("en-us+m2", "male", Delivery(rate_wpm=142, pitch=47)),
    "9005": Voice("en-us+f3", "female", Delivery(rate_wpm=162, pitch=47)),
    "9006": Voice("en-us+m3", "male", Delivery(rate_wpm=154, pitch=57)),
    "9007": Voice("en+f4", "female", Delivery(rate_wpm=152, pitch=42)),
    "9008": Voice("en+m4", "male", Delivery(rate_wpm=158, pitch=59)),
    "9009": Voice("en-us+f5", "female", Delivery(rate_wpm=146, pitch=40)),
    "9010": Voice("en-us+m6", "male", Delivery(rate_wpm=144, pitch=51)),
    "9011": Voice("en+f1", "female", Delivery(rate_wpm=152, pitch=56)),
    "9012": Voice("en-us+m7", "male", Delivery(rate_wpm=150, pitch=55)),
}
MAX_CLIPS = len(VOICES) * len(cremad.EMOTIONS) * SENTENCES_PER_VOICE


def generate(folder: Path, clips: int = MAX_CLIPS, seed: int = 0) -> None:
    """Speak the corpus into `folder`: 16 kHz mono 16-bit WAV, and a notice that it is synthetic.

    The same `clips` and `seed` give the same bytes on the same machine, in any number of processes at once: files
    are made beside the folder and moved into it when all are there.

    Args:
        folder: made if need be.
        clips: 1 to 432; of fewer than 432, voices and emotions stay as even as they can be.
        seed: of every random choice.

    Raises:
        CorpusError: another number of clips, no espeak-ng (the extra `demo`), or a folder that cannot be written.
    """
    if not 1 <= clips <= MAX_CLIPS:
        raise CorpusError(f"the demo corpus has 1 to {MAX_CLIPS} clips, not {clips}: set corpus.clips")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".half-demo-"))
        try:
            _speak_all(made, schedule(clips), seed)
            (made / NOTICE).write_text(_notice(clips, seed), encoding="utf-8")
            _move_into(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise CorpusError(
            f"{folder}: cannot write the demo corpus ({error}). Free some space, or choose another folder with "
            "cache_dir=..."
        ) from error


def schedule(clips: int) -> list[str]:
    """The stems to speak; however many, they are as balanced over voices and emotions as can be.

    Of 432, each voice says the same six sentences in every emotion, so that a sentence tells nothing of the emotion;
    three female and three male voices say each of the twelve.
    """
    actors, emotions, sentences = list(VOICES), list(cremad.EMOTIONS), list(cremad.SENTENCES)
    stems = []
    for k in range(clips):
        turn, place = divmod(k, len(actors) * len(emotions))
        actor = place % len(actors)
        emotion = (place // len(actors) + place) % len(emotions)
        sentence = (actor // 2 + 2 * emotion + 2 * turn) % len(sentences)  # // 2: a woman and a man
        stems.append(f"{actors[actor]}_{sentences[sentence]}_{emotions[emotion]}_XX")
    return stems


def parse(stem: str) -> Fields:
    """What the name of a clip tells: CREMA-D's layout, and the sex of the voice.

    Raises:
        ValueError: the name is not of this corpus.
    """
    told = cremad.parse(stem)
    if told.speaker not in VOICES:
        raise ValueError(stem)
    return dataclasses.replace(told, sex=VOICES[told.speaker].sex)


def _speak_all(folder: Path, stems: list[str], seed: int) -> None:
    """Speak voice by voice, each with its own synthesiser, so that voices do not depend on each other."""
    with tqdm(total=len(stems), desc="synthetic demo corpus", unit="clip", disable=None) as bar:
        for actor, voice in VOICES.items():
            speaker = speaking_style.manner(np.random.default_rng([seed, int(actor)]))
            with Synthesizer(seed) as synthesizer:
                for stem in sorted(s for s in stems if s.startswith(actor)):
                    sound = _speak(parse(stem), voice, speaker, synthesizer, seed)
                    soundfile.write(folder / f"{stem}.wav", sound, SAMPLE_RATE_HZ, subtype="PCM_16")
                    bar.update()


def _speak(
    told: Fields, voice: Voice, speaker: speaking_style.Manner, synthesizer: Synthesizer, seed: int
) -> speaking_style.Samples:
    """One clip: [samples] at 16 kHz, -1 to 1."""
    key = int.from_bytes(told.id.encode(), "big")
    rng = np.random.default_rng([seed, key])
    drawn = speaking_style.cues(told.emotion, speaker, rng)
    spoken = synthesizer.say(told.text, voice.espeak, speaking_style.delivery(voice.neutral, drawn))
    coloured = speaking_style.colour(spoken, synthesizer.sample_rate_hz, drawn, rng)
    sound = soxr.resample(coloured, synthesizer.sample_rate_hz, SAMPLE_RATE_HZ)
    return speaking_style.in_room(sound, SAMPLE_RATE_HZ, rng.uniform(*LEAD_S), rng.uniform(*TRAIL_S), rng)


def _move_into(made: Path, folder: Path) -> None:
    """Rename as a whole; where the folder is there already (another process was faster), file by file."""
    made.chmod(0o755)  # mkdtemp makes it private
    with suppress(OSError):
        made.rename(folder)
        return
    folder.mkdir(exist_ok=True)
    for file in made.iterdir():
        file.replace(folder / file.name)


def _notice(clips: int, seed: int) -> str:
    return (
        "SYNTHETIC SPEECH. No human spoke here.\n\n"
        f"{clips} clips made by ser_bench with espeak-ng (seed {seed}): {len(VOICES)} synthetic voices, actors "
        f"{min(VOICES)} to {max(VOICES)}, say the sentences of CREMA-D in six emotions set by rule. File names follow "
        "CREMA-D: ACTOR_SENTENCE_EMOTION_LEVEL. For trying out software; figures measured here say nothing about "
        "real speech.\n"
    )


SHEET = Sheet(
    name="demo",
    title="SYNTHETIC demo corpus: espeak-ng speaks CREMA-D's sentences",
    citation=(
        "Generated by ser_bench with espeak-ng (https://github.com/espeak-ng/espeak-ng); emotions set by rule "
        "after Burkhardt & Sendlmeier (2000), Cahn (1990), Murray & Arnott (1993, 1995), Scherer (2003), "
        "and Juslin & Laukka (2003)."
    ),
    licence="no rights are claimed in the generated audio; espeak-ng, which speaks it, is GPL-3.0-or-later",
    homepage="https://github.com/espeak-ng/espeak-ng",
    language="en",
    labels=BASIC6,
    sentences=cremad.SENTENCES,
    clips=MAX_CLIPS,
    speakers=len(VOICES),
    per_emotion={label: MAX_CLIPS // len(BASIC6) for label in BASIC6},
    naming="ACTOR_SENTENCE_EMOTION_XX as in CREMA-D, actors 9001 to 9012, such as 9001_DFA_ANG_XX",
    parse=parse,
    examples=("9001_DFA_ANG_XX", "9012_WSI_SAD_XX"),
    synthetic=True,
    notes=("SYNTHETIC: spoken by espeak-ng, emotions set by rule; figures say nothing about real speech.",),
)
