"""Images in, detections out: the interface that the command line itself uses."""

import copy
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .checkpoints.class_names import check_class_names
from .checkpoints.find import ONNX_SUFFIX, find
from .checkpoints.names import DEFAULT_MODEL, known_model
from .detections import DetectionFilter, Detections, labels_of
from .errors import ImageError, ModelError, UsageError
from .host import cores
from .images.decode import DecodedImage, ImageFile, from_array, from_pillow, open_image_file
from .images.resize import ResizeRule, resized_pixels
from .inference.backend import Backend, RawDetections
from .inference.batch_size import BatchSize
from .inference.pipeline import OneByOne, Opened, Pipeline, Prepared, Result, Source
from .timing import Clock

if TYPE_CHECKING:
    from .checkpoints.families import Size
    from .inference.torch import Precision

GRAY = 128
"""Of an image that any model can be tried with."""
ROUNDING = 1e-3
"""How far scores may be above 1."""

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Source]):
    """What became of one image.

    Attributes:
        source: what was named.
        image: the image itself if it was to be kept and could be read.
        result: its detections, or why it could not be read.
    """

    source: Source
    image: DecodedImage | None
    result: Detections | ImageError


class Detector:
    """A model that is ready to look at images. Made by `detrcli.load`.

    One that `detrcli.load` made can be pickled, as for a spawned process: it is loaded anew, with the same options,
    where it is unpickled, so the model's files must be there, too.

    Attributes:
        name: what the user called the model.
        class_names: the name of each label.
        backends: what runs the network, one for each device.
        weights: the file that they came from, if there is one.
        notes: lines on what a user may want to check about the model.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        class_names: tuple[str, ...],
        resize: ResizeRule,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
        weights: Path | None = None,
        notes: tuple[str, ...] = (),
        reload: "Callable[[], Detector] | None" = None,
    ) -> None:
        self.name = name
        self.weights = weights
        self.notes = notes
        self.backends = tuple(backends)
        self.class_names = class_names
        self._resize = resize
        self._resample = resample
        self._reload = reload

    def __reduce__(self) -> "tuple[Callable[[], Detector], tuple[()]]":
        """Pickled, a detector is what it was loaded from: the other process loads it itself."""
        if self._reload is None:
            raise TypeError("only a Detector that detrcli.load made can be pickled")
        return self._reload, ()

    @property
    def backend(self) -> Backend:
        """What runs the network on the first device."""
        return self.backends[0]

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB image as the backend takes it: (height, width, 3)."""
        return resized_pixels(image, self._resize, self._resample)

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        threshold: float = 0.5,
        classes: Sequence[str] | None = None,
        max_detections: int | None = None,
        batch_size: int | None = None,
        workers: int | None = None,
    ) -> list[Detections]:
        """Detect objects in images.

        Args:
            images: paths, Pillow images or RGB arrays (H, W, 3) uint8, any number of them; or a single one.
            threshold: scores must lie above it, 0…1.
            classes: names of the only classes to look for.
            max_detections: the most to keep for an image.
            batch_size: the most images to run at once, or None for what suits the device.
            workers: threads that read images, or None for as many as there are cores; the answers are the same.

        Returns:
            The detections of each image, in the order given.

        Raises:
            ImageError: an image cannot be read.
            ClassError: the model has no class of such a name.
            UsageError: a number of images, detections or threads is below 1.
        """
        numbers = {"batch_size": batch_size, "max_detections": max_detections, "workers": workers}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be at least 1, or None, not {number}")
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
            images = [images]
        labels = None if classes is None else labels_of(list(classes), self.class_names)
        wanted = DetectionFilter(threshold, labels, max_detections)
        results = []
        most = None if batch_size is None else BatchSize(batch_size)
        many = not isinstance(images, Sized) or len(images) > 1
        for outcome in self.stream(
            images,
            wanted,
            open_image=open_image,
            then=lambda outcome: outcome,
            batch_size=most,
            workers=workers,
            many=many,
        ):
            if isinstance(outcome.result, ImageError):
                raise outcome.result
            results.append(outcome.result)
        return results

    def stream(
        self,
        sources: Iterable[Source],
        wanted: DetectionFilter,
        *,
        open_image: Callable[[Source], ImageFile],
        then: Callable[[Outcome[Source]], Result],
        batch_size: BatchSize | None = None,
        workers: int | None = None,
        many: bool = True,
        keep_images: bool = False,
        clock: Clock | None = None,
    ) -> Pipeline[Source, Result] | OneByOne[Source, Result]:
        """Detect objects in any number of images, in order and in bounded memory.

        Args:
            sources: what to read.
            wanted: which answers to keep.
            open_image: gives the image of a source, not decoded yet, or raises `ImageError`.
            then: what to do with each outcome, in any thread and order; what it gives is what iterating gives.
            batch_size: the most images to run at once, or None for what suits the device.
            workers: threads that read images and do what is then to be done, or None for as many as there are cores.
            many: whether there are so many that they should be read, run and finished several at a time.
            keep_images: whether outcomes hold the image itself, to draw on.
            clock: is told what resizing and the network take.
        """
        clock = clock or Clock()

        def opened(source: Source) -> Opened:
            image = open_image(source)

            def prepare() -> Prepared:
                decoded = image.decode()
                with clock.timing("resize"):
                    return self._prepared(decoded, image.name, keep_images)

            return Opened(image.needed_bytes, prepare)

        def finish(source: Source, prepared: Prepared | None, answers: RawDetections | ImageError) -> Result:
            if isinstance(answers, ImageError):
                return then(Outcome(source, None, answers))
            assert prepared is not None
            result = self._selected(answers, prepared, wanted) if are_sound(answers) else self._nonsense(prepared)
            return then(Outcome(source, prepared.image, result))

        if not many:
            return OneByOne(sources, opened=opened, backend=self.backend, finish=finish, clock=clock)
        return Pipeline(
            sources,
            opened=opened,
            backends=self.backends,
            finish=finish,
            batch_size=batch_size or BatchSize(self.backend.batch_size),
            workers=workers or cores(),
            clock=clock,
        )

    def _prepared(self, decoded: DecodedImage, name: str, keep: bool) -> Prepared:
        try:
            pixels = self.resized(decoded.image)
        except MemoryError as error:
            width, height = self._resize.size(decoded.image.width, decoded.image.height)
            raise ImageError(f"{name}: not enough memory to resize it to {width} × {height}", "too large") from error
        return Prepared(pixels, (decoded.image.height, decoded.image.width), decoded if keep else None, name)

    def _selected(self, answers: RawDetections, prepared: Prepared, wanted: DetectionFilter) -> Detections:
        if not ((answers.labels >= 0) & (answers.labels < len(self.class_names))).all():
            raise ModelError(f"{self.weights or self.name} finds classes that it has no names for; export it anew")
        height, width = prepared.size
        return wanted.select(answers.boxes, answers.scores, answers.labels, self.class_names, (width, height))

    def _nonsense(self, prepared: Prepared) -> ImageError:
        """Find out whether it is an image's fault, or the model's, that no numbers came of it.

        Raises:
            ModelError: it is the model's.
        """
        model = self.weights or self.name
        (answers,) = self.backend.run([np.full_like(prepared.pixels, GRAY)], [prepared.size])
        if not are_sound(answers):
            raise ModelError(f"{model} computes nonsense (scores or boxes that are no numbers); it may be damaged")
        return ImageError(f"{prepared.name}: {model} computes no numbers for it; try another precision", "no numbers")


