"""`detr models`: list the known models."""

import json
import sys
from dataclasses import asdict

from ..checkpoints.names import DEFAULT_MODEL, KNOWN_MODELS
from .options import LogJson


def models(log_json: LogJson = False) -> None:  # noqa: ARG001 — `main` reads it
    """List the known models.

    Prints a table on a terminal, JSON lines in a pipe. AP is on COCO val2017 and GFLOPs are for one image, both as
    published.
    """
    from ..checkpoints.find import is_cached

    rows = [(model, is_cached(model)) for model in KNOWN_MODELS]
    if not sys.stdout.isatty():
        for model, cached in rows:
            print(json.dumps({**asdict(model), "cached": cached, "default": model.name == DEFAULT_MODEL}))
        return

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from .table import print_fitting

    table = Table(box=SIMPLE_HEAD)
    for title in ("model", "classes"):
        table.add_column(title, no_wrap=True)
    for title in ("params", "GFLOPs", "AP"):
        table.add_column(title, justify="right")
    for title in ("license", "cached"):
        table.add_column(title)
    for model, cached in rows:
        table.add_row(
            model.name,
            model.classes,
            f"{model.parameters:g} M",
            "" if model.gflops is None else f"{model.gflops:g}",
            "" if model.ap is None else f"{model.ap:.1f}",
            model.license,
            "yes" if cached else "no",
            style="bold" if model.name == DEFAULT_MODEL else None,
        )
    print_fitting(table)
    print(f"{DEFAULT_MODEL} is the default. Other models of these families load from the Hub, a folder or a file.")
