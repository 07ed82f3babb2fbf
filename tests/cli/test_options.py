"""Options of all commands."""

from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from detrcli.cli.app import app


def parts(kind: Any) -> set[Any]:
    """Return a type and all types in it."""
    return {kind}.union(*map(parts, get_args(kind)))


PATHS = {
    f"{command.name} {name}": kind.__metadata__[0]
    for command in app.registered_commands
    for name, kind in get_type_hints(command.callback, localns={"Size": int}, include_extras=True).items()
    if get_origin(kind) is Annotated and Path in parts(kind.__origin__)
}
"""Options and arguments that are paths."""


def test_paths_are_found() -> None:
    known = {"predict output", "predict font", "predict image_ids", "predict class_names", "predict files_from"}
    known |= {"train dataset", "train output", "train class_names", "eval save_predictions", "bench image"}
    assert known | {"merge folders", "export file"} <= PATHS.keys()


@pytest.mark.parametrize("name", PATHS)
def test_paths_may_start_with_a_tilde(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert PATHS[name].callback(Path("~/x")) == Path("/somewhere/x")
    assert PATHS[name].callback([Path("~/x")]) == [Path("/somewhere/x")]
