"""Silence of the packages that export and quantize."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO


@contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Suppress messages that are for a package's developers, some of which go to stdout; failures are exceptions.

    Args:
        loggers: names of the package's loggers.
    """
    affected = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in affected]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        for logger in affected:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(affected, levels, strict=True):
                logger.setLevel(level)
