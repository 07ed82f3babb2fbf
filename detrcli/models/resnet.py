"""ResNet (He et al. 2016) with frozen batch norm, DETR's backbone (section 3.2)."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BlockKind: TypeAlias = Literal["basic", "bottleneck"]
WIDTHS = (64, 128, 256, 512)


class FrozenBatchNorm(nn.Module):
    """Batch norm with fixed statistics and affine parameters."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a shortcut, as in ResNet-18 and -34; the first has the stride."""

    expansion = 1

    def __init__(self, inputs: int, width: int, *, stride: int = 1, dilation: int = 1, first_dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(
            inputs, width, 3, stride=stride, padding=first_dilation, dilation=first_dilation, bias=False
        )
        self.bn1: nn.Module = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, bias=False)
        self.bn2: nn.Module = FrozenBatchNorm(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with a shortcut; the 3×3 convolution has the stride and `first_dilation`."""

    expansion = 4

    def __init__(self, inputs: int, width: int, *, stride: int = 1, dilation: int = 1, first_dilation: int = 1) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1: nn.Module = FrozenBatchNorm(width)
        self.conv2 = nn.Conv2d(
            width, width, 3, stride=stride, padding=first_dilation, dilation=first_dilation, bias=False
        )
        self.bn2: nn.Module = FrozenBatchNorm(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3: nn.Module = FrozenBatchNorm(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) → (B, 4·width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


BLOCKS: dict[BlockKind, type[BasicBlock] | type[Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), FrozenBatchNorm(outputs))


class ResNet(nn.Module):
    """ResNet without its classifier, up to the last feature map.

    Args:
        depths: number of blocks in each of the four stages, (3, 4, 6, 3) for ResNet-50.
        block: kind of these: basic in ResNet-18 and -34, bottleneck in deeper ones.
        dilation: whether the last stage is dilated instead of strided (DC5; DETR, section 4.1).

    Attributes:
        channels: number of channels of the output.
    """

    def __init__(self, depths: Sequence[int], *, block: BlockKind = "bottleneck", dilation: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1: nn.Module = FrozenBatchNorm(64)
        kind = BLOCKS[block]
        self.channels = WIDTHS[-1] * kind.expansion
        last = {"stride": 1, "dilation": 2} if dilation else {"stride": 2, "dilation": 1}
        inputs = 64

        def stage(width: int, blocks: int, *, stride: int, dilation: int) -> nn.Sequential:
            nonlocal inputs
            first = kind(inputs, width, stride=stride, dilation=dilation)
            inputs = width * kind.expansion
            rest = (kind(inputs, width, dilation=dilation, first_dilation=dilation) for _ in range(blocks - 1))
            return nn.Sequential(first, *rest)

        self.layer1 = stage(WIDTHS[0], depths[0], stride=1, dilation=1)
        self.layer2 = stage(WIDTHS[1], depths[1], stride=2, dilation=1)
        self.layer3 = stage(WIDTHS[2], depths[2], stride=2, dilation=1)
        self.layer4 = stage(WIDTHS[3], depths[3], **last)

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalized pixels (B, 3, H, W) → features (B, channels, H/32, W/32), or (…, H/16, W/16) with dilation."""
        x = F.relu(self.bn1(self.conv1(pixels)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer1(x)
        x = self.layer2(x)
        x = self.layer3(x)
        return torch.as_tensor(self.layer4(x))
