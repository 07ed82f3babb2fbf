"""Pascal VOC and LabelMe datasets: layouts, contents, and errors."""

import json
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrcli.datasets import Dataset, read_dataset, reading
from detrcli.errors import DatasetError
from detrcli.files import open_file
from detrcli.outputs.formats import image_format
from detrcli.outputs.record import Detection, ImageResult, OutputSettings

from .written import Box, refusal, write_image, write_json, write_text

CAT, DOG = ("cat", (2.0, 3.0, 12.0, 23.0)), ("dog", (20.0, 5.0, 40.0, 30.0))


def voc(*objects: tuple[str, Box], filename: str = "a.jpg", size: tuple[int, int] = (40, 30), more: str = "") -> str:
    """XML as in the devkit: 1-based, inclusive pixels."""
    boxes = "".join(
        f"<object><name>{name}</name>{more}<bndbox><xmin>{x1 + 1:g}</xmin><ymin>{y1 + 1:g}</ymin><xmax>{x2:g}</xmax>"
        f"<ymax>{y2:g}</ymax></bndbox><part><name>head</name></part></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><folder>x</folder><filename>{filename}</filename>{sides}{boxes}</annotation>"


def labelme(*objects: tuple[str, Box], image: str = "a.jpg", shape: str = "rectangle") -> dict[str, Any]:
    shapes = [{"label": n, "points": [[x1, y1], [x2, y2]], "shape_type": shape} for n, (x1, y1, x2, y2) in objects]
    return {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}


def write(folder: Path, stem: str, kind: str, *objects: tuple[str, Box], image: str | None = None) -> Path:
    """Write an annotation file."""
    image = f"{stem}.jpg" if image is None else image
    if kind == "voc":
        return write_text(folder / f"{stem}.xml", voc(*objects, filename=image))
    return write_json(folder / f"{stem}.json", labelme(*objects, image=image))


def check_small(dataset: Dataset, images: Path) -> None:
    """Check for a.jpg with a cat and a dog, and b.jpg without objects."""
    assert dataset.classes == ("cat", "dog")
    assert dataset.problems == ()
    first, second = dataset.examples
    assert [one.path.resolve() for one in (first, second)] == [images / "a.jpg", images / "b.jpg"]
    assert first.labels.tolist() == [0, 1]
    np.testing.assert_allclose(first.boxes, [CAT[1], DOG[1]])
    assert second.boxes.shape == (0, 4)


KINDS = pytest.mark.parametrize("kind", ["voc", "labelme"])


@KINDS
@pytest.mark.parametrize(
    ("annotations", "images"),
    [("", ""), ("val", "val"), ("valid", "valid"), ("Annotations", "JPEGImages"), ("annotations", "images")],
)
def test_layouts(tmp_path: Path, kind: str, annotations: str, images: str) -> None:
    if annotations.casefold() == "annotations":
        annotations = "Annotations" if kind == "voc" else "annotations"
    write(tmp_path / annotations, "a", kind, CAT, DOG)
    write(tmp_path / annotations, "b", kind)
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / images / name)
    check_small(read_dataset(tmp_path, "val"), tmp_path / images)


@KINDS
@pytest.mark.parametrize("image", ["", "C:\\\\photos\\\\a.jpg", "/elsewhere/a.jpg", "a.png"])
def test_image_is_found_by_its_name_or_the_stem_of_the_file(tmp_path: Path, kind: str, image: str) -> None:
    write_image(tmp_path / "a.jpg")
    write(tmp_path, "a", kind, CAT, image=image.replace("\\\\", "\\"))
    (example,) = read_dataset(tmp_path, "val").examples
    assert example.path.resolve() == tmp_path / "a.jpg"


@KINDS
def test_splits_have_the_same_class_numbers(tmp_path: Path, kind: str) -> None:
    for part, stem, thing in (("train", "a", DOG), ("val", "b", CAT)):
        write_image(tmp_path / part / f"{stem}.jpg")
        write(tmp_path / part, stem, kind, thing)
    train, val = read_dataset(tmp_path, "train"), read_dataset(tmp_path, "val")
    assert train.classes == val.classes == ("cat", "dog")
    assert [train.examples[0].labels.tolist(), val.examples[0].labels.tolist()] == [[1], [0]]
    (tmp_path / "val" / ("b.xml" if kind == "voc" else "b.json")).unlink()
    assert refusal(tmp_path) == f"{tmp_path} has no val split, only train"


def test_lists_of_splits(tmp_path: Path) -> None:
    for stem, thing in (("a", DOG), ("b", CAT), ("c", CAT)):
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        write(tmp_path / "Annotations", stem, "voc", thing)
    for part, stems in (("train", "a\nb\n"), ("val", "c\n"), ("cat_train", "a  1\nb -1\n")):
        write_text(tmp_path / "ImageSets" / "Main" / f"{part}.txt", stems)
    assert [one.path.stem for one in read_dataset(tmp_path, "train").examples] == ["a", "b"]
    assert [one.path.stem for one in read_dataset(tmp_path, "val").examples] == ["c"]
    assert refusal(tmp_path, "test") == f"{tmp_path} has no test split, only train and val"


