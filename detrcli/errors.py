"""What can go wrong for a user, each as one or two plain lines that say what to do next."""

LONGEST = 1000
"""Characters that a message may have; a damaged file can put a million into a name that the message quotes."""
CUT = " … "
"""What stands for the middle of a longer one."""


class DetrError(Exception):
    """Anything that a user can cause or mend; its text is what the user reads, cut in the middle if far too long."""

    def __str__(self) -> str:
        text = super().__str__()
        half = (LONGEST - len(CUT)) // 2
        return text if len(text) <= LONGEST else text[:half] + CUT + text[-half:]


class ModelError(DetrError):
    """A model cannot be found, downloaded, read or built."""


class DeviceError(DetrError):
    """A device is not there, or cannot do what was asked of it."""


class DeviceMemoryError(DeviceError):
    """A device's memory does not hold what was asked of it at once."""


class ImageError(DetrError):
    """One image cannot be read, or its outputs not written. Others are not concerned.

    Args:
        text: what a user reads.
        kind: what went wrong, in a word or two that all such errors share.
    """

    def __init__(self, text: str, kind: str = "damaged") -> None:
        super().__init__(text)
        self.kind = kind


class ClassError(DetrError):
    """A class name that the model does not know."""


class UsageError(DetrError):
    """What was asked for makes no sense together, or names nothing."""


class LockedError(UsageError):
    """Another process is writing to the same place."""


class OutputError(DetrError):
    """An output cannot be written."""


class DatasetError(DetrError):
    """A labelled dataset cannot be read, or would spoil what is done with it."""


class SplitError(DatasetError):
    """A dataset has parts, but not the one asked for."""


class TrainingError(DetrError):
    """A training cannot begin, go on or be resumed."""


class ExportError(DetrError):
    """A model cannot be exported, or not so that it gives the same answers."""


class DetrWarning(UserWarning):
    """Something that a user should know, but that stops nothing."""


class DeviceWarning(DetrWarning):
    """A device that could not be used, and what is used instead."""


class ModelWarning(DetrWarning):
    """Something that a model's files do not say, and what is assumed instead."""


class FontWarning(DetrWarning):
    """A class name that cannot be drawn as it is written."""
