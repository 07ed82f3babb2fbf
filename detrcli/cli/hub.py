"""Keep the Hub's client from saying more than a user wants to read."""

import logging

from ..checkpoints.find import hub_repository
from .console import Console


class _SaysOnce(logging.Handler):
    """Instead of the client's warning at each retry, one line of ours."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self.console = console
        self.said = False

    def emit(self, record: logging.LogRecord) -> None:
        if not self.said:
            self.console.info("the Hub does not answer as it should; trying again for half a minute")
            self.said = True


def quiet_hub_logging(console: Console) -> None:
    """Show the client's own messages only if verbose, and its progress bars unless quiet, or in JSON."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if console.quiet or console.as_json:
        disable_progress_bars()
    if not console.verbose:
        logger = hub_logging.get_logger("huggingface_hub")
        logger.handlers[:] = [_SaysOnce(console)]
        logger.propagate = False


def quiet_hub_logging_for(model: str, console: Console) -> None:
    """The same, if the model is on the Hub and the client is needed."""
    if hub_repository(model) is not None:
        quiet_hub_logging(console)
