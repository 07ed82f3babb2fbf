"""Model families that can be loaded: one table. Adding a family is adding a row, and a module for its config.json."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

from torch import Tensor

from ..errors import ModelError
from ..images.resize import (
    PILLOW_BILINEAR,
    BilinearSampling,
    Exactly,
    Padded,
    Resample,
    ResizeRule,
    ShortestEdge,
    Size,
    fixed_size,
)
from ..models.detr import Detr, DetrConfig
from ..models.lwdetr import LwDetr, LwDetrConfig
from ..models.rfdetr import RfDetr, RfDetrConfig
from ..models.table_transformer import TableTransformerConfig
from ..models.vit import PATCH, WINDOWS
from . import detr, lwdetr, rfdetr, table_transformer
from .class_names import Numbering
from .config import SettingError
from .dataset_classes import COCO, OBJECTS365, TABLE_STRUCTURE, TABLES
from .find import CONFIG, Checkpoint
from .layouts import (
    DETR_HUB,
    DETR_ORIGINAL,
    LWDETR_HUB,
    LWDETR_ORIGINAL,
    RFDETR_NATIVE,
    RFDETR_ORIGINAL,
    TABLE_TRANSFORMER_HUB,
    TABLE_TRANSFORMER_ORIGINAL,
    Layout,
)

Network: TypeAlias = Detr | LwDetr
Config = TypeVar("Config")


@dataclass(frozen=True)
class Family(Generic[Config]):
    """Models of one paper.

    Attributes:
        name: name for messages.
        config: class of the configurations.
        network: builds a network, with random weights, from a configuration.
        layouts: layouts of published files.
        read_config: derives the configuration from a checkpoint and its tensors (by our names).
        write_config: returns the contents of config.json, without the classes.
        hub_layout: returns the layout that a network is saved in.
        image_processor: what preprocessor_config.json says beside the preprocessing; the processor is one that
            antialiases, and is replaced for a model whose images are sampled.
        resize: returns the paper's resize rule.
        resample: how the pixels of a resized image are computed.
        stride: returns the number that both sides of the network's input must be multiples of.
        trained_size: returns the resize rule that the arguments of a training run say, or None.
        datasets: class names of the datasets that published models detect.
        arguments: training arguments of the authors' package, and the settings in config.json that they correspond to.
        numbering: returns how the authors' training numbers its classes, or None if every label has one.
        notes: lines on properties that no tensor tells.
        claims: tells from the names of a checkpoint's tensors, which include the mark of one of these layouts, whether
            it is of this family rather than a later one.
    """

    name: str
    config: type[Config]
    network: Callable[[Config], Network]
    layouts: tuple[Layout, ...]
    read_config: Callable[[Checkpoint, Mapping[str, Tensor]], Config]
    write_config: Callable[[Config], dict[str, Any]]
    hub_layout: Callable[[Config], Layout]
    image_processor: Mapping[str, Any]
    resize: Callable[[Config], ResizeRule]
    resample: Resample = PILLOW_BILINEAR
    stride: Callable[[Config], int] = lambda _: 1
    trained_size: Callable[[Checkpoint], ResizeRule | None] = lambda _: None
    datasets: tuple[tuple[str, ...], ...] = (COCO, OBJECTS365)
    arguments: Mapping[str, str] = field(default_factory=dict)
    numbering: Callable[[Checkpoint], Numbering | None] = lambda _: None
    notes: Callable[[Checkpoint], tuple[str, ...]] = lambda _: ()
    claims: Callable[[Checkpoint, Collection[str]], bool] = lambda *_: True

    def build(self, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> Network:
        """Build the network, with random weights, that fits a checkpoint's tensors (by our names).

        Raises:
            ModelError: config.json or the tensors do not describe a network of this family.
        """
        try:
            return self.network(self.read_config(checkpoint, tensors))
        except SettingError as error:
            raise ModelError(self._say(checkpoint, error)) from error
        except KeyError as error:
            raise ModelError(f"{checkpoint.weights} is an incomplete {self.name}: it lacks {error.args[0]}") from error
        except (ValueError, TypeError, IndexError, OverflowError, RuntimeError, ZeroDivisionError) as error:
            described = "" if checkpoint.config is None else f" and its {CONFIG}"
            raise ModelError(
                f"the tensors in {checkpoint.weights}{described} do not fit {self.name} ({error!s:.120})"
            ) from error

    def _say(self, checkpoint: Checkpoint, error: SettingError) -> str:
        """Say which setting of which file is wrong."""
        source, name = f"{checkpoint.weights.parent / CONFIG} says", error.name
        if checkpoint.config is None:
            source = f"the training arguments in {checkpoint.weights} say"
            name = next((argument for argument, setting in self.arguments.items() if setting == name), name)
        return f"{source} {name} = {error.value!r:.80}; {error.reason}"

    def rule_for(self, size: Size, config: Config, usual: ResizeRule | None = None) -> ResizeRule:
        """Return the resize rule for a size.

        Args:
            size: the size; for a model that pads its images, the size with padding.
            config: the network's configuration.
            usual: the model's own rule.

        Raises:
            ModelError: the network does not support it.
        """
        rule = (usual if isinstance(usual, Padded) else self.resize(config)).for_size(size)
        self.check(rule, config)
        return rule

    def check(self, rule: ResizeRule, config: Config) -> None:
        """Refuse a resize rule whose images the network does not support.

        Raises:
            ModelError: its sides are not multiples of the stride.
        """
        canvas, stride = fixed_size(rule), self.stride(config)
        if stride == 1 or (canvas is not None and not any(side % stride for side in canvas)):
            return
        near = ""
        if canvas is not None:
            width, height = (max(1, round(side / stride)) * stride for side in canvas)
            near = f"; {width} × {height} would do"
        raise ModelError(f"the sides of this model's images must be multiples of {stride}, not {rule}{near}")


DETR = Family(
    name="DETR",
    config=DetrConfig,
    network=Detr,
    layouts=(DETR_ORIGINAL, DETR_HUB),
    read_config=detr.read_config,
    write_config=detr.write_config,
    hub_layout=detr.hub_layout,
    image_processor={"image_processor_type": "DetrImageProcessor", "do_pad": True},
    resize=lambda _: ShortestEdge(800, 1333),
    notes=detr.notes,
)
LWDETR = Family(
    name="LW-DETR",
    config=LwDetrConfig,
    network=LwDetr,
    layouts=(LWDETR_ORIGINAL, LWDETR_HUB),
    read_config=lwdetr.read_config,
    write_config=lwdetr.write_config,
    hub_layout=lambda _: LWDETR_HUB,
    image_processor={"image_processor_type": "DeformableDetrImageProcessor", "do_pad": False},
    resize=lambda _: Exactly(640, 640),
    stride=lambda _: PATCH * WINDOWS,
)
RFDETR = Family(
    name="RF-DETR",
    config=RfDetrConfig,
    network=RfDetr,
    layouts=(RFDETR_ORIGINAL, RFDETR_NATIVE),
    read_config=rfdetr.read_config,
    write_config=rfdetr.write_config,
    hub_layout=lambda _: RFDETR_ORIGINAL,
    image_processor=LWDETR.image_processor,
    resize=rfdetr.resize,
    resample=BilinearSampling(),
    stride=rfdetr.stride,
    trained_size=rfdetr.trained_size,
    arguments=rfdetr.ARGUMENTS,
    numbering=rfdetr.numbering,
)
TABLE_TRANSFORMER = Family(
    name="Table Transformer",
    config=TableTransformerConfig,
    network=Detr,
    layouts=(TABLE_TRANSFORMER_ORIGINAL, TABLE_TRANSFORMER_HUB),
    read_config=table_transformer.read_config,
    write_config=table_transformer.write_config,
    hub_layout=detr.hub_layout,
    image_processor=DETR.image_processor,
    resize=table_transformer.resize,
    datasets=(TABLES, TABLE_STRUCTURE),
    notes=detr.notes,
    claims=table_transformer.claims,
)
FAMILIES: tuple[Family[Any], ...] = (TABLE_TRANSFORMER, DETR, RFDETR, LWDETR)
"""Order matters: a Table Transformer also has DETR's mark, and an RF-DETR LW-DETR's."""


def family_of(config: DetrConfig | LwDetrConfig) -> Family[Any]:
    """Return the family of a configuration."""
    return next(family for family in FAMILIES if type(config) is family.config)
