"""Errors say what is wrong; the command line adds hints."""

from detrcli.cli.hints import HINTS, with_hint
from detrcli.errors import LockedError, ModelError


def test_the_hint_follows_the_text() -> None:
    assert with_hint(LockedError("another run is writing out")) == (
        "another run is writing out; wait for it, or choose another --output"
    )


def test_subclasses_inherit_hints() -> None:
    class SpecialError(LockedError):
        pass

    assert with_hint(SpecialError("a")).endswith(HINTS[LockedError])


def test_errors_without_a_hint_keep_their_text() -> None:
    assert with_hint(ModelError("no such model")) == "no such model"
