"""Images in, detections out: the interface that the command line itself uses."""

import copy
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backends import Answers, Backend
from .batches import BatchSize
from .checkpoints.find import ONNX_SUFFIX, find
from .checkpoints.names import DEFAULT_MODEL
from .clock import Clock
from .cores import cores
from .detections import Detections, Wanted, labels_of
from .errors import DeviceError, ImageError, UsageError
from .images.decode import Picture, from_array, from_pillow, read_picture
from .images.resize import ResizeRule, resized_pixels
from .pipeline import OneByOne, Pipeline, Prepared, Result, Source

if TYPE_CHECKING:
    from .backends.torch import Precision
    from .checkpoints.families import Size

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Source]):
    """What became of one picture.

    Attributes:
        source: what was named.
        picture: the picture itself if it was to be kept and could be read.
        result: its detections, or why it could not be read.
    """

    source: Source
    picture: Picture | None
    result: Detections | ImageError


class Detector:
    """A model that is ready to look at pictures. Made by `detrcli.load`.

    Attributes:
        name: what the user called the model.
        class_names: the name of each label.
        backends: what runs the network, one for each device.
        weights: the file that they came from, if there is one.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        class_names: tuple[str, ...],
        resize: ResizeRule,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
        weights: Path | None = None,
    ) -> None:
        self.name = name
        self.weights = weights
        self.backends = tuple(backends)
        self.class_names = class_names
        self._resize = resize
        self._resample = resample

    @property
    def backend(self) -> Backend:
        """What runs the network on the first device."""
        return self.backends[0]

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture as the backend takes it: (height, width, 3)."""
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
        """Detect objects in pictures.

        Args:
            images: paths, Pillow images or RGB arrays (H, W, 3) uint8, any number of them; or a single one.
            threshold: scores must lie above it, 0…1.
            classes: names of the only classes to look for.
            max_detections: the most to keep for a picture.
            batch_size: the most pictures to run at once, or None for what suits the device.
            workers: threads that read images, or None for as many as there are cores; the answers are the same.

        Returns:
            The detections of each picture, in the order given.

        Raises:
            ImageError: a picture cannot be read.
            ClassError: the model has no class of such a name.
            UsageError: a number of pictures, detections or threads is below 1.
        """
        numbers = {"batch_size": batch_size, "max_detections": max_detections, "workers": workers}
        for name, number in numbers.items():
            if number is not None and number < 1:
                raise UsageError(f"{name} must be at least 1, or None, not {number}")
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
            images = [images]
        labels = None if classes is None else labels_of(list(classes), self.class_names)
        wanted = Wanted(threshold, labels, max_detections)
        results = []
        most = None if batch_size is None else BatchSize(batch_size)
        many = not isinstance(images, Sized) or len(images) > 1
        for outcome in self.stream(
            images,
            wanted,
            read=open_picture,
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
        wanted: Wanted,
        *,
        read: Callable[[Source], Picture],
        then: Callable[[Outcome[Source]], Result],
        batch_size: BatchSize | None = None,
        workers: int | None = None,
        many: bool = True,
        keep_pictures: bool = False,
        clock: Clock | None = None,
    ) -> Pipeline[Source, Result] | OneByOne[Source, Result]:
        """Detect objects in any number of pictures, in order and in bounded memory.

        Args:
            sources: what to read.
            wanted: which answers to keep.
            read: gives the picture of a source, or raises `ImageError`.
            then: what to do with each outcome, in any thread and order; what it gives is what iterating gives.
            batch_size: the most pictures to run at once, or None for what suits the device.
            workers: threads that read pictures and do what is then to be done, or None for as many as there are cores.
            many: whether there are so many that they should be read, run and finished several at a time.
            keep_pictures: whether outcomes hold the picture itself, to draw on.
            clock: is told what resizing and the network take.
        """
        clock = clock or Clock()

        def prepare(source: Source) -> Prepared:
            picture = read(source)
            with clock.timing("resize"):
                return self._prepared(picture, keep_pictures)

        def finish(source: Source, prepared: Prepared | None, answers: Answers | ImageError) -> Result:
            if isinstance(answers, ImageError):
                return then(Outcome(source, None, answers))
            assert prepared is not None
            return then(Outcome(source, prepared.picture, self._selected(answers, prepared.size, wanted)))

        if not many:
            return OneByOne(sources, prepare=prepare, backend=self.backend, finish=finish, clock=clock)
        return Pipeline(
            sources,
            prepare=prepare,
            backends=self.backends,
            finish=finish,
            batch_size=batch_size or BatchSize(self.backend.batch_size),
            workers=workers or cores(),
            clock=clock,
        )

    def _prepared(self, picture: Picture, keep: bool) -> Prepared:
        try:
            pixels = self.resized(picture.image)
        except MemoryError as error:
            raise DeviceError(
                "memory is too small for a picture of the size asked for; use a smaller --size"
            ) from error
        return Prepared(pixels, (picture.image.height, picture.image.width), picture if keep else None)

    def _selected(self, answers: Answers, size: tuple[int, int], wanted: Wanted) -> Detections:
        height, width = size
        return wanted.select(answers.boxes, answers.scores, answers.labels, self.class_names, (width, height))


def open_picture(image: ImageLike) -> Picture:
    """The picture that a path, a Pillow image or an array stands for.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(image, Image.Image):
        return from_pillow(image)
    if isinstance(image, np.ndarray):
        return from_array(image)
    return read_picture(image)


def load(
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: "Precision" = "auto",
    size: "Size | None" = None,
    revision: str | None = None,
    offline: bool = False,
) -> Detector:
    """Load a model for looking at pictures.

    Args:
        model: a known name, `org/name` on the Hugging Face Hub, a folder in the Hub's layout, a weights file, or an
            ONNX file that `detr export` wrote.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps; for an ONNX file also tensorrt, but not mps;
            or several with commas between, which share the work.
        precision: auto (fp16 on CUDA, bf16 on a CPU that computes in it, else fp32), fp32, fp16 or bf16; an ONNX file
            has its own.
        size: what to resize pictures to: width and height, or one number (the side for LW-DETR, the shorter side for
            DETR); what the model's files or the paper say if not given.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the Hub's cache.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
        DeviceError: there is no such device.
        UsageError: the size is below 1, or an ONNX file has another size or precision.
    """
    if size is not None and min((size,) if isinstance(size, int) else size) < 1:
        raise UsageError(f"size must be at least 1, not {size}")
    checkpoint = find(os.fspath(model), revision=revision, offline=offline)  # at once, before PyTorch is loaded
    path, devices = checkpoint.weights, device.split(",")
    if path.suffix.lower() == ONNX_SUFFIX:
        from .backends.onnx import OnnxBackend

        runs = [OnnxBackend(checkpoint, device=one, precision=precision, size=size) for one in devices]
        card = runs[0].card
        return Detector(checkpoint.name, runs, card.class_names, runs[0].resize, card.preprocessing.resample, path)
    from .backends.torch import TorchBackend
    from .checkpoints.load import load_checkpoint

    loaded = load_checkpoint(checkpoint, size=size)
    models = [copy.deepcopy(loaded) for _ in devices[1:]]
    backends = [
        TorchBackend(model, device=one, precision=precision)
        for model, one in zip([loaded, *models], devices, strict=True)
    ]
    rules = loaded.preprocessing
    return Detector(loaded.name, backends, loaded.class_names, rules.resize, rules.resample, path)
