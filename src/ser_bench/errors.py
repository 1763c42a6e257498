"""Errors that users can cause and correct.

The message states what is wrong, in which file or configuration key, and what to do next. `run.py` and `ser-bench`
print only the message and exit with status 2. Any other exception is a bug and is shown with its traceback.
"""


class SerBenchError(Exception):
    """Base class of all errors that users can cause and correct."""


class ConfigError(SerBenchError):
    """A configuration is invalid or cannot be run."""


class CorpusError(SerBenchError):
    """A corpus is missing, empty, or does not agree with its data sheet."""


class BadClipError(CorpusError):
    """An audio file cannot be used. The message starts with its path."""


class DownloadError(CorpusError):
    """No host could deliver all files of a download."""


class SplitError(SerBenchError):
    """A split is impossible on a corpus, or violates its protocol."""


class WeightsError(SerBenchError):
    """Pretrained weights are missing, or their sha256 is wrong."""


class LanguageError(SerBenchError):
    """A speech recogniser or a text embedder does not support the language of the corpus."""


class LLMError(SerBenchError):
    """A language-model service cannot be used: missing or wrong key, unknown model, or unreachable server."""


class LLMStoppedError(LLMError):
    """A budget or a deadline stopped a run. Its responses are cached, and the same command continues it."""


class IncompleteRunError(LLMError):
    """Requests of a run failed. It has no score; the other answers are cached, and the same command completes it."""


class TrackingError(SerBenchError):
    """A tracking store cannot be reached or written."""


class RunNotFoundError(TrackingError):
    """No stored run matches a request."""


class ArtifactError(TrackingError):
    """A file of a stored run is missing or damaged."""


class NotComparableError(SerBenchError):
    """Runs were not measured on the same clips, or not with the same labels."""


class CacheError(SerBenchError):
    """A cache folder cannot be written (full disk, or read-only)."""


class FileAccessError(SerBenchError):
    """A file or folder cannot be used: full disk, read-only, or missing permissions."""


class InterruptedRunError(SerBenchError):
    """The user pressed Ctrl-C. The run is marked KILLED, and the same command resumes it."""


def one_line(error: BaseException, characters: int = 200) -> str:
    """Return the first line of an error's text, cut to a length, for use in a message; its class if it has no text.

    >>> one_line(ValueError("bad header\\nin a second line")), one_line(KeyError())
    ('bad header', 'KeyError')
    """
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first if len(first) <= characters else first[: characters - 1] + "…"
