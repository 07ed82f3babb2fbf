"""Loading of the detector that a command runs."""

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from .console import Console, printable
from .hub import quiet_hub_logging
from .options import load_class_names, parse_size

if TYPE_CHECKING:
    from ..detector import Detector


def load_detector(
    model: str,
    console: Console,
    *,
    device: str,
    precision: Literal["auto", "fp32", "fp16", "bf16"],
    size: str | None,
    revision: str | None,
    offline: bool,
    class_names: Path | None,
) -> "Detector":
    """Load a detector as a command's options say; if verbose, report its device, the time it took, and its notes."""
    began = perf_counter()
    from ..detector import load
    from ..host import keep_freed_memory

    quiet_hub_logging(model, console)
    keep_freed_memory()
    detector = load(
        model,
        device=device,
        precision=precision,
        size=parse_size(size),
        revision=revision,
        offline=offline,
        class_names=load_class_names(class_names),
    )
    seconds = perf_counter() - began
    console.detail(printable(f"{detector.name} on {detector.backend.description}, loaded in {seconds:.1f} s"))
    for note in detector.notes:
        console.detail(printable(f"{detector.name}: {note}"))
    return detector
