"""Known models: one table. Adding a model is adding a row."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Download:
    """A file that is not on the Hub.

    Attributes:
        url: where it is.
        md5: MD5 of its content, which tells whether a download is damaged.
    """

    url: str
    md5: str


@dataclass(frozen=True)
class KnownModel:
    """A published model.

    Attributes:
        name: its name on the command line and in `detrcli.load`.
        repo: its repository on the Hugging Face Hub, or None if it is bundled with this package or only at a URL.
        parameters: number of parameters in millions.
        gflops: multiply-adds for one image in billions, as published, or None if they are not.
        ap: average precision on COCO val2017 in percent, as published, or None if it is not.
        classes: dataset whose classes it detects.
        license: SPDX identifier of the license of the weights.
        download: its file, if it is only at a URL.
    """

    name: str
    repo: str | None
    parameters: float
    gflops: float | None
    ap: float | None
    classes: str
    license: str
    download: Download | None = None


def _table_transformer(task: str, repo: str) -> KnownModel:
    return KnownModel(f"table-transformer-{task}", f"microsoft/{repo}", 28.8, None, None, "PubTables-1M", "MIT")


def _rfdetr(size: str, parameters: float, ap: float | None) -> KnownModel:
    return KnownModel(f"rfdetr-{size}", f"Roboflow/rf-detr-{size}", parameters, None, ap, "COCO", "Apache-2.0")


def _lwdetr(size: str, parameters: float, gflops: float, ap: float) -> tuple[KnownModel, KnownModel]:
    coco, objects365 = f"AnnaZhang/lwdetr_{size}_60e_coco", f"AnnaZhang/lwdetr_{size}_30e_objects365"
    return (
        KnownModel(f"lwdetr-{size}", coco, parameters, gflops, ap, "COCO", "Apache-2.0"),
        KnownModel(f"lwdetr-{size}-objects365", objects365, parameters, gflops, None, "Objects365", "Apache-2.0"),
    )


KNOWN_MODELS = (
    *_lwdetr("tiny", 12.1, 11.2, 42.6),
    *_lwdetr("small", 14.6, 16.6, 48.0),
    *_lwdetr("medium", 28.2, 42.8, 52.5),
    *_lwdetr("large", 46.8, 71.6, 56.1),
    *_lwdetr("xlarge", 118.0, 174.2, 58.3),
    _rfdetr("nano", 30.5, 48.4),
    _rfdetr("small", 32.1, 53.0),
    _rfdetr("medium", 33.7, 54.7),
    _rfdetr("large", 33.9, 56.5),
    _rfdetr("base", 32.2, 53.3),
    _rfdetr("base-2", 32.2, None),
    replace(
        _rfdetr("large-2025", 135.6, None),
        repo=None,
        download=Download(
            "https://storage.googleapis.com/rfdetr/rf-detr-large.pth", md5="992c8e862aa733a7bb2777e45d49f1a0"
        ),
    ),
    KnownModel("detr-resnet-50", "facebook/detr-resnet-50", 41, 86, 42.0, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-50-dc5", "facebook/detr-resnet-50-dc5", 41, 187, 43.3, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-101", "facebook/detr-resnet-101", 60, 152, 43.5, "COCO", "Apache-2.0"),
    KnownModel("detr-resnet-101-dc5", "facebook/detr-resnet-101-dc5", 60, 253, 44.9, "COCO", "Apache-2.0"),
    _table_transformer("detection", "table-transformer-detection"),
    _table_transformer("structure", "table-transformer-structure-recognition"),
    _table_transformer("structure-v1.1", "table-transformer-structure-recognition-v1.1-all"),
    KnownModel("demo", None, 2.7, 0.8, None, "shapes", "Apache-2.0"),
)
DEFAULT_MODEL = "lwdetr-small"
DEMO_MODEL = "demo"
"""The bundled model, which works offline."""


def known_model(name: str) -> KnownModel | None:
    """Return the row of this name, or None."""
    return next((model for model in KNOWN_MODELS if model.name == name), None)
