"""Acoustic cues of each emotion in the demo corpus, their variation over speakers and clips, and their application.

The directions of the cues come from the literature. Their sizes are our own choice, near the published numbers: the F0
of fear changes less than in [BS]; level and tilt change more than in any source. `docs/demo_corpus.md` compares them.

[BS]  Burkhardt & Sendlmeier (2000), Verification of acoustical correlates of emotional speech using formant-synthesis,
      ISCA Workshop on Speech and Emotion, 151-156. Numbers as tabulated by Schröder (2001), Emotional speech
      synthesis: a review, Eurospeech, 561-564, Table 1. Joy: F0 mean +50 %, range +100 %, tempo +30 %. Fear: F0 mean
      +150 %, range +20 %, tempo +30 %, falsetto.
[C]   Cahn (1990), The generation of affect in synthesized speech, J. American Voice I/O Society 8, 1-19; same table.
      Sadness, on a scale of -10 to 10: range -5, tempo -10, hesitation pauses +10, loudness -5, breathiness +10,
      brilliance -9.
[MA5] Murray & Arnott (1995), Implementation and testing of a system for producing emotion-by-rule in synthetic speech,
      Speech Communication 16, 369-390; same table. Anger: F0 mean +10 Hz, range +9 semitones, +30 words a minute,
      +6 dB, laryngealised.
[MA3] Murray & Arnott (1993), Toward the simulation of emotion in synthetic speech, JASA 93, 1097-1108. Disgust: very
      much slower, pitch very much lower, range slightly wider, less intense, grumbled chest tone, falling ends.
[S]   Scherer (2003), Vocal communication of emotion, Speech Communication 40, 227-256. Intensity, F0, energy at high
      frequencies and rate rise in anger, fear and joy, and fall in sadness.
[JL]  Juslin & Laukka (2003), Communication of emotions in vocal expression and music performance, Psychological
      Bulletin 129, 770-814, Table 11. Anger: fast, loud, bright, high, varied, rising. Fear: fast, soft, dull, high,
      little varied, rising, irregular. Happiness: fast, rather loud, rather bright, high, much varied, rising,
      regular. Sadness: slow, soft, dull, low, little varied, falling, irregular.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from ser_bench.corpora.demo_speech.espeak import PITCH_MAX, RANGE_MAX, Int16Array, SpeechSettings

Samples = npt.NDArray[np.float64]

PITCH_STEPS_PER_SEMITONE = 5.8  # of espeak-ng, measured with these voices; a wider range raises the median F0 too
TILT_PIVOT_HZ = 500.0  # a tilt does not change lower frequencies
VOICE_TILT_DB = -2.0  # per octave: espeak-ng is brighter than human speech, which increases the word error rate
BREATH_FROM_HZ = 1_500.0  # aspiration noise lies above the first formants
TREMOR_HZ = 5.5
JITTER_S = 0.020
ENVELOPE_S = 0.010
MODAL_BREATH_DB = -34.0  # aspiration noise of a modal voice, relative to its level
SPEECH_LEVEL_DBFS = -27.0  # RMS of a neutral sentence
ROOM_LEVEL_DBFS = -66.0
PEAK_LIMIT = 0.97


@dataclass(frozen=True, slots=True)
class Cues:
    """Acoustic cues, as differences from a neutral sentence of the same voice.

    Attributes:
        pitch_st: mean F0, semitones.
        range_log2: width of the intonation, log2 of the ratio.
        rate_log2: rate of speech, log2 of the ratio.
        level_db: RMS level, dB.
        tilt_db: spectral tilt above 500 Hz, dB per octave; negative values sound duller.
        breath_db: aspiration noise, dB above a modal voice.
        slope_st: F0 at the end minus F0 at the start, semitones.
        tremor_st: amplitude of the variation of F0 (tremor and random walk), semitones.
        gap: pause between words, units of 10 ms.
    """

    pitch_st: float = 0.0
    range_log2: float = 0.0
    rate_log2: float = 0.0
    level_db: float = 0.0
    tilt_db: float = 0.0
    breath_db: float = 0.0
    slope_st: float = 0.0
    tremor_st: float = 0.0
    gap: float = 0.0


EMOTIONS: dict[str, Cues] = {
    "neutral": Cues(),
    "angry": Cues(  # [MA5] range, tempo, level, roughness; [S][JL] high, loud, bright, rising
        pitch_st=2.5, range_log2=0.7, rate_log2=0.2, level_db=7.5, tilt_db=3.0, breath_db=-3.0, slope_st=1.0,
        tremor_st=0.2,
    ),
    "happy": Cues(  # [BS] F0, range and tempo; [JL] rather loud, rather bright, rising, regular
        pitch_st=5.0, range_log2=0.9, rate_log2=0.25, level_db=3.5, tilt_db=1.5, slope_st=1.5,
    ),
    "fearful": Cues(  # [BS] F0, tempo, falsetto as breath; [JL] soft, dull, little varied, rising, irregular
        pitch_st=7.5, range_log2=-0.5, rate_log2=0.3, level_db=-3.5, tilt_db=-0.5, breath_db=7.0, slope_st=1.0,
        tremor_st=0.5,
    ),
    "sad": Cues(  # [C] range, tempo, pauses, loudness, breath, brilliance; [S][JL] low, falling, irregular
        pitch_st=-1.5, range_log2=-0.9, rate_log2=-0.22, level_db=-8.0, tilt_db=-3.5, breath_db=5.0, slope_st=-1.5,
        tremor_st=0.2, gap=2.0,
    ),
    "disgust": Cues(  # [MA3] slow, low, slightly wider, softer, grumbled chest tone, falling
        pitch_st=-4.0, range_log2=0.25, rate_log2=-0.26, level_db=-2.5, tilt_db=-2.0, breath_db=-3.0, slope_st=-2.5,
        tremor_st=0.45,
    ),
}  # fmt: skip
"""Emotion → its cues at strength 1."""

HABIT_SPREAD = Cues(
    pitch_st=0.8, range_log2=0.15, rate_log2=0.05, level_db=0.8, tilt_db=0.3, breath_db=1.5, slope_st=0.3,
    tremor_st=0.05,
)  # fmt: skip
"""Standard deviation of the cues over speakers, independent of the emotion."""

CLIP_SPREAD = Cues(
    pitch_st=1.0, range_log2=0.25, rate_log2=0.06, level_db=1.2, tilt_db=0.4, breath_db=1.5, slope_st=0.6,
    tremor_st=0.08, gap=1.0,
)  # fmt: skip
"""Standard deviation of the cues over the clips of a speaker."""

NEUTRAL_SPREAD = 0.6
"""Factor on `CLIP_SPREAD` for neutral sentences, which vary less."""

STRENGTH_SPREAD_SPEAKER = 0.15
STRENGTH_SPREAD_CLIP = 0.25
STRENGTH_RANGE = (0.15, 1.8)
"""Limits of the strength of an emotion. The strength varies over speakers and over clips; 1 is as in `EMOTIONS`."""


@dataclass(frozen=True, slots=True)
class SpeakerHabit:
    """Individual properties of a speaker.

    Attributes:
        cues: cues that are present in every clip.
        strength: factor on the cues of an emotion.
    """

    cues: Cues
    strength: float


def draw_habit(rng: np.random.Generator) -> SpeakerHabit:
    """Draw the individual properties of a speaker."""
    cues = Cues(**{f.name: getattr(HABIT_SPREAD, f.name) * rng.standard_normal() for f in fields(Cues)})
    return SpeakerHabit(cues, float(np.exp(STRENGTH_SPREAD_SPEAKER * rng.standard_normal())))


def draw_cues(emotion: str, habit: SpeakerHabit, rng: np.random.Generator) -> Cues:
    """Draw the cues of one clip: cues of the speaker + strength · cues of the emotion + random variation."""
    strength = np.clip(habit.strength * (1 + STRENGTH_SPREAD_CLIP * rng.standard_normal()), *STRENGTH_RANGE)
    spread = NEUTRAL_SPREAD if emotion == "neutral" else 1.0
    drawn = {
        f.name: float(
            getattr(habit.cues, f.name)
            + strength * getattr(EMOTIONS[emotion], f.name)
            + spread * getattr(CLIP_SPREAD, f.name) * rng.standard_normal()
        )
        for f in fields(Cues)
    }
    drawn["tremor_st"], drawn["gap"] = max(0.0, drawn["tremor_st"]), max(0.0, drawn["gap"])
    return Cues(**drawn)


def speech_settings(base: SpeechSettings, cues: Cues) -> SpeechSettings:
    """Return the settings of espeak-ng for the cues that it controls itself: rate, pitch, range and pauses."""
    pitch = base.pitch + cues.pitch_st * PITCH_STEPS_PER_SEMITONE
    return SpeechSettings(
        rate_wpm=round(base.rate_wpm * 2**cues.rate_log2),
        pitch=round(float(np.clip(pitch, 0, PITCH_MAX))),
        range=round(float(np.clip(base.range * 2**cues.range_log2, 0, RANGE_MAX))),
        word_gap=round(base.word_gap + cues.gap),
    )


def apply_cues(spoken: Int16Array, rate_hz: int, cues: Cues, rng: np.random.Generator) -> Samples:
    """Apply the cues that espeak-ng does not control: slope and tremor of F0, tilt, breath and level.

    Returns:
        [samples], -1 to 1, at the sampling rate of `spoken`.
    """
    sound = _bend(spoken / 32768.0, rate_hz, cues, rng)
    sound = _tilt(sound, rate_hz, VOICE_TILT_DB + cues.tilt_db) + _breath(sound, rate_hz, cues.breath_db, rng)
    sound *= 10 ** ((SPEECH_LEVEL_DBFS + cues.level_db) / 20) / np.sqrt(np.mean(sound**2))
    return np.asarray(sound * min(1.0, PEAK_LIMIT / np.abs(sound).max()), dtype=np.float64)


def add_room(sound: Samples, rate_hz: int, lead_s: float, trail_s: float, rng: np.random.Generator) -> Samples:
    """Add silence before and after the speech, and low background noise throughout."""
    padded = np.pad(sound, (round(lead_s * rate_hz), round(trail_s * rate_hz)))
    return padded + 10 ** (ROOM_LEVEL_DBFS / 20) * rng.standard_normal(len(padded))


def _bend(sound: Samples, rate_hz: int, cues: Cues, rng: np.random.Generator) -> Samples:
    """Change F0 within the sentence by reading the sound faster and slower; the formants change slightly too."""
    n = len(sound)
    time_s = np.arange(n) / rate_hz
    knots_s = np.arange(0.0, time_s[-1] + 2 * JITTER_S, JITTER_S)
    jitter = np.interp(time_s, knots_s, rng.standard_normal(len(knots_s)))
    tremor = np.sin(2 * np.pi * (TREMOR_HZ * time_s + rng.random()))
    semitones = cues.slope_st * np.linspace(-0.5, 0.5, n) + cues.tremor_st * (tremor + 0.5 * jitter)
    speed = 2 ** (semitones / 12)
    read_at = np.cumsum(speed / speed.mean())  # the mean speed is 1, so that the length does not change
    return np.asarray(np.interp(read_at - read_at[0], np.arange(n), sound), dtype=np.float64)


def _tilt(sound: Samples, rate_hz: int, db_per_octave: float) -> Samples:
    """Apply a spectral tilt above `TILT_PIVOT_HZ`."""
    spectrum, hz = _spectrum(sound, rate_hz)
    octaves = np.log2(np.maximum(hz, TILT_PIVOT_HZ) / TILT_PIVOT_HZ)
    return np.fft.irfft(spectrum * 10 ** (db_per_octave * octaves / 20))[: len(sound)]


def _breath(sound: Samples, rate_hz: int, level_db: float, rng: np.random.Generator) -> Samples:
    """Return high-pass noise with the envelope of the sound."""
    window = round(ENVELOPE_S * rate_hz)
    total = np.cumsum(np.pad(np.abs(sound), (window, window)))
    envelope = (total[2 * window :] - total[: -2 * window]) / (2 * window)
    spectrum, hz = _spectrum(envelope * rng.standard_normal(len(sound)), rate_hz)
    noise = np.fft.irfft(np.where(hz < BREATH_FROM_HZ, 0.0, spectrum))[: len(sound)]
    wanted = np.sqrt(np.mean(sound**2)) * 10 ** ((MODAL_BREATH_DB + level_db) / 20)
    return np.asarray(noise * wanted / np.sqrt(np.mean(noise**2)), dtype=np.float64)


def _spectrum(sound: Samples, rate_hz: int) -> tuple[npt.NDArray[np.complex128], Samples]:
    """Return the spectrum and its frequencies, Hz. The length is padded to a power of two; prime lengths are slow."""
    size = 1 << (len(sound) - 1).bit_length()
    return np.fft.rfft(sound, size), np.asarray(np.fft.rfftfreq(size, 1 / rate_hz), dtype=np.float64)
