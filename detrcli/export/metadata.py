"""Metadata of an exported ONNX file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..checkpoints.preprocessing import Preprocessing, as_json, finite, from_json
from ..classes import clean_name
from ..errors import OnnxFileError

VERSION_KEY = "detrcli"
"""Marks a file as exported by this package."""
PRECISION_KEY = "precision"
Form = Literal["detections", "raw"]
Precision = Literal["fp32", "fp16", "int8"]
FORMS: dict[str, Form] = {"detections": "detections", "raw": "raw"}
PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class OnnxMetadata:
    """Description of an exported network: all that is needed to run it, and where it comes from.

    Attributes:
        version: of this package.
        name: of the model.
        source: of the weights: a repository on the Hub, or the name of a file or folder.
        license: SPDX name of the license of the weights, or "" if unknown.
        form: "detections" if the file maps resized images to detections, "raw" if it is the bare network.
        precision: of the network.
        class_names: the name of each label.
        preprocessing: from an image to the network's input; a file of "detections" rescales and normalizes by itself.
        gflops: 10⁹ floating-point operations of the network for one image of the file's fixed size, else of 800 × 608;
            a multiply-add counts as two.
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

    def to_strings(self) -> dict[str, str]:
        """Keys and values for an ONNX file."""
        return {
            VERSION_KEY: self.version,
            "name": self.name,
            "source": self.source,
            "license": self.license,
            "form": self.form,
            PRECISION_KEY: self.precision,
            "classes": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(as_json(self.preprocessing)),
            "gflops": f"{self.gflops:.3f}",
        }


def parse_metadata(strings: Mapping[str, str], path: Path) -> OnnxMetadata:
    """Parse the keys and values of the ONNX file at `path`.

    Raises:
        OnnxFileError: it was not exported by this package, or by a version that this one does not understand.
    """
    if VERSION_KEY not in strings:
        raise OnnxFileError(f"{path} was not exported by detrcli, so its classes and its images' size are unknown")
    try:
        rules, names = json.loads(strings["preprocessing"]), json.loads(strings["classes"])
        if not (isinstance(rules, dict) and isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise TypeError("no rules, or no names")
        return OnnxMetadata(
            version=strings[VERSION_KEY],
            name=strings["name"],
            source=strings["source"],
            license=strings["license"],
            form=FORMS[strings["form"]],
            precision=PRECISIONS[strings[PRECISION_KEY]],
            class_names=tuple(map(clean_name, names)),
            preprocessing=from_json(rules, Preprocessing()),
            gflops=finite(strings["gflops"]),
        )
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise OnnxFileError(
            f"{path} was exported by detrcli {strings[VERSION_KEY]!r:.20}, and this version does not understand it"
        ) from error
