"""Recordings in a column of texts, as the MLflow model receives them: base64 of an audio file, or a path."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ser_bench.config import Config, compose
from ser_bench.errors import BadClipError
from ser_bench.inference.answer import FAILED, Answer
from ser_bench.inference.audio_predictor import AudioPredictor
from ser_bench.inference.recording import Recording

ALLOW_PATHS = "SER_BENCH_ALLOW_PATHS"
"""Environment variable; "1" lets texts name files of this machine."""
BATCH = 32
"""Recordings that are in memory together."""
DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.=+-]+)*;base64,", re.ASCII)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NO_BASE64 = "is not the content of an audio file in base64"


class AudioColumn:
    """A predictor, loaded from a bundle, that answers about texts.

    Args:
        folder: the bundle.
        overrides: of the user's own configuration, which decides devices, cache and the services that may be asked.
        allow_paths: whether a text may be the path of a file or a file:// URI. It is also allowed if the environment
            variable SER_BENCH_ALLOW_PATHS is "1". Whoever may ask a server that allows it learns which files exist on
            the server, and what its audio files sound like to the predictor.

    Raises:
        SerBenchError: the bundle cannot be read, or an override is wrong.
    """

    def __init__(self, folder: Path, overrides: Sequence[str] = (), allow_paths: bool = False) -> None:
        here: Config = compose(["experiment=none", *overrides])
        self._predictor = AudioPredictor.from_folder(folder, here)
        self._allow_paths = allow_paths or os.environ.get(ALLOW_PATHS) == "1"

    def records(self, texts: Sequence[object]) -> list[dict[str, Any]]:
        """Return `Answer.as_dict` of each text, with the id of the run.

        A text that cannot be used has the status "failed" and the reason, and does not stop the others.

        Args:
            texts: base64 of WAV, FLAC, OGG or another container that libsndfile reads, with or without
                "data:audio/wav;base64," before it; where paths are allowed, also a path or a file:// URI.
        """
        found: list[dict[str, Any]] = []
        for start in range(0, len(texts), BATCH):
            read = [self._read(text, f"row {start + i}") for i, text in enumerate(texts[start : start + BATCH])]
            answers = iter(self._predictor.predict([item for item in read if isinstance(item, Recording)]))
            for item in read:
                answer = item if isinstance(item, Answer) else next(answers)
                found.append({**answer.as_dict(), "run_id": self._predictor.run_id})
        return found

    def _read(self, text: object, name: str) -> Recording | Answer:
        try:
            return recording_of(text, name, self._predictor.max_duration_s, self._allow_paths)
        except BadClipError as error:
            return Answer(name, status=FAILED, reason=str(error))


def recording_of(text: object, name: str, max_duration_s: float, allow_paths: bool = False) -> Recording:
    """Return the recording that a text holds or names.

    Args:
        text: as in `AudioColumn.records`.
        name: of the recording, unless the text is a path.
        max_duration_s: a longer recording is refused.
        allow_paths: whether files of this machine may be read. If not, no file is looked for, so that the answer does
            not tell which files exist.

    Raises:
        BadClipError: the text is neither, it names another machine, paths are not allowed, or the audio cannot be used.
    """
    if not isinstance(text, str) or not text.strip():
        raise BadClipError(f"{name}: there is no text in the column audio")
    text = text.strip()
    marked = DATA_URI.match(text)
    content = _decoded(text[marked.end() :] if marked else text)
    if content is not None and (marked or not allow_paths or not _names_a_file(text)):
        return Recording.from_bytes(content, name, max_duration_s)
    if marked or text.startswith("data:"):
        raise BadClipError(f"{name}: the data: URI {NO_BASE64}")
    if SCHEME.match(text) and not text.startswith("file://"):
        raise BadClipError(f"{name}: addresses are not fetched; send the content of the file in base64")
    if not allow_paths:
        raise BadClipError(
            f"{name}: the text {NO_BASE64}, and paths are not allowed here ({ALLOW_PATHS}=1 in the environment of the "
            "model allows them)"
        )
    return Recording.from_file(_path_of(text, name), max_duration_s)


def _decoded(text: str) -> bytes | None:
    """Return the bytes of base64, in which line breaks may stand; None for another text."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _names_a_file(text: str) -> bool:
    """Return whether there is such a file; a path may consist of characters of base64."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path
        return False


def _path_of(text: str, name: str) -> Path:
    if "\0" in text or "%00" in text:
        raise BadClipError(f"{name}: the path contains a null byte")
    if not text.startswith("file://"):
        return Path(text)
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost"):
        raise BadClipError(f"{name}: the file:// URI names another machine, {parts.netloc}")
    return Path(unquote(parts.path))
