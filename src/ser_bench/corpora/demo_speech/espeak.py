"""Speech synthesis with espeak-ng, through the C API of the library in the package `espeakng-loader`.

Functions and constants are those of espeak-ng's public header `speak_lib.h` (API revision 12).

espeak-ng keeps its state in static variables: the phase of the vocal flutter, the position in the noise of fricatives,
and a random number generator that is seeded with the time. With one loaded library, the same sentence therefore differs
from call to call, and threads would overwrite each other's state. Every `Synthesizer` loads a private copy of the
library and seeds it. A new synthesizer always starts in the same state; several can be used in parallel, in threads or
processes; each must be used by one thread at a time.

Exception: the Klatt variants also use `rand` of the C library, whose state belongs to the whole process. They are not
reproducible.
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ser_bench import extras
from ser_bench.errors import CorpusError

Int16Array = npt.NDArray[np.int16]

RATE_MIN_WPM, RATE_MAX_WPM = 80, 450
PITCH_MAX = RANGE_MAX = 99
VOLUME_MAX = 200

_OK = 0
_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: pass the samples to a callback, return when the sentence is complete
_DO_NOT_EXIT = 0x8000  # if the data folder is missing, return an error instead of ending the process
_CHARS_UTF8 = 1
_BY_CHARACTER = 1  # espeak_POSITION_TYPE
_RATE, _VOLUME, _PITCH, _RANGE, _WORD_GAP = 1, 2, 3, 4, 7  # espeak_PARAMETER
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class SpeechSettings:
    """Settings of espeak-ng for one sentence.

    Attributes:
        rate_wpm: nominal rate, words per minute, 80 to 450; the default of espeak-ng is 175.
        pitch: 0 to 99; 50 is the default of the voice. Six steps change the median F0 by about one semitone.
        range: width of the intonation, 0 (monotone) to 99; 50 is the default of the voice.
        volume: 0 to 200; 100 is normal. Higher values may clip.
        word_gap: pause between words, in units of 10 ms at normal rate; 0 to 100.

    Raises:
        ValueError: if a value is out of range.
    """

    rate_wpm: int = 175
    pitch: int = 50
    range: int = 50
    volume: int = 100
    word_gap: int = 0

    def __post_init__(self) -> None:
        limits = {
            "rate_wpm": (RATE_MIN_WPM, RATE_MAX_WPM),
            "pitch": (0, PITCH_MAX),
            "range": (0, RANGE_MAX),
            "volume": (0, VOLUME_MAX),
            "word_gap": (0, 100),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)} is outside {low} to {high}")


class Synthesizer:
    """A private copy of espeak-ng. Use it in a `with` block, by one thread at a time.

    Args:
        seed: seed of the random numbers in espeak-ng (breath, flutter), 0 to 2³²-1.

    Attributes:
        sample_rate_hz: sampling rate of the speech (22,050).

    Raises:
        CorpusError: if `espeakng-loader` is not installed, or if its library cannot be loaded on this machine.
    """

    def __init__(self, seed: int = 0) -> None:
        library, data = _locate()
        self._blocks: list[Int16Array] = []
        self._folder = tempfile.TemporaryDirectory(prefix="ser_bench-espeak-", ignore_cleanup_errors=True)
        try:
            copy = shutil.copy(library, self._folder.name)
            self._library: Any = ctypes.CDLL(copy)
            # Without these prototypes, ctypes passes pointers as 32-bit integers.
            self._library.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
            self._library.espeak_Synth.argtypes = [
                ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
                ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
            ]  # fmt: skip
            rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _DO_NOT_EXIT)
        except OSError as error:
            self._folder.cleanup()
            raise CorpusError(
                f"{library}: espeak-ng cannot be loaded ({error}); if programs must not run from the temporary folder, "
                "set TMPDIR to a folder in which they may"
            ) from error
        if rate <= 0:
            self._folder.cleanup()
            raise CorpusError(
                f"{data}: espeak-ng cannot read its data; run: pip install --force-reinstall espeakng-loader"
            )
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        self.sample_rate_hz = int(rate)
        self._callback = _CALLBACK(self._collect)  # keep a reference: the library has only a pointer to it
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def say(self, text: str, voice: str, settings: SpeechSettings = SpeechSettings()) -> Int16Array:
        """Synthesize one sentence.

        Args:
            text: the sentence.
            voice: a language and, after "+", a variant of espeak-ng: "en-us+f2". "en" is British English.
            settings: rate, pitch, range, volume and pauses.

        Returns:
            [samples] int16, mono, at `sample_rate_hz`.

        Raises:
            CorpusError: if espeak-ng has no such voice, or if it fails.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise CorpusError(f"espeak-ng has no voice {voice!r}; `espeak-ng --voices=variant` lists the variants")
        parameters = {
            _RATE: settings.rate_wpm,
            _VOLUME: settings.volume,
            _PITCH: settings.pitch,
            _RANGE: settings.range,
            _WORD_GAP: settings.word_gap,
        }
        for parameter, value in parameters.items():
            self._library.espeak_SetParameter(parameter, value, 0)
        self._blocks.clear()
        encoded = text.encode()
        status = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, _BY_CHARACTER, 0, _CHARS_UTF8, None, None)
        if status != _OK or not self._blocks:
            raise CorpusError(f"espeak-ng failed on {text!r} with the voice {voice!r} (status {status})")
        return np.concatenate(self._blocks)

    def close(self) -> None:
        """Unload the private copy of the library and delete it. Closing twice is allowed."""
        if self._library is not None:
            self._library.espeak_Terminate()
            _unload(self._library)
            self._library = None
            self._folder.cleanup()

    def _collect(self, samples: Any, count: int, _events: int | None) -> int:
        if samples and count > 0:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue


def _locate() -> tuple[Path, Path]:
    """Return the path of the library and of its data folder."""
    extras.require("espeakng_loader", "the demo corpus (espeak-ng speaks it)", CorpusError)
    import espeakng_loader

    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def _unload(library: Any) -> None:
    """Unload the library; otherwise the process grows by 2 MB with each synthesizer."""
    if sys.platform == "win32":
        ctypes.windll.kernel32.FreeLibrary(ctypes.c_void_p(library._handle))
    else:
        ctypes.CDLL(None).dlclose(ctypes.c_void_p(library._handle))
