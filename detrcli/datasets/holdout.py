"""Holding out a part of a dataset for validation."""

from collections import Counter
from dataclasses import replace

import numpy as np

from ..errors import DatasetError
from .annotations import Dataset


def hold_out(data: Dataset, fraction: float, *, seed: int) -> tuple[Dataset, Dataset]:
    """Split a dataset at random, stratified by class.

    Rare classes are assigned first. As far as the fraction allows, a class with two or more images is in both parts,
    and one with a single image is in the training part. Images without objects are treated as a class.

    Args:
        data: the whole dataset.
        fraction: fraction of the images to hold out, above 0 and below 1.
        seed: random seed; the same seed gives the same split.

    Returns:
        The training and the validation part, each in the order of `data`.

    Raises:
        DatasetError: there are too few images.
    """
    count, wanted = len(data.examples), max(1, round(fraction * len(data.examples)))
    if wanted >= count:
        raise DatasetError(f"{data.name}: {count} images are too few to hold out {fraction:g} of them")
    background = len(data.classes)
    groups = [set(example.labels.tolist()) or {background} for example in data.examples]
    left = Counter(label for labels in groups for label in labels)
    members: dict[int, list[int]] = {label: [] for label in sorted(left, key=lambda label: (left[label], label))}
    order = np.random.default_rng(seed).permutation(count).tolist()
    for image in order:
        for label in groups[image]:
            members[label].append(image)
    chosen: set[int] = set()

    def choose(candidates: list[int], most: int, *, spare: bool) -> None:
        """Choose up to `most` more images; with `spare`, none that is the last one of a class."""
        for image in candidates:
            if most <= 0 or len(chosen) == wanted:
                return
            if image not in chosen and not (spare and any(left[label] == 1 for label in groups[image])):
                chosen.add(image)
                left.subtract(groups[image])
                most -= 1

    for images in members.values():
        share = max(1, round(fraction * len(images)))
        choose(images, share - len(chosen.intersection(images)), spare=True)
    choose(order, wanted, spare=True)
    choose(order, wanted, spare=False)
    return (
        replace(data, examples=tuple(one for place, one in enumerate(data.examples) if place not in chosen)),
        replace(data, examples=tuple(data.examples[place] for place in sorted(chosen)), problems=()),
    )
