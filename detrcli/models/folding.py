"""The form of a network for inference: equal to the trained one, without the work that is known beforehand."""

import torch
from torch import nn

from .detr import Detr
from .resnet import Bottleneck, FrozenBatchNorm, ResNet


def fold_detr(model: Detr) -> Detr:
    """Fold each frozen batch norm of the backbone into the convolution before it, in place.

    A frozen batch norm is a scale and a shift for each channel, which the convolution's weight and a new bias take over
    (computed in float64). The answers stay the same up to rounding; the network is for inference from then on.

    Returns:
        The same model, with its convolutions in channels-last order.
    """
    for module in list(model.backbone.modules()):
        if isinstance(module, ResNet):
            module.conv1, module.bn1 = _folded(module.conv1, module.bn1), nn.Identity()
        elif isinstance(module, Bottleneck):
            module.conv1, module.bn1 = _folded(module.conv1, module.bn1), nn.Identity()
            module.conv2, module.bn2 = _folded(module.conv2, module.bn2), nn.Identity()
            module.conv3, module.bn3 = _folded(module.conv3, module.bn3), nn.Identity()
            if isinstance(module.downsample, nn.Sequential):
                conv, norm = module.downsample
                module.downsample = _folded(conv, norm)
    return model.to(memory_format=torch.channels_last)


def _folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, FrozenBatchNorm)
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    weight = conv.weight.detach().double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(conv.weight.dtype), requires_grad=False)
    return conv
