"""Random initialization, and class heads for other classes."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..checkpoints.families import family_of
from ..classes import matching_labels
from ..models.deformable import DeformableAttention
from ..models.detr import Detr
from ..models.dinov2 import DinoV2, WindowEmbedding
from ..models.layers import MLP
from ..models.lwdetr import LwDetr
from ..models.resnet import BasicBlock, Bottleneck, ResNet
from ..models.vit import Block, PatchEmbedding, ViT

PRIOR = 0.01
"""Initial score of every class in LW-DETR (Lin et al. 2017, section 3.3)."""


@torch.no_grad()
def initialize(network: Detr | LwDetr) -> None:
    """Initialize a network as its paper does; the ResNet as in He et al. (2015)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResNet):
            _initialize_resnet(module)
        elif isinstance(module, ViT | DinoV2):
            _initialize_vit(module)
        elif isinstance(module, DeformableAttention):
            _initialize_deformable(module)
    initialize_class_heads(network)
    if isinstance(network, Detr):
        nn.init.xavier_uniform_(network.input_projection.weight.flatten(1))
        if network.input_projection.bias is not None:
            nn.init.zeros_(network.input_projection.bias)
    if isinstance(network, LwDetr):
        nn.init.zeros_(network.reference_deltas.weight)
        for module in network.modules():
            last = module.layers[-1] if isinstance(module, MLP) else None
            if isinstance(last, nn.Linear) and last.out_features == 4:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)


@torch.no_grad()
def initialize_class_heads(network: Detr | LwDetr) -> None:
    """Initialize the class heads."""
    for head in class_heads(network):
        nn.init.xavier_uniform_(head.weight)
        nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR) if isinstance(network, LwDetr) else 0)


def class_heads(network: Detr | LwDetr) -> list[nn.Linear]:
    """Return all layers of a network that output class logits."""
    proposals = network.proposals if isinstance(network, LwDetr) else ()
    heads = [network.class_head, *(proposal.class_head for proposal in proposals)]
    return [head for head in heads if isinstance(head, nn.Linear)]


def with_classes(network: Detr | LwDetr, old: tuple[str, ...], new: tuple[str, ...]) -> Detr | LwDetr:
    """Return a network for other classes; classes of the same name keep their weights, as does no-object.

    Args:
        network: network whose other weights are copied.
        old: its class names.
        new: class names of the result.
    """
    kept = [(label, matches[0]) for label, matches in enumerate(matching_labels(new, old)) if matches]
    old_heads = class_heads(network)
    extra = old_heads[0].out_features - len(old)  # no-object
    kept += [(len(new) + index, len(old) + index) for index in range(extra)]
    config = replace(network.config, num_classes=len(new))
    result = family_of(config).network(config)
    initialize_class_heads(result)
    with torch.no_grad():
        for head, old_head in zip(class_heads(result), old_heads, strict=True):
            for label, old_label in kept:
                head.weight[label] = old_head.weight[old_label]
                head.bias[label] = old_head.bias[old_label]
    heads = {name: value for name, value in result.state_dict().items() if ".class_head." in f".{name}"}
    result.load_state_dict(network.state_dict() | heads)
    return result


def _initialize_resnet(network: ResNet) -> None:
    """Start each block as the identity (Zhang et al. 2019), since its frozen batch norms do not normalize yet."""
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock | Bottleneck)]
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for block in blocks:
        *first, last = (
            (block.conv1, block.conv2, block.conv3) if isinstance(block, Bottleneck) else (block.conv1, block.conv2)
        )
        for convolution in first:  # L^(-1/(2m-2)) for m convolutions in each of L blocks
            convolution.weight.mul_(len(blocks) ** (-0.5 / len(first)))
        nn.init.zeros_(last.weight)


def _initialize_vit(network: ViT | DinoV2) -> None:
    for module in network.modules():
        if isinstance(module, Block):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(module, PatchEmbedding | WindowEmbedding):
            nn.init.xavier_uniform_(module.patches.weight.flatten(1))
            nn.init.trunc_normal_(module.positions.weight, std=0.02)
            if isinstance(module, WindowEmbedding):
                nn.init.trunc_normal_(module.class_token, std=0.02)


def _initialize_deformable(attention: DeformableAttention) -> None:
    """Point each head in its own direction, and each of its points one step further (Zhu et al. 2021, A.4)."""
    nn.init.zeros_(attention.offsets.weight)
    nn.init.zeros_(attention.weights.weight)
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    directions = torch.stack((angles.cos(), angles.sin()), -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, attention.points + 1)
    grid: Tensor = directions[:, None, None] * steps[:, None]
    attention.offsets.bias.copy_(grid.expand(-1, attention.levels, -1, -1).flatten())
