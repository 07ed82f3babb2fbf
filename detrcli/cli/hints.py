"""Hints on what to do about an error; the library only says what is wrong."""

from .. import errors
from ..checkpoints.names import DEMO_MODEL

_DEMO = f"--model {DEMO_MODEL} works offline"

HINTS: dict[type[errors.DetrError] | type[errors.DetrWarning], str] = {
    errors.BackboneError: "fine-tune detr-resnet-50 with `detr train` instead",
    errors.ClassMismatchError: "name images of the same classes with --val-data",
    errors.ClassNamesWarning: "name them with --class-names FILE (data.yaml, JSON, or text with one name per line)",
    errors.DamagedStateError: "start a new run in another --output; --model OUTPUT/last starts from its last weights",
    errors.DeviceMemoryError: "use a smaller --batch-size or --image-size",
    errors.DeviceUnavailableError: "use --device auto or --device cpu",
    errors.DivergedError: "try a lower --lr, or --precision fp32",
    errors.EngineVersionError: "`pip install 'detrcli[openvino]'` installs a newer one",
    errors.ExportSizeError: "--precision fp16 halves it",
    errors.ForeignFilesError: "replace them with --overwrite, or choose another --output",
    errors.HubUnreachableError: f"check the network, or name a local folder; {_DEMO}",
    errors.ImageSizeError: "choose one with --image-size",
    errors.ImageOverwriteError: "--overwrite replaces it",
    errors.Int8LossError: "calibrate with more images like those that you have, or allow more with --max-ap-loss",
    errors.JournalError: "choose another --output",
    errors.LoaderKilledError: "continue with --resume and fewer --workers",
    errors.LockedError: "wait for it, or choose another --output",
    errors.MissingClassError: "train a model on this dataset with `detr train`, or rename the classes",
    errors.MissingGlyphWarning: "install a font for the script, such as Noto, or name one with --font",
    errors.NotCachedError: f"run once without --offline (and HF_HUB_OFFLINE); {_DEMO}",
    errors.NothingToResumeError: "leave out --resume to start a new run",
    errors.OnnxFileError: "export the model with `detr export --onnx`",
    errors.OnnxSettingError: "leave the option out, or export the model with it",
    errors.OtherImagesError: "name all images in one run (… | detr predict -), add to it with --resume, "
    "or replace it with --overwrite",
    errors.OtherRunError: "resume with the same options, or choose another --output",
    errors.OutsideOutputError: "remove that link, or choose another --output",
    errors.OverwriteError: "--overwrite replaces it",
    errors.OwnImageError: "choose another --output",
    errors.ResumeMismatchError: "resume with the same model, dataset and options",
    errors.StoppedRunError: "continue with --resume, start anew with --no-resume, or choose another --output",
    errors.TooManyProcessesError: "start one process per GPU, as torchrun --nproc-per-node gpu does",
    errors.UnfinishedShardError: "finish it with --resume",
    errors.UnknownModelError: "`detr models` lists the known names; org/name on the Hub, a folder or a file also works",
    errors.ValidationSplitError: "leave out --val-fraction",
}
"""Hints by class of error or warning; a subclass without a hint inherits one."""


def with_hint(problem: errors.DetrError | errors.DetrWarning) -> str:
    """Return the text of an error or warning, followed by its hint if there is one."""
    return add_hint(str(problem), type(problem))


def add_hint(text: str, kind: type[errors.DetrError] | type[errors.DetrWarning]) -> str:
    """Return a text, followed by the hint for a class of errors or warnings if there is one."""
    hint = next((HINTS[parent] for parent in kind.__mro__ if parent in HINTS), None)
    return f"{text}; {hint}" if hint else text
