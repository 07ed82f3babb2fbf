"""Models that are not run here, told by name: people take them for what is."""

import re
from collections.abc import Iterable

UNSUPPORTED = {
    "conditional_detr": "Conditional DETR",
    "d_fine": "D-FINE",
    "dab-detr": "DAB-DETR",
    "deformable_detr": "Deformable DETR",
    "deimv2": "DEIMv2",
    "deta": "DETA",
    "grounding-dino": "Grounding DINO",
    "mask2former": "Mask2Former",
    "maskformer": "MaskFormer",
    "mm-grounding-dino": "MM Grounding DINO",
    "oneformer": "OneFormer",
    "owlv2": "OWLv2",
    "owlvit": "OWL-ViT",
    "rf_detr": "RF-DETR",
    "rt_detr": "RT-DETR",
    "rt_detr_v2": "RT-DETRv2",
    "table-transformer": "Table Transformer",
    "yolos": "YOLOS",
}
"""What config.json calls a model → what people call it."""

_MARKS = (
    ("DETR for panoptic segmentation", r"(?:mask_head|bbox_attention)\."),
    ("RF-DETR", r"layer_scale1\.lambda1$"),
    ("Conditional DETR or DAB-DETR", r"(?:ca_qcontent_proj|q_pos_proj|cross_attn_query_content_proj)\."),
    ("DINO", r"(?:transformer\.tgt_embed|label_enc)\.weight$"),
    ("Deformable DETR", r"encoder\.layers\.\d+\.self_attn\.sampling_offsets\."),
    ("D-FINE or DEIM", r"decoder\.(?:lqe_layers|pre_bbox_head)\."),
    ("RT-DETR", r"denoising_class_embed\."),
    ("YOLOS", r"(?:det_token|detection_tokens)$"),
    ("MaskFormer or Mask2Former", r"(?:sem_seg_head|pixel_level_module)\."),
    ("Table Transformer", r"(?:transformer\.encoder\.norm|model\.encoder\.layernorm)\."),
    ("a YOLO model", r"model\.\d+\.(?:conv|cv1)\."),
    ("a torchvision detector", r"(?:roi_heads|rpn)\."),
)
"""What people call a model → a part of a tensor's name, from a dot on, that only it has."""


def unsupported_model(names: Iterable[str]) -> str | None:
    """What people call the model whose tensors have these names, if it is one of those that are not run here."""
    names = list(names)
    for title, mark in _MARKS:
        pattern = re.compile(rf"(?:^|\.){mark}")
        if any(pattern.search(name) for name in names):
            return title
    return None
