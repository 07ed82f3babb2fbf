"""Images in, detections out: the interface that the command line itself uses."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .backends import Answers, Backend
from .checkpoints.find import ONNX_SUFFIX, find
from .checkpoints.names import DEFAULT_MODEL
from .detections import Detections, Wanted, labels_of
from .errors import DeviceError, ImageError
from .images.decode import Picture, from_array, read_picture, upright_rgb
from .images.resize import ResizeRule, resized_pixels

if TYPE_CHECKING:
    from .backends.torch import Precision
    from .checkpoints.families import Size

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
Source = TypeVar("Source")

LOOK_AHEAD = 4
"""How many batches' worth of pictures may wait for others of their shape."""
LOOK_AHEAD_BYTES = 2**28
"""How much memory those pictures may hold before a batch goes out that is not full."""


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


@dataclass(eq=False)
class _Waiting(Generic[Source]):
    source: Source
    picture: Picture | None = None
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] = (0, 0)
    result: Detections | ImageError | None = None

    @property
    def held_bytes(self) -> int:
        picture = self.picture.image.width * self.picture.image.height * 3 if self.picture else 0
        return picture + (self.pixels.nbytes if self.pixels is not None else 0)


class Detector:
    """A model that is ready to look at pictures. Made by `detrcli.load`.

    Attributes:
        name: what the user called the model.
        class_names: the name of each label.
        backend: what runs the network.
    """

    def __init__(
        self,
        name: str,
        backend: Backend,
        class_names: tuple[str, ...],
        resize: ResizeRule,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
    ) -> None:
        self.name = name
        self.backend = backend
        self.class_names = class_names
        self._resize = resize
        self._resample = resample

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
        batch_size: int = 1,
    ) -> list[Detections]:
        """Detect objects in pictures.

        Args:
            images: paths, Pillow images or RGB arrays (H, W, 3) uint8, any number of them; or a single one.
            threshold: scores must lie above it, 0…1.
            classes: names of the only classes to look for.
            max_detections: the most to keep for a picture.
            batch_size: the most pictures to run at once.

        Returns:
            The detections of each picture, in the order given.

        Raises:
            ImageError: a picture cannot be read.
            ClassError: the model has no class of such a name.
        """
        if isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
            images = [images]
        labels = None if classes is None else labels_of(list(classes), self.class_names)
        wanted = Wanted(threshold, labels, max_detections)
        results = []
        for outcome in self.stream(images, wanted, read=open_picture, batch_size=batch_size):
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
        batch_size: int = 1,
        keep_pictures: bool = False,
    ) -> Iterator[Outcome[Source]]:
        """Detect objects in any number of pictures, in order, in bounded memory.

        Only pictures of equal resized shape are run together, so a picture's answer does not depend on its neighbours.
        A picture waits for others of its shape until a batch is full, or until more wait than the look-ahead allows.

        Args:
            sources: what to read.
            wanted: which answers to keep.
            read: gives the picture of a source, or raises `ImageError`.
            batch_size: the most pictures to run at once.
            keep_pictures: whether outcomes hold the picture itself, to draw on.
        """
        queue: deque[_Waiting[Source]] = deque()
        for source in sources:
            waiting = self._prepare(source, read, keep_pictures)
            queue.append(waiting)
            alike = _alike(queue, waiting)
            if len(alike) == batch_size:
                self._run(alike, wanted)
            elif len(queue) > LOOK_AHEAD * batch_size or sum(one.held_bytes for one in queue) > LOOK_AHEAD_BYTES:
                self._run(_alike(queue, queue[0]), wanted)
            yield from _finished(queue)
        while queue:
            self._run(_alike(queue, queue[0]), wanted)
            yield from _finished(queue)

    def _prepare(self, source: Source, read: Callable[[Source], Picture], keep: bool) -> _Waiting[Source]:
        try:
            picture = read(source)
        except ImageError as error:
            return _Waiting(source, result=error)
        try:
            pixels = self.resized(picture.image)
        except MemoryError as error:
            raise DeviceError(
                "memory is too small for a picture of the size asked for; use a smaller --size"
            ) from error
        size = (picture.image.height, picture.image.width)
        return _Waiting(source, picture if keep else None, pixels, size)

    def _run(self, batch: list[_Waiting[Source]], wanted: Wanted) -> None:
        answers = self.backend.run([one.pixels for one in batch if one.pixels is not None], [one.size for one in batch])
        for one, answer in zip(batch, answers, strict=True):
            one.result = self._select(answer, one.size, wanted)
            one.pixels = None

    def _select(self, answers: Answers, size: tuple[int, int], wanted: Wanted) -> Detections:
        height, width = size
        return wanted.select(answers.boxes, answers.scores, answers.labels, self.class_names, (width, height))


def _alike(queue: Iterable[_Waiting[Source]], one: _Waiting[Source]) -> list[_Waiting[Source]]:
    if one.pixels is None:
        return []
    return [other for other in queue if other.pixels is not None and other.pixels.shape == one.pixels.shape]


def _finished(queue: deque[_Waiting[Source]]) -> Iterator[Outcome[Source]]:
    while queue and queue[0].result is not None:
        done = queue.popleft()
        assert done.result is not None
        yield Outcome(done.source, done.picture, done.result)


def open_picture(image: ImageLike) -> Picture:
    """The picture that a path, a Pillow image or an array stands for.

    Raises:
        ImageError: it cannot be read.
    """
    if isinstance(image, Image.Image):
        return Picture(upright_rgb(image))
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
        device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps; for an ONNX file also tensorrt, but not mps.
        precision: auto (fp16 on CUDA, bf16 on a CPU that computes in it, else fp32), fp32, fp16 or bf16; an ONNX file
            has its own.
        size: what to resize pictures to: width and height, or one number (the side for LW-DETR, the shorter side for
            DETR); what the model's files or the paper say if not given.
        revision: branch, tag or commit on the Hub.
        offline: use only what is in the Hub's cache.

    Raises:
        ModelError: the model cannot be found, downloaded, read or built.
        DeviceError: there is no such device.
    """
    checkpoint = find(os.fspath(model), revision=revision, offline=offline)  # at once, before PyTorch is loaded
    if checkpoint.weights.suffix == ONNX_SUFFIX:
        from .backends.onnx import OnnxBackend

        runs = OnnxBackend(checkpoint, device=device, precision=precision, size=size)
        return Detector(checkpoint.name, runs, runs.card.class_names, runs.resize, runs.card.preprocessing.resample)
    from .backends.torch import TorchBackend
    from .checkpoints.load import load_checkpoint

    loaded = load_checkpoint(checkpoint, size=size)
    backend = TorchBackend(loaded, device=device, precision=precision)
    rules = loaded.preprocessing
    return Detector(loaded.name, backend, loaded.class_names, rules.resize, rules.resample)