def are_sound(answers: RawDetections) -> bool:
    """Whether all scores are in 0…1, with room for rounding, and all boxes finite."""
    scores = answers.scores
    return bool(((scores >= 0) & (scores <= 1 + ROUNDING)).all() and np.isfinite(answers.boxes).all())


def open_image(image: ImageLike) -> ImageFile:
    """The image that a path, a Pillow image or an array stands for, not decoded yet.

    Raises:
        ImageError: it cannot be opened.
    """
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    return open_image_file(image)


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: "Precision" = "auto",
    size: "Size | None" = None,
    revision: str | None = None,
    offline: bool = False,
    class_names: Sequence[str] | None = None,
) -> Detector:
    """Load a model for looking at images.

    Args:
        model: a known name, `org/name` on the Hugging Face Hub, a folder in the Hub's layout, a weights file, or an
            ONNX file that `detr export` wrote.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps; for an ONNX file also tensorrt, but not mps;
            or several with commas between, which share the work.
        precision: auto (fp16 on CUDA, bf16 on a CPU that computes in it, else fp32), fp32, fp16 or bf16; an ONNX file
            has its own.
        size: what to resize images to: width and height, or one number (the side for LW-DETR, the shorter side for
            DETR); what the model's files or the paper say if not given.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the Hub's cache.
        class_names: the name of each label, for a model whose files do not say them or say them wrong.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
        DeviceError: there is no such device.
        UsageError: the size is below 1, there are not as many class names as labels, or an ONNX file has another size
            or precision.
    """
    if size is not None and min((size,) if isinstance(size, int) else size) < 1:
        raise UsageError(f"size must be at least 1, not {size}")
    checkpoint = find(os.fspath(model), revision=revision, offline=offline)  # at once, before PyTorch is loaded
    local = known_model(os.fspath(model)) is None and os.path.exists(os.path.expanduser(model))
    again = partial(
        load,
        os.path.abspath(os.path.expanduser(model)) if local else model,
        device=device,
        precision=precision,
        size=size,
        revision=revision,
        offline=offline,
        class_names=class_names,
    )
    path, devices = checkpoint.weights, device.split(",")
    if path.suffix.lower() == ONNX_SUFFIX:
        from .inference.onnx import OnnxBackend

        runs = [OnnxBackend(checkpoint, device=one, precision=precision, size=size) for one in devices]
        metadata = runs[0].metadata
        rules = metadata.preprocessing
        names = metadata.class_names
        if class_names is not None:
            names = check_class_names(class_names, len(names), checkpoint.name)
        return Detector(checkpoint.name, runs, names, runs[0].resize, rules.resample, path, reload=again)
    from .checkpoints.load import load_checkpoint
    from .inference.torch import TorchBackend

    loaded = load_checkpoint(checkpoint, size=size, class_names=class_names)
    models = [copy.deepcopy(loaded) for _ in devices[1:]]
    backends = [
        TorchBackend(model, device=one, precision=precision)
        for model, one in zip([loaded, *models], devices, strict=True)
    ]
    rules = loaded.preprocessing
    return Detector(loaded.name, backends, loaded.class_names, rules.resize, rules.resample, path, loaded.notes, again)
