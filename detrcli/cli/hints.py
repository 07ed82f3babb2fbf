"""Hints on what to do about an error; the library only says what is wrong."""

from ..errors import (
    DamagedStateError,
    DetrError,
    DetrWarning,
    DivergedError,
    LoaderKilledError,
    LockedError,
    NothingToResumeError,
    ResumeMismatchError,
    TooManyProcessesError,
)

HINTS: dict[type[DetrError] | type[DetrWarning], str] = {
    LockedError: "wait for it, or choose another --output",
    TooManyProcessesError: "start one process per GPU, as torchrun --nproc-per-node gpu does",
    DivergedError: "try a lower --lr, or --precision fp32",
    LoaderKilledError: "continue with --resume and fewer --workers",
    NothingToResumeError: "leave out --resume to start a new run",
    DamagedStateError: "start a new run in another --output; --model OUTPUT/last starts from the last epoch's weights",
    ResumeMismatchError: "resume with the same model, dataset and options",
}
"""Hints by class of error or warning; a subclass without a hint inherits one."""


def with_hint(problem: DetrError | DetrWarning) -> str:
    """Return the text of an error or warning, followed by its hint if there is one."""
    hint = next((HINTS[kind] for kind in type(problem).__mro__ if kind in HINTS), None)
    return f"{problem}; {hint}" if hint else str(problem)
