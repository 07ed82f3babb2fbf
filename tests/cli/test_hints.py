"""Errors say what is wrong; the command line adds hints."""

import ast
import re
from pathlib import Path

import detrcli
from detrcli.cli.app import app
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


def test_the_library_names_no_option_or_command() -> None:
    package = Path(detrcli.__path__[0])
    commands = "|".join(str(command.name) for command in app.registered_commands)
    named = re.compile(rf"(?<![\w-])--[a-z]|\bdetr ({commands})\b")
    paths = [path for path in package.rglob("*.py") if not path.is_relative_to(package / "cli")]
    assert len(paths) > 50
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        assert [text for text in texts if named.search(text)] == [], path
