"""From a model that loads to an ONNX file that has been checked."""

import copy
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from io import StringIO
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .. import __version__
from ..checkpoints.bundled import sample_image
from ..checkpoints.load import LoadedModel
from ..errors import ExportError
from ..files import atomic_file
from ..images.decode import read_image
from ..images.resize import Padded, canvas_of
from ..inference.fuse import fuse
from ..inference.onnx import CPU, session_options
from ..inference.postprocess import EndToEnd, postprocess_for
from ..inference.torch import DTYPES, count_gflops
from ..models.lwdetr import LwDetr
from .metadata import Card
from .operators import translations
from .opsets import DEFAULT_OPSET, check_opset

TOLERANCES = {"fp32": 1e-3, "fp16": 0.1}
"""How far scores, and boxes relative to the image, may be from PyTorch's in float32."""
SHARES = {"fp32": 0.95, "fp16": 0.9}
"""How many answers must be that near: where cells or classes score alike, rounding decides which is taken."""
MOST_BYTES = 2**31
"""What an ONNX file can hold."""
OTHER = (800, 608)
"""Width and height of the images to trace and check with, where the network takes any size."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: of the file.
        nodes: of its graph.
        bytes: its size.
        compared: answers that were compared with PyTorch's.
        same: how many of them are PyTorch's.
        difference: of those, the largest of scores, and of boxes relative to the image.
    """

    path: Path
    nodes: int
    bytes: int
    compared: int
    same: int
    difference: float


class BareNetwork(nn.Module):
    """A network that gives float32 whatever it computes in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised pixels (B, 3, H, W) → logits (B, Q, C) and boxes (B, Q, 4) as relative cx, cy, w, h."""
        answer = self.network(pixels.to(next(self.network.parameters()).dtype))
        return answer.logits.float(), answer.boxes.float()


def export_onnx(
    model: LoadedModel,
    path: Path,
    *,
    source: str,
    license: str = "",
    raw: bool = False,
    batch: int | None = None,
    precision: Literal["fp32", "fp16"] = "fp32",
    opset: int = DEFAULT_OPSET,
) -> Exported:
    """Write a network in its form for inference, once ONNX Runtime gives nearly all of PyTorch's answers with it.

    The file takes `images` (N, H, W, 3) uint8 in RGB, resized, and `sizes` (N, 2) float32, height and width of each
    image before; one of a model that pads takes `filled` (N, 2) float32, too, height and width that each image
    fills; it gives `boxes` (N, K, 4) as x1, y1, x2, y2 in pixels of these, `scores` (N, K) and `labels`
    (N, K). A raw one takes `pixels` (N, 3, H, W), normalised, and gives `logits` (N, Q, C) and `boxes` (N, Q, 4) as
    relative cx, cy, w, h. Only standard operators are used.

    Args:
        model: what to export; it stays as it is.
        path: of the file.
        source: where the weights are from.
        license: of the weights.
        raw: whether to export the bare network.
        batch: how many images at once, or None for any number.
        precision: of the network's products.
        opset: version of the operators.

    Raises:
        UsageError: there is no such version of the operators.
        ExportError: ONNX Runtime does not give the answers that PyTorch gives.
        OutputError: the file cannot be written.
    """
    check_opset(opset)
    network, rules = fuse(copy.deepcopy(model.network)), model.preprocessing
    reference = EndToEnd(network, postprocess_for(network), scale=rules.scale, mean=rules.mean, std=rules.std).eval()
    reduced = copy.deepcopy(reference)
    reduced.network.to(DTYPES[precision])
    module = BareNetwork(reduced.network).eval() if raw else reduced
    padded = isinstance(rules.resize, Padded)
    canvas = canvas_of(rules.resize)
    width, height = canvas or rules.resize.size(*OTHER)
    heavy = sum(value.numel() * value.element_size() for value in module.state_dict().values())
    if heavy >= MOST_BYTES:
        raise ExportError(f"{model.name} is larger than the 2 GB of an ONNX file; --precision fp16 halves it")
    card = Card(
        version=__version__,
        name=model.name,
        source=source,
        license=license,
        form="raw" if raw else "detections",
        precision=precision,
        class_names=model.class_names,
        preprocessing=rules,
        gflops=count_gflops(network, height, width),
    )
    with atomic_file(path) as file:
        inputs = _inputs(raw, batch, height, width, padded=padded)
        proto = _traced(module, inputs, batch=batch, fixed=canvas is not None, opset=opset)
        for key, value in card.as_metadata().items():
            proto.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(proto, strict_mode=True), full_check=True)
        whole = proto.SerializeToString()
        apart = _distances(whole, reference, raw=raw, batch=batch, width=width, height=height, padded=padded)
        near = apart[apart <= TOLERANCES[precision]]
        if not len(near) or len(near) < SHARES[precision] * len(apart):
            raise ExportError(
                f"{len(apart) - len(near)} of {len(apart)} answers of ONNX Runtime differ from PyTorch's by more than "
                f"{TOLERANCES[precision]:g}; nothing was written"
            )
        file.write(whole)
    return Exported(path, len(proto.graph.node), len(whole), len(apart), len(near), float(near.max()))


def _inputs(raw: bool, batch: int | None, height: int, width: int, *, padded: bool) -> dict[str, Tensor]:
    count = batch or 2  # of one image the exporter would think that there is always one
    if raw:
        return {"pixels": torch.zeros(count, 3, height, width)}
    inputs = {"images": torch.zeros(count, height, width, 3, dtype=torch.uint8), "sizes": torch.ones(count, 2)}
    return inputs | {"filled": torch.ones(count, 2)} if padded else inputs


