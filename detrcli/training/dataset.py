"""Batches of augmented images."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..checkpoints.preprocessing import Preprocessing
from ..datasets import Example
from ..errors import ImageError, LoaderKilledError
from ..images.decode import read_image
from ..images.resize import Padded
from ..inference.memory import is_out_of_memory
from .augment import Augmentation, make_target, normalize, to_tensor, transform_input
from .matcher import Target
from .sampler import Sample


class Batch(NamedTuple):
    """Input of one training step.

    Attributes:
        pixels: (B, 3, H, W), normalized, zero where padded.
        mask: (B, H, W) bool, True on padding, or None if nothing is padded.
        targets: objects of each image.
    """

    pixels: Tensor
    mask: Tensor | None
    targets: list[Target]

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device."""
        return Batch(
            self.pixels.to(device, non_blocking=True, memory_format=torch.channels_last),
            None if self.mask is None else self.mask.to(device, non_blocking=True),
            [Target(*(part.to(device, non_blocking=True) for part in target)) for target in self.targets],
        )


Item: TypeAlias = tuple[Tensor, Target] | ImageError
"""Pixels (3, H, W) and objects of an image, or the error that prevented loading it."""


class TrainingDataset(Dataset[Item]):
    """Images of a dataset, loaded, augmented and normalized as a `Sample` says."""

    def __init__(self, examples: Sequence[Example], preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        self._examples, self._preprocessing = examples, preprocessing
        self._geometry, self._color = augmentation.geometry(), augmentation.color()

    def __getitem__(self, sample: Sample) -> Item:
        """Load an image. An ImageError is returned, not raised: a DataLoader would wrap it in a traceback."""
        example = self._examples[sample.image]
        single = ~torch.from_numpy(example.crowd)
        boxes, labels = torch.from_numpy(example.boxes)[single], torch.from_numpy(example.labels)[single]
        try:
            decoded = read_image(example.path).image
        except ImageError as error:
            return error
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(sample.seed)
                image, objects = self._geometry(*transform_input(decoded, boxes, labels))
                size = sample.rule.size(image.width, image.height)
                resized = to_tensor(self._preprocessing.resample.resize(image, *size))
                pixels = normalize(self._color(resized), self._preprocessing)
                target = make_target(image, objects)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return ImageError(f"{example.path}: not enough memory to augment and resize it", "too large")
        return pad(pixels, target, sample.rule) if isinstance(sample.rule, Padded) else (pixels, target)


def pad(pixels: Tensor, target: Target, rule: Padded) -> tuple[Tensor, Target]:
    """Pad an image (3, H, W) at the right and bottom, and make its boxes relative to the padded image."""
    height, width = pixels.shape[1:]
    scale = torch.tensor([width / rule.width, height / rule.height] * 2)
    return F.pad(pixels, (0, rule.width - width, 0, rule.height - height)), Target(target.labels, target.boxes * scale)


def load_batches(
    dataset: TrainingDataset, samples: Iterable[list[Sample]], *, workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Load batches, in `workers` background processes if there are any.

    Raises:
        ImageError: an image cannot be read.
    """
    loader: DataLoader[Item] = DataLoader(
        dataset,
        batch_sampler=samples,
        num_workers=workers,
        collate_fn=_collate_items,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_interrupts if workers else None,
        generator=torch.Generator(),  # else the global one, on which dropout depends
    )
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        yield batch


@contextmanager
def killed_loader_as_error() -> Iterator[None]:
    """Convert PyTorch's error about a killed loading process, which any statement in the block may raise.

    Raises:
        LoaderKilledError: a loading process was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise LoaderKilledError("an image-loading process was killed, probably because memory ran out") from error


def _ignore_interrupts(_: int) -> None:
    """Leave signals that reach the whole process group to the parent process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _collate_items(items: Sequence[Item]) -> Batch | ImageError:
    failed = next((item for item in items if isinstance(item, ImageError)), None)
    return failed or collate([item for item in items if not isinstance(item, ImageError)])


def collate(items: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Pad images at the right and bottom to the largest height and width (DETR, appendix A.4)."""
    height = max(pixels.shape[1] for pixels, _ in items)
    width = max(pixels.shape[2] for pixels, _ in items)
    batch = torch.zeros(len(items), 3, height, width)
    mask = torch.ones(len(items), height, width, dtype=torch.bool)
    for index, (pixels, _) in enumerate(items):
        batch[index, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        mask[index, : pixels.shape[1], : pixels.shape[2]] = False
    return Batch(batch, mask if mask.any() else None, [target for _, target in items])
