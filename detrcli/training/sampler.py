"""Order, size and random seed of the images of each epoch, reproducible in any number of processes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from ..images.resize import Exactly, Padded, ResizeRule, ShortestEdge, Within

SCALES = (0.75, 0.875, 1, 1.125, 1.25)
"""Sizes of multi-scale training, relative to the model's own."""
SHORTEST_EDGE_SCALES = (0.6, 0.7, 0.8, 0.9, 1)
"""Sizes of multi-scale training for a DETR: shortest sides of 480 to 800 for 800 (DETR, appendix A.4)."""


class Sample(NamedTuple):
    """One image of a batch.

    Attributes:
        image: index into the dataset.
        seed: seed of its augmentation.
        rule: resize rule of the batch.
    """

    image: int
    seed: int
    rule: ResizeRule


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return the number of whole batches in an epoch, at least one; `batch_size` counts all processes."""
    return max(1, images // batch_size)


@dataclass(frozen=True)
class Sampler:
    """Batches of one process.

    Attributes:
        num_images: number of images in the dataset.
        batch_size: images per step and process.
        rules: resize rules; each batch takes one at random.
        seed: random seed.
        rank: index of the process.
        world_size: number of processes.
    """

    num_images: int
    batch_size: int
    rules: tuple[ResizeRule, ...]
    seed: int
    rank: int = 0
    world_size: int = 1

    @property
    def steps(self) -> int:
        """Number of batches in an epoch; images beyond the last whole batch are left out."""
        return steps_per_epoch(self.num_images, self.batch_size * self.world_size)

    def epoch(self, epoch: int) -> list[list[Sample]]:
        """Return the batches of an epoch. A dataset smaller than a batch is repeated to fill it."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        total = self.batch_size * self.world_size
        repeats = -(-total // self.num_images)
        order = torch.cat([torch.randperm(self.num_images, generator=generator) for _ in range(repeats)]).tolist()
        seeds = torch.randint(2**62, (len(order),), generator=generator).tolist()
        rules = torch.randint(len(self.rules), (self.steps,), generator=generator).tolist()
        batches = []
        for step, rule in enumerate(rules):
            start = step * total + self.rank * self.batch_size
            positions = range(start, start + self.batch_size)
            batches.append([Sample(order[at], seeds[at], self.rules[rule]) for at in positions])
        return batches

    def batches(self, epoch: int, step: int, epochs: int) -> Iterator[list[Sample]]:
        """Yield the batches from a step of an epoch to the end of the last of `epochs` epochs."""
        for current in range(epoch, epochs):
            yield from self.epoch(current)[step if current == epoch else 0 :]


def multi_scale_rules(rule: ResizeRule, stride: int) -> tuple[ResizeRule, ...]:
    """Return the resize rules of multi-scale training around a model's own rule.

    Args:
        rule: resize rule of the model.
        stride: number of which the sides of an image of fixed size must be multiples.
    """
    match rule:
        case Exactly(width, height) | Padded(Within(), width, height):
            sizes = {(_round(width * scale, stride), _round(height * scale, stride)) for scale in SCALES}
            return tuple(rule.for_size(size) for size in sorted(sizes))
        case ShortestEdge(shortest):
            return tuple(replace(rule, shortest=round(shortest * scale)) for scale in SHORTEST_EDGE_SCALES)
    return (rule,)


def _round(side: float, stride: int) -> int:
    return max(stride, round(side / stride) * stride)
