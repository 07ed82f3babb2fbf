"""`detr merge`: merge the shards of a run."""

from pathlib import Path
from typing import Annotated

import typer

from ..outputs.formats import PER_RUN
from ..signals import sigterm_as_exception
from .console import Console, counted, printable
from .exit_codes import SOME_FAILED
from .options import LogJson, Overwrite, Quiet, choices, expand_user, path_option


def merge(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR", callback=expand_user, help="Output folders of the shards.")
    ],
    output: Annotated[
        Path | None, path_option("--output", "-o", metavar="DIR", help="Output folder.  [default: the first DIR]")
    ] = None,
    formats: Annotated[
        list[str] | None,
        choices(
            *("--format", "-f"),
            values=sorted(PER_RUN),
            metavar="FORMAT",
            help=f"Format to write (repeatable): {', '.join(sorted(PER_RUN))}.  [default: those of the shards]",
        ),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    log_json: LogJson = False,
) -> None:
    """Merge the outputs of a run's shards.

    The files are those that a single run would have written. Needs all shards, each finished.
    """
    from ..outputs.merge import merge_shards
    from ..outputs.run_files import FAILURES

    console = Console(quiet=quiet, verbose=False, as_json=log_json)
    target = output or folders[0]
    with sigterm_as_exception():
        result = merge_shards(folders, target, formats or None, overwrite=overwrite)
    for path in result.written:
        console.info(printable(f"wrote {path}"))
    if result.elsewhere:
        places = " and ".join(map(str, result.elsewhere))
        console.info(printable(f"annotated images and per-image files are still in {places}; copy them into {target}"))
    if result.failed:
        failed = ", ".join(f"{count} {kind}" for kind, count in result.failed.most_common())
        console.info(printable(f"{counted(result.failed.total(), 'image')} failed ({failed}); see {target / FAILURES}"))
        raise typer.Exit(SOME_FAILED)