def test_difficult_objects_are_crowds(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    easy, hard = voc(CAT, more="<difficult>0</difficult>"), voc(DOG, more="<difficult>1</difficult>")
    write_text(tmp_path / "a.xml", easy.replace("</annotation>", hard[hard.index("<object>") :]))
    (example,) = read_dataset(tmp_path, "val").examples
    assert example.crowd.tolist() == [False, True]


@pytest.mark.parametrize(
    ("points", "shape", "box"),
    [
        ([[12, 23], [2, 3]], "rectangle", (2, 3, 12, 23)),
        ([[2, 3], [12, 10], [5, 23]], "polygon", (2, 3, 12, 23)),
        ([[2, 3], [12, 10], [5, 23]], None, (2, 3, 12, 23)),
        ([[10, 10], [13, 14]], "circle", (5, 5, 15, 15)),
        ([[2, 3], [12, 3], [12, 23], [2, 23]], "rotation", (2, 3, 12, 23)),
    ],
)
def test_shapes(tmp_path: Path, points: list[list[float]], shape: str | None, box: Box) -> None:
    write_image(tmp_path / "a.jpg")
    write_json(
        tmp_path / "a.json",
        {"shapes": [{"label": "cat", "points": points, "shape_type": shape}], "imagePath": "a.jpg"},
    )
    (example,) = read_dataset(tmp_path, "val").examples
    np.testing.assert_allclose(example.boxes, [box])


def test_shapes_without_area_are_skipped_and_counted(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    content = labelme(CAT)
    content["shapes"] += [{"label": "eye", "points": [[3, 3]], "shape_type": "point"}] * 2
    write_json(tmp_path / "a.json", content)
    dataset = read_dataset(tmp_path, "val")
    assert dataset.classes == ("cat",)
    assert dataset.problems == (f"{tmp_path}: 2 shapes of type 'point' have no box: skipped",)


@pytest.mark.parametrize("kind", ["voc", "labelme"])
def test_outputs_are_read_back(tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / "a.jpg")
    objects = (Detection(0, "cat", 0.9, (*CAT[1],)), Detection(1, "dog", 0.8, (*DOG[1],)))
    result = ImageResult(str(tmp_path / "a.jpg"), "a.jpg", 40, 30, "demo", objects)
    content = image_format(kind).render(result, OutputSettings(("cat", "dog"), tmp_path))
    (tmp_path / ("a.xml" if kind == "voc" else "a.json")).write_bytes(content)
    (example,) = read_dataset(tmp_path, "val", strict=True).examples
    np.testing.assert_allclose(example.boxes, [CAT[1], DOG[1]])
    assert example.labels.tolist() == [0, 1]


BOMB = '<!DOCTYPE a [<!ENTITY x "y"><!ENTITY z "&x;&x;&x;">]>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + voc(CAT), "a DOCTYPE is not allowed"),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname">' + voc(CAT), "a DOCTYPE is not allowed"),
        (voc(CAT)[:-20], "is not valid XML: "),
        (voc(("", CAT[1])), "an object has no name or no complete bndbox"),
        (voc(CAT).replace("<xmin>3</xmin>", ""), "an object has no name or no complete bndbox"),
        (voc(CAT).replace("<xmin>3", "<xmin>three"), "could not convert string to float"),
        (voc(CAT).replace("<width>40", "<width>1e999"), "is not a valid Pascal VOC annotation: "),
        (voc(CAT).replace("a.jpg", "c.jpg").replace("<annotation>", "<annotation>" + "<a>" * 10**5), "not valid XML"),
    ],
)
def test_invalid_xml(tmp_path: Path, text: str, message: str) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "a.xml", text)
    assert message in refusal(tmp_path)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_labelme_file_gives_a_dataset_or_a_dataset_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("labelme")
    write_image(folder / "a.jpg")
    values: list[object] = [None, -1, 10**400, 1e308, "", "x", [], [[]], {}, [[1, 2], [3]], [["a", "b"]]]
    value: object = data.draw(st.sampled_from(values))
    content = labelme(CAT)
    shape = content["shapes"][0]
    key = data.draw(st.sampled_from([*content, *shape, ""]))
    (content if key in content else shape)[key] = value
    (folder / "a.json").write_text(json.dumps(content if key else {"shapes": value}), "utf-8")
    with suppress(DatasetError):
        assert np.isfinite(read_dataset(folder, "val").examples[0].boxes).all()


@pytest.mark.parametrize(
    ("name", "content", "format_name"),
    [
        ("annotations.xml", "<annotations><image name='a.jpg'/></annotations>", "a CVAT XML dataset"),
        ("_annotations.createml.json", '[{"image": "a.jpg", "annotations": []}]', "a CreateML dataset"),
        ("project.json", '[{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}]', "a Label Studio export"),
        ("via.json", '{"a.jpg12": {"filename": "a.jpg", "regions": []}}', "a VGG Image Annotator project"),
        ("train.tfrecord", "x", "a TFRecord dataset"),
        ("labels.csv", "filename,class,xmin,ymin,xmax,ymax\n", "a dataset in a CSV table"),
        ("yolov4.cfg", "[net]\nbatch=64\n", "a Darknet configuration"),
    ],
)
@pytest.mark.parametrize("folder", ["", "train"])
def test_unsupported_formats(tmp_path: Path, name: str, content: str, format_name: str, folder: str) -> None:
    write_image(tmp_path / folder / "a.jpg")
    file = write_text(tmp_path / folder / name, content)
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path} contains {file.relative_to(tmp_path)}, which is {format_name}")
    assert text.endswith("which is not supported; export COCO or YOLO instead")
    assert refusal(file).startswith(f"{file} is {format_name}")


