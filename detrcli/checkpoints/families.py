"""The families of models that can be loaded: one table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from ..errors import ModelError
from ..images.resize import Exactly, Padded, ResizeRule, ShortestEdge, canvas_of, fit_and_pad, shortest_edge
from ..models.detr import Detr
from ..models.lwdetr import LwDetr
from ..models.vit import PATCH, WINDOWS
from .config import detr_config, dilation_note, lwdetr_config
from .find import Checkpoint
from .layouts import DETR_HUB, DETR_ORIGINAL, LWDETR_HUB, LWDETR_ORIGINAL, Layout

Network: TypeAlias = Detr | LwDetr
Size: TypeAlias = int | tuple[int, int]
"""One number as the family understands it, or width and height."""


@dataclass(frozen=True)
class Family:
    """What sets the models of one paper apart.

    Attributes:
        layouts: how files name their tensors.
        build: makes the network, without weights, that a checkpoint's tensors (by our names) go into.
        resize: the paper's resize rule.
        sized: makes a resize rule of a size that a user wants; one number is what the paper counts images by.
        stride: both sides of what the network takes must be multiples of it.
        notes: lines on what a user may want to check, as it was told by no tensor.
    """

    layouts: tuple[Layout, ...]
    build: Callable[[Checkpoint, Mapping[str, Tensor]], Network]
    resize: ResizeRule
    sized: Callable[[int], ResizeRule]
    stride: int
    notes: Callable[[Checkpoint], tuple[str, ...]]

    def rule_for(self, size: Size, usual: ResizeRule | None = None) -> ResizeRule:
        """The resize rule for a size that a user wants.

        Args:
            size: what the user wants; of a model that pads its images, the size with padding.
            usual: the model's own rule.

        Raises:
            ModelError: the network cannot take it.
        """
        if isinstance(usual, Padded):
            rule: ResizeRule = fit_and_pad(*((size, size) if isinstance(size, int) else size))
        else:
            rule = self.sized(size) if isinstance(size, int) else Exactly(*size)
        self.check(rule)
        return rule

    def check(self, rule: ResizeRule) -> None:
        """Refuse a resize rule whose images the network cannot take.

        Raises:
            ModelError: it gives sides that are no multiples of the stride.
        """
        canvas = canvas_of(rule)
        if self.stride > 1 and (canvas is None or any(side % self.stride for side in canvas)):
            raise ModelError(f"this model takes images whose sides are multiples of {self.stride}, not {rule}")


DETR = Family(
    layouts=(DETR_ORIGINAL, DETR_HUB),
    build=lambda checkpoint, tensors: Detr(detr_config(checkpoint, tensors)),
    resize=ShortestEdge(800, 1333),
    sized=shortest_edge,
    stride=1,
    notes=lambda checkpoint: (dilation_note(checkpoint),),
)
LWDETR = Family(
    layouts=(LWDETR_ORIGINAL, LWDETR_HUB),
    build=lambda checkpoint, tensors: LwDetr(lwdetr_config(checkpoint, tensors)),
    resize=Exactly(640, 640),
    sized=lambda side: Exactly(side, side),
    stride=PATCH * WINDOWS,
    notes=lambda _: (),
)
FAMILIES = (DETR, LWDETR)
