"""Output formats are read back, by well-known readers where a package has one."""

import contextlib
import csv
import io
import json
import os
import pkgutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from supervision import DetectionDataset
from torchvision.datasets import VOCDetection

import detrcli.outputs.formats
from detrcli.datasets import read_dataset
from detrcli.outputs.formats import FORMATS, PER_IMAGE, PER_RUN, image_format, run_format
from detrcli.outputs.record import Detection, ImageResult, OutputSettings

Boxes = Sequence[tuple[str, Sequence[float]]]
"""Class names and boxes that were read back."""
MODEL = "facebook/detr-resnet-50"
NAMES = (
    "N/A",
    'a, "b"',
    "two\nlines",
    "<cr>\r\nlf",
    "日本 🦊",
    "plain",
    "N/A",
    "=1+1",
    "bell\a",
    "line\u2028separator",
)
PATHS = ("plain.jpg", "sub dir/ünï 🦊.png", 'quo"te, comma.jpg', "line\nbreak.jpg", os.fsdecode(b"raw\xff\xe9.jpg"))
USED = [label for label, name in enumerate(NAMES) if name != "N/A"]
WIDTH, HEIGHT = 640, 480


def image(path: str, labels: Sequence[int] = USED) -> ImageResult:
    rng = np.random.default_rng(len(path))
    found: list[Detection] = []
    for label in labels:
        x1, y1 = rng.uniform(0, 300, 2).round(4).tolist()
        width, height = rng.uniform(20, 150, 2).tolist()
        score = round(1 - 0.01 * len(found), 6)
        found.append(Detection(label, NAMES[label], score, (x1, y1, round(x1 + width, 4), round(y1 + height, 4))))
    return ImageResult(f"my images/{path}", path, WIDTH, HEIGHT, MODEL, tuple(found))


IMAGES = [image(path, () if index == 1 else USED) for index, path in enumerate(PATHS)]
PLAIN = [image("b.png"), image("a.png", USED[:2]), image("c.png", ())]
"""Images whose names any dataset on disk can have."""


def rendered(name: str, one: ImageResult, names: tuple[str, ...] = NAMES) -> bytes:
    return image_format(name).render(one, OutputSettings(names))


def written_bytes(
    name: str, images: Iterable[ImageResult], names: tuple[str, ...] = NAMES, settings: OutputSettings | None = None
) -> bytes:
    (_, write), *_ = run_format(name).FILES.items()
    file = io.BytesIO()
    write(file, images, settings or OutputSettings(names))
    return file.getvalue()


def written(folder: Path, name: str, images: Iterable[ImageResult]) -> Path:
    path = folder / next(iter(run_format(name).FILES))
    path.write_bytes(written_bytes(name, images))
    return path


def test_table_lists_exactly_the_modules() -> None:
    modules = {module.name for module in pkgutil.iter_modules(detrcli.outputs.formats.__path__)}
    assert {name.replace("-", "_") for name in FORMATS} == modules
    assert set(FORMATS) == PER_IMAGE | PER_RUN
    assert all(FORMATS[name].per_image for name in FORMATS if FORMATS[name].by_stem)
    for name in PER_IMAGE:
        assert image_format(name).render(IMAGES[0], OutputSettings(NAMES))
    files = [file for name in PER_RUN for file in run_format(name).FILES]
    assert len(set(files)) == len(files)


@pytest.mark.parametrize("name", sorted(PER_IMAGE))
def test_each_image_has_its_own_file(name: str) -> None:
    assert len({image_format(name).path_for(PurePosixPath(path)) for path in PATHS}) == len(PATHS)
    shared = len({image_format(name).path_for(PurePosixPath(path)) for path in ("d/a.jpg", "d/a.png")}) == 1
    assert shared == FORMATS[name].by_stem


class Transient:
    """Results created on demand, which must not be kept."""

    def __iter__(self) -> Iterator[ImageResult]:
        alive: weakref.WeakSet[ImageResult] = weakref.WeakSet()
        for index in range(20):
            one = image(f"{index}.jpg")
            alive.add(one)
            yield one
            assert len(alive) <= 2


@pytest.mark.parametrize("name", sorted(PER_RUN))
def test_results_are_not_kept_in_memory(name: str) -> None:
    assert (b"19.jpg" in written_bytes(name, Transient())) == (name not in ("yolo", "coco-results"))


