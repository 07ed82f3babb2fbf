"""Fused networks: equal to trained ones up to rounding, without the work that can be done once.

Each function changes a network in place, after which it is for inference only; modules that become redundant are
replaced by `nn.Identity`. Norms and LayerScale are fused in float64.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.detr import Detr
from ..models.dinov2 import DinoV2, WindowEmbedding
from ..models.lwdetr import LwDetr
from ..models.projector import ChannelNorm, ConvNorm
from ..models.resnet import BasicBlock, Bottleneck, FrozenBatchNorm, ResNet
from ..models.vit import WINDOWS, Block, LayerScale, PatchEmbedding, SelfAttention, ViT, to_windows

MAX_CACHED_SIZES = 8
"""Sizes of images whose positions are kept."""


def fuse(network: Detr | LwDetr) -> Detr | LwDetr:
    """Fuse a network of any family in place."""
    return fuse_detr(network) if isinstance(network, Detr) else fuse_lwdetr(network)


def fuse_detr(model: Detr) -> Detr:
    """Fuse each frozen batch norm of the backbone into the convolution before it.

    Returns:
        The same model, in channels-last memory format.
    """
    for module in list(model.backbone.modules()):
        if isinstance(module, ResNet):
            module.conv1, module.bn1 = _fuse_norm(module.conv1, module.bn1), nn.Identity()
        elif isinstance(module, BasicBlock | Bottleneck):
            module.conv1, module.bn1 = _fuse_norm(module.conv1, module.bn1), nn.Identity()
            module.conv2, module.bn2 = _fuse_norm(module.conv2, module.bn2), nn.Identity()
            if isinstance(module, Bottleneck):
                module.conv3, module.bn3 = _fuse_norm(module.conv3, module.bn3), nn.Identity()
            if isinstance(module.downsample, nn.Sequential):
                conv, norm = module.downsample
                module.downsample = _fuse_norm(conv, norm)
    return model.to(memory_format=torch.channels_last)


def fuse_lwdetr(model: LwDetr) -> LwDetr:
    """Fuse what can be fused, and remove what only training needs.

    Batch norms are fused into the convolutions before them, and LayerScale into the projections before it. Queries,
    keys and values come from one matrix product, without a bias of the keys, to which softmax is invariant. Patches are
    gathered window by window, and positions are resized once per image size. Only the first query group is kept, and
    the blocks up to the last feature map.

    Returns:
        The same model, in channels-last memory format.
    """
    model.proposals = model.proposals[:1]
    count = model.config.num_queries
    for embedding in (model.reference_deltas, model.object_queries):
        embedding.weight = _constant(embedding.weight[:count])
    for module in list(model.modules()):
        if isinstance(module, ConvNorm):
            conv, norm, activation = module
            if not isinstance(norm, ChannelNorm):
                module[0], module[1] = _fuse_norm(conv, norm), nn.Identity()
            module[2] = _in_place(activation)
        elif isinstance(module, Block):
            assert isinstance(module.attention, SelfAttention)
            _fuse_scale(module.attention.output, module.scale1)
            _fuse_scale(module.feedforward[2], module.scale2)
            module.attention = FusedQKVAttention(module.attention)
            module.scale1, module.scale2 = nn.Identity(), nn.Identity()
    backbone = model.backbone
    assert isinstance(backbone, ViT | DinoV2)
    backbone.blocks = backbone.blocks[: max(backbone.features) + 1]
    if isinstance(backbone.embedding, PatchEmbedding):
        backbone.embedding = FusedPatchEmbedding(backbone.embedding.patches, backbone.embedding.positions, WINDOWS)
    elif isinstance(backbone.embedding, WindowEmbedding):
        backbone.embedding = FusedWindowEmbedding(backbone.embedding)
    return model.to(memory_format=torch.channels_last)


class FusedQKVAttention(nn.Module):
    """`SelfAttention` with one matrix product for queries, keys and values; scores are already scaled."""

    def __init__(self, attention: SelfAttention) -> None:
        super().__init__()
        query, key, value = attention.query, attention.key, attention.value
        self.heads = attention.heads
        self.windows = attention.windows
        scale = (query.out_features // attention.heads) ** -0.5
        self.qkv = _linear(
            torch.cat((query.weight * scale, key.weight, value.weight)),
            torch.cat((query.bias * scale, torch.zeros_like(query.bias), value.bias)),
        )
        self.output = attention.output

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, S, D), window by window → the same shape."""
        qkv = self.qkv(x).reshape(x.shape[0] * self.windows, -1, 3, self.heads, x.shape[-1] // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return torch.as_tensor(self.output(mixed.transpose(1, 2).reshape(x.shape)))


class FusedPatchEmbedding(nn.Module):
    """Projection of patches as one matrix product over patches gathered window by window, with cached positions.

    Args:
        patches: the convolution.
        positions: module that returns the positions (1, H, W, D) of a grid.
        windows: number of windows in each direction.
    """

    def __init__(self, patches: nn.Conv2d, positions: nn.Module, windows: int) -> None:
        super().__init__()
        self.patch, self.windows = patches.kernel_size[0], windows
        self.weight = _constant(patches.weight.permute(0, 2, 3, 1).flatten(1))
        assert patches.bias is not None
        self.bias = _constant(patches.bias)
        self.positions = positions.requires_grad_(False)
        self._cache: dict[tuple[object, ...], Tensor] = {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) → tokens (B, H·W/patch², D), window by window."""
        batch, _, height, width = pixels.shape
        patch, windows = self.patch, self.windows
        rows, columns = height // (windows * patch), width // (windows * patch)
        x = pixels.permute(0, 2, 3, 1).reshape(batch, windows, rows, patch, windows, columns, patch * 3)
        x = x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, windows**2 * rows * columns, -1)
        x = F.linear(x, self.weight)
        return x.add_(self._cached_positions(height // patch, width // patch))

    def _cached_positions(self, height: int, width: int) -> Tensor:
        key = (height, width, self.weight.device, self.weight.dtype)
        positions = self._cache.get(key)
        if positions is None:
            positions = to_windows(self.positions(height, width) + self.bias, self.windows)
            if len(self._cache) < MAX_CACHED_SIZES:  # and none is replaced, since a CUDA graph may read it
                self._cache[key] = positions
        return positions


class FusedWindowEmbedding(nn.Module):
    """`WindowEmbedding` with a `FusedPatchEmbedding`."""

    def __init__(self, embedding: WindowEmbedding) -> None:
        super().__init__()
        self.windows = embedding.windows
        self.patches = FusedPatchEmbedding(embedding.patches, embedding.positions, embedding.windows)
        self.class_token = _constant(embedding.class_token + embedding.positions.of_class_token())

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) → tokens (B, windows² + H·W/patch², D), window by window, class token first."""
        x = self.patches(pixels).unflatten(1, (self.windows**2, -1))
        return torch.cat((self.class_token.expand(*x.shape[:2], 1, -1), x), dim=2).flatten(1, 2)


def _fuse_norm(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, FrozenBatchNorm | nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shift = norm.bias.double() - norm.running_mean.double() * scale
    dtype = conv.weight.dtype
    conv.weight = _constant((conv.weight.double() * scale[:, None, None, None]).to(dtype))
    conv.bias = _constant(shift.to(dtype))
    return conv


def _fuse_scale(linear: nn.Module, scale: nn.Module) -> None:
    assert isinstance(linear, nn.Linear)
    assert isinstance(scale, LayerScale)
    factor = scale.weight.double()
    dtype = linear.weight.dtype
    linear.weight = _constant((linear.weight.double() * factor[:, None]).to(dtype))
    linear.bias = _constant((linear.bias.double() * factor).to(dtype))


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = _constant(weight), _constant(bias)
    return linear


def _in_place(activation: nn.Module) -> nn.Module:
    if isinstance(activation, nn.ReLU | nn.SiLU):
        activation.inplace = True
    return activation


def _constant(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value.detach(), requires_grad=False)
