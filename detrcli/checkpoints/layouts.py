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


_IN_PROJ = {
    ".in_proj_weight": (".query.weight", ".key.weight", ".value.weight"),
    ".in_proj_bias": (".query.bias", ".key.bias", ".value.bias"),
}

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
    splits=_IN_PROJ,
)

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
        (r"^model\.backbone\.(?:conv_encoder\.)?model\.", "backbone."),
        (r"^model\.", ""),
        (r"^query_position_embeddings\.", "object_queries."),
        (r"^class_labels_classifier\.", "class_head."),
        (r"^bbox_predictor\.", "box_head."),
        (r"\.self_attn\.([qkvo])", r".self_attention.\1"),
        (r"\.encoder_attn\.", ".cross_attention."),
        (r"\.q_proj\.", ".query."),
        (r"\.k_proj\.", ".key."),
        (r"\.v_proj\.", ".value."),
        (r"\.(?:out|o)_proj\.", ".output."),
        (r"\.self_attn_layer_norm\.", ".norm1."),
        (r"\.encoder_attn_layer_norm\.", ".norm2."),
        (r"^(encoder.*)\.final_layer_norm\.", r"\1.norm2."),
        (r"^(decoder.*)\.final_layer_norm\.", r"\1.norm3."),
        (r"^decoder\.layernorm\.", "decoder.norm."),
        (r"(?:\.mlp)?\.fc1\.", ".feedforward.0."),
        (r"(?:\.mlp)?\.fc2\.", ".feedforward.3."),
    ),
)

_DECODER_PARTS = (
    (r"\.self_attn\.", ".self_attention."),
    (r"\.cross_attn\.", ".cross_attention."),
    (r"\.sampling_offsets\.", ".offsets."),
    (r"\.attention_weights\.", ".weights."),
    (r"\.value_proj\.", ".value."),
    (r"\.out(put)?_proj\.", ".output."),
    (r"\.ref_point_head\.", ".position_head."),
    (r"^query_feat\.", "object_queries."),
    (r"^class_embed\.", "class_head."),
    (r"^bbox_embed\.", "box_head."),
    (r"^enc_output\.(\d+)\.", r"proposals.\1.embed."),
    (r"^enc_output_norm\.(\d+)\.", r"proposals.\1.norm."),
    (r"^enc_out_class_embed\.(\d+)\.", r"proposals.\1.class_head."),
    (r"^enc_out_bbox_embed\.(\d+)\.", r"proposals.\1.box_head."),
)

LWDETR_ORIGINAL = Layout(
    title="original LW-DETR",
    mark="refpoint_embed.weight",
    renames=(
        (r"^transformer\.", ""),
        (r"^refpoint_embed\.", "reference_deltas."),
        *_DECODER_PARTS,
        (r"^(decoder.*)\.linear1\.", r"\1.feedforward.0."),
        (r"^(decoder.*)\.linear2\.", r"\1.feedforward.3."),
        (r"^backbone\.0\.encoder\.", "backbone."),
        (r"^backbone\.pos_embed$", "backbone.embedding.positions.weight"),
        (r"^backbone\.patch_embed\.proj\.", "backbone.embedding.patches."),
        (r"\.gamma_([12])$", r".scale\1.weight"),
        (r"\.attn\.q_bias$", ".attention.query.bias"),
        (r"\.attn\.v_bias$", ".attention.value.bias"),
        (r"\.attn\.qkv\.", ".attention.qkv."),
        (r"\.attn\.proj\.", ".attention.output."),
        (r"\.mlp\.fc1\.", ".feedforward.0."),
        (r"\.mlp\.fc2\.", ".feedforward.2."),
        (r"^backbone\.0\.projector\.stages_sampling\.(\d+)\.(\d+)\.", r"projector.stages.\1.resamplers.\2."),
        (r"^backbone\.0\.projector\.stages\.(\d+)\.0\.", r"projector.stages.\1.c2f."),
        (r"^backbone\.0\.projector\.stages\.(\d+)\.1\.", r"projector.stages.\1.norm."),
        (r"\.c2f\.m\.(\d+)\.cv1\.", r".c2f.bottlenecks.\1.0."),
        (r"\.c2f\.m\.(\d+)\.cv2\.", r".c2f.bottlenecks.\1.1."),
        (r"\.c2f\.cv1\.", ".c2f.split."),
        (r"\.c2f\.cv2\.", ".c2f.join."),
        (r"^(projector.*)\.conv\.", r"\1.0."),
        (r"^(projector.*)\.bn\.", r"\1.1."),
    ),
    splits=_IN_PROJ | {".qkv.weight": (".query.weight", ".key.weight", ".value.weight")},
)

LWDETR_HUB = Layout(
    title="LW-DETR on the Hub",
    mark="model.reference_point_embed.weight",
    renames=(
        (r"^model\.", ""),
        *((rf"\.attention\.{short}_proj\.", f".attention.{part}.")
          for short, part in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output"))),
        (r"^reference_point_embed\.", "reference_deltas."),
        *_DECODER_PARTS,
        *((rf"\.self_attention\.{short}_proj\.", f".self_attention.{part}.")
          for short, part in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output"))),
        (r"\.self_attn_layer_norm\.", ".norm1."),
        (r"\.cross_attn_layer_norm\.", ".norm2."),
        (r"^(decoder.*)\.layer_norm\.", r"\1.norm3."),
        (r"^decoder\.layernorm\.", "decoder.norm."),
        (r"\.mlp\.fc1\.", ".feedforward.0."),
        (r"\.mlp\.fc2\.", ".feedforward.3."),
        (r"^backbone\.backbone\.", "backbone."),
        (r"^backbone\.embeddings\.position_embeddings$", "backbone.embedding.positions.weight"),
        (r"^backbone\.embeddings\.projection\.", "backbone.embedding.patches."),
        (r"^backbone\.encoder\.layer\.", "backbone.blocks."),
        (r"\.attention\.attention\.", ".attention."),
        (r"\.intermediate\.fc1\.", ".feedforward.0."),
        (r"\.intermediate\.fc2\.", ".feedforward.2."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.gamma_([12])$", r".scale\1.weight"),
        (r"^backbone\.projector\.scale_layers\.", "projector.stages."),
        (r"^(projector.*)\.conv\.", r"\1.0."),
        (r"^(projector.*)\.norm\.", r"\1.1."),
        (r"^(projector.*)\.layer_norm\.", r"\1.norm."),
        (r"\.sampling_layers\.(\d+)\.layers\.", r".resamplers.\1."),
        (r"\.projector_layer\.", ".c2f."),
        (r"\.bottlenecks\.(\d+)\.conv1\.", r".bottlenecks.\1.0."),
        (r"\.bottlenecks\.(\d+)\.conv2\.", r".bottlenecks.\1.1."),
        (r"\.c2f\.conv1\.", ".c2f.split."),
        (r"\.c2f\.conv2\.", ".c2f.join."),
    ),
)  # fmt: skip