ENTRIES: dict[str, Callable[[bytes], Sequence[Any]]] = {
    "coco": lambda file: json.loads(file)["images"],
    "coco-results": json.loads,
    "csv": lambda file: list(csv.DictReader(io.StringIO(file.decode()))),
    "cvat": lambda file: ElementTree.fromstring(file).findall("image"),
    "jsonl": bytes.splitlines,
    "label-studio": json.loads,
}
"""Reads what a file has for each image or detection."""


@pytest.mark.parametrize("name", sorted(PER_RUN - {"yolo"}))
def test_no_images(name: str) -> None:
    with_images, without = (ENTRIES[name](written_bytes(name, images)) for images in (PLAIN, []))
    assert len(with_images) == (len(USED) + 2 if name in ("csv", "coco-results") else len(PLAIN))
    assert len(without) == 0


def test_json_is_the_record() -> None:
    for one in IMAGES:
        assert json.loads(rendered("json", one)) == one.as_record()


def test_jsonl_has_a_line_per_image() -> None:
    lines = written_bytes("jsonl", IMAGES).splitlines()
    assert [json.loads(line) for line in lines] == [one.as_record() for one in IMAGES]
    assert os.fsencode(json.loads(lines[-1])["path"]) == b"my images/raw\xff\xe9.jpg"


def test_csv_has_a_row_per_detection() -> None:
    raw = written_bytes("csv", IMAGES)
    reader = csv.DictReader(io.StringIO(raw.decode("utf-8", "surrogateescape"), newline=""))
    rows = list(reader)
    assert reader.fieldnames == "path width height label_id label score x1 y1 x2 y2".split()
    expected = [(one, found) for one in IMAGES for found in one.detections]
    assert len(rows) == len(expected) == (len(PATHS) - 1) * len(USED)
    for row, (one, found) in zip(rows, expected, strict=True):
        assert (row["path"], int(row["width"]), int(row["height"])) == (one.path, WIDTH, HEIGHT)
        assert (int(row["label_id"]), float(row["score"])) == (found.label_id, found.score)
        assert row["label"].removeprefix("'") == found.label
        assert tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2")) == found.box
    assert b"raw\xff\xe9.jpg" in raw
    assert "ünï 🦊.png" in written_bytes("csv", [image("sub dir/ünï 🦊.png")]).decode()


def test_pycocotools_finds_coco_results_perfect(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(written(tmp_path, "coco", IMAGES))
        evaluation = COCOeval(truth, truth.loadRes(str(written(tmp_path, "coco-results", IMAGES))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)
    assert [truth.imgs[identity]["file_name"] for identity in sorted(truth.imgs)] == list(PATHS)
    assert {label: one["name"] for label, one in truth.cats.items()} == {label: NAMES[label] for label in USED}
    found = [one for each in IMAGES for one in each.detections]
    for path in (tmp_path / "coco.json", tmp_path / "coco-results.json"):
        read = json.loads(path.read_text())
        boxes = read["annotations"] if path.name == "coco.json" else read
        assert [one["score"] for one in boxes] == [one.score for one in found]
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one.box for one in found)]
    assert [truth.anns[identity]["area"] for identity in sorted(truth.anns)] == pytest.approx(areas, abs=0.1)


def test_coco_ids_start_at_1(tmp_path: Path) -> None:
    names = ("cat", "N/A", "dog")
    one = ImageResult(
        "a.jpg", "a.jpg", 9, 9, MODEL, (Detection(0, "cat", 0.9, (0, 0, 5, 5)), Detection(2, "dog", 0.8, (1, 1, 5, 5)))
    )
    written = json.loads(written_bytes("coco", [one], names))
    assert [(each["id"], each["name"]) for each in written["categories"]] == [(1, "cat"), (3, "dog")]
    for annotations in (written["annotations"], json.loads(written_bytes("coco-results", [one], names))):
        assert [each["category_id"] for each in annotations] == [1, 3]
    published = json.loads(written_bytes("coco", [one], ("N/A", "person", "dog")))
    assert [(each["id"], each["name"]) for each in published["categories"]] == [(1, "person"), (2, "dog")]


