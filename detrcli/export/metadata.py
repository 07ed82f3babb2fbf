"""What an ONNX file of this package says about itself, in its metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..checkpoints.find import Checkpoint
from ..checkpoints.preprocessing import Preprocessing, as_json, finite, from_json
from ..classes import clean_name
from ..errors import ModelError
from ..images.resize import ShortestEdge

MARK = "detrcli"
"""The key by which such a file is known; its value is the version that wrote it."""


Form = Literal["detections", "raw"]
Precision = Literal["fp32", "fp16"]
FORMS: dict[str, Form] = {"detections": "detections", "raw": "raw"}
PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16"}


@dataclass(frozen=True)
class Card:
    """What must be known to use a network's file, and where it is from.

    Attributes:
        version: of this package.
        name: of the model.
        source: where its weights are from: a repository on the Hub, or what their file or folder is called.
        license: SPDX name of the license of the weights, or "" if it is not known.
        form: "detections" if the file takes 8-bit images and gives detections, "raw" if it is the bare network.
        precision: of the network's products.
        class_names: the name of each label.
        preprocessing: what becomes of an image before the network sees it; for "detections" the file itself scales
            and normalises.
        gflops: work of the network for one image, in 10⁹ operations, a product and a sum as two; of the only size
            that the file takes, or of 800 × 608.
    """

    version: str
    name: str
    source: str
    license: str
    form: Form
    precision: Precision
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    gflops: float

    def as_metadata(self) -> dict[str, str]:
        """The card as an ONNX file holds it."""
        return {
            MARK: self.version,
            "name": self.name,
            "source": self.source,
            "license": self.license,
            "form": self.form,
            "precision": self.precision,
            "classes": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(as_json(self.preprocessing)),
            "gflops": f"{self.gflops:.3f}",
        }


def card_of(metadata: Mapping[str, str], checkpoint: Checkpoint) -> Card:
    """Read a card.

    Args:
        metadata: of the file.
        checkpoint: the file.

    Raises:
        ModelError: it is not a file of this package, or of a version that this one does not understand.
    """
    path = checkpoint.weights
    if MARK not in metadata:
        raise ModelError(f"{path} was not written by `detr export`, so its classes and its images' size are unknown")
    try:
        rules, names = json.loads(metadata["preprocessing"]), json.loads(metadata["classes"])
        if not (isinstance(rules, dict) and isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise TypeError("no rules, or no names")
        return Card(
            version=metadata[MARK],
            name=metadata["name"],
            source=metadata["source"],
            license=metadata["license"],
            form=FORMS[metadata["form"]],
            precision=PRECISIONS[metadata["precision"]],
            class_names=tuple(map(clean_name, names)),
            preprocessing=from_json(rules, ShortestEdge()),
            gflops=finite(metadata["gflops"]),
        )
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ModelError(
            f"{path} was written by detrcli {metadata[MARK]!r:.20}, and this version does not understand it; export it "
            "anew"
        ) from error
