"""Comparison of an exported network's predictions in ONNX Runtime with those in PyTorch."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from ..checkpoints.bundled import sample_image
from ..images.decode import read_image
from ..images.resize import Pixels, Resample
from ..inference.onnx import CPU, session_options
from ..inference.postprocess import EndToEnd
from ..models.lwdetr import LwDetr


def differences(
    content: bytes,
    reference: EndToEnd,
    *,
    postprocess: bool,
    batch_size: int | None,
    width: int,
    height: int,
    padded: bool,
    resample: Resample,
) -> Tensor:
    """Distance of each prediction to the nearest of the other runtime, for real images and noise, alone and in batches.

    Args:
        content: of the ONNX file.
        reference: the same in PyTorch.
        postprocess: whether the file includes normalization and postprocessing.
        batch_size: of the file, or None for a dynamic one.
        width: of the images to compare with.
        height: of the images to compare with.
        padded: whether the file has the input `filled`.
        resample: how the model's images are resized.

    Returns:
        (N,) distances, the larger of those of scores (or logits) and of boxes relative to the image.
    """
    session = onnxruntime.InferenceSession(content, session_options(), providers=[CPU])
    apart = []
    for batch in _batches(_test_images(reference, width, height, resample), batch_size):
        images = torch.from_numpy(np.stack(batch))
        with torch.inference_mode():
            if postprocess:
                sizes = torch.tensor([[300.0 + one, 700.0 - one] for one in range(len(batch))])
                inputs = {"images": images, "sizes": sizes}
                if padded:
                    inputs["filled"] = torch.tensor([[height * 0.75, width]] * len(batch))
                expected = list(reference(*inputs.values()))
            else:
                inputs = {"pixels": reference.normalize(images)}
                expected = list(reference.network(inputs["pixels"]))
        found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        found = [torch.from_numpy(output) for output in found]
        if postprocess:
            scale = sizes.flip(1).repeat(1, 2)[:, None]
            expected[0], found[0] = expected[0] / scale, found[0] / scale
        distances = _detection_distances if postprocess else _query_distances
        for one in range(len(batch)):
            pair = [[output[one] for output in outputs] for outputs in (expected, found)]
            apart += [distances(*pair), distances(*reversed(pair))]
    return torch.cat(apart)


def _test_images(reference: EndToEnd, width: int, height: int, resample: Resample) -> list[Pixels]:
    """Two views of the sample image and one of noise, (H, W, 3), chosen to avoid tied proposals."""
    sample = resample.resize(read_image(sample_image()).image, width, height)
    views = [sample, sample[:, ::-1], sample[::-1], sample[::-1, ::-1]]
    noise = np.random.default_rng(0).integers(0, 256, (4, height, width, 3), dtype=np.uint8).astype(resample.dtype)
    clearest = partial(sorted, key=partial(proposal_gap, reference), reverse=True)
    return [*clearest(views)[:2], *clearest(noise)[:1]]


def _batches(images: list[Pixels], batch_size: int | None) -> list[list[Pixels]]:
    if batch_size is None:
        return [images[:1], images]
    return [[*islice(cycle(images), start, start + batch_size)] for start in range(0, len(images), batch_size)]


def proposal_gap(module: EndToEnd, image: Pixels) -> float:
    """Smallest gap between adjacent proposal scores, including the first rejected one; infinite without proposals.

    Where two tie, rounding decides which of them an object query refines, which slightly changes all predictions.
    """
    network = module.network
    if not isinstance(network, LwDetr):
        return math.inf
    with torch.inference_mode():
        maps = network.feature_maps(module.normalize(torch.from_numpy(image.copy())[None]))
        scores = network.propose(maps, (network.proposals[0],), network.config.num_queries + 1).logits.amax(-1)
    return min((-scores.diff()).flatten().tolist(), default=math.inf)


def _query_distances(predictions: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Distance of each query to the nearest of the others, of logits relative to their magnitude, and of boxes."""
    logits, boxes = predictions
    scale = 1 + logits[:, None].abs()
    apart = ((logits[:, None] - others[0][None]).abs() / scale).amax(-1)
    return torch.maximum(apart, (boxes[:, None] - others[1][None]).abs().amax(-1)).amin(1)


def _detection_distances(detections: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Distance of each detection that scores at least half of the best to the nearest of the others of its class."""
    boxes, scores, labels = detections
    confident = scores >= scores.max() / 2
    apart = torch.maximum(
        (boxes[confident][:, None] - others[0][None]).abs().amax(-1), (scores[confident][:, None] - others[1]).abs()
    )
    return apart.masked_fill(labels[confident][:, None] != others[2], torch.inf).amin(1)
