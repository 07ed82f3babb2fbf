"""Commands of `detr`."""

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
    help="Detect objects in images with DETR, LW-DETR, RF-DETR and Table Transformer.",
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


def _print_version(requested: bool) -> None:
    if requested:
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
    """Run the command named by the process's arguments, and exit.

    Args:
        console: console that errors in the arguments are written to if it writes JSON.
    """
    if not console.as_json:
        app(prog_name="detr")
    try:
        code = app(prog_name="detr", standalone_mode=False)
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if format_message is None:  # not raised by the parser of the arguments
            raise
        console.error(format_message())
        sys.exit(ERROR)
    sys.exit(code)
