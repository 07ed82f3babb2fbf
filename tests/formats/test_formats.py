"""What each output format writes is read again by its own well-known reader, where a package has one."""

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
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchvision.datasets import VOCDetection

import detrcli.formats
from detrcli.datasets import read_dataset
from detrcli.formats import BY_STEM, FOR_ALL, FOR_EACH, FORMATS, picture_format, run_format
from detrcli.labelled import Found, Labelled

Read = Sequence[tuple[str, Sequence[float]]]
"""Names and boxes that a format gave back."""
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


def picture(path: str, labels: Sequence[int] = USED) -> Labelled:
    rng = np.random.default_rng(len(path))
    found: list[Found] = []
    for label in labels:
        x1, y1 = rng.uniform(0, 300, 2).round(4).tolist()
        width, height = rng.uniform(20, 150, 2).tolist()
        score = round(1 - 0.01 * len(found), 6)
        found.append(Found(label, NAMES[label], score, (x1, y1, round(x1 + width, 4), round(y1 + height, 4))))
    return Labelled(f"pictures of mine/{path}", path, WIDTH, HEIGHT, MODEL, tuple(found))


PICTURES = [picture(path, () if index == 1 else USED) for index, path in enumerate(PATHS)]
PLAIN = [picture("b.png"), picture("a.png", USED[:2]), picture("c.png", ())]
"""Pictures that a data set on a disk can have."""


def content(name: str, one: Labelled, names: tuple[str, ...] = NAMES) -> bytes:
    return picture_format(name).content(one, names)


def whole(name: str, pictures: Iterable[Labelled], names: tuple[str, ...] = NAMES) -> bytes:
    file = io.BytesIO()
    run_format(name).write(file, pictures, names)
    return file.getvalue()


def written(folder: Path, name: str, pictures: Iterable[Labelled]) -> Path:
    path = folder / run_format(name).NAME
    path.write_bytes(whole(name, pictures))
    return path


def test_the_table_lists_exactly_the_formats_that_there_are() -> None:
    modules = {module.name for module in pkgutil.iter_modules(detrcli.formats.__path__)}
    assert {name.replace("-", "_") for name in FORMATS} == modules
    assert set(FORMATS) == FOR_EACH | FOR_ALL
    assert BY_STEM <= FOR_EACH
    for name in FOR_EACH:
        assert picture_format(name).content(PICTURES[0], NAMES)
    places = [run_format(name).NAME for name in FOR_ALL]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", sorted(FOR_EACH))
def test_each_picture_has_a_place_of_its_own_kind(name: str) -> None:
    places = {str(picture_format(name).place(PurePosixPath(path))) for path in PATHS}
    assert len(places) == len(PATHS)
    shared = len({picture_format(name).place(PurePosixPath(path)) for path in ("d/a.jpg", "d/a.png")}) == 1
    assert shared == (name in BY_STEM)


class Fleeting:
    """Pictures that are made as they are asked for, and should be forgotten as soon."""

    def __iter__(self) -> Iterator[Labelled]:
        alive: weakref.WeakSet[Labelled] = weakref.WeakSet()
        for index in range(20):
            one = picture(f"{index}.jpg")
            alive.add(one)
            yield one
            assert len(alive) <= 2


@pytest.mark.parametrize("name", sorted(FOR_ALL))
def test_pictures_are_not_kept_in_memory(name: str) -> None:
    assert (b"19.jpg" in whole(name, Fleeting())) == (name not in ("yolo", "coco-results"))


@pytest.mark.parametrize("name", sorted(FOR_ALL - {"yolo"}))
def test_no_picture_is_no_error(name: str) -> None:
    assert "a.jpg" not in whole(name, []).decode()


def test_json_is_the_record() -> None:
    for one in PICTURES:
        assert json.loads(content("json", one)) == one.as_record()


def test_jsonl_is_a_line_for_each_picture() -> None:
    lines = whole("jsonl", PICTURES).splitlines()
    assert [json.loads(line) for line in lines] == [one.as_record() for one in PICTURES]
    assert os.fsencode(json.loads(lines[-1])["path"]) == b"pictures of mine/raw\xff\xe9.jpg"


