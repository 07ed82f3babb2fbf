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
    HubUnreachableError,
    LoaderKilledError,
    LockedError,
    NotCachedError,
    NothingToResumeError,
    OnnxFileError,
    OnnxSettingError,
    ResumeMismatchError,
    TooManyProcessesError,
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
    HubUnreachableError: f"check the network, or name a local folder; {_DEMO}",
    LoaderKilledError: "continue with --resume and fewer --workers",
    LockedError: "wait for it, or choose another --output",
    NotCachedError: f"run once without --offline (and HF_HUB_OFFLINE); {_DEMO}",
    NothingToResumeError: "leave out --resume to start a new run",
    OnnxFileError: "export the model with `detr export --onnx`",
    OnnxSettingError: "leave the option out, or export the model with it",
    ResumeMismatchError: "resume with the same model, dataset and options",
    TooManyProcessesError: "start one process per GPU, as torchrun --nproc-per-node gpu does",
    UnknownModelError: "`detr models` lists the known names; org/name on the Hub, a folder or a file also works",
    ValidationSplitError: "leave out --val-fraction",
}
"""Hints by class of error or warning; a subclass without a hint inherits one."""


def with_hint(problem: DetrError | DetrWarning) -> str:
    """Return the text of an error or warning, followed by its hint if there is one."""
    hint = next((HINTS[kind] for kind in type(problem).__mro__ if kind in HINTS), None)
    return f"{problem}; {hint}" if hint else str(problem)
