"""Help texts."""

import re

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from detrcli.cli.app import app
from detrcli.cli.help import PANELS

COMMANDS = [[], ["predict"], ["merge"], ["models"], ["train"], ["eval"], ["export"], ["bench"]]


def help_text(columns: int, *arguments: str) -> str:
    run = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": str(columns)})
    assert run.exit_code == 0, run.output
    return run.output


@pytest.mark.parametrize("columns", [30, 40, 60])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_narrow_help_fits_and_is_complete(command: list[str], columns: int) -> None:
    narrow, wide = help_text(columns, *command), help_text(100, *command)
    assert max(map(len, narrow.splitlines())) <= columns
    assert "".join(narrow.split()) == "".join(wide.split())


def test_summaries_of_commands_fit_in_one_line() -> None:
    summaries = help_text(80).partition("Commands:\n")[2].partition("\n\n")[0]
    assert [line.split()[0] for line in summaries.splitlines()] == [command for (command,) in COMMANDS[1:]]
    assert all(line.endswith(".") for line in summaries.splitlines())


def test_wide_help_has_descriptions_beside_the_options() -> None:
    assert re.search(r"^  -r, --recursive +\w", help_text(100, "predict"), re.MULTILINE)


def test_options_are_in_panels() -> None:
    sections = re.findall(r"^(\w[\w ]*):$", help_text(80, "predict"), re.MULTILINE)
    assert sections == ["Arguments", "Input", "Model", "Detections", "Compute", "Output", "Options"]


def test_exit_codes_are_documented() -> None:
    codes = help_text(80).partition("Exit codes:")[2].split("\n")
    assert [line.split()[0] for line in codes if line] == ["0", "1", "2", "130", "143"]


def test_each_option_has_one_panel() -> None:
    options = {
        max(param.opts, key=len).removeprefix("--")
        for command in get_command(app).commands.values()  # type: ignore[attr-defined]
        for param in command.params
        if param.param_type_name == "option"
    }
    names = [name for panel in PANELS.values() for name in panel]
    assert sorted(names) == sorted(options - {"quiet", "verbose", "log-json"})
