"""How the demo corpus expresses emotions: published vocal correlates, spread over speakers and clips, and their sound.

Directions come from the literature. Sizes are our own, with the sources' numbers in sight: the F0 of fear moves less
than in [BS], level and tilt move further than in any of them. `docs/demo_corpus.md` sets both side by side.

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

from ser_bench.corpora.espeak import PITCH_MAX, RANGE_MAX, Delivery, Int16Array

Samples = npt.NDArray[np.float64]

PITCH_STEPS_PER_SEMITONE = 5.8  # of espeak-ng, as measured in these voices; the range lifts the median F0 too
TILT_PIVOT_HZ = 500.0  # a tilt leaves what lies below alone
VOICE_TILT_DB = -2.0  # an octave: espeak-ng is brighter than people are, and recognisers hear it worse for that
BREATH_FROM_HZ = 1_500.0  # aspiration is heard above the first formants
TREMOR_HZ = 5.5
JITTER_S = 0.020
ENVELOPE_S = 0.010
MODAL_BREATH_DB = -34.0  # aspiration noise of a modal voice, against its own level
SPEECH_LEVEL_DBFS = -27.0  # RMS of a neutral sentence
ROOM_LEVEL_DBFS = -66.0
PEAK_LIMIT = 0.97


@dataclass(frozen=True, slots=True)
class Cues:
    """Prosody, as a difference from a neutral sentence in the voice's own manner.

    Attributes:
        pitch_st: mean F0, semitones.
        range_log2: width of the intonation, doublings.
        rate_log2: rate of speech, doublings.
        level_db: RMS level, dB.
        tilt_db: spectral tilt above 500 Hz, dB an octave; negative is duller.
        breath_db: aspiration noise, dB above a modal voice.
        slope_st: F0 at the end against F0 at the start, semitones.
        tremor_st: amplitude of an unsteady F0 (tremor and random walk), semitones.
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
"""What each emotion changes."""

HABIT_SPREAD = Cues(
    pitch_st=0.8, range_log2=0.15, rate_log2=0.05, level_db=0.8, tilt_db=0.3, breath_db=1.5, slope_st=0.3,
    tremor_st=0.05,
)  # fmt: skip
"""Standard deviation of a speaker's own manner, emotion aside."""

CLIP_SPREAD = Cues(
    pitch_st=1.0, range_log2=0.25, rate_log2=0.06, level_db=1.2, tilt_db=0.4, breath_db=1.5, slope_st=0.6,
    tremor_st=0.08, gap=1.0,
)  # fmt: skip
"""Standard deviation from clip to clip."""

NEUTRAL_SPREAD = 0.6
"""Share of `CLIP_SPREAD` in a neutral sentence, which leaves a speaker less to choose."""

STRENGTH_SPREAD_SPEAKER = 0.15
STRENGTH_SPREAD_CLIP = 0.25
STRENGTH_RANGE = (0.15, 1.8)
"""How strongly a speaker, and a speaker in one clip, expresses an emotion; 1 is as in `EMOTIONS`."""


@dataclass(frozen=True, slots=True)
class Manner:
    """A speaker's own way: what is there in every clip, and how strongly emotions show."""

    habit: Cues
    strength: float


def manner(rng: np.random.Generator) -> Manner:
    """Draw a speaker."""
    habit = Cues(**{f.name: getattr(HABIT_SPREAD, f.name) * rng.standard_normal() for f in fields(Cues)})
    return Manner(habit, float(np.exp(STRENGTH_SPREAD_SPEAKER * rng.standard_normal())))


def cues(emotion: str, speaker: Manner, rng: np.random.Generator) -> Cues:
    """Draw one clip: habit + strength · emotion + chance."""
    strength = np.clip(speaker.strength * (1 + STRENGTH_SPREAD_CLIP * rng.standard_normal()), *STRENGTH_RANGE)
    chance = NEUTRAL_SPREAD if emotion == "neutral" else 1.0
    drawn = {
        f.name: float(
            getattr(speaker.habit, f.name)
            + strength * getattr(EMOTIONS[emotion], f.name)
            + chance * getattr(CLIP_SPREAD, f.name) * rng.standard_normal()
        )
        for f in fields(Cues)
    }
    drawn["tremor_st"], drawn["gap"] = max(0.0, drawn["tremor_st"]), max(0.0, drawn["gap"])
    return Cues(**drawn)


