"""Exit codes of all commands."""

SOME_FAILED = 1
ERROR = 2
INTERRUPTED = 130
EXIT_CODES = {
    0: "Success.",
    SOME_FAILED: "Some images failed, or the reader of stdout closed it.",
    ERROR: "Wrong usage, or an error that stopped the command.",
    INTERRUPTED: "Interrupted (Ctrl-C).",
    143: "Terminated (SIGTERM).",
}
"""Meaning of each exit code."""
