"""Table Transformer: PubTables-1M (Smock et al. 2022, section 5), a DETR with ResNet-18 and pre-norm layers."""

from dataclasses import dataclass

from .detr import DetrConfig
from .resnet import BlockKind
from .transformer import NormPlacement


@dataclass(frozen=True)
class TableTransformerConfig(DetrConfig):
    """Sizes of a Table Transformer. The defaults are those of the one that detects tables."""

    num_queries: int = 15
    depths: tuple[int, ...] = (2, 2, 2, 2)
    block: BlockKind = "basic"
    norm: NormPlacement = "pre"


DETECTION = TableTransformerConfig(2)
"""Detects tables on a page."""
STRUCTURE = TableTransformerConfig(6, num_queries=125)
"""Detects rows, columns and cells of a table."""