def test_csv_is_a_row_for_each_detection() -> None:
    raw = whole("csv", PICTURES)
    reader = csv.DictReader(io.StringIO(raw.decode("utf-8", "surrogateescape"), newline=""))
    rows = list(reader)
    assert reader.fieldnames == "path width height label_id label score x1 y1 x2 y2".split()
    expected = [(one, found) for one in PICTURES for found in one.found]
    assert len(rows) == len(expected) == (len(PATHS) - 1) * len(USED)
    for row, (one, found) in zip(rows, expected, strict=True):
        assert (row["path"], int(row["width"]), int(row["height"])) == (one.path, WIDTH, HEIGHT)
        assert (int(row["label_id"]), row["label"], float(row["score"])) == (found.label_id, found.label, found.score)
        assert tuple(float(row[side]) for side in ("x1", "y1", "x2", "y2")) == found.box
    assert b"raw\xff\xe9.jpg" in raw
    assert "ünï 🦊.png" in whole("csv", [picture("sub dir/ünï 🦊.png")]).decode()


def test_coco_is_judged_perfect_by_coco_itself(tmp_path: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(written(tmp_path, "coco", PICTURES))
        judge = COCOeval(truth, truth.loadRes(str(written(tmp_path, "coco-results", PICTURES))), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1)
    assert [truth.imgs[identity]["file_name"] for identity in sorted(truth.imgs)] == list(PATHS)
    assert {label: one["name"] for label, one in truth.cats.items()} == {label: NAMES[label] for label in USED}
    found = [one for each in PICTURES for one in each.found]
    for path in (tmp_path / "coco.json", tmp_path / "coco-results.json"):
        read = json.loads(path.read_text())
        boxes = read["annotations"] if path.name == "coco.json" else read
        assert [one["score"] for one in boxes] == [one.score for one in found]
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (one.box for one in found)]
    assert [truth.anns[identity]["area"] for identity in sorted(truth.anns)] == pytest.approx(areas, abs=0.1)


def sources(folder: Path) -> None:
    folder.mkdir(parents=True)
    for one in PLAIN:
        Image.new("RGB", (one.width, one.height)).save(folder / one.relative)


def check_dataset(path: Path, within: float) -> None:
    data = read_dataset(path, "train")
    truth = {one.relative: one for one in PLAIN}
    assert {example.path.name for example in data.examples} == set(truth)
    for example in data.examples:
        found = truth[example.path.name].found
        assert [data.classes[label] for label in example.labels] == [one.label for one in found]
        np.testing.assert_allclose(example.boxes, np.array([one.box for one in found]).reshape(-1, 4), atol=within)


def test_coco_is_a_data_set_to_train_on(tmp_path: Path) -> None:
    sources(tmp_path / "pictures")
    check_dataset(written(tmp_path / "pictures", "coco", PLAIN), 1e-3)


def test_yolo_is_a_data_set_to_train_on(tmp_path: Path) -> None:
    sources(tmp_path / "images")
    for one in PLAIN:
        place = tmp_path / picture_format("yolo").place(PurePosixPath(one.relative))
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content("yolo", one))
    path = written(tmp_path, "yolo", PLAIN)
    assert list(yaml.safe_load(path.read_text())["names"].values()) == [NAMES[label] for label in USED]
    check_dataset(tmp_path, 1e-3)
    assert len(read_dataset(tmp_path, "val").examples) == len(PLAIN)


def test_a_label_that_no_class_has_is_left_out_where_classes_are_listed() -> None:
    one = picture("a.jpg", [1, 0, 6])
    (line,) = content("yolo", one).splitlines()
    assert line.startswith(b"0 ")
    assert [each["category_id"] for each in json.loads(whole("coco", [one]))["annotations"]] == [1]
    assert [box.get("label") for box in ElementTree.fromstring(whole("cvat", [one])).iter("box")] == [NAMES[1]]


def escaped(text: str) -> str:
    """As XML has it: control characters and carriage returns spelt out."""
    return text.replace("\a", r"\x07").replace("\r", r"\r").replace("\udcff\udce9", r"\udcff\udce9")


