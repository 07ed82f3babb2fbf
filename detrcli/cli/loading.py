"""Loading of the detector that a command runs, and what the Hub's client says meanwhile."""

import logging
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Literal

from ..checkpoints.find import is_downloaded
from ..signals import sigterm_as_exception
from .console import Console, printable
from .options import load_class_names, parse_size

if TYPE_CHECKING:
    from ..detector import Detector


def load_detector(
    model: str,
    console: Console,
    *,
    device: str,
    precision: Literal["auto", "fp32", "fp16", "bf16"],
    engine: Literal["auto", "onnxruntime", "openvino"],
    size: str | None,
    revision: str | None,
    offline: bool,
    class_names: Path | None = None,
) -> "Detector":
    """Load a detector as a command's options say; if verbose, report its device, the time it took, and its notes."""
    began = perf_counter()
    from ..detector import load
    from ..host import keep_freed_memory

    quiet_hub_logging(model, console)
    keep_freed_memory()
    with sigterm_as_exception():  # leaves no part of a download behind
        detector = load(
            model,
            device=device,
            precision=precision,
            engine=engine,
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


class _RetryNotice(logging.Handler):
    """One line of ours instead of the client's warning at each retry."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console
        self.shown = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.shown:
            self.console.info("the server does not respond properly; trying again for up to a minute")
            self.shown = True


def quiet_hub_logging(model: str, console: Console) -> None:
    """Hide the messages of the Hub's client unless verbose, and its progress bars if quiet or as JSON."""
    if not is_downloaded(model):
        return
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if console.quiet or console.as_json:
        disable_progress_bars()
    if not console.verbose:
        logger = hub_logging.get_logger("huggingface_hub")
        logger.handlers[:] = [_RetryNotice(console)]
        logger.propagate = False
