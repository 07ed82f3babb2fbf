"""The commands of the command line."""

import sys
from typing import Annotated, NoReturn

import typer

from .bench import bench
from .console import Console
from .eval import evaluate
from .exit_codes import ERROR
from .export import export
from .help import Command, Group
from .merge import merge
from .models import models
from .predict import predict
from .train import train

app = typer.Typer(
    name="detr",
    cls=Group,
    help="Find objects in images with DETR.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, command in (
    ("predict", predict),
    ("merge", merge),
    ("models", models),
    ("train", train),
    ("eval", evaluate),
    ("export", export),
    ("bench", bench),
):
    app.command(name, cls=Command, short_help=(command.__doc__ or "").partition("\n")[0])(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"detr {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def run(console: Console) -> NoReturn:
    """Run the command that the process was started with, and exit.

    Args:
        console: if it writes JSON, errors in the arguments are written to it.
    """
    if not console.as_json:
        app(prog_name="detr")
    try:
        code = app(prog_name="detr", standalone_mode=False)
    except Exception as error:
        wording = getattr(error, "format_message", None)
        if wording is None:  # no complaint of the parser's
            raise
        console.error(wording())
        sys.exit(ERROR)
    sys.exit(code)
