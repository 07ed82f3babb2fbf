"""Table Transformer's configuration, from and to a checkpoint."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from ..images.resize import ExactLongestEdge
from ..models.table_transformer import DETECTION, TableTransformerConfig
from . import detr
from .find import Checkpoint

BOTTLENECK = "backbone.0.body.layer1.0.conv3.weight"
"""A tensor that only ResNets of 50 layers and more have, in the original layout."""


def claims(checkpoint: Checkpoint, names: Collection[str]) -> bool:
    """Tell a Table Transformer from a DETR with pre-norm, which has the same tensors in the original layout.

    By config.json or, without it, by the basic blocks of the backbone: a DETR has bottlenecks.
    """
    return BOTTLENECK not in names or (checkpoint.config or {}).get("model_type") == "table-transformer"


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> TableTransformerConfig:
    """Derive the configuration of a Table Transformer; see `detr.read_config_of`."""
    return detr.read_config_of(TableTransformerConfig, "Table Transformer", checkpoint, tensors)


def write_config(config: TableTransformerConfig) -> dict[str, Any]:
    """Return the contents of config.json, without the classes; see `detr.write_config_of`."""
    return detr.write_config_of(config, "table-transformer", "TableTransformerForObjectDetection")


def resize(config: TableTransformerConfig) -> ExactLongestEdge:
    """Return the published resize rule: for detection, or for the structure of a table, which takes more queries."""
    return ExactLongestEdge(800, 800 if config.num_queries <= DETECTION.num_queries else 1000)