@pytest.mark.parametrize("one", PICTURES)
def test_voc_is_read_by_torchvision(one: Labelled) -> None:
    tree = ElementTree.fromstring(content("voc", one))
    if len(one.found) > 1:
        read = VOCDetection.parse_voc_xml(tree)["annotation"]
        assert (int(read["size"]["width"]), int(read["size"]["height"])) == (WIDTH, HEIGHT)
        for found, expected in zip(read["object"], one.found, strict=True):
            assert found["name"] == escaped(expected.label).strip()
            corners = [int(found["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")]
            np.testing.assert_allclose(corners, expected.box, atol=0.5)
    assert tree.findtext("filename") == escaped(PurePosixPath(one.relative).name)
    assert tree.findtext("folder") == PurePosixPath(one.relative).parent.name
    assert tree.findtext("path") == escaped(one.path)
    assert {each.findtext("difficult") for each in tree.iter("object")} <= {"0"}  # those that are do not count
    assert len(tree.findall("object")) == len(one.found)


def test_voc_corners_are_never_zero() -> None:
    box = Labelled("a.jpg", "a.jpg", WIDTH, HEIGHT, MODEL, (Found(1, NAMES[1], 0.9, (0.0, 0.4, 640.0, 480.0)),))
    assert _voc(content("voc", box)) == [(NAMES[1], [1, 1, 640, 480])]


def test_labelme() -> None:
    for one in PICTURES:
        record = json.loads(content("labelme", one))
        assert (record["imageWidth"], record["imageHeight"], record["imageData"]) == (WIDTH, HEIGHT, None)
        assert record["imagePath"] == os.path.abspath(one.path)
        for shape, found in zip(record["shapes"], one.found, strict=True):
            assert (shape["label"], shape["shape_type"]) == (found.label, "rectangle")
            assert float(shape["description"]) == found.score
            assert (*shape["points"][0], *shape["points"][1]) == found.box
    address = Labelled("https://host/a.jpg", "host/a.jpg", 1, 1, MODEL, ())
    assert json.loads(content("labelme", address))["imagePath"] == "https://host/a.jpg"


def test_label_studio() -> None:
    tasks = json.loads(whole("label-studio", PICTURES))
    for task, one in zip(tasks, PICTURES, strict=True):
        assert task["data"] == {"image": one.path}
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == MODEL
        assert prediction["score"] == min((found.score for found in one.found), default=0)
        assert len({region["id"] for region in prediction["result"]}) == len(one.found)
        for region, found in zip(prediction["result"], one.found, strict=True):
            value = region["value"]
            assert (region["type"], value["rectanglelabels"]) == ("rectanglelabels", [found.label])
            assert (region["from_name"], region["to_name"], region["score"]) == ("label", "image", found.score)
            left, top = value["x"] * WIDTH / 100, value["y"] * HEIGHT / 100
            right, bottom = left + value["width"] * WIDTH / 100, top + value["height"] * HEIGHT / 100
            np.testing.assert_allclose((left, top, right, bottom), found.box, atol=1e-4)


def test_cvat() -> None:
    root = ElementTree.fromstring(whole("cvat", PICTURES))
    assert root.findtext("version") == "1.1"
    assert {label.findtext("type") for label in root.iter("label")} == {"rectangle"}
    assert [label.findtext("name") for label in root.iter("label")] == [escaped(NAMES[label]) for label in USED]
    for number, (image, one) in enumerate(zip(root.iter("image"), PICTURES, strict=True)):
        assert image.attrib == {
            "id": str(number),
            "name": escaped(one.relative),
            "width": str(WIDTH),
            "height": str(HEIGHT),
        }
        for box, found in zip(image.iter("box"), one.found, strict=True):
            assert box.get("label") == escaped(found.label)
            assert tuple(float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")) == found.box
            assert (box.get("source"), box.get("occluded")) == ("auto", "0")


SIDES = ("xmin", "ymin", "xmax", "ymax")


def _coco(boxes: Iterable[dict[str, Any]], names: Sequence[str]) -> Read:
    return [
        (names[one["category_id"]], (x, y, x + width, y + height))
        for one in boxes
        for x, y, width, height in [one["bbox"]]
    ]


def _records(detections: Iterable[dict[str, Any]]) -> Read:
    return [(one["label"], one["box"]) for one in detections]


def _csv(raw: bytes) -> Read:
    rows = csv.DictReader(io.StringIO(raw.decode(), newline=""))
    return [(row["label"], [float(row[side]) for side in ("x1", "y1", "x2", "y2")]) for row in rows]


def _yolo(one: Labelled, names: tuple[str, ...]) -> Read:
    classes = yaml.safe_load(whole("yolo", [one], names))["names"]
    read = []
    for line in content("yolo", one, names).decode().splitlines():
        number, *values = line.split()
        x, y, width, height = (float(value) for value in values)
        box = np.array((x - width / 2, y - height / 2, x + width / 2, y + height / 2)) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
        read.append((classes[int(number)], box.tolist()))
    return read


def _voc(raw: bytes) -> Read:
    return [
        (one.findtext("name") or "", [float(one.findtext(f"bndbox/{side}") or "") for side in SIDES])
        for one in ElementTree.fromstring(raw).iter("object")
    ]


def _labelme(raw: bytes) -> Read:
    return [(shape["label"], [*shape["points"][0], *shape["points"][1]]) for shape in json.loads(raw)["shapes"]]


def _label_studio(raw: bytes) -> Read:
    read = []
    for region in json.loads(raw)[0]["predictions"][0]["result"]:
        value, width, height = region["value"], region["original_width"] / 100, region["original_height"] / 100
        left, top = value["x"] * width, value["y"] * height
        read.append(
            (value["rectanglelabels"][0], (left, top, left + value["width"] * width, top + value["height"] * height))
        )
    return read


def _cvat(raw: bytes) -> Read:
    boxes = ElementTree.fromstring(raw).iter("box")
    return [(box.attrib["label"], [float(box.attrib[side]) for side in ("xtl", "ytl", "xbr", "ybr")]) for box in boxes]


READERS: dict[str, tuple[float, Callable[[Labelled, tuple[str, ...]], Read]]] = {
    "json": (0, lambda one, names: _records(json.loads(content("json", one, names))["detections"])),
    "jsonl": (0, lambda one, names: _records(json.loads(whole("jsonl", [one], names))["detections"])),
    "csv": (0, lambda one, names: _csv(whole("csv", [one], names))),
    "coco": (1e-6, lambda one, names: _coco(json.loads(whole("coco", [one], names))["annotations"], names)),
    "coco-results": (1e-6, lambda one, names: _coco(json.loads(whole("coco-results", [one], names)), names)),
    "yolo": (5e-4, _yolo),
    "voc": (0.5, lambda one, names: _voc(content("voc", one, names))),
    "labelme": (0, lambda one, names: _labelme(content("labelme", one, names))),
    "label-studio": (2e-5, lambda one, names: _label_studio(whole("label-studio", [one], names))),
    "cvat": (0, lambda one, names: _cvat(whole("cvat", [one], names))),
}
"""How far off a format may put a side, in pixels, and a reader of it."""
XS, YS = (st.integers(0, size * 10_000).map(lambda value: value / 10_000) for size in (WIDTH, HEIGHT))
BOXES = st.tuples(XS, YS, XS, YS).map(lambda box: (min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2])))
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff", include_characters="\n\t")
)
"""What every format can hold as it is."""


@settings(deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=4, unique=True), st.data())
def test_names_and_boxes_survive(names: list[str], data: st.DataObject) -> None:
    classes = ("N/A", *(name for name in names if name != "N/A"), "plain")
    labels = st.integers(1, len(classes) - 1)
    scores = st.integers(0, 10**6).map(lambda value: value / 10**6)
    found = st.builds(lambda label, score, box: Found(label, classes[label], score, box), labels, scores, BOXES)
    one = Labelled("a.jpg", "a.jpg", WIDTH, HEIGHT, MODEL, tuple(data.draw(st.lists(found, max_size=4))))
    assert set(READERS) == set(FORMATS)
    for name, (within, read) in READERS.items():
        again = read(one, classes)
        assert [label for label, _ in again] == [each.label for each in one.found], name
        boxes = np.array([each.box for each in one.found]).reshape(-1, 4)
        expected = boxes.clip(1) if name == "voc" else boxes
        np.testing.assert_allclose(
            np.array([box for _, box in again]).reshape(-1, 4), expected, 0, within, err_msg=name
        )
