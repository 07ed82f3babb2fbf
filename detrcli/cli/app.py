"""The commands of the command line."""

from typing import Annotated

import typer

from .bench import bench
from .eval import evaluate
from .export import export
from .merge import merge
from .models import models
from .predict import predict
from .train import train

app = typer.Typer(
    name="detr",
    help="Find objects in pictures with DETR.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(predict)
app.command()(merge)
app.command()(models)
app.command()(train)
app.command("eval")(evaluate)
app.command()(export)
app.command()(bench)


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
