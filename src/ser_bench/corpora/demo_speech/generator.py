"""Voices, schedule and files of the SYNTHETIC demo corpus."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from ser_bench.corpora.data_sheet import Fields
from ser_bench.corpora.demo_speech import emotion_rules
from ser_bench.corpora.demo_speech.espeak import SpeechSettings, Synthesizer
from ser_bench.corpora.sheets import cremad
from ser_bench.errors import CorpusError

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000  # as in CREMA-D
SENTENCES_PER_VOICE = 6  # of 12; each is spoken in every emotion
LEAD_S = (0.45, 0.65)  # silence before speech; a window that starts at 0.6 s contains speech
TRAIL_S = (0.25, 0.45)
NOTICE = "README.txt"


@dataclass(frozen=True, slots=True)
class Voice:
    """One speaker.

    Attributes:
        espeak: name of the espeak-ng voice, with its variant.
        sex: "female" or "male".
        neutral: settings of neutral speech.
    """

    espeak: str
    sex: str
    neutral: SpeechSettings


VOICES: Mapping[str, Voice] = {
    "9001": Voice("en-us+f1", "female", SpeechSettings(rate_wpm=150, pitch=44)),
    "9002": Voice("en-us+m1", "male", SpeechSettings(rate_wpm=147, pitch=53)),
    "9003": Voice("en-us+f2", "female", SpeechSettings(rate_wpm=156, pitch=50)),
    "9004": Voice("en-us+m2", "male", SpeechSettings(rate_wpm=142, pitch=47)),
    "9005": Voice("en-us+f3", "female", SpeechSettings(rate_wpm=162, pitch=47)),
    "9006": Voice("en-us+m3", "male", SpeechSettings(rate_wpm=154, pitch=57)),
    "9007": Voice("en+f4", "female", SpeechSettings(rate_wpm=152, pitch=42)),
    "9008": Voice("en+m4", "male", SpeechSettings(rate_wpm=158, pitch=59)),
    "9009": Voice("en-us+f5", "female", SpeechSettings(rate_wpm=146, pitch=40)),
    "9010": Voice("en-us+m6", "male", SpeechSettings(rate_wpm=144, pitch=51)),
    "9011": Voice("en+f1", "female", SpeechSettings(rate_wpm=152, pitch=56)),
    "9012": Voice("en-us+m7", "male", SpeechSettings(rate_wpm=150, pitch=55)),
}
MAX_CLIPS = len(VOICES) * len(cremad.EMOTIONS) * SENTENCES_PER_VOICE


def generate(folder: Path, clips: int = MAX_CLIPS, seed: int = 0) -> None:
    """Write the corpus into a folder: 16 kHz mono 16-bit WAV files, and a notice that the speech is synthetic.

    Equal `clips` and `seed` give identical files on the same machine. Several processes may write the same folder at
    once: the files are written to a temporary folder, which is renamed when it is complete.

    Args:
        folder: created if it does not exist.
        clips: number of clips, 1 to 432. With fewer than 432, voices and emotions are balanced as far as possible.
        seed: seed of all random numbers.

    Raises:
        CorpusError: if the number of clips is out of range, if espeak-ng is not installed (extra `demo`), or if the
            folder cannot be written.
    """
    if not 1 <= clips <= MAX_CLIPS:
        raise CorpusError(f"the demo corpus has 1 to {MAX_CLIPS} clips, not {clips}; change corpus.clips")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".half-demo-"))
        try:
            _write_clips(temporary, schedule(clips), seed)
            (temporary / NOTICE).write_text(_notice(clips, seed), encoding="utf-8")
            _move_into(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise CorpusError(
            f"{folder}: cannot write the demo corpus ({error}). Free some space, or choose another folder with "
            "cache_dir=..."
        ) from error


def complete(folder: Path, clips: int = MAX_CLIPS, seed: int = 0) -> None:
    """Generate the corpus, unless the folder contains every clip; clips that it contains are not replaced.

    A clip counts as missing if its file is absent, empty, or has another length than its header states.

    Raises:
        CorpusError: as `generate`.
    """
    if folder.is_dir():
        stems = schedule(clips)
        missing = [stem for stem in stems if not _is_intact(folder / f"{stem}.wav")]
        if not missing:
            return
        log.info("corpus   %s: %d of %d clips are missing or damaged; generating them again", folder, len(missing),
                 len(stems))  # fmt: skip
    generate(folder, clips, seed)


def schedule(clips: int) -> list[str]:
    """Return the stems of the clips, balanced over voices and emotions as far as possible.

    In the complete corpus of 432 clips, each voice speaks the same six sentences in every emotion, so that the words
    carry no information on the emotion. Each of the 12 sentences is spoken by three female and three male voices.
    """
    actors, emotions, sentences = list(VOICES), list(cremad.EMOTIONS), list(cremad.SENTENCES)
    stems = []
    for k in range(clips):
        turn, cell = divmod(k, len(actors) * len(emotions))
        actor = cell % len(actors)
        emotion = (cell // len(actors) + cell) % len(emotions)
        sentence = (actor // 2 + 2 * emotion + 2 * turn) % len(sentences)  # // 2: a female and a male voice
        stems.append(f"{actors[actor]}_{sentences[sentence]}_{emotions[emotion]}_XX")
    return stems


def _write_clips(folder: Path, stems: list[str], seed: int) -> None:
    """Write one WAV file per stem. Each voice has its own synthesizer, so that the voices are independent."""
    with tqdm(total=len(stems), desc="synthetic demo corpus", unit="clip", disable=None) as bar:
        for actor, voice in VOICES.items():
            habit = emotion_rules.draw_habit(np.random.default_rng([seed, int(actor)]))
            with Synthesizer(seed) as synthesizer:
                for stem in sorted(s for s in stems if s.startswith(actor)):
                    sound = _synthesize(cremad.parse(stem), voice, habit, synthesizer, seed)
                    soundfile.write(folder / f"{stem}.wav", sound, SAMPLE_RATE_HZ, subtype="PCM_16")
                    bar.update()


def _synthesize(
    fields: Fields, voice: Voice, habit: emotion_rules.SpeakerHabit, synthesizer: Synthesizer, seed: int
) -> emotion_rules.Samples:
    """Return one clip: [samples] at 16 kHz, -1 to 1."""
    key = int.from_bytes(fields.id.encode(), "big")
    rng = np.random.default_rng([seed, key])
    cues = emotion_rules.draw_cues(fields.emotion, habit, rng)
    spoken = synthesizer.say(fields.text, voice.espeak, emotion_rules.speech_settings(voice.neutral, cues))
    filtered = emotion_rules.apply_cues(spoken, synthesizer.sample_rate_hz, cues, rng)
    sound = soxr.resample(filtered, synthesizer.sample_rate_hz, SAMPLE_RATE_HZ)
    return emotion_rules.add_room(sound, SAMPLE_RATE_HZ, rng.uniform(*LEAD_S), rng.uniform(*TRAIL_S), rng)


def _is_intact(path: Path) -> bool:
    """Whether a file is a WAV file as long as its header states."""
    try:
        with path.open("rb") as file:
            header = file.read(8)
            size = file.seek(0, os.SEEK_END)
    except OSError:
        return False
    return header[:4] == b"RIFF" and size == 8 + int.from_bytes(header[4:], "little")


def _move_into(temporary: Path, folder: Path) -> None:
    """Rename the temporary folder; if `folder` exists, move the files that are missing from it one by one."""
    temporary.chmod(0o755)  # mkdtemp creates a private folder
    with suppress(OSError):
        temporary.rename(folder)
        return
    folder.mkdir(exist_ok=True)
    for file in temporary.iterdir():
        if not _is_intact(folder / file.name):
            file.replace(folder / file.name)


def _notice(clips: int, seed: int) -> str:
    return (
        "SYNTHETIC SPEECH: not recorded from humans.\n\n"
        f"ser_bench generated these {clips} clips with espeak-ng (seed {seed}). {len(VOICES)} synthetic voices, actors "
        f"{min(VOICES)} to {max(VOICES)}, speak the sentences of CREMA-D in six emotions, which are set by rules. File "
        "names follow CREMA-D: ACTOR_SENTENCE_EMOTION_LEVEL. The corpus is meant for trying out software; figures on "
        "it do not generalise to human speech.\n"
    )
