"""Durations as short text, for logs and tables."""


def format_duration(seconds: float) -> str:
    """Return a duration as text.

    >>> format_duration(14.2), format_duration(150), format_duration(11_160)
    ('14 s', '2 min', '3.1 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
