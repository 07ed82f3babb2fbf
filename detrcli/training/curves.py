"""Plot of the metrics of a training run."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import atomic_file


def plot_curves(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plot losses and AP by epoch.

    Args:
        records: lines of the metrics file.
        path: PNG file to write.

    Raises:
        OutputError: the file cannot be written.
    """
    from matplotlib.figure import Figure

    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, precision = figure.subplots(1, 2)
    for name in ("loss_class", "loss_bbox", "loss_giou"):
        losses.plot(epochs, [record[name] for record in records], label=name)
    losses.set(xlabel="epoch", title="losses of the last decoder layer", yscale="log")
    for name, title in (("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75")):
        measured = [(record["epoch"], record[name]) for record in records if name in record]
        if measured:
            precision.plot(*zip(*measured, strict=True), label=title)
    precision.set(xlabel="epoch", title="validation", ylim=(0, 1))
    for axes in (losses, precision):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    encoded = io.BytesIO()
    figure.savefig(encoded, format="png", dpi=100)
    with atomic_file(path) as file:
        file.write(encoded.getvalue())
