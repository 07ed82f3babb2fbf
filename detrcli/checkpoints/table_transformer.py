"""Table Transformer's configuration, from and to a checkpoint."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..images.resize import ExactLongestEdge
from ..models.table_transformer import DETECTION, TableTransformerConfig
from . import detr
from .find import Checkpoint


def read_config(checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> TableTransformerConfig:
    """Derive the configuration of a Table Transformer; see `detr.read_config_of`."""
    return detr.read_config_of(TableTransformerConfig, "Table Transformer", checkpoint, tensors)


def write_config(config: TableTransformerConfig) -> dict[str, Any]:
    """Return the contents of config.json, without the classes; see `detr.write_config`."""
    return detr.write_config(config) | {
        "model_type": "table-transformer",
        "architectures": ["TableTransformerForObjectDetection"],
    }


def resize(config: TableTransformerConfig) -> ExactLongestEdge:
    """Return the published resize rule: for detection, or for the structure of a table, which takes more queries."""
    return ExactLongestEdge(800, 800 if config.num_queries <= DETECTION.num_queries else 1000)