@KINDS
def test_unrelated_files_are_skipped_and_counted(tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / "a.jpg")
    write(tmp_path, "a", kind, CAT)
    if kind == "voc":
        other = write_text(tmp_path / "b.xml", "<settings/>")
    else:
        other = write_json(tmp_path / "a.jpg.json", {"path": "a.jpg", "detections": []})
    dataset = read_dataset(tmp_path, "val")
    assert [(one.image_id, one.path.name) for one in dataset.examples] == [(1, "a.jpg")]
    assert dataset.category_ids == (1,)
    assert dataset.problems == (f"{tmp_path}: 1 files are not annotations of an image, such as {other}: skipped",)


def test_list_with_spaces_and_missing_annotations(tmp_path: Path) -> None:
    for stem in ("my photo", "b"):
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
        write(tmp_path / "Annotations", stem, "voc", CAT)
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", "my photo\nb  1\nc\n\n")
    dataset = read_dataset(tmp_path, "train")
    assert [one.path.stem for one in dataset.examples] == ["b", "my photo"]
    problem = f"{tmp_path} (train): 1 listed images have no annotation file, such as c: skipped"
    assert dataset.problems == (problem,)


def write_coco(file: Path, **more: object) -> Path:
    objects = [{"id": 1, "image_id": 5, "category_id": 2, "bbox": [2, 3, 10, 20], **more}]
    images = [{"id": 5, "file_name": "a.jpg", "width": 40, "height": 30}]
    return write_json(file, {"images": images, "annotations": objects, "categories": [{"id": 2, "name": "bird"}]})


@pytest.mark.parametrize("name", ["annotations.json", "annotations/instances_val.json", "val/_annotations.coco.json"])
def test_coco_is_preferred_to_other_formats(tmp_path: Path, name: str) -> None:
    write_image((tmp_path / name).parent / "a.jpg")
    write_image(tmp_path / "a.jpg")
    write_coco(tmp_path / name, regions=[], shapes=[])
    for stem in "abcdefghij":
        write(tmp_path, stem, "labelme", CAT)
        write(tmp_path / "Annotations", stem, "voc", CAT)
    for other, content in (
        ("classes.txt", "cat\n"),
        ("cvat.xml", "<annotations/>"),
        ("labels.csv", "image,bbox\n"),
        ("setup.cfg", "[network]\n"),
    ):
        write_text(tmp_path / other, content)
    assert read_dataset(tmp_path, "val").classes == ("bird",)
    assert read_dataset(tmp_path / name, "val").classes == ("bird",)


def test_coco_with_unusual_name_among_labelme_files(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write(tmp_path, "a", "labelme", CAT)
    write_coco(tmp_path / "coco.json")
    assert read_dataset(tmp_path, "val").classes == ("bird",)


@KINDS
def test_list_of_class_names_beside_annotations_is_ignored(tmp_path: Path, kind: str) -> None:
    write_image(tmp_path / "a.jpg")
    write(tmp_path, "a", kind, CAT)
    write_text(tmp_path / "classes.txt", "cat\ndog\n")
    assert read_dataset(tmp_path, "val").classes == ("cat",)


def test_labelme_file_that_begins_with_image_data(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_json(tmp_path / "a.json", dict(sorted({**labelme(CAT), "imageData": "A" * 2**17}.items())))
    assert read_dataset(tmp_path, "val").classes == ("cat",)


@KINDS
def test_few_files_are_opened_to_recognize_a_format(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        write_text(tmp_path / f"{number}.{'xml' if kind == 'voc' else 'json'}", "{}")
    opened: list[Path] = []

    def record(file: Path) -> IO[bytes]:
        opened.append(file)
        return open_file(file)

    monkeypatch.setattr(reading, "open_file", record)
    assert refusal(tmp_path).startswith(f"{tmp_path} contains")
    assert 0 < len(opened) < 200


@KINDS
def test_images_without_annotations_are_skipped_and_counted(tmp_path: Path, kind: str) -> None:
    for stem in "abc":
        write_image(tmp_path / f"{stem}.jpg")
    write(tmp_path, "a", kind, CAT)
    write(tmp_path, "x", kind, CAT, image="c.jpg")
    for hidden in ("._a.xml", "._a.json", "._a.jpg"):  # metadata of macOS
        (tmp_path / hidden).write_bytes(b"\0\5\x16\7")
    problem = f"{tmp_path}: 1 images have no annotation file, such as {tmp_path / 'b.jpg'}: skipped"
    assert read_dataset(tmp_path, "val").problems == (problem,)
