"""Errors say what is wrong; the command line adds what to do."""

from detrcli.cli.hints import HINTS, with_hint
from detrcli.errors import LockedError, ModelError


def test_a_hint_follows_what_is_wrong() -> None:
    assert with_hint(LockedError("another run is writing out")) == (
        "another run is writing out; wait for it, or choose another --output"
    )


def test_a_subclass_has_its_parents_hint() -> None:
    class SpecialError(LockedError):
        pass

    assert with_hint(SpecialError("a")).endswith(HINTS[LockedError])


def test_without_a_hint_the_text_is_all() -> None:
    assert with_hint(ModelError("no such model")) == "no such model"