def delivery(base: Delivery, drawn: Cues) -> Delivery:
    """What of the cues espeak-ng does itself: rate, pitch, range and pauses."""
    pitch = base.pitch + drawn.pitch_st * PITCH_STEPS_PER_SEMITONE
    return Delivery(
        rate_wpm=round(base.rate_wpm * 2**drawn.rate_log2),
        pitch=round(float(np.clip(pitch, 0, PITCH_MAX))),
        range=round(float(np.clip(base.range * 2**drawn.range_log2, 0, RANGE_MAX))),
        word_gap=round(base.word_gap + drawn.gap),
    )


def colour(spoken: Int16Array, rate_hz: int, drawn: Cues, rng: np.random.Generator) -> Samples:
    """What of the cues is done to the sound: slope and tremor of F0, tilt, breath, level.

    Returns:
        [samples], -1 to 1, at the rate of `spoken`.
    """
    sound = _bend(spoken / 32768.0, rate_hz, drawn, rng)
    sound = _tilt(sound, rate_hz, VOICE_TILT_DB + drawn.tilt_db) + _breath(sound, rate_hz, drawn.breath_db, rng)
    sound *= 10 ** ((SPEECH_LEVEL_DBFS + drawn.level_db) / 20) / np.sqrt(np.mean(sound**2))
    return np.asarray(sound * min(1.0, PEAK_LIMIT / np.abs(sound).max()), dtype=np.float64)


def in_room(sound: Samples, rate_hz: int, lead_s: float, trail_s: float, rng: np.random.Generator) -> Samples:
    """Silence before and after, and the faint noise of a room throughout."""
    padded = np.pad(sound, (round(lead_s * rate_hz), round(trail_s * rate_hz)))
    return padded + 10 ** (ROOM_LEVEL_DBFS / 20) * rng.standard_normal(len(padded))


def _bend(sound: Samples, rate_hz: int, drawn: Cues, rng: np.random.Generator) -> Samples:
    """Move F0 within the sentence by reading the sound faster and slower; formants move along, a little."""
    n = len(sound)
    time_s = np.arange(n) / rate_hz
    knots_s = np.arange(0.0, time_s[-1] + 2 * JITTER_S, JITTER_S)
    jitter = np.interp(time_s, knots_s, rng.standard_normal(len(knots_s)))
    tremor = np.sin(2 * np.pi * (TREMOR_HZ * time_s + rng.random()))
    semitones = drawn.slope_st * np.linspace(-0.5, 0.5, n) + drawn.tremor_st * (tremor + 0.5 * jitter)
    speed = 2 ** (semitones / 12)
    read_at = np.cumsum(speed / speed.mean())  # mean speed 1: the sentence keeps its length
    return np.asarray(np.interp(read_at - read_at[0], np.arange(n), sound), dtype=np.float64)


def _tilt(sound: Samples, rate_hz: int, db_per_octave: float) -> Samples:
    """Turn the spectrum about its pivot."""
    spectrum, hz = _spectrum(sound, rate_hz)
    octaves = np.log2(np.maximum(hz, TILT_PIVOT_HZ) / TILT_PIVOT_HZ)
    return np.fft.irfft(spectrum * 10 ** (db_per_octave * octaves / 20))[: len(sound)]


def _breath(sound: Samples, rate_hz: int, level_db: float, rng: np.random.Generator) -> Samples:
    """High-pass noise that follows the loudness of the sound."""
    window = round(ENVELOPE_S * rate_hz)
    total = np.cumsum(np.pad(np.abs(sound), (window, window)))
    envelope = (total[2 * window :] - total[: -2 * window]) / (2 * window)
    spectrum, hz = _spectrum(envelope * rng.standard_normal(len(sound)), rate_hz)
    noise = np.fft.irfft(np.where(hz < BREATH_FROM_HZ, 0.0, spectrum))[: len(sound)]
    wanted = np.sqrt(np.mean(sound**2)) * 10 ** ((MODAL_BREATH_DB + level_db) / 20)
    return np.asarray(noise * wanted / np.sqrt(np.mean(noise**2)), dtype=np.float64)


def _spectrum(sound: Samples, rate_hz: int) -> tuple[npt.NDArray[np.complex128], Samples]:
    """Spectrum and its frequencies, over a power of two: the FFT of a prime length takes ten times as long."""
    size = 1 << (len(sound) - 1).bit_length()
    return np.fft.rfft(sound, size), np.asarray(np.fft.rfftfreq(size, 1 / rate_hz), dtype=np.float64)
