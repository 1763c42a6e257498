"""The text of one clip for fine-tuning: prosody in short words or numbers, transcript, and where the answer follows.

There is no instruction: the training clips show the task. For example, with words::

    Voice: pitch much higher, range wider, slope usual, …
    Words: "It's eleven o'clock"
    Emotion:

The prosody is that of `predictors/llm/prompting/prosody_norms`: z-scores relative to training clips, in the same words
and with the same thresholds. All clips are described relative to all training clips. The prompts use the norms of the
clip's own speaker where they have them; here the training clips would have them and the clips of unseen speakers would
not, so that the same words would mean two things.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ser_bench.features.prosody import Prosody
from ser_bench.predictors.llm.prompting import prosody_norms
from ser_bench.predictors.llm.prompting.prosody_norms import MEASURES, SLIGHT, STRONG, ProsodyNorms

SHORT_NAMES = {
    "pitch_semitones": "pitch",
    "pitch_range_semitones": "range",
    "pitch_slope": "slope",
    "loudness_db": "loudness",
    "syllables_per_second": "rate",
    "pause_percent": "pauses",
    "jitter_percent": "jitter",
    "shimmer_percent": "shimmer",
    "harmonicity_db": "harmonics",
}
"""Field of `Prosody` → name in the text, for every measure of the prompts."""
NOT_MEASURED = "not measured"
MOST_TENTHS = 99
"""Largest stated distance: 9.9 standard deviations."""


NO_SPEAKER = ""
"""Speaker for whom there are no norms."""


def learn_norms(prosodies: Sequence[Prosody]) -> ProsodyNorms:
    """Return the norms of training clips, over all speakers."""
    return ProsodyNorms(prosody_norms.learn(prosodies, [NO_SPEAKER] * len(prosodies)).corpus, {})


def voice_text(prosody: Prosody, norms: ProsodyNorms, numbers: bool) -> str:
    """Return the prosody of a clip in one line.

    Args:
        prosody: measures of the clip; missing ones are left out.
        norms: of training clips.
        numbers: state the distance from the norm in tenths of a standard deviation, in place of words.
    """
    distances = prosody_norms.z_scores(prosody, NO_SPEAKER, norms)
    parts = []
    for measure in MEASURES:
        if measure.field not in distances:
            continue
        distance = distances[measure.field]
        if numbers:
            stated = f"{max(-MOST_TENTHS, min(MOST_TENTHS, round(10 * distance))):+d}"
        else:
            word = measure.more if distance > 0 else measure.less
            stated = "usual" if abs(distance) < SLIGHT else word if abs(distance) < STRONG else f"much {word}"
        parts.append(f"{SHORT_NAMES[measure.field]} {stated}")
    return ", ".join(parts) or NOT_MEASURED


def before_transcript(voice: str) -> str:
    """Return the text before the transcript."""
    return f"Voice: {voice}\nWords:"


def transcript_text(transcript: str) -> str:
    """Return the transcript as a JSON string, so that its content cannot look like another part of the text."""
    return " " + json.dumps(transcript, ensure_ascii=False)


AFTER_TRANSCRIPT = "\nEmotion:"
"""The text whose last token is where the label is read."""
