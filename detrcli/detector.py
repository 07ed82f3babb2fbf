"""Images in, detections out: the Python interface, which the command line uses, too."""

import copy
import os
from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .checkpoints.class_names import check_class_names
from .checkpoints.find import ONNX_SUFFIX, find
from .checkpoints.names import DEFAULT_MODEL, known_model
from .detections import DetectionFilter, Detections, labels_of
from .errors import ImageError, ModelError, OnnxFileError, UsageError
from .host import cores
from .images.decode import DecodedImage, ImageFile, from_array, from_pillow, open_image_file
from .images.resize import PILLOW_BILINEAR, Pixels, Resample, ResizeRule, Size, resize_image
from .inference.backend import Backend, RawDetections
from .inference.batch_size import BatchSize
from .inference.pipeline import NetworkInput, OneByOne, Pipeline, Result, Source, Stages
from .timing import Clock

if TYPE_CHECKING:
    from .inference.engines import Engine
    from .inference.torch import Precision

GRAY = 128
"""Value of all pixels of an image on which every intact model computes numbers."""
ROUNDING = 1e-3
"""How far rounding may take scores above 1."""

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


class Detector:
    """Model that is ready to detect objects in images. Made by `detrcli.load`.

    A detector that `detrcli.load` made can be pickled, as for a spawned process. Unpickling loads the model again with
    the same options, so its files must be there, too.

    Attributes:
        name: name of the model as the user gave it.
        class_names: name of each label.
        backends: backends that run the network, one per device.
        weights: file of the weights, if there is one.
        notes: lines on what a user may want to check about the model.
    """

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        class_names: tuple[str, ...],
        resize: ResizeRule,
        resample: Resample = PILLOW_BILINEAR,
        weights: Path | None = None,
        notes: tuple[str, ...] = (),
        reload: "Callable[[], Detector] | None" = None,
    ) -> None:
        self.name, self.backends, self.class_names = name, tuple(backends), class_names
        self.weights, self.notes = weights, notes
        self._resize, self._resample, self._reload = resize, resample, reload

    def __reduce__(self) -> "tuple[Callable[[], Detector], tuple[()]]":
        """Pickle the call of `detrcli.load` that made the detector."""
        if self._reload is None:
            raise TypeError("only a Detector that detrcli.load made can be pickled")
        return self._reload, ()

    @property
    def backend(self) -> Backend:
        """Backend of the first device."""
        return self.backends[0]

    def resized(self, image: Image.Image) -> Pixels:
        """RGB image resized for the network."""
        return resize_image(image, self._resize, self._resample)

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
            threshold: lowest score of detections, exclusive, 0…1.
            classes: names of the classes to keep, or None for all.
            max_detections: largest number of detections of an image, the best.
            batch_size: largest number of images to run at once, or None for one that suits the device.
            workers: number of threads that read images, or None for one per core; results do not depend on it.

        Returns:
            Detections of each image, in the order of the images.

        Raises:
            ImageError: an image cannot be decoded.
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
        detection_filter = DetectionFilter(threshold, labels, max_detections)
        results = []
        for detections in self.stream(
            images,
            detection_filter,
            open_image=open_image,
            write=keep_detections,
            batch_size=None if batch_size is None else BatchSize(batch_size),
            workers=workers,
            many=not isinstance(images, Sized) or len(images) > 1,
        ):
            if isinstance(detections, ImageError):
                raise detections
            results.append(detections)
        return results

    def stream(
        self,
        sources: Iterable[Source],
        detection_filter: DetectionFilter,
        *,
        open_image: Callable[[Source], ImageFile],
        write: Callable[[Source, DecodedImage | None, Detections | ImageError], Result],
        batch_size: BatchSize | None = None,
        workers: int | None = None,
        many: bool = True,
        keep_images: bool = False,
        clock: Clock | None = None,
    ) -> Pipeline[Source, Result] | OneByOne[Source, Result]:
        """Detect objects in any number of images, in order and in bounded memory.

        Args:
            sources: images, as `open_image` takes them.
            detection_filter: detections to keep.
            open_image: first stage: opens an image and reads its header, or raises `ImageError`.
            write: last stage: takes a source, the image itself if it was kept, and its detections or why there are
                none, in any thread and order; what it returns is what iterating gives.
            batch_size: largest number of images to run at once, or None for one that suits the device.
            workers: number of threads that read, resize and write images, or None for one per core.
            many: whether to process several images at a time.
            keep_images: whether `write` takes the image itself, to annotate it.
            clock: clock that resizing and the network are timed with.
        """
        clock = clock or Clock()
        prepare = partial(self._prepare, keep_image=keep_images, clock=clock)
        stages = Stages(open_image, prepare, partial(self._detect, detection_filter), write)
        if not many:
            return OneByOne(sources, stages, backend=self.backend, clock=clock)
        return Pipeline(
            sources,
            stages,
            backends=self.backends,
            batch_size=batch_size or BatchSize(self.backend.batch_size),
            workers=workers or cores(),
            clock=clock,
        )

    def _prepare(self, file: ImageFile, *, keep_image: bool, clock: Clock) -> NetworkInput:
        """Decode and resize an image."""
        decoded = file.decode()
        width, height = decoded.image.size
        with clock.timing("resize"):
            try:
                pixels = self.resized(decoded.image)
            except MemoryError as error:
                width, height = self._resize.size(width, height)
                text = f"{file.name}: not enough memory to resize it to {width} × {height}"
                raise ImageError(text, "too large") from error
        return NetworkInput(pixels, (height, width), decoded if keep_image else None, file.name)

    def _detect(self, detection_filter: DetectionFilter, image: NetworkInput, raw: RawDetections) -> Detections:
        """Detections of an image that pass the filter."""
        if not _is_sound(raw):
            self._check_model(image)
            text = (
                f"{image.name}: {self.weights or self.name} gives invalid scores or boxes for it; try another precision"
            )
            raise ImageError(text, "invalid output")
        if not ((raw.labels >= 0) & (raw.labels < len(self.class_names))).all():
            raise ModelError(f"{self.weights or self.name} finds classes that it has no names for; export it anew")
        height, width = image.size
        return detection_filter.select(raw.boxes, raw.scores, raw.labels, self.class_names, (width, height))

    def _check_model(self, image: NetworkInput) -> None:
        """Refuse a model whose output is invalid even for a plain image of the same shape."""
        (raw,) = self.backend.run([np.full_like(image.pixels, GRAY)], [image.size])
        if not _is_sound(raw):
            model = self.weights or self.name
            raise ModelError(f"{model} gives invalid scores or boxes for any image; it may be damaged")


