"""Messages of the Hub's client."""

import logging

from ..checkpoints.find import hub_repository
from .console import Console


class _RetryNotice(logging.Handler):
    """One line of ours instead of the client's warning at each retry."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console
        self.shown = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.shown:
            self.console.info("the Hub does not respond properly; trying again for half a minute")
            self.shown = True


def quiet_hub_logging(model: str, console: Console) -> None:
    """Hide the messages of the Hub's client unless verbose, and its progress bars if quiet or as JSON."""
    if hub_repository(model) is None:
        return
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if console.quiet or console.as_json:
        disable_progress_bars()
    if not console.verbose:
        logger = hub_logging.get_logger("huggingface_hub")
        logger.handlers[:] = [_RetryNotice(console)]
        logger.propagate = False
