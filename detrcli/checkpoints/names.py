"""The table of known models. Adding one is adding a row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
        name: what a user calls it.
        repo: where it is on the Hugging Face Hub.
        parameters: how many, in millions.
        gflops: work for one picture, in 10⁹ operations, as published.
        ap: average precision on COCO val2017 in percent, as published.
        classes: what it was trained to find.
        licence: SPDX name of the licence of the weights.
    """

    name: str
    repo: str
    parameters: float
    gflops: float
    ap: float
    classes: str
    licence: str


KNOWN_MODELS = (
    KnownModel("detr-resnet-50", "facebook/detr-resnet-50", 41, 86, 42.0, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-50-dc5", "facebook/detr-resnet-50-dc5", 41, 187, 43.3, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-101", "facebook/detr-resnet-101", 60, 152, 43.5, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-101-dc5", "facebook/detr-resnet-101-dc5", 60, 253, 44.9, "COCO", "Apache-2.0"),
)
DEFAULT_MODEL = "detr-resnet-50"


def known_model(name: str) -> KnownModel | None:
    """The row of this name, or None."""
    return next((model for model in KNOWN_MODELS if model.name == name), None)
