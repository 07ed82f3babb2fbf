"""What to do about an error, in the words of the command line; the library only says what is wrong."""

from ..errors import DetrError, DetrWarning, LockedError

HINTS: dict[type[DetrError] | type[DetrWarning], str] = {
    LockedError: "wait for it, or choose another --output",
}
"""Hint for each class of errors and warnings that has one; a subclass without its own has its parent's."""


def with_hint(problem: DetrError | DetrWarning) -> str:
    """Text of an error or a warning, followed by its hint if there is one."""
    hint = next((HINTS[kind] for kind in type(problem).__mro__ if kind in HINTS), None)
    return f"{problem}; {hint}" if hint else str(problem)
