"""Hints on what to do about an error; the library only says what is wrong."""

from ..checkpoints.names import DEMO_MODEL
from ..errors import (
    BackboneError,
    ClassMismatchError,
    ClassNamesWarning,
    DamagedStateError,
    DetrError,
    DetrWarning,
    DeviceMemoryError,
    DeviceUnavailableError,
    DivergedError,
    ExportSizeError,
    ForeignFilesError,
    HubUnreachableError,
    ImageOverwriteError,
    JournalError,
    LoaderKilledError,
    LockedError,
    MissingClassError,
    MissingGlyphWarning,
    NotCachedError,
    NothingToResumeError,
    OnnxFileError,
    OnnxSettingError,
    OtherImagesError,
    OtherRunError,
    OutsideOutputError,
    OverwriteError,
    OwnImageError,
    ResumeMismatchError,
    StoppedRunError,
    TooManyProcessesError,
    UnfinishedShardError,
    UnknownModelError,
    ValidationSplitError,
)

_DEMO = f"--model {DEMO_MODEL} works offline"

HINTS: dict[type[DetrError] | type[DetrWarning], str] = {
    BackboneError: "fine-tune detr-resnet-50 with `detr train` instead",
    ClassMismatchError: "name images of the same classes with --val-data",
    ClassNamesWarning: "name them with --class-names FILE (data.yaml, JSON, or text with one name per line)",
    DamagedStateError: "start a new run in another --output; --model OUTPUT/last starts from the last epoch's weights",
    DeviceMemoryError: "use a smaller --batch-size or --image-size",
    DeviceUnavailableError: "use --device auto or --device cpu",
    DivergedError: "try a lower --lr, or --precision fp32",
    ExportSizeError: "--precision fp16 halves it",
    ForeignFilesError: "replace with --overwrite, or choose another --output",
    HubUnreachableError: f"check the network, or name a local folder; {_DEMO}",
    ImageOverwriteError: "--overwrite replaces it",
    JournalError: "choose another --output",
    LoaderKilledError: "continue with --resume and fewer --workers",
    LockedError: "wait for it, or choose another --output",
    MissingClassError: "train a model on this dataset with `detr train`, or rename the classes",
    MissingGlyphWarning: "install a font for the script, such as Noto, or name one with --font",
    NotCachedError: f"run once without --offline (and HF_HUB_OFFLINE); {_DEMO}",
    NothingToResumeError: "leave out --resume to start a new run",
    OnnxFileError: "export the model with `detr export --onnx`",
    OnnxSettingError: "leave the option out, or export the model with it",
    OtherImagesError: "name all images in one run (… | detr predict -), add to it with --resume, "
    "or replace it with --overwrite",
    OtherRunError: "resume with the same options, or choose another --output",
    OutsideOutputError: "remove that link, or choose another --output",
    OverwriteError: "--overwrite replaces it",
    OwnImageError: "choose another --output",
    ResumeMismatchError: "resume with the same model, dataset and options",
    StoppedRunError: "continue with --resume, start anew with --no-resume, or choose another --output",
    TooManyProcessesError: "start one process per GPU, as torchrun --nproc-per-node gpu does",
    UnfinishedShardError: "finish it with --resume",
    UnknownModelError: "`detr models` lists the known names; org/name on the Hub, a folder or a file also works",
    ValidationSplitError: "leave out --val-fraction",
}
"""Hints by class of error or warning; a subclass without a hint inherits one."""


def with_hint(problem: DetrError | DetrWarning) -> str:
    """Return the text of an error or warning, followed by its hint if there is one."""
    return add_hint(str(problem), type(problem))


def add_hint(text: str, kind: type[DetrError] | type[DetrWarning]) -> str:
    """Return a text, followed by the hint for a class of errors or warnings if there is one."""
    hint = next((HINTS[parent] for parent in kind.__mro__ if parent in HINTS), None)
    return f"{text}; {hint}" if hint else text
