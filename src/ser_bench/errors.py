"""Errors meant for the person at the keyboard: what is wrong, in which file, what to do next.

`run.py` and `ser-bench` print `str(error)` alone and exit with status 2; any other exception is a bug and keeps
its traceback.
"""


class SerBenchError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(SerBenchError):
    """A configuration that cannot be carried out."""


class CorpusError(SerBenchError):
    """A corpus that is absent, empty or not what its data sheet says."""


class BadClipError(CorpusError):
    """One audio file that cannot be used; the message starts with its path."""


class DownloadError(CorpusError):
    """A download that no mirror could complete."""


class SplitError(SerBenchError):
    """A split that cannot be made, or that breaks the promise of its protocol."""


class WeightsError(SerBenchError):
    """Pretrained weights that are missing, or whose sha256 is not the expected one."""


class LanguageError(SerBenchError):
    """A recogniser or an embedder that does not know the language of the corpus."""


class LLMError(SerBenchError):
    """A language-model service that cannot be used: no key, wrong key, unknown model, unreachable server."""


class LLMStoppedError(LLMError):
    """A run that a budget or a deadline stopped: what was answered is kept, and the same command goes on."""


class TrackingError(SerBenchError):
    """A tracking store that cannot be reached or written."""


class RunNotFoundError(TrackingError):
    """No stored run matches what was asked for."""


class NotComparableError(SerBenchError):
    """Runs that were not measured on the same clips, or not over the same labels."""


class CacheError(SerBenchError):
    """A cache folder that cannot be written: full disk, or read-only."""


class InterruptedRunError(SerBenchError):
    """The user pressed Ctrl-C. The run is marked KILLED and the same command resumes it."""