def _is_sound(raw: RawDetections) -> bool:
    """Whether all scores are in 0…1, apart from rounding, and all boxes finite."""
    scores = raw.scores
    return bool(((scores >= 0) & (scores <= 1 + ROUNDING)).all() and np.isfinite(raw.boxes).all())


def keep_detections(
    _source: object, _image: DecodedImage | None, detections: Detections | ImageError
) -> Detections | ImageError:
    """Last stage that writes nothing: the detections of an image, or why there are none."""
    return detections


def open_image(image: ImageLike) -> ImageFile:
    """Open a path, a Pillow image or an array without decoding it.

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
    engine: "Engine" = "auto",
    size: Size | None = None,
    revision: str | None = None,
    offline: bool = False,
    class_names: Sequence[str] | None = None,
) -> Detector:
    """Load a model.

    Args:
        model: known name, `org/name` on the Hugging Face Hub, folder in the Hub's layout, weights file, or ONNX file
            that `export_onnx` wrote.
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps; for an ONNX file also tensorrt and
            openvino:NAME, but not mps; or several, separated by commas, which share the work.
        precision: auto (fp16 on CUDA, bf16 on a CPU with native bf16, else fp32), fp32, fp16 or bf16; in ONNX Runtime,
            an ONNX file has its own.
        engine: for an ONNX file: onnxruntime, openvino, or auto (OpenVINO on a CPU if it is installed).
        size: size to resize images to: width and height, or one number (the side for LW-DETR and RF-DETR, the
            shorter side for DETR, the longer side for Table Transformer); by default that of the model's files or the
            paper.
        revision: branch, tag or commit on the Hub.
        offline: whether to use only the cache.
        class_names: name of each label, for a model whose files lack them or have wrong ones.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
        DeviceError: there is no such device.
        UsageError: the size is below 1, the number of class names is not that of the labels, or an ONNX file has
            another size or precision.
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
        engine=engine,
        size=size,
        revision=revision,
        offline=offline,
        class_names=class_names,
    )
    path, devices = checkpoint.weights, device.split(",")
    if path.suffix.lower() == ONNX_SUFFIX:
        from .inference.engines import exported_backend

        runs = [exported_backend(checkpoint, engine, device=one, precision=precision, size=size) for one in devices]
        metadata = runs[0].metadata
        rules = metadata.preprocessing
        names = metadata.class_names
        if class_names is not None:
            names = check_class_names(class_names, len(names), checkpoint.name)
        return Detector(checkpoint.name, runs, names, runs[0].resize, rules.resample, path, reload=again)
    if engine != "auto":
        raise OnnxFileError(f"{checkpoint.name} is not an ONNX file, which {engine} needs")
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
