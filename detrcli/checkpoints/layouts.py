"""Names of the tensors in published files and in this package: one two-way table per layout.

Each row pairs a published name with ours. A row covers all names that begin with it, up to a dot; `*` stands for any
part between dots, and the first row that fits is used. `query|key|value` means that the published tensor holds these
three of ours, in equal shares along the first dimension.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

Rows: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Layout:
    """Naming scheme of one kind of file.

    Attributes:
        title: name for messages.
        mark: a tensor that only files of this layout have, or those of a family that precedes it in the table.
        rows: published name, our name.
        aliases: other names that transformers gives tensors, names in `rows`; only used for reading.
        ignored: published names of tensors that no network here has.
    """

    title: str
    mark: str
    rows: Rows
    aliases: Rows = ()
    ignored: tuple[str, ...] = ()

    def to_ours(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Rename and split the tensors of a file.

        Returns:
            The tensors by our names, and the file's name of each by ours.
        """
        ours: dict[str, Tensor] = {}
        origin: dict[str, str] = {}
        for published, tensor in tensors.items():
            if published in self.ignored:
                continue
            names = _alternatives(self._our_name(published))
            if len(names) > 1 and (tensor.dim() == 0 or tensor.shape[0] % len(names)):
                names = [published]
            pieces = tensor.chunk(len(names)) if len(names) > 1 else [tensor]
            ours |= zip(names, pieces, strict=True)
            origin |= dict.fromkeys(names, published)
        return ours, origin

    def to_published(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename and join our tensors; the inverse of `to_ours`."""
        published = {}
        inverse = tuple((ours, theirs) for theirs, ours in self.rows)
        for name, tensor in tensors.items():
            target = _rename(name, inverse)
            names = _alternatives(self._our_name(target))
            if len(names) == 1:
                published[target] = tensor
            elif name == names[0]:
                published[target] = torch.cat([tensors[part] for part in names])
        return published

    def _our_name(self, published: str) -> str:
        return _rename(_rename(published, self.aliases), self.rows)


@cache
def _rules(rows: Rows) -> list[tuple[re.Pattern[str], str]]:
    return [_rule(*row) for row in rows]


def _rule(source: str, target: str) -> tuple[re.Pattern[str], str]:
    """Pattern and replacement that rename `source`, and what begins with it, to `target`."""
    wildcards = {"*": "([^.]+)"}
    pattern = r"\.".join(wildcards.get(part, f"(?:{part})") for part in source.split("."))
    groups = iter(range(1, target.count("*") + 1))
    return re.compile(rf"{pattern}(?=\.|$)"), re.sub(r"\*", lambda _: rf"\{next(groups)}", target)


def _rename(name: str, rows: Rows) -> str:
    for pattern, replacement in _rules(rows):
        if match := pattern.match(name):
            return match.expand(replacement) + name[match.end() :]
    return name


def _alternatives(name: str) -> list[str]:
    """All names that `a.query|key|value.b` stands for."""
    joint = re.search(r"[^.]+\|[^.]+", name)
    if joint is None:
        return [name]
    return [name[: joint.start()] + part + name[joint.end() :] for part in joint[0].split("|")]


def _within(published: str, ours: str, rows: Rows) -> Rows:
    """Rows of the parts of a module."""
    return tuple((f"{published}.{theirs}", f"{ours}.{name}" if ours else name) for theirs, name in rows)


def _joint_attention(published: str, ours: str) -> Rows:
    """Rows of `torch.nn.MultiheadAttention`."""
    return _within(published, ours, (
        ("in_proj_weight", "query|key|value.weight"),
        ("in_proj_bias", "query|key|value.bias"),
        ("out_proj", "output"),
    ))  # fmt: skip


_QUERY_KEY_VALUE = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"))

DETR_ORIGINAL = Layout(
    title="original DETR",
    mark="query_embed.weight",
    rows=(
        ("backbone.0.body", "backbone"),
        ("input_proj", "input_projection"),
        ("query_embed", "object_queries"),
        ("class_embed", "class_head"),
        ("bbox_embed", "box_head"),
        *_within("transformer.*.layers.*", "*.layers.*", (
            *_joint_attention("self_attn", "self_attention"),
            *_joint_attention("multihead_attn", "cross_attention"),
            ("linear1", "feedforward.0"), ("linear2", "feedforward.3"),
        )),
        ("transformer.encoder", "encoder"),
        ("transformer.decoder", "decoder"),
    ),
)  # fmt: skip

_HUB_RESNET = "model.backbone.conv_encoder.model"
DETR_HUB_TIMM = Layout(
    title="DETR on the Hub",
    mark="model.query_position_embeddings.weight",
    rows=(
        (_HUB_RESNET, "backbone"),
        ("model.input_projection", "input_projection"),
        ("model.query_position_embeddings", "object_queries"),
        ("class_labels_classifier", "class_head"),
        ("bbox_predictor", "box_head"),
        *_within("model.*.layers.*", "*.layers.*", (
            *_within("self_attn", "self_attention", (*_QUERY_KEY_VALUE, ("out_proj", "output"))),
            *_within("encoder_attn", "cross_attention", (*_QUERY_KEY_VALUE, ("out_proj", "output"))),
            ("self_attn_layer_norm", "norm1"),
            ("fc1", "feedforward.0"), ("fc2", "feedforward.3"),
        )),
        ("model.encoder.layers.*.final_layer_norm", "encoder.layers.*.norm2"),
        ("model.decoder.layers.*.encoder_attn_layer_norm", "decoder.layers.*.norm2"),
        ("model.decoder.layers.*.final_layer_norm", "decoder.layers.*.norm3"),
        ("model.encoder.layernorm", "encoder.norm"),
        ("model.decoder.layernorm", "decoder.norm"),
    ),
    aliases=(
        ("model.backbone.model", _HUB_RESNET),
        ("model.*.layers.*.*.o_proj", "model.*.layers.*.*.out_proj"),
        ("model.*.layers.*.mlp", "model.*.layers.*"),
    ),
)  # fmt: skip
"""Layout with timm's ResNet, whose names are also ours."""

DETR_HUB = replace(
    DETR_HUB_TIMM,
    rows=(
        *_within(_HUB_RESNET, "backbone", (
            ("embedder.embedder.convolution", "conv1"), ("embedder.embedder.normalization", "bn1"),
            *(
                row
                for stage in range(4)
                for row in _within(f"encoder.stages.{stage}.layers.*", f"layer{stage + 1}.*", (
                    *((f"layer.{place}.convolution", f"conv{place + 1}") for place in range(3)),
                    *((f"layer.{place}.normalization", f"bn{place + 1}") for place in range(3)),
                    ("shortcut.convolution", "downsample.0"), ("shortcut.normalization", "downsample.1"),
                ))
            ),
        )),
        *DETR_HUB_TIMM.rows,
    ),
)  # fmt: skip
"""Layout with transformers' ResNet; reads files with timm's, too."""

TABLE_TRANSFORMER_ORIGINAL = replace(
    DETR_ORIGINAL, title="original Table Transformer", mark="transformer.encoder.norm.weight"
)
TABLE_TRANSFORMER_HUB = replace(DETR_HUB, title="Table Transformer on the Hub", mark="model.encoder.layernorm.weight")

_PROPOSALS = (
    ("enc_output.*", "proposals.*.embed"),
    ("enc_output_norm.*", "proposals.*.norm"),
    ("enc_out_class_embed.*", "proposals.*.class_head"),
    ("enc_out_bbox_embed.*", "proposals.*.box_head"),
)
_DEFORMABLE_ATTENTION = _within("cross_attn", "cross_attention", (
    ("sampling_offsets", "offsets"), ("attention_weights", "weights"),
    ("value_proj", "value"), ("output_proj", "output"),
))  # fmt: skip

_ORIGINAL_DETECTOR: Rows = (
    *(
        (f"backbone.0.projector.{theirs}.{kind}", f"projector.stages.*.{ours}.{place}")
        for theirs, ours in (
            ("stages_sampling.*.*.*", "resamplers.*.*"),
            ("stages.*.0.cv1", "c2f.split"),
            ("stages.*.0.cv2", "c2f.join"),
            ("stages.*.0.m.*.cv1", "c2f.bottlenecks.*.0"),
            ("stages.*.0.m.*.cv2", "c2f.bottlenecks.*.1"),
        )
        for place, kind in enumerate(("conv", "bn"))
    ),
    ("backbone.0.projector.stages_sampling.*", "projector.stages.*.resamplers"),
    ("backbone.0.projector.stages.*.1", "projector.stages.*.norm"),
    ("query_feat", "object_queries"),
    ("refpoint_embed", "reference_deltas"),
    ("class_embed", "class_head"),
    ("bbox_embed", "box_head"),
    *_within("transformer", "", _PROPOSALS),
    *_within("transformer.decoder.layers.*", "decoder.layers.*", (
        *_joint_attention("self_attn", "self_attention"),
        *_DEFORMABLE_ATTENTION,
        ("linear1", "feedforward.0"), ("linear2", "feedforward.3"),
    )),
    ("transformer.decoder.ref_point_head", "decoder.position_head"),
    ("transformer.decoder", "decoder"),
)  # fmt: skip
"""Names of LW-DETR and RF-DETR outside of the ViT."""

LWDETR_ORIGINAL = Layout(
    title="original LW-DETR",
    mark="refpoint_embed.weight",
    rows=(
        *_within("backbone.0.encoder", "backbone", (
            ("pos_embed", "embedding.positions.weight"),
            ("patch_embed.proj", "embedding.patches"),
            *_within("blocks.*", "blocks.*", (
                ("attn.qkv.weight", "attention.query|key|value.weight"),
                ("attn.q_bias", "attention.query.bias"), ("attn.v_bias", "attention.value.bias"),
                ("attn.proj", "attention.output"),
                ("mlp.fc1", "feedforward.0"), ("mlp.fc2", "feedforward.2"),
                ("gamma_1", "scale1.weight"), ("gamma_2", "scale2.weight"),
            )),
        )),
        ("backbone.0.encoder", "backbone"),
        *_ORIGINAL_DETECTOR,
    ),
)  # fmt: skip

_HUB_DETECTOR: Rows = (
    ("model.query_feat", "object_queries"),
    ("model.reference_point_embed", "reference_deltas"),
    ("class_embed", "class_head"),
    ("bbox_embed", "box_head"),
    *_within("model", "", _PROPOSALS),
    *_within("model.decoder.layers.*", "decoder.layers.*", (
        *_within("self_attn", "self_attention", (*_QUERY_KEY_VALUE, ("o_proj", "output"))),
        *_DEFORMABLE_ATTENTION,
        ("self_attn_layer_norm", "norm1"),
        ("cross_attn_layer_norm", "norm2"),
        ("layer_norm", "norm3"),
        ("mlp.fc1", "feedforward.0"), ("mlp.fc2", "feedforward.3"),
    )),
    ("model.decoder.ref_point_head", "decoder.position_head"),
    ("model.decoder.layernorm", "decoder.norm"),
)  # fmt: skip
"""Names of LW-DETR and RF-DETR outside of the ViT and the projector."""


def _hub_projector(published: str, ours: str) -> Rows:
    """Rows of a stage of the projector, without its resamplers."""
    return _within(published, ours, (
        *(
            (f"{theirs}.{kind}", f"{name}.{place}")
            for theirs, name in (
                ("projector_layer.conv1", "c2f.split"),
                ("projector_layer.conv2", "c2f.join"),
                ("projector_layer.bottlenecks.*.conv1", "c2f.bottlenecks.*.0"),
                ("projector_layer.bottlenecks.*.conv2", "c2f.bottlenecks.*.1"),
            )
            for place, kind in enumerate(("conv", "norm"))
        ),
        ("layer_norm", "norm"),
    ))  # fmt: skip


_HUB_VIT = "model.backbone.backbone.encoder.layer.*"
LWDETR_HUB = Layout(
    title="LW-DETR on the Hub",
    mark="model.reference_point_embed.weight",
    rows=(
        ("model.backbone.backbone.embeddings.position_embeddings", "backbone.embedding.positions.weight"),
        ("model.backbone.backbone.embeddings.projection", "backbone.embedding.patches"),
        *_within(_HUB_VIT, "backbone.blocks.*", (
            *_within("attention.attention", "attention", (("query", "query"), ("key", "key"), ("value", "value"))),
            ("attention.output", "attention.output"),
            ("intermediate.fc1", "feedforward.0"), ("intermediate.fc2", "feedforward.2"),
            ("layernorm_before", "norm1"), ("layernorm_after", "norm2"),
            ("gamma_1", "scale1.weight"), ("gamma_2", "scale2.weight"),
        )),
        *_within("model.backbone.projector.scale_layers.*", "projector.stages.*", (
            ("sampling_layers.*.layers.*.conv", "resamplers.*.*.0"),
            ("sampling_layers.*.layers.*.norm", "resamplers.*.*.1"),
            ("sampling_layers.*.layers", "resamplers.*"),
        )),
        *_hub_projector("model.backbone.projector.scale_layers.*", "projector.stages.*"),
        *_HUB_DETECTOR,
    ),
    aliases=_within(f"{_HUB_VIT}.attention", f"{_HUB_VIT}.attention", (
        ("q_proj", "attention.query"),
        ("k_proj", "attention.key"),
        ("v_proj", "attention.value"),
        ("o_proj", "output"),
    )),
)  # fmt: skip

_DINOV2 = (
    ("embeddings.cls_token", "embedding.class_token"),
    ("embeddings.mask_token", "embedding.mask_token"),
    ("embeddings.position_embeddings", "embedding.positions.weight"),
    ("embeddings.patch_embeddings.projection", "embedding.patches"),
    *_within("encoder.layer.*", "blocks.*", (
        ("mlp.fc1", "feedforward.0"), ("mlp.fc2", "feedforward.2"),
        ("layer_scale1.lambda1", "scale1.weight"), ("layer_scale2.lambda1", "scale2.weight"),
    )),
    ("encoder.layer", "blocks"),
    ("layernorm", "norm"),
)  # fmt: skip
"""Names of RF-DETR's backbone, without the attention."""
_DINOV2_ATTENTION = {
    "query": ("attention.attention.query", "attention.q_proj"),
    "key": ("attention.attention.key", "attention.k_proj"),
    "value": ("attention.attention.value", "attention.v_proj"),
    "output": ("attention.output.dense", "attention.o_proj"),
}
"""Our name → the authors' name, and transformers' since 2026."""

RFDETR_ORIGINAL = Layout(
    title="original RF-DETR",
    mark="backbone.0.encoder.encoder.embeddings.cls_token",
    rows=(
        *_within("backbone.0.encoder.encoder", "backbone", (
            *_within("encoder.layer.*", "blocks.*.attention", tuple(
                (theirs, ours) for ours, (theirs, _) in _DINOV2_ATTENTION.items()
            )),
            *_DINOV2,
        )),
        *_ORIGINAL_DETECTOR,
    ),
    ignored=("_kp_active_mask",),
)  # fmt: skip
"""Layout of the authors' files, and of those on the Hub."""

RFDETR_NATIVE = Layout(
    title="RF-DETR with transformers' own names",
    mark="model.backbone.backbone.embeddings.cls_token",
    rows=(
        *_within("model.backbone.backbone", "backbone", (
            *_within("encoder.layer.*", "blocks.*.attention", tuple(
                (theirs, ours) for ours, (_, theirs) in _DINOV2_ATTENTION.items()
            )),
            *_DINOV2,
        )),
        *_hub_projector("model.backbone.projector", "projector.stages.0"),
        *_HUB_DETECTOR,
    ),
    aliases=_within("model.backbone.backbone.encoder.layer.*", "model.backbone.backbone.encoder.layer.*",
        tuple(_DINOV2_ATTENTION.values())),
)  # fmt: skip
"""Layout of files that transformers saves with `save_original_format=False`."""
