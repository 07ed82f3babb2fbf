"""Types of models by their name in config.json, and unsupported ones by their tensors."""

import re
from collections.abc import Iterable

SUPPORTED = {"detr": "DETR", "table-transformer": "Table Transformer", "lw_detr": "LW-DETR", "rf_detr": "RF-DETR"}
"""`model_type` of supported models → name for messages."""
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
    "omdet-turbo": "OmDet-Turbo",
    "oneformer": "OneFormer",
    "owlv2": "OWLv2",
    "owlvit": "OWL-ViT",
    "pp_doclayout_v2": "PP-DocLayoutV2",
    "pp_doclayout_v3": "PP-DocLayoutV3",
    "rt_detr": "RT-DETR",
    "rt_detr_v2": "RT-DETRv2",
    "yolos": "YOLOS",
}
"""`model_type` of similar models → name for messages."""
*_FIRST, _LAST = SUPPORTED.values()
ONLY_SUPPORTED = f"only box detection with {', '.join(_FIRST)} and {_LAST} is supported"

_MARKS = (
    ("DETR for panoptic segmentation", r"(?:mask_head|bbox_attention)\."),
    ("RF-DETR for instance segmentation", r"(?:segmentation_head|spatial_features_proj)\."),
    ("RF-DETR for keypoints", r"keypoint_embed\."),
    ("RF-DETR with LoRA adapters, which must be merged first", r"base_model\.model\."),
    ("DAB-DETR", r"decoder\.ref_anchor_head\."),
    ("Conditional DETR", r"(?:ca_qcontent_proj|q_pos_proj)\."),
    ("Grounding DINO", r"encoder\.(?:fusion_layers\.\d+|layers\.\d+\.fusion_layer)\."),
    ("DINO", r"(?:transformer\.tgt_embed|label_enc)\.weight$"),
    ("Deformable DETR", r"encoder\.layers\.\d+\.self_attn\.sampling_offsets\."),
    ("D-FINE or DEIM", r"decoder\.(?:lqe_layers|pre_bbox_head)\."),
    ("RT-DETRv2", r"decoder\.layers\.\d+\.(?:encoder_attn\.n|cross_attn\.num)_points_scale$"),
    ("RT-DETR", r"(?:denoising_class_embed|decoder\.query_pos_head)\."),
    ("YOLOS", r"(?:det_token|detection_tokens)$"),
    ("MaskFormer or Mask2Former", r"(?:sem_seg_head|pixel_level_module)\."),
    ("a YOLO model", r"model\.\d+\.(?:conv|cv1)\."),
    ("a torchvision detector", r"(?:roi_heads|rpn)\."),
)
"""Name for messages, and a part of a tensor's name, from a dot on, that only such models have."""


def unsupported_model(tensors: Iterable[str]) -> str | None:
    """Return the name of the unsupported model that has tensors of these names, or None."""
    tensors = list(tensors)
    for title, mark in _MARKS:
        pattern = re.compile(rf"(?:^|\.){mark}")
        if any(pattern.search(name) for name in tensors):
            return title
    return None