def test_pycocotools_draws_coco_annotations(tmp_path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(written(tmp_path, "coco", IMAGES))
    annotations = truth.loadAnns(truth.getAnnIds())
    figure, axes = pyplot.subplots()
    truth.showAnns(annotations, draw_bbox=True)
    boxes = [path for collection in axes.collections for path in collection.get_paths()]
    pyplot.close(figure)
    assert len(boxes) >= len(annotations) == (len(PATHS) - 1) * len(USED)
    assert {tuple(one) for one in truth.dataset["categories"]} == {("id", "name", "supercategory")}


def test_coco_uses_the_ids_of_the_settings() -> None:
    found = tuple(Detection(label, str(label), 0.5, (0, 0, 1, 1)) for label in range(3))
    images = [ImageResult(path, path, 1, 1, MODEL, found, image_id) for path, image_id in (("a", 0), ("b", "b7"))]
    settings = OutputSettings(("0", "1", "2"), category_ids=(90, None, 0))
    coco = json.loads(written_bytes("coco", images, settings=settings))
    assert [(one["id"], one["name"]) for one in coco["categories"]] == [(90, "0"), (0, "2")]
    assert [one["id"] for one in coco["images"]] == [0, "b7"]
    for read in (coco["annotations"], json.loads(written_bytes("coco-results", images, settings=settings))):
        assert [(one["image_id"], one["category_id"]) for one in read] == [(0, 90), (0, 0), ("b7", 90), ("b7", 0)]


CELLS = st.text(st.sampled_from("=+-@＝\t\r\n'\"a,;0 \x00\x07"), max_size=4)


@settings(deadline=None)
@given(CELLS, CELLS)
def test_csv_text_is_never_a_formula(path: str, label: str) -> None:
    one = ImageResult(path, "a.jpg", 9, 9, MODEL, (Detection(0, label, 0.5, (-0.0, 0, 1, 1)),))
    (row,) = csv.DictReader(io.StringIO(written_bytes("csv", [one]).decode(), newline=""))
    assert (row["path"].removeprefix("'"), row["label"].removeprefix("'")) == (path, label)
    for cell in (row["path"], row["label"]):
        assert cell[:1] not in set("=+-@＝\t\r\n\x00\x07")
    assert (row["score"], row["label_id"], row["x2"]) == ("0.5", "0", "1")


def save_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for one in PLAIN:
        Image.new("RGB", (one.width, one.height)).save(folder / one.relative)


def check_dataset(path: Path, tolerance: float) -> None:
    data = read_dataset(path, "train")
    truth = {one.relative: one for one in PLAIN}
    assert {example.path.name for example in data.examples} == set(truth)
    for example in data.examples:
        found = truth[example.path.name].detections
        assert [data.classes[label] for label in example.labels] == [one.label for one in found]
        np.testing.assert_allclose(example.boxes, np.array([one.box for one in found]).reshape(-1, 4), atol=tolerance)


def test_coco_is_a_training_dataset(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    check_dataset(written(tmp_path / "images", "coco", PLAIN), 1e-3)


def test_yolo_is_a_training_dataset(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    for one in PLAIN:
        file = tmp_path / image_format("yolo").path_for(PurePosixPath(one.relative))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(rendered("yolo", one))
    path = written(tmp_path, "yolo", PLAIN)
    assert list(yaml.safe_load(path.read_text())["names"].values()) == [NAMES[label] for label in USED]
    check_dataset(tmp_path, 1e-3)
    assert len(read_dataset(tmp_path, "val").examples) == len(PLAIN)


def test_unused_labels_are_not_listed() -> None:
    assert [line.split()[0] for line in rendered("yolo", image("a.jpg", [1, 2])).splitlines()] == [b"0", b"1"]
    for listed in (
        yaml.safe_load(written_bytes("yolo", []))["names"].values(),
        [one["name"] for one in json.loads(written_bytes("coco", []))["categories"]],
        [name.text or "" for name in ElementTree.fromstring(written_bytes("cvat", [])).iter("name")],
        [label.attrib["value"] for label in _label_studio_config(NAMES).iter("Label")],
    ):
        assert [escaped(name) for name in listed] == [escaped(NAMES[label]) for label in USED]


def escaped(text: str) -> str:
    """Text as the XML formats write it."""
    return text.replace("\a", r"\x07").replace("\r", r"\r").replace("\udcff\udce9", r"\udcff\udce9")


@pytest.mark.parametrize("one", IMAGES)
def test_torchvision_reads_voc(one: ImageResult) -> None:
    tree = ElementTree.fromstring(rendered("voc", one))
    if len(one.detections) > 1:
        read = VOCDetection.parse_voc_xml(tree)["annotation"]
        assert (int(read["size"]["width"]), int(read["size"]["height"])) == (WIDTH, HEIGHT)
        for found, expected in zip(read["object"], one.detections, strict=True):
            assert found["name"] == escaped(expected.label).strip()
            corners = [int(found["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
            np.testing.assert_allclose(np.subtract(corners, (1, 1, 0, 0)), expected.box, atol=0.5)
    assert tree.findtext("filename") == escaped(PurePosixPath(one.relative).name)
    assert tree.findtext("folder") == PurePosixPath(one.relative).parent.name
    assert tree.findtext("path") == escaped(one.path)
    assert {each.findtext("difficult") for each in tree.iter("object")} <= {"0"}  # evaluations ignore difficult objects
    assert len(tree.findall("object")) == len(one.detections)


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((0.0, 0.4, 640.0, 480.0), [1, 1, 640, 480]),
        ((0.0, 0.0, 1.0, 1.0), [1, 1, 1, 1]),
        ((10.0, 20.0, 30.0, 40.0), [11, 21, 30, 40]),
        ((10.2, 20.6, 10.4, 20.6), [11, 21, 11, 21]),
        ((639.9, 479.9, 640.0, 480.0), [640, 480, 640, 480]),
    ],
)
def test_voc_corners_are_1_based_and_inclusive(box: tuple[float, float, float, float], corners: list[int]) -> None:
    one = ImageResult("a.jpg", "a.jpg", WIDTH, HEIGHT, MODEL, (Detection(1, NAMES[1], 0.9, box),))
    sides = ElementTree.fromstring(rendered("voc", one)).iterfind("object/bndbox/*")
    assert [int(side.text or "") for side in sides] == corners


def test_supervision_reads_voc(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    for one in PLAIN:
        file = tmp_path / "annotations" / image_format("voc").path_for(PurePosixPath(one.relative))
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(rendered("voc", one))
    data = DetectionDataset.from_pascal_voc(str(tmp_path / "images"), str(tmp_path / "annotations"))
    truth = {one.relative: one for one in PLAIN}
    assert len(data) == len(PLAIN)
    for path, _, found in data:
        expected = truth[Path(path).name].detections
        assert [data.classes[label].strip() for label in found.class_id] == [escaped(one.label) for one in expected]
        np.testing.assert_allclose(found.xyxy, np.array([one.box for one in expected]).reshape(-1, 4), atol=0.5)


def test_labelme() -> None:
    for one in IMAGES:
        record = json.loads(rendered("labelme", one))
        assert (record["imageWidth"], record["imageHeight"], record["imageData"]) == (WIDTH, HEIGHT, None)
        assert record["imagePath"] == os.path.relpath(one.path, PurePosixPath(one.relative).parent)
        for shape, found in zip(record["shapes"], one.detections, strict=True):
            assert (shape["label"], shape["shape_type"]) == (found.label, "rectangle")
            assert float(shape["description"]) == found.score
            assert (*shape["points"][0], *shape["points"][1]) == found.box
    url = ImageResult("https://host/a.jpg", "host/a.jpg", 1, 1, MODEL, ())
    assert json.loads(rendered("labelme", url))["imagePath"] == "https://host/a.jpg"


def test_labelme_image_path_leads_to_the_image(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep" / "d").mkdir(parents=True)
    (tmp_path / "photos" / "d").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "deep")  # its .. is not tmp_path
    (tmp_path / "real.jpg").touch()
    image = tmp_path / "photos" / "d" / "a.jpg"
    image.symlink_to(tmp_path / "real.jpg")
    for output in (tmp_path / "out", tmp_path / "photos"):
        one = ImageResult(str(image), "d/a.jpg", 1, 1, MODEL, ())
        record = json.loads(image_format("labelme").render(one, OutputSettings(NAMES, output)))
        path = output / "d" / record["imagePath"]
        assert not os.path.isabs(record["imagePath"])
        assert (path.name, path.exists()) == ("a.jpg", True)
        assert path.samefile(image)
    assert record["imagePath"] == "a.jpg"


def _label_studio_config(names: tuple[str, ...]) -> ElementTree.Element:
    file = io.BytesIO()
    run_format("label-studio").FILES["label-studio.xml"](file, [], OutputSettings(names))
    return ElementTree.fromstring(file.getvalue())


def test_label_studio_config_has_the_labels_and_tags_of_the_tasks() -> None:
    names = ("N/A", 'a < b & "c"', "it's", "a", "a", "bell\a", "日本 🦊")
    view = _label_studio_config(names)
    one = ImageResult(
        "a.jpg", "a.jpg", 9, 9, MODEL, tuple(Detection(i, n, 0.5, (0, 0, 1, 1)) for i, n in enumerate(names))
    )
    (task,) = json.loads(written_bytes("label-studio", [one], names))
    regions = task["predictions"][0]["result"][1:]
    image, labels = view.find("Image"), view.find("RectangleLabels")
    assert image is not None
    assert labels is not None
    assert {region["from_name"] for region in regions} == {labels.get("name")}
    assert {region["to_name"] for region in regions} == {labels.get("toName")} == {image.get("name")}
    assert image.get("value") == "$image"
    assert list(task["data"]) == ["image"]
    values = [label.get("value") for label in labels]
    assert values == list(dict.fromkeys(region["value"]["rectanglelabels"][0] for region in regions))
    assert values[:2] == list(names[1:3])


@pytest.mark.parametrize(
    ("root", "url"),
    [
        ("/data/local-files/?d=", "/data/local-files/?d="),
        ("/data/local-files/?d=set", "/data/local-files/?d=set/"),
        ("https://host/photos", "https://host/photos/"),
        ("https://host/photos/", "https://host/photos/"),
    ],
)
def test_label_studio_image_root(root: str, url: str) -> None:
    paths = ["a b/100% #1?+&=.jpg", "ünï.png", os.fsdecode(b"raw\xff.jpg")]
    images = [ImageResult(f"/photos/{path}", path, 1, 1, MODEL, ()) for path in paths]
    images.append(ImageResult("https://host/a b.jpg", "host/a b.jpg", 1, 1, MODEL, ()))
    tasks = json.loads(written_bytes("label-studio", images, settings=OutputSettings(NAMES, image_root=root)))
    *written, remote = [task["data"]["image"] for task in tasks]
    assert written[0] == f"{url}a%20b/100%25%20%231%3F%2B%26%3D.jpg"
    assert [unquote_to_bytes(one.removeprefix(url)) for one in written] == [os.fsencode(path) for path in paths]
    assert remote == "https://host/a b.jpg"
    if "?d=" in root:
        assert parse_qs(urlsplit(written[1]).query)["d"] == [url.partition("?d=")[2] + paths[1]]


def test_label_studio() -> None:
    tasks = json.loads(written_bytes("label-studio", IMAGES))
    for task, one in zip(tasks, IMAGES, strict=True):
        assert task["data"] == {"image": one.path}
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == MODEL
        assert prediction["score"] == min((found.score for found in one.detections), default=0)
        assert len({region["id"] for region in prediction["result"]}) == len(one.detections)
        for region, found in zip(prediction["result"], one.detections, strict=True):
            value = region["value"]
            assert (region["type"], value["rectanglelabels"]) == ("rectanglelabels", [escaped(found.label)])
            assert (region["from_name"], region["to_name"], region["score"]) == ("label", "image", found.score)
            left, top = value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100
            right, bottom = left + value["width"] * WIDTH / 100, top + value["height"] * HEIGHT / 100
            np.testing.assert_allclose((left, top, right, bottom), found.box, atol=1e-4)


def test_cvat() -> None:
    root = ElementTree.fromstring(written_bytes("cvat", IMAGES))
    assert root.findtext("version") == "1.1"
    assert {label.findtext("type") for label in root.iter("label")} == {"rectangle"}
    assert [label.findtext("name") for label in root.iter("label")] == [escaped(NAMES[label]) for label in USED]
    for number, (image, one) in enumerate(zip(root.iter("image"), IMAGES, strict=True)):
        assert image.attrib == {
            "id": str(number),
            "name": escaped(one.relative),
            "width": str(WIDTH),
            "height": str(HEIGHT),
        }
        for box, found in zip(image.iter("box"), one.detections, strict=True):
            assert box.get("label") == escaped(found.label)
            assert tuple(float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")) == found.box
            assert (box.get("source"), box.get("occluded")) == ("auto", "0")


SIDES = ("xmin", "ymin", "xmax", "ymax")


def _coco(boxes: Iterable[dict[str, Any]], names: tuple[str, ...]) -> Boxes:
    titles = {one["id"]: one["name"] for one in json.loads(written_bytes("coco", [], names))["categories"]}
    return [
        (titles[one["category_id"]], (x, y, x + width, y + height))
        for one in boxes
        for x, y, width, height in [one["bbox"]]
    ]


def _records(detections: Iterable[dict[str, Any]]) -> Boxes:
    return [(one["label"], one["box"]) for one in detections]


def _csv(raw: bytes) -> Boxes:
    rows = csv.DictReader(io.StringIO(raw.decode(), newline=""))
    return [(row["label"].removeprefix("'"), [float(row[side]) for side in ("x1", "y1", "x2", "y2")]) for row in rows]


def _yolo(one: ImageResult, names: tuple[str, ...]) -> Boxes:
    classes = yaml.safe_load(written_bytes("yolo", [one], names))["names"]
    read = []
    for line in rendered("yolo", one, names).decode().splitlines():
        number, *values = line.split()
        x, y, width, height = (float(value) for value in values)
        box = np.array((x - width / 2, y - height / 2, x + width / 2, y + height / 2)) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
        read.append((classes[int(number)], box.tolist()))
    return read


def _voc(raw: bytes) -> Boxes:
    return [
        (
            one.findtext("name") or "",
            [float(one.findtext(f"bndbox/{side}") or "") - (side in SIDES[:2]) for side in SIDES],
        )
        for one in ElementTree.fromstring(raw).iter("object")
    ]


def _labelme(raw: bytes) -> Boxes:
    return [(shape["label"], [*shape["points"][0], *shape["points"][1]]) for shape in json.loads(raw)["shapes"]]


def _label_studio(raw: bytes) -> Boxes:
    read = []
    for region in json.loads(raw)[0]["predictions"][0]["result"]:
        value, width, height = region["value"], region["original_width"] / 100, region["original_height"] / 100
        left, top = value["x"] * width, value["y"] * height
        read.append(
            (value["rectanglelabels"][0], (left, top, left + value["width"] * width, top + value["height"] * height))
        )
    return read


def _cvat(raw: bytes) -> Boxes:
    boxes = ElementTree.fromstring(raw).iter("box")
    return [(box.attrib["label"], [float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")]) for box in boxes]


READERS: dict[str, tuple[float, Callable[[ImageResult, tuple[str, ...]], Boxes]]] = {
    "json": (0, lambda one, names: _records(json.loads(rendered("json", one, names))["detections"])),
    "jsonl": (0, lambda one, names: _records(json.loads(written_bytes("jsonl", [one], names))["detections"])),
    "csv": (0, lambda one, names: _csv(written_bytes("csv", [one], names))),
    "coco": (1e-6, lambda one, names: _coco(json.loads(written_bytes("coco", [one], names))["annotations"], names)),
    "coco-results": (1e-6, lambda one, names: _coco(json.loads(written_bytes("coco-results", [one], names)), names)),
    "yolo": (5e-4, _yolo),
    "voc": (1, lambda one, names: _voc(rendered("voc", one, names))),
    "labelme": (0, lambda one, names: _labelme(rendered("labelme", one, names))),
    "label-studio": (2e-5, lambda one, names: _label_studio(written_bytes("label-studio", [one], names))),
    "cvat": (0, lambda one, names: _cvat(written_bytes("cvat", [one], names))),
}
"""Tolerance of the box sides in pixels, and a reader, for each format."""
XS, YS = (st.integers(0, size * 10_000).map(lambda value: value / 10_000) for size in (WIDTH, HEIGHT))
BOXES = st.tuples(XS, YS, XS, YS).map(lambda box: (min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])))
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\n\t")
)
"""Text that every format can represent unchanged."""


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4, unique=True), st.data())
def test_names_and_boxes_survive(names: list[str], data: st.DataObject) -> None:
    classes = (*(["N/A"] * data.draw(st.integers(0, 1))), *(name for name in names if name != "N/A"), "plain")
    labels = st.sampled_from([label for label, name in enumerate(classes) if name != "N/A"])
    scores = st.integers(0, 10**6).map(lambda value: value / 10**6)
    found = st.builds(lambda label, score, box: Detection(label, classes[label], score, box), labels, scores, BOXES)
    one = ImageResult("a.jpg", "a.jpg", WIDTH, HEIGHT, MODEL, tuple(data.draw(st.lists(found, max_size=4))))
    assert set(READERS) == set(FORMATS)
    for name, (tolerance, read) in READERS.items():
        again = read(one, classes)
        assert [label for label, _ in again] == [each.label for each in one.detections], name
        boxes = np.array([each.box for each in one.detections]).reshape(-1, 4)
        np.testing.assert_allclose(
            np.array([box for _, box in again]).reshape(-1, 4), boxes, 0, tolerance, err_msg=name
        )
