"""Random weights to start from, and heads for other classes."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..classes import matching_labels
from ..models.deformable import DeformableAttention
from ..models.detr import Detr, DetrConfig
from ..models.layers import MLP
from ..models.lwdetr import LwDetr
from ..models.resnet import BasicBlock, Bottleneck, ResNet
from ..models.vit import Block, Embedding, ViT

PRIOR = 0.01
"""The score that LW-DETR gives everything at first (Lin et al. 2017, section 3.3)."""


@torch.no_grad()
def initialize(network: Detr | LwDetr) -> None:
    """Give a network random weights: the papers' choices, and He et al.'s (2015) for the ResNet."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResNet):
            _initialize_resnet(module)
        elif isinstance(module, ViT):
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
    """Give the class heads random weights."""
    for head in class_heads(network):
        nn.init.xavier_uniform_(head.weight)
        nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR) if isinstance(network, LwDetr) else 0)


def class_heads(network: Detr | LwDetr) -> list[nn.Linear]:
    """Every layer of a network whose outputs are classes."""
    proposals = network.proposals if isinstance(network, LwDetr) else ()
    heads = [network.class_head, *(proposal.class_head for proposal in proposals)]
    return [head for head in heads if isinstance(head, nn.Linear)]


def with_classes(network: Detr | LwDetr, old: tuple[str, ...], new: tuple[str, ...]) -> Detr | LwDetr:
    """The network for other classes: those of the same name keep their weights, as does no-object.

    Args:
        network: its class heads are replaced in place.
        old: the names of its labels.
        new: the names of the labels that it is to have.
    """
    kept = [(label, places[0]) for label, places in enumerate(matching_labels(new, old)) if places]
    before = class_heads(network)
    extra = before[0].out_features - len(old)  # no-object
    kept += [(len(new) + index, len(old) + index) for index in range(extra)]
    config = replace(network.config, num_classes=len(new))
    fresh = Detr(config) if isinstance(config, DetrConfig) else LwDetr(config)
    initialize_class_heads(fresh)
    for head, former in zip(class_heads(fresh), before, strict=True):
        with torch.no_grad():
            for label, place in kept:
                head.weight[label] = former.weight[place]
                head.bias[label] = former.bias[place]
    heads = {name: value for name, value in fresh.state_dict().items() if ".class_head." in f".{name}"}
    fresh.load_state_dict(network.state_dict() | heads)
    return fresh


def _initialize_resnet(network: ResNet) -> None:
    """Its batch norms are frozen and norm nothing yet: each block starts as its shortcut (Zhang et al. 2019)."""
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


def _initialize_vit(network: ViT) -> None:
    for module in network.modules():
        if isinstance(module, Block):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.trunc_normal_(layer.weight, std=0.02)
        elif isinstance(module, Embedding):
            nn.init.xavier_uniform_(module.patches.weight.flatten(1))
            nn.init.trunc_normal_(module.positions.weight, std=0.02)


def _initialize_deformable(attention: DeformableAttention) -> None:
    """At first the heads look into directions of their own, each point a step further (Zhu et al. 2021, A.4)."""
    nn.init.zeros_(attention.offsets.weight)
    nn.init.zeros_(attention.weights.weight)
    angles = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    directions = torch.stack((angles.cos(), angles.sin()), -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, attention.points + 1)
    grid: Tensor = directions[:, None, None] * steps[:, None]
    attention.offsets.bias.copy_(grid.expand(-1, attention.levels, -1, -1).flatten())
