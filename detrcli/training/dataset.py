"""Batches of varied images, the same for the same seed however many processes make them and wherever they start."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from ..checkpoints.preprocessing import Preprocessing
from ..datasets import Example
from ..errors import ImageError, TrainingError
from ..images.decode import read_image
from ..images.resize import Padded, ResizeRule
from ..inference.memory import is_for_want_of_memory
from .augment import Augmentation, annotated, as_target, normalised
from .matcher import Target


class Sample(NamedTuple):
    """One image of one batch.

    Attributes:
        image: which one of the dataset.
        seed: of its variation.
        rule: how large it is to become.
    """

    image: int
    seed: int
    rule: ResizeRule


class Batch(NamedTuple):
    """What a network learns from in one step.

    Attributes:
        pixels: (B, 3, H, W), normalised, zero where padded.
        mask: (B, H, W) bool, True on padding, or None where there is none.
        targets: one an image.
    """

    pixels: Tensor
    mask: Tensor | None
    targets: list[Target]

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        return Batch(
            self.pixels.to(device, non_blocking=True, memory_format=torch.channels_last),
            None if self.mask is None else self.mask.to(device, non_blocking=True),
            [Target(*(part.to(device, non_blocking=True) for part in target)) for target in self.targets],
        )


def steps_in_epoch(images: int, batch: int) -> int:
    """Whole batches, of all processes together, that so many images fill; one for fewer images than fill it."""
    return max(1, images // batch)


@dataclass(frozen=True)
class Schedule:
    """Which images come when.

    Attributes:
        count: number of images.
        batch_size: of each process.
        rules: sizes of which each batch takes one.
        seed: of everything.
        rank: this process.
        processes: how many there are.
    """

    count: int
    batch_size: int
    rules: tuple[ResizeRule, ...]
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps(self) -> int:
        """Batches in an epoch; what does not fill the last one is left for another epoch."""
        return steps_in_epoch(self.count, self.batch_size * self.processes)

    def epoch(self, epoch: int) -> list[list[Sample]]:
        """The batches of this process in an epoch. A dataset smaller than a batch is repeated to fill it."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        whole = self.batch_size * self.processes
        order = torch.cat([torch.randperm(self.count, generator=generator) for _ in range(-(-whole // self.count))])
        seeds = torch.randint(2**62, (len(order),), generator=generator).tolist()
        sizes = torch.randint(len(self.rules), (self.steps,), generator=generator).tolist()
        batches = []
        for step, size in enumerate(sizes):
            start = step * whole + self.rank * self.batch_size
            places = range(start, start + self.batch_size)
            batches.append([Sample(int(order[place]), seeds[place], self.rules[size]) for place in places])
        return batches

    def onward(self, epoch: int, step: int, epochs: int) -> Iterator[list[Sample]]:
        """The batches of this process from a step of an epoch on, to the end of the last of so many epochs."""
        for later in range(epoch, epochs):
            yield from self.epoch(later)[step if later == epoch else 0 :]


Item: TypeAlias = tuple[Tensor, Target] | ImageError
"""Pixels (3, H, W) and the objects in them, or why there are none."""


class TrainingDataset(Dataset[Item]):
    """The images of a dataset, read, varied and normalised as a `Sample` says."""

    def __init__(self, examples: Sequence[Example], rules: Preprocessing, augmentation: Augmentation) -> None:
        self._examples = examples
        self._rules = rules
        self._move, self._recolor = augmentation.move(), augmentation.recolor()

    def __getitem__(self, draw: Sample) -> Item:
        """The image of a draw: pixels (3, H, W) and its objects, or why it cannot be read."""
        example = self._examples[draw.image]
        single = ~torch.from_numpy(example.crowd)
        boxes, labels = torch.from_numpy(example.boxes)[single], torch.from_numpy(example.labels)[single]
        try:
            decoded = read_image(example.path).image
        except ImageError as error:
            return error  # not raised: a process that loads images would wrap it in a traceback
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(draw.seed)
                image, objects = self._move(*annotated(decoded, boxes, labels))
                resized = image.resize(draw.rule.size(image.width, image.height), self._rules.resample)
                pixels, target = normalised(self._recolor(resized), self._rules), as_target(image, objects)
        except (MemoryError, RuntimeError) as error:
            if not is_for_want_of_memory(error):
                raise
            return ImageError(f"{example.path}: not enough memory to vary and resize it", "too large")
        return padded(pixels, target, draw.rule) if isinstance(draw.rule, Padded) else (pixels, target)


def padded(pixels: Tensor, target: Target, rule: Padded) -> tuple[Tensor, Target]:
    """An image (3, H, W) with its padding, and its objects relative to both."""
    height, width = pixels.shape[1:]
    share = torch.tensor([width / rule.width, height / rule.height] * 2)
    return F.pad(pixels, (0, rule.width - width, 0, rule.height - height)), Target(target.labels, target.boxes * share)


class _Order(Sampler[list[Sample]]):
    def __init__(self, batches: Iterable[list[Sample]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[list[Sample]]:
        return iter(self._batches)


def batches(images: TrainingDataset, draws: Iterable[list[Sample]], *, workers: int, pin: bool) -> Iterator[Batch]:
    """Load batches, ahead of time in `workers` processes if there are any.

    Raises:
        ImageError: an image cannot be read.
    """
    loader: DataLoader[Item] = DataLoader(
        images,
        batch_sampler=_Order(draws),
        num_workers=workers,
        collate_fn=_collated,
        pin_memory=pin,
        worker_init_fn=_leave_interrupts_to_the_parent if workers else None,
        generator=torch.Generator(),  # else it draws from the one that drop-out draws from
    )
    for batch in loader:
        if isinstance(batch, ImageError):
            raise batch
        yield batch


@contextmanager
def loading() -> Iterator[None]:
    """Around all that goes on while batches are loaded: a killed loading process is noticed anywhere in it.

    Raises:
        TrainingError: one was killed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            "a process that loads images was killed, most likely for want of memory; go on with --resume and fewer "
            "--workers"
        ) from error


def _leave_interrupts_to_the_parent(_: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # which may come to the whole group of processes
        signal.signal(number, signal.SIG_IGN)


def _collated(items: Sequence[Item]) -> Batch | ImageError:
    whole = []
    for item in items:
        if isinstance(item, ImageError):
            return item
        whole.append(item)
    return collate(whole)


def collate(items: Sequence[tuple[Tensor, Target]]) -> Batch:
    """Pad images at the right and the bottom to the largest (DETR, appendix A.4)."""
    height = max(pixels.shape[1] for pixels, _ in items)
    width = max(pixels.shape[2] for pixels, _ in items)
    together = torch.zeros(len(items), 3, height, width)
    mask = torch.ones(len(items), height, width, dtype=torch.bool)
    for index, (pixels, _) in enumerate(items):
        together[index, :, : pixels.shape[1], : pixels.shape[2]] = pixels
        mask[index, : pixels.shape[1], : pixels.shape[2]] = False
    return Batch(together, mask if mask.any() else None, [target for _, target in items])
