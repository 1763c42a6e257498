"""Names of speakers, labels, sentences and clips: their normal form, unusable names, and names that look alike.

Two spellings of one name would count as two speakers or two labels. Spellings that Unicode defines as equal are made
equal. Spellings that are probably one name, but may be two, are refused, because a guess would change who is tested.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

MISSING = frozenset({"nan", "null", "n/a", "#n/a", "<na>", "nat"})
"""What programs write for a missing value, in lower case. As a name, it would merge all unknown speakers into one."""
JOINERS = "\u200c\u200d"
"""Invisible characters that some scripts need inside a word, for example Persian."""
MAX_DIGITS = 100
NUMBER = re.compile(r"([+-]?\d+)(?:\.(\d*))?")


def nfc(text: str) -> str:
    """Return a text in Unicode's composed form (NFC): "u" followed by a combining diaeresis becomes "ü"."""
    return unicodedata.normalize("NFC", text)


def normalised(name: str) -> str:
    r"""Return a name in NFC, with one space for each run of white space and none at the ends.

    >>> normalised("Mu\u0308ller \u00a0 A") == "M\u00fcller A"
    True
    """
    return " ".join(nfc(name).split())


def check_characters(kind: str, name: str) -> None:
    """Refuse control characters and invisible characters other than `JOINERS`.

    Args:
        kind: what the name is ("speaker"), for the error message.
        name: the name.

    Raises:
        ValueError: if the name contains such a character.
    """
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Cn", "Co") and character not in JOINERS:
            raise ValueError(
                f"the {kind} {name!r} contains the invisible character U+{ord(character):04X}; remove the character"
            )


def check_given(kind: str, name: str) -> None:
    """Refuse texts that programs write for a missing value.

    Raises:
        ValueError: if the name is such a text.
    """
    if name.casefold() in MISSING:
        raise ValueError(
            f"the {kind} is {name!r}, which stands for a missing value; write the {kind}, or remove the line"
        )


def likeness(name: str) -> str:
    """Return a key that is equal for names that are probably one: same number, or equal but for case and letter form.

    >>> likeness("1.0") == likeness("01") == likeness("1"), likeness("1.0") == likeness("10")
    (True, False)
    >>> likeness("Anna") == likeness("ANNA") == likeness("\uff21nna"), likeness("a_1") == likeness("a-1")
    (True, False)
    """
    key = normalised(unicodedata.normalize("NFKC", name).casefold())
    match = NUMBER.fullmatch(key) if len(key) <= MAX_DIGITS else None
    if match is None:
        return key
    fraction = (match[2] or "").rstrip("0")
    return f"{int(match[1])}.{fraction}" if fraction else str(int(match[1]))


def find_alike(names: Iterable[str], key: Callable[[str], str] = likeness) -> tuple[str, str] | None:
    """Return the first two different names with equal keys, in the order of their first occurrence; None without any.

    >>> find_alike(["1", "2", "1", "01"]), find_alike(["1", "2", "1"])
    (('1', '01'), None)
    """
    first: dict[str, str] = {}
    for name in names:
        other = first.setdefault(key(name), name)
        if other != name:
            return other, name
    return None


def existing_form(path: Path) -> Path:
    """Return a path in the Unicode form in which it exists: each part as given, composed (NFC) or decomposed (NFD).

    File systems store either form: a list made on one computer may have the other form than the files on another one.
    If the path exists in no form, it is returned as given.
    """
    if os.path.exists(path) or str(path).isascii():  # noqa: PTH110 (False instead of an error for impossible names)
        return path
    existing = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        forms = [existing / form for form in (part, nfc(part), unicodedata.normalize("NFD", part))]
        usable = [form for form in forms if os.path.exists(form)]  # noqa: PTH110
        if not usable:
            return path
        existing = usable[0]
    return existing
