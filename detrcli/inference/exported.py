"""What the engines for exported files have in common; needs no PyTorch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..checkpoints.preprocessing import Preprocessing
from ..errors import ModelError, OnnxFileError, OnnxSettingError
from ..export.metadata import OnnxMetadata
from ..host import parallel_images
from ..images.resize import Padded, Pixels, Size, fixed_size
from .backend import RawDetections
from .memory import enough_memory, for_images

Arrays: TypeAlias = Sequence[NDArray[Any]]
OUTPUTS = ("boxes", "scores", "labels")
"""Names of a file's outputs."""


class Port(NamedTuple):
    """Input or output of a file.

    Attributes:
        dtype: NumPy's name of its type.
        shape: its sides, None where they are dynamic.
    """

    dtype: str
    shape: tuple[int | None, ...]


class ExportedBackend(ABC):
    """An exported file on one device; the engines are subclasses.

    Args:
        path: the file.
        metadata: of the file.
        inputs: of the file, by their names.
        outputs: of the file, by their names.
        device: cpu, or the name of another device.
        precision: that most is computed in.
        size: to resize images to, for a file of dynamic size.

    Attributes:
        metadata: of the file.
        resize: rule for images.

    Raises:
        OnnxFileError: the file is a bare network, or has unexpected inputs or outputs.
        OnnxSettingError: the file has another size.
    """

    engine: str

    def __init__(
        self,
        path: Path,
        metadata: OnnxMetadata,
        inputs: Mapping[str, Port],
        outputs: Mapping[str, Port],
        *,
        device: str,
        precision: str,
        size: Size | None,
    ) -> None:
        if metadata.form == "raw":
            raise OnnxFileError(f"{path} was exported without postprocessing, for other programs")
        self.metadata = metadata
        self._path, self._device = path, device
        self._fixed_batch = _check_signature(inputs, outputs, metadata.preprocessing, path)
        self.resize = metadata.preprocessing.resize
        canvas = fixed_size(self.resize)
        self._fixed_size = canvas is not None
        if size is not None:
            if canvas is None:
                self.resize = self.resize.for_size(size)
            elif ((size, size) if isinstance(size, int) else size) != canvas:
                width, height = canvas
                raise OnnxSettingError(f"{path} only takes {width} × {height} pixels")
        on_cpu = device == "cpu"
        self.description = f"{device}, {self.engine}, {precision}"
        self.device_type = device.partition(":")[0]
        self.precision = precision
        self.batch_size = self._fixed_batch or (1 if on_cpu else 8)
        self.grows = self._fixed_batch is None and not on_cpu
        self.concurrency = parallel_images() if on_cpu else 2

    def run(
        self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], *, settled: bool = True
    ) -> list[RawDetections]:
        """See `Backend.run`.

        Raises:
            DeviceMemoryError: the device's memory is too small for the batch.
            ModelError: the file cannot be run, or its outputs have unexpected shapes.
        """
        # on a CPU, a batch is no faster than single images, and needs more memory
        count = self._fixed_batch or (1 if self._device == "cpu" else len(pixels))
        detections: list[RawDetections] = []
        for start in range(0, len(pixels), count):
            batch = pixels[start : start + count]
            with enough_memory(self._device, for_images(batch)):
                outputs = self._checked(self.inputs(batch, sizes[start : start + count]))
            detections += [RawDetections(*one) for one in islice(zip(*outputs, strict=True), len(batch))]
        return detections

    def inputs(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]]) -> dict[str, NDArray[Any]]:
        """Inputs of the file for a batch, see `run`; a batch smaller than a fixed size is filled up with ones."""
        inputs: dict[str, NDArray[Any]] = {"images": np.stack(pixels), "sizes": np.array(sizes, dtype=np.float32)}
        if isinstance(self.resize, Padded):
            inputs["filled"] = np.array(self.resize.filled(sizes), dtype=np.float32)
        missing = self._fixed_batch - len(pixels) if self._fixed_batch else 0
        for name, value in inputs.items():
            inputs[name] = np.pad(value, ((0, missing), *((0, 0),) * (value.ndim - 1)), constant_values=1)
        return inputs

    def gflops(self, height: int, width: int) -> float | None:
        """See `Measurable.gflops`; known for files of fixed size only."""
        return self.metadata.gflops if self._fixed_size else None

    @abstractmethod
    def shared(self) -> AbstractContextManager[None]:
        """See `Backend.shared`."""

    @abstractmethod
    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs of the file, in the order of `OUTPUTS`."""

    def _checked(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        outputs = self._run(inputs)
        boxes, scores, labels = outputs
        count = len(inputs["images"]), *scores.shape[1:2]
        if (boxes.shape, scores.shape, labels.shape) != ((*count, 4), count, count):
            raise OnnxFileError(f"{self._path} has outputs of unexpected shapes")
        return outputs


def _check_signature(
    inputs: Mapping[str, Port], outputs: Mapping[str, Port], rules: Preprocessing, path: Path
) -> int | None:
    """Return a file's fixed batch size or None; refuse inputs and outputs that are not ours or do not fit the rules."""
    expected = {"images": (np.dtype(rules.resample.dtype).name, 4), "sizes": ("float32", 2)}
    if isinstance(rules.resize, Padded):
        expected["filled"] = ("float32", 2)
    declared = [{name: (port.dtype, len(port.shape)) for name, port in ports.items()} for ports in (inputs, outputs)]
    if declared == [expected, dict(zip(OUTPUTS, (("float32", 3), ("float32", 2), ("int64", 2)), strict=True))]:
        batch, height, width, channels = inputs["images"].shape
        valid_batch = batch is None or batch > 0
        if valid_batch and channels == 3 and (width, height) == (fixed_size(rules.resize) or (None, None)):
            return batch
    raise OnnxFileError(f"{path} has unexpected inputs or outputs")


def open_file(path: Path) -> None:
    """Raise an error that says more than an engine's if a file cannot be opened.

    Raises:
        ModelError: it cannot.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
