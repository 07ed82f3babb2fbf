"""How published files name a network's tensors, and what this package calls them: a table a layout."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The names of one kind of file.

    Attributes:
        title: what people call it.
        mark: a name that only such files hold.
        renames: pattern → replacement, applied in order, all of them, to each name.
        splits: part of a name → the parts that share its tensor in equal pieces along the first dimension.
    """

    title: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    splits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def translate(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Rename a file's tensors.

        Returns:
            The tensors by our names, and the file's name of each by ours.
        """
        ours: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        for name, tensor in tensors.items():
            if name.endswith("num_batches_tracked"):
                continue
            renamed = name
            for pattern, replacement in self.renames:
                renamed = re.sub(pattern, replacement, renamed)
            for part, piece in self._pieces(renamed, tensor):
                ours[part] = piece
                origin[part] = name
        return ours, origin

    def _pieces(self, name: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        for part, shares in self.splits.items():
            if part in name and tensor.shape[0] % len(shares) == 0:
                pieces = tensor.chunk(len(shares))
                return [(name.replace(part, share), piece) for share, piece in zip(shares, pieces, strict=True)]
        return [(name, tensor)]


DETR_ORIGINAL = Layout(
    title="original DETR",
    mark="query_embed.weight",
    renames=(
        (r"^backbone\.0\.body\.", "backbone."),
        (r"^input_proj\.", "input_projection."),
        (r"^query_embed\.", "object_queries."),
        (r"^class_embed\.", "class_head."),
        (r"^bbox_embed\.", "box_head."),
        (r"^transformer\.", ""),
        (r"\.self_attn\.", ".self_attention."),
        (r"\.multihead_attn\.", ".cross_attention."),
        (r"\.out_proj\.", ".output."),
        (r"\.linear1\.", ".feedforward.0."),
        (r"\.linear2\.", ".feedforward.3."),
    ),
    splits={".in_proj_weight": (".query.weight", ".key.weight", ".value.weight"),
            ".in_proj_bias": (".query.bias", ".key.bias", ".value.bias")},
)  # fmt: skip

DETR_HUB = Layout(
    title="DETR on the Hub",
    mark="model.query_position_embeddings.weight",
    renames=(
        # transformers' own ResNet; timm's has the names that we have
        (r"\.embedder\.embedder\.convolution\.", ".conv1."),
        (r"\.embedder\.embedder\.normalization\.", ".bn1."),
        *((rf"\.encoder\.stages\.{stage}\.layers\.", f".layer{stage + 1}.") for stage in range(4)),
        *((rf"\.layer\.{place}\.convolution\.", f".conv{place + 1}.") for place in range(3)),
        *((rf"\.layer\.{place}\.normalization\.", f".bn{place + 1}.") for place in range(3)),
        (r"\.shortcut\.convolution\.", ".downsample.0."),
        (r"\.shortcut\.normalization\.", ".downsample.1."),
        (r"^model\.backbone\.conv_encoder\.model\.", "backbone."),
        (r"^model\.", ""),
        (r"^query_position_embeddings\.", "object_queries."),
        (r"^class_labels_classifier\.", "class_head."),
        (r"^bbox_predictor\.", "box_head."),
        (r"\.self_attn\.([qkvo])", r".self_attention.\1"),
        (r"\.encoder_attn\.", ".cross_attention."),
        (r"\.q_proj\.", ".query."),
        (r"\.k_proj\.", ".key."),
        (r"\.v_proj\.", ".value."),
        (r"\.out_proj\.", ".output."),
        (r"\.self_attn_layer_norm\.", ".norm1."),
        (r"\.encoder_attn_layer_norm\.", ".norm2."),
        (r"^(encoder.*)\.final_layer_norm\.", r"\1.norm2."),
        (r"^(decoder.*)\.final_layer_norm\.", r"\1.norm3."),
        (r"^decoder\.layernorm\.", "decoder.norm."),
        (r"\.fc1\.", ".feedforward.0."),
        (r"\.fc2\.", ".feedforward.3."),
    ),
)

LAYOUTS = (DETR_ORIGINAL, DETR_HUB)
