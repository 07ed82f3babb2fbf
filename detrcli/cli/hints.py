"""Hints on what to do about an error; the library only says what is wrong."""

from ..errors import DetrError, DetrWarning, LockedError

HINTS: dict[type[DetrError] | type[DetrWarning], str] = {
    LockedError: "wait for it, or choose another --output",
}
"""Hints by class of error or warning; a subclass without a hint inherits one."""


def with_hint(problem: DetrError | DetrWarning) -> str:
    """Return the text of an error or warning, followed by its hint if there is one."""
    hint = next((HINTS[kind] for kind in type(problem).__mro__ if kind in HINTS), None)
    return f"{problem}; {hint}" if hint else str(problem)
