"""Normalisation of transcripts before the word error rate is computed, and detection of repeated phrases."""

from __future__ import annotations

import re

UNITS = [
    *["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"],
    *["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"],
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'"})


def normalise(text: str) -> str:
    """Return the text in lower case with single spaces, without punctuation, and with 0 to 99 spelled out.

    Apostrophes inside words stay. "It's 11 o'clock." and "It's eleven o'clock" are then equal.

    >>> normalise("It’s 11 o'clock — 'now'!")
    "it's eleven o'clock now"
    """
    text = text.lower().translate(APOSTROPHES)
    text = re.sub(r"[^\w\s']|_", " ", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", " ", text)
    return " ".join(re.sub(r"\b\d{1,2}\b", lambda number: _spelled(int(number.group())), text).split())


def repeats(text: str) -> bool:
    """Return True if the whole text is one phrase repeated, as in the output of a decoder that does not stop.

    >>> repeats("It's 11 o'clock. It's 11 o'clock."), repeats("No, no, it's cold.")
    (True, False)
    """
    words = normalise(text).split()
    lengths = (n for n in range(1, len(words) // 2 + 1) if len(words) % n == 0)
    return any(words == words[:n] * (len(words) // n) for n in lengths)


def _spelled(number: int) -> str:
    if number < len(UNITS):
        return UNITS[number]
    tens, unit = divmod(number, 10)
    return TENS[tens - 2] + (f" {UNITS[unit]}" if unit else "")
