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
    """No model has this name, nor a similar one."""


class NotCachedError(ModelError):
    """A model is not in the Hub's cache, and may not be downloaded."""


class HubUnreachableError(ModelError):
    """A model is not in the Hub's cache, and the Hub cannot be reached."""


class BackboneError(ModelError):
    """A model has a backbone that is not supported."""


class OnnxFileError(ModelError):
    """An ONNX file that cannot be used for prediction: damaged, foreign, or a bare network."""


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
    """An image's outputs would overwrite a file that no run wrote, or that was changed since."""


class OwnImageError(ImageError):
    """An annotated image would overwrite the image itself."""


class ClassError(DetrError):
    """A class name that the model does not know."""


class UsageError(DetrError):
    """Arguments that contradict each other, or that name nothing."""


class OnnxSettingError(UsageError):
    """Another precision or image size than an ONNX file was exported with."""


class LockedError(UsageError):
    """A directory that another process is writing to."""


class StoppedRunError(UsageError):
    """The output folder holds a run that was stopped."""


class OtherRunError(UsageError):
    """The run to resume has other settings."""


class UnfinishedShardError(UsageError):
    """A shard to merge is not finished."""


class JournalError(UsageError):
    """The journal of a run cannot be read."""


class OutsideOutputError(UsageError):
    """A run's own folder is a link that leads out of the output folder."""


class ForeignFilesError(UsageError):
    """A run would overwrite files that no run wrote, or that were changed since."""


class OtherImagesError(UsageError):
    """A run would overwrite a file for other images."""


class OutputError(DetrError):
    """An output that cannot be written."""


class OverwriteError(OutputError):
    """An output would overwrite a file that no run wrote, or that was changed since."""


class MissingImagesError(OutputError):
    """A list ended without images that the file to be replaced has."""


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


class DetrWarning(UserWarning):
    """Base of all warnings for the user."""


class DeviceWarning(DetrWarning):
    """A device that cannot be used, and its replacement."""


class ModelWarning(DetrWarning):
    """A property that is missing from a model's files, and the value assumed."""


class ClassNamesWarning(ModelWarning):
    """A model's files do not say what its classes are called, or say it wrong."""


class FontWarning(DetrWarning):
    """A class name that cannot be drawn as it should."""


class MissingGlyphWarning(FontWarning):
    """A class name with a letter that no font has."""
