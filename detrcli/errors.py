"""Errors and warnings for the user: each text says in one or two plain lines what is wrong."""

LONGEST = 1000
"""Most characters of a message; it may quote a damaged file that has a million in a name."""
ELLIPSIS = " … "
"""Replacement for the middle of a longer message."""


class DetrError(Exception):
    """Base of all errors that a user can cause or fix."""

    def __str__(self) -> str:
        text = super().__str__()
        half = (LONGEST - len(ELLIPSIS)) // 2
        return text if len(text) <= LONGEST else text[:half] + ELLIPSIS + text[-half:]


class ModelError(DetrError):
    """A model that cannot be found, downloaded, read or built."""


class UnknownModelError(ModelError):
    """A model name that is not known."""


class NotCachedError(ModelError):
    """A model that is not in the cache and may not be downloaded."""


class HubUnreachableError(ModelError):
    """A model that is not in the cache while the Hub, or the server that has its file, cannot be reached."""


class ImageSizeError(ModelError):
    """A model whose files give an image size that its network does not support."""


class BackboneError(ModelError):
    """A model whose backbone is not supported."""


class OnnxFileError(ModelError):
    """An ONNX file that cannot be used for prediction: damaged, foreign, or a bare network."""


class EngineVersionError(ModelError):
    """A version of an engine that gives wrong detections."""


class DeviceError(DetrError):
    """A device that is missing, or cannot run the model as requested."""


class DeviceMemoryError(DeviceError):
    """A device without enough memory."""


class TooManyProcessesError(DeviceError):
    """More processes of a training run than GPUs."""


class DeviceUnavailableError(DeviceError):
    """A device that this machine lacks, or that does not start."""


class ImageError(DetrError):
    """An image that cannot be read, or whose outputs cannot be written; a run goes on with the next image.

    Args:
        text: the message.
        kind: kind of failure in a word or two, for counting.
    """

    def __init__(self, text: str, kind: str = "damaged") -> None:
        super().__init__(text)
        self.kind = kind


class ImageOverwriteError(ImageError):
    """An image whose outputs would overwrite a file that no run wrote, or that was changed since."""


class OwnImageError(ImageError):
    """An image whose annotated copy would overwrite it."""


class ClassError(DetrError):
    """A class name that the model does not know."""


class UsageError(DetrError):
    """Arguments that contradict each other, or that name nothing."""


class OnnxSettingError(UsageError):
    """Another precision or image size than an ONNX file was exported with."""


class LockedError(UsageError):
    """A directory that another process is writing to."""


class StoppedRunError(UsageError):
    """An output folder with a run that was stopped."""


class OtherRunError(UsageError):
    """A run to resume that has other settings."""


class UnfinishedShardError(UsageError):
    """A shard to merge that is not finished."""


class JournalError(UsageError):
    """A journal of a run that cannot be read."""


class OutsideOutputError(UsageError):
    """A folder of a run that is a link out of the output folder."""


class ForeignFilesError(UsageError):
    """Files that a run would overwrite although no run wrote them, or that were changed since."""


class OtherImagesError(UsageError):
    """A file of other images that a run would overwrite."""


class OutputError(DetrError):
    """An output that cannot be written."""


class OverwriteError(OutputError):
    """A file that would be overwritten although no run wrote it, it was changed, or it has other images."""


class DatasetError(DetrError):
    """A dataset that cannot be read, or is unfit for training or evaluation."""


class SplitError(DatasetError):
    """A split that the dataset does not have."""


class MissingClassError(DatasetError):
    """Objects of classes that the model lacks."""


class ClassMismatchError(DatasetError):
    """A validation set without objects of the training classes."""


class ValidationSplitError(UsageError):
    """Images to be held out of a dataset that has a validation split."""


class TrainingError(DetrError):
    """A training run that cannot start, continue or be resumed."""


class DivergedError(TrainingError):
    """A loss or gradient that is no longer finite."""


class LoaderKilledError(TrainingError):
    """An image-loading process that was killed."""


class NothingToResumeError(TrainingError):
    """A training run that has no saved state."""


class DamagedStateError(TrainingError):
    """A saved state of a training run that is damaged, or of another version."""


class ResumeMismatchError(TrainingError):
    """A saved state of a training run with other settings."""


class ExportError(DetrError):
    """A model that cannot be exported, or whose exported file gives other detections."""


class ExportSizeError(ExportError):
    """A model that does not fit in an ONNX file."""


class Int8LossError(ExportError):
    """A model that loses too much accuracy in int8."""


class DetrWarning(UserWarning):
    """Base of all warnings for the user."""


class DeviceWarning(DetrWarning):
    """A device that cannot be used, and its replacement."""


class ModelWarning(DetrWarning):
    """A property that is missing from a model's files, and the value assumed."""


class ClassNamesWarning(ModelWarning):
    """Class names that are missing from a model's files, or wrong there."""


class FontWarning(DetrWarning):
    """A class name that cannot be drawn as it should."""


class MissingGlyphWarning(FontWarning):
    """A class name with a letter that no font has."""


def one_line(error: object) -> str:
    """Text of another library's error in one line; its class if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