def _traced(
    module: nn.Module, inputs: dict[str, Tensor], *, batch: int | None, fixed: bool, opset: int
) -> onnx.ModelProto:
    outputs = ["logits", "boxes"] if "pixels" in inputs else ["boxes", "scores", "labels"]
    any_number: Any = torch.export.Dim("batch") if batch is None else None
    sides: tuple[Any, Any] = (None, None) if fixed else (torch.export.Dim("height"), torch.export.Dim("width"))
    dynamic = {
        "pixels": (any_number, None, *sides),
        "images": (any_number, *sides, None),
        "sizes": (any_number, None),
        "filled": (any_number, None),
    }
    with torch.inference_mode(), _silently():
        module(*inputs.values())  # what the network keeps for a size becomes a constant of the graph
    with torch.no_grad(), _silently():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(dynamic[name] for name in inputs),
            opset_version=opset,
            custom_translation_table=translations(opset),
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    _without_allowzero(proto.graph)
    proto.producer_name, proto.producer_version = "detrcli", __version__
    return proto


def _without_allowzero(graph: onnx.GraphProto) -> None:
    """Take away from reshapes what not all other programs read, and what makes no difference but for empty tensors."""
    zeros = {one.name for one in graph.initializer if one.data_type == onnx.TensorProto.INT64 and not _nonzero(one)}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] not in zeros:
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)


def _nonzero(tensor: onnx.TensorProto) -> bool:
    return bool(onnx.numpy_helper.to_array(tensor).all())


_TALKATIVE = ("torch.onnx", "torch.export", "torch._guards", "onnxscript", "onnx_ir")


@contextmanager
def _silently() -> Iterator[None]:
    """Without what the exporter says to its developers."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(StringIO()):  # on which ONNX Script counts its rewrites
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)  # what fails for good is raised
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)


def _distances(
    whole: bytes, reference: EndToEnd, *, raw: bool, batch: int | None, width: int, height: int, padded: bool
) -> Tensor:
    """How far ONNX Runtime's answers are from PyTorch's, for real images and noise, of several sizes in a batch."""
    session = onnxruntime.InferenceSession(whole, session_options(), providers=[CPU])
    sample = np.asarray(read_image(sample_image()).image.resize((width, height), Image.Resampling.BILINEAR))
    views = [sample, sample[:, ::-1], sample[::-1], sample[::-1, ::-1]]
    noise = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8)
    clearest = partial(sorted, key=partial(_gap, reference), reverse=True)
    images = [*clearest(views)[:2], *clearest(noise)[:1]]
    batches = [images[:1], images]
    if batch:
        batches = [[*islice(cycle(images), start, start + batch)] for start in range(0, len(images), batch)]
    apart = []
    for stack in batches:
        some = torch.from_numpy(np.stack(stack))
        sizes = torch.tensor([[300.0 + one, 700.0 - one] for one in range(len(stack))])
        more = {"filled": torch.tensor([[height * 0.75, width]] * len(stack))} if padded and not raw else {}
        with torch.inference_mode():
            if raw:
                pixels = reference.normalize(some)
                theirs = reference.network(pixels)
                found = session.run(None, {"pixels": pixels.numpy()})
            else:
                theirs = reference(some, sizes, *more.values())
                given = {"images": some, "sizes": sizes, **more}
                found = session.run(None, {name: value.numpy() for name, value in given.items()})
        ours = [torch.from_numpy(part) for part in found]
        for one in range(len(stack)):
            mine, expected = ([part[one] for part in answer] for answer in (ours, theirs))
            if not raw:
                for answer in (mine, expected):
                    answer[0] = answer[0] / sizes[one].flip(0).repeat(2)
            compare = _queries_apart if raw else _answers_apart
            apart += [compare(expected, mine), compare(mine, expected)]
    return torch.cat(apart)


def _gap(module: EndToEnd, image: NDArray[np.uint8]) -> float:
    """How far apart those two proposals of an image score that are nearest to each other, the first left out included.

    Where two tie, rounding decides which of them an object query is to refine, and that changes all answers a little.
    """
    network = module.network
    if not isinstance(network, LwDetr):  # nothing is proposed
        return math.inf
    with torch.inference_mode():
        maps = network.feature_maps(module.normalize(torch.from_numpy(image.copy())[None]))
        scores = network.propose(maps, (network.proposals[0],), network.config.num_queries + 1).logits.amax(-1)
    return min((-scores.diff()).flatten().tolist(), default=math.inf)


def _queries_apart(some: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """How far the nearest query of the others is from each: of logits relative to their size, and boxes."""
    logits, boxes = some
    scale = 1 + logits[:, None].abs()
    apart = ((logits[:, None] - others[0][None]).abs() / scale).amax(-1)
    return torch.maximum(apart, (boxes[:, None] - others[1][None]).abs().amax(-1)).amin(1)


def _answers_apart(some: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """How far the nearest of the others is from each answer that scores at least half of the best, in any order."""
    boxes, scores, labels = some
    sure = scores >= scores.max() / 2
    apart = torch.maximum(
        (boxes[sure][:, None] - others[0][None]).abs().amax(-1), (scores[sure][:, None] - others[1][None]).abs()
    )
    return apart.masked_fill(labels[sure][:, None] != others[2][None], torch.inf).amin(1)
