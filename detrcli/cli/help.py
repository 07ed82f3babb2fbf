"""Help texts: options in panels, readable on narrow terminals, too."""

import re
import shutil
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

from .exit_codes import EXIT_CODES

PANELS = {
    "Input": (
        *("files-from", "from0", "recursive", "shard", "max-pixels"),
        *("image", "split", "val-data", "val-fraction", "strict"),
    ),
    "Model": ("model", "from-scratch", "revision", "class-names", "image-size", "offline"),
    "Detections": ("threshold", "class", "max-detections"),
    "Training": (
        *("epochs", "lr", "lr-schedule", "warmup-steps"),
        *("backbone-lr-factor", "layer-decay", "component-decay", "weight-decay"),
        *("ema-decay", "box-loss", "val-interval", "seed"),
    ),
    "Augmentation": ("multi-scale", "random-crop", "color-jitter", "rotate-flip"),
    "Compute": ("device", "precision", "engine", "batch-size", "workers", "iterations"),
    "Output": (
        *("output", "onnx", "format", "no-postprocess", "opset", "calibrate", "max-ap-loss"),
        *("draw", "font", "image-root", "image-ids", "json", "save-predictions", "resume", "overwrite"),
    ),
}
"""Long names of the options in each panel, in the order of the help; all others stand in the last one."""
OTHERS = "Options"
"""Panel of options in no other one."""
NARROW = 60
"""Columns below which descriptions are printed under options, not beside them."""
LEAST = 20
"""Columns that help takes even on narrower terminals."""
_SWITCH = re.compile(r"--(\S+) / --no-\1")
_RANGE = re.compile(r"; [\d.<=]*x[<>]=[\d.]+(?=]$)|  \[[\d.<=]*x[<>]=[\d.]+]$")


class _Formatter(typer.Context.formatter_class):  # type: ignore[misc, valid-type]
    """Typer's formatter, without its minimum of 50 columns and 32 for option names."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        super().__init__(indent_increment, width, max_width)
        self.width: int = min(self.width, max(shutil.get_terminal_size().columns - 2, LEAST))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        if self.width >= NARROW:
            super().write_dl(rows, col_max, col_spacing)
            return
        indent = " " * (self.current_indent + 2)
        folded = [(_folded(name, self.width - len(indent), indent), text) for name, text in rows]
        super().write_dl(folded, 2, col_spacing)


def _folded(name: str, width: int, indent: str) -> str:
    """Break an option's name and values into lines, after spaces and bars."""
    lines = [""]
    for piece in re.split(r"(?<=[ |])", name):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return f"\n{indent}".join(line.rstrip() for line in lines)


class _Context(typer.Context):
    formatter_class = _Formatter


class Command(TyperCommand):
    """Command whose help shows options in panels."""

    context_class = _Context

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces of the usage line: optional arguments in brackets, repeatable ones with dots."""
        pieces = [self.options_metavar or ""]
        for param in self.get_params(ctx):
            if isinstance(param, TyperArgument):
                name = param.metavar if param.required else f"[{param.metavar}]"
                pieces.append(f"{name}..." if param.nargs != 1 else str(name))
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options of each panel."""
        arguments, options = [], {}
        for param in self.get_params(ctx):
            name, text = param.get_help_record(ctx) or ("", "")
            if isinstance(param, TyperArgument):
                arguments.append((str(param.metavar), text.removesuffix("  [required]")))
            else:
                options[max(param.opts, key=len).lstrip("-")] = (_SWITCH.sub(r"--[no-]\1", name), _RANGE.sub("", text))
        panels = {title: [options.pop(name) for name in names if name in options] for title, names in PANELS.items()}
        for title, rows in {"Arguments": arguments, **panels, OTHERS: list(options.values())}.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """Group of commands whose help ends with the exit codes."""

    context_class = _Context

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write what each exit code means."""
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), meaning) for code, meaning in EXIT_CODES.items()])
