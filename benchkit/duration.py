"""Lengths of time in words, as the report, the command line and progress show them."""

from __future__ import annotations


def duration(seconds: float, *, whole: bool = False) -> str:
    """Return a length of time in the two largest units that matter: 4.2 s, 2 min 13 s, 3 h 05 min.

    `whole` rounds to whole seconds, as suits what is still to come: 4 s.
    """
    if whole:
        seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s" if whole else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
