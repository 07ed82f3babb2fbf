"""COCO datasets: layouts, contents, and errors."""

import json
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from pillow_heif import from_pillow

from detrcli.datasets import Dataset, read_dataset
from detrcli.errors import DatasetError
from detrcli.images.decode import read_image
from detrcli.images.upright import UprightSize, upright_size

from .written import Box, as_coco, refusal, write_image, write_json, write_text

CAT: tuple[int, Box] = (0, (2, 3, 12, 23))
DOG: tuple[int, Box] = (1, (20, 5, 40, 30))
CLASSES = ("cat", "dog")
TEST_FOR_VAL = "there is no val split; the test split is used instead"
Content = dict[str, Any]


def small() -> Content:
    return as_coco({"a.jpg": [CAT, DOG], "b.png": [DOG]}, CLASSES)


def write_small(file: Path, images: Path | None = None, content: Content | None = None) -> Path:
    for name in ("a.jpg", "b.png"):
        write_image((images or file.parent) / name)
    return write_json(file, small() if content is None else content)


def check_small(dataset: Dataset, images: Path, *problems: str) -> None:
    assert dataset.classes == CLASSES
    assert dataset.category_ids == (10, 20)
    assert dataset.problems == problems
    assert [one.path.resolve() for one in dataset.examples] == [images / "a.jpg", images / "b.png"]
    assert [one.image_id for one in dataset.examples] == [700, 703]
    assert [(one.width, one.height) for one in dataset.examples] == [(40, 30)] * 2
    first, second = dataset.examples
    np.testing.assert_array_equal(first.boxes, np.array([CAT[1], DOG[1]], np.float32))
    np.testing.assert_array_equal(second.boxes, np.array([DOG[1]], np.float32))
    assert first.labels.tolist() == [0, 1]
    assert first.areas.tolist() == [200, 500]
    assert first.crowd.tolist() == [False, False]


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("annotations.json", ""),
        ("instances.json", "images"),
        ("_annotations.coco.json", ""),
        ("any name.json", "data"),
        ("annotations/instances_default.json", "images"),  # CVAT
        ("annotations/instances_default.json", "images/default"),
    ],
)
@pytest.mark.parametrize("named", ["folder", "file"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_dataset_without_splits_is_used_for_both(
    tmp_path: Path, file: str, images: str, named: str, split: Literal["train", "val"]
) -> None:
    json_file = write_small(tmp_path / file, tmp_path / images)
    place = json_file if named == "file" else json_file.parent
    check_small(read_dataset(place, split), tmp_path / images)


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("{}/_annotations.coco.json", "{}"),  # Roboflow
        ("{}/annotations.json", "{}/images"),
        ("{}2017/instances.json", "{}2017"),
        ("annotations/instances_{}2017.json", "{}2017"),  # COCO
        ("annotations/instances_{}2017.json", "images/{}2017"),
        ("annotations/{}.json", "images/{}"),
        ("annotations/{}.json", "{}"),
    ],
)
@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_splits(tmp_path: Path, file: str, images: str, held_out: str, named: str) -> None:
    names: dict[Literal["train", "val"], str] = {"train": "train", "val": held_out}
    for name in names.values():
        write_small(tmp_path / file.format(name), tmp_path / images.format(name))
    for split, name in names.items():
        place = tmp_path / file.format(name) if named == "file" else tmp_path
        problems = [f"{tmp_path / file.format(name)}: {TEST_FOR_VAL}"] if name == "test" and named == "folder" else []
        check_small(read_dataset(place, split), tmp_path / images.format(name), *problems)


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path / "annotations" / "val.json", tmp_path / "val")
    monkeypatch.chdir(tmp_path / "annotations")
    check_small(read_dataset(Path("val.json"), "val"), tmp_path / "val")
    monkeypatch.chdir(tmp_path)
    check_small(read_dataset(Path("annotations/val.json"), "val"), tmp_path / "val")


def test_other_json_files_of_coco_are_ignored(tmp_path: Path) -> None:
    write_small(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017")
    for name in ("captions_val2017.json", "person_keypoints_val2017.json", "instances_train2017.json"):
        write_json(tmp_path / "annotations" / name, {"images": [], "annotations": []})
    check_small(read_dataset(tmp_path, "val"), tmp_path / "val2017")


@pytest.mark.parametrize("other", ["instances_trainval.json", "instances_evaluation2017.json"])
def test_split_name_inside_a_word_is_ignored(tmp_path: Path, other: str) -> None:
    json_file = write_small(tmp_path / "annotations" / "instances_test.json", tmp_path / "test")
    write_json(tmp_path / "annotations" / other, {"images": [], "annotations": []})
    check_small(read_dataset(tmp_path, "val"), tmp_path / "test", f"{json_file}: {TEST_FOR_VAL}")


def test_valid_is_preferred_to_test(tmp_path: Path) -> None:
    for name in ("test", "valid"):
        write_small(tmp_path / name / "_annotations.coco.json")
    check_small(read_dataset(tmp_path, "val"), tmp_path / "valid")


def test_unrelated_yaml_file_is_ignored(tmp_path: Path) -> None:
    write_small(tmp_path / "annotations.json")
    write_text(tmp_path / "docker-compose.yml", "services: {}\n")
    check_small(read_dataset(tmp_path, "val"), tmp_path)


def test_file_names_with_folders(tmp_path: Path) -> None:
    content = as_coco({"train/x y/a.jpg": [CAT], "ünï 🦊.png": []}, ["cat"])
    for base in ("", "images"):
        folder = tmp_path / f"in {base}"
        for image in content["images"]:
            write_image(folder / base / image["file_name"])
        dataset = read_dataset(write_json(folder / "a.json", content), "train")
        assert [one.path for one in dataset.examples] == [folder / base / i["file_name"] for i in content["images"]]


@pytest.mark.parametrize(
    ("folder", "first"),
    [("val", True), ("night.2017", True), ("set", False), ("a", False), ("in", False), ("val_night", False)],
)
def test_folder_named_in_the_file_name_is_preferred(tmp_path: Path, folder: str, first: bool) -> None:
    content = as_coco({"x.png": [CAT]}, ["cat"])
    for parent in (tmp_path / "images", tmp_path / "images" / folder):
        write_image(parent / "x.png")
    file = write_json(tmp_path / "annotations" / "main-subsets_val night.2017.json", content)
    (example,) = read_dataset(file, "val").examples
    assert example.path == tmp_path / "images" / (folder if first else "") / "x.png"


def test_missing_split(tmp_path: Path) -> None:
    write_small(tmp_path / "train" / "_annotations.coco.json")
    text = refusal(tmp_path, "val")
    assert text.startswith(f"{tmp_path} has no annotations of a val split")
    assert "train/_annotations.coco.json" in text
    assert "specify the JSON file" in text


def test_missing_split_in_the_layout_of_coco(tmp_path: Path) -> None:
    write_small(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017")
    text = refusal(tmp_path, "val")
    assert "no annotations of a val split" in text
    assert "annotations/instances_train2017.json" in text


def test_several_json_files(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "c.json"):
        write_small(tmp_path / name)
    assert refusal(tmp_path) == (
        f"{tmp_path} contains 3 JSON files, such as a.json and b.json; specify the one with the annotations"
    )


def test_no_dataset(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    assert refusal(tmp_path).startswith(f"{tmp_path} contains no dataset: no COCO JSON file")
    assert refusal(tmp_path / "nowhere") == f"{tmp_path / 'nowhere'}: no such file or folder"
    assert f"{tmp_path / 'a.jpg'} is not JSON" in refusal(tmp_path / "a.jpg")


def test_unsorted_categories_and_missing_sizes(tmp_path: Path) -> None:
    content = small()
    content["categories"].reverse()
    for image in content["images"]:
        del image["width"]
        image["height"] = None
    check_small(read_dataset(write_small(tmp_path / "annotations.json", content=content), "val"), tmp_path)


def test_class_names_are_stripped(tmp_path: Path) -> None:
    content = small()
    content["categories"][0]["name"] = " cat\t"
    check_small(read_dataset(write_small(tmp_path / "annotations.json", content=content), "val"), tmp_path)


def test_numbers_written_as_strings(tmp_path: Path) -> None:
    content = json.loads(json.dumps(small()), parse_int=str, parse_float=str)
    check_small(read_dataset(write_small(tmp_path / "annotations.json", content=content), "val"), tmp_path)


def test_crowds_and_areas(tmp_path: Path) -> None:
    content = small()
    first, second, third = content["annotations"]
    first["area"] = 17.5
    del second["area"]
    second["iscrowd"] = 1
    third["area"], third["iscrowd"] = None, None
    dataset = read_dataset(write_small(tmp_path / "annotations.json", content=content), "val")
    assert [one.areas.tolist() for one in dataset.examples] == [[17.5, 500], [500]]
    assert [one.crowd.tolist() for one in dataset.examples] == [[False, True], [False]]


def test_polygons_are_not_kept_in_memory(tmp_path: Path) -> None:
    content = small()
    for annotation in content["annotations"]:
        annotation["segmentation"] = [[0.25 + number for number in range(1000)] for _ in range(100)]
    file = write_small(tmp_path / "annotations.json", content=content)
    read_dataset(file, "val")  # imports must not be measured
    tracemalloc.start()
    read_dataset(file, "val")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * file.stat().st_size  # the text takes twice its size, all numbers would take four times


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_size(tmp_path: Path, suffix: str, orientation: int) -> None:
    image = write_image(tmp_path / f"a{suffix}", orientation=orientation)
    upright = (30, 40) if orientation > 4 else (40, 30)
    assert read_image(image).image.size == upright
    content = as_coco({image.name: [(0, (1, 1, 9, 9))]}, ["cat"], upright)
    (example,) = read_dataset(write_json(tmp_path / "a.json", content), "val").examples
    assert (example.width, example.height) == upright


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_exif_is_ignored(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    valid = exif.tobytes()
    damaged = [valid[:length] for length in range(7, len(valid))]
    damaged += [valid[:at] + b"\xff" + valid[at + 1 :] for at in range(6, len(valid))]
    for number, data in enumerate(damaged):
        Image.new("RGB", (40, 30)).save(tmp_path / f"{number:02}{suffix}", exif=data)
    write_text(tmp_path / "00.txt", "0 .5 .5 .5 .5\n")
    write_text(tmp_path / "data.yaml", "names: [cat]\ntrain: .\n")
    for example in read_dataset(tmp_path, "train").examples:
        assert (example.width, example.height) == read_image(example.path).image.size


@pytest.mark.parametrize("animated", [False, True])
@pytest.mark.parametrize("at", [b"IDAT", b"IEND"], ids=["before the pixels", "after them"])
def test_position_of_the_orientation_in_png(tmp_path: Path, at: bytes, animated: bool) -> None:
    path = tmp_path / "a.png"
    frames = [Image.new("RGB", (40, 30), color) for color in ("teal", "navy")] if animated else []
    Image.new("RGB", (40, 30)).save(path, save_all=animated, append_images=frames)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = path.read_bytes()
    position = data.index(at) - 4
    path.write_bytes(data[:position] + chunk + data[position:])
    size = upright_size(path)
    assert size is not None
    assert (size.width, size.height) == read_image(path).image.size
    if at == b"IDAT" or not animated:  # viewers ignore it after other frames
        assert upright_size(path) == UprightSize(30, 40, turned=True)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("orientation", [None, 6])
def test_upright_size_decodes_no_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, orientation: int | None
) -> None:
    path = write_image(tmp_path / f"a{suffix}", orientation=orientation)
    decoded: list[Image.Image] = []
    with Image.open(path) as image:
        monkeypatch.setattr(type(image), "load", lambda one: decoded.append(one))
    assert upright_size(path) == (UprightSize(30, 40, turned=True) if orientation else UprightSize(40, 30))
    assert decoded == []


def test_images_annotated_unrotated(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", orientation=6)
    write_image(tmp_path / "b.jpg")
    file = write_json(tmp_path / "a.json", as_coco({"a.jpg": [CAT], "b.jpg": [CAT]}, ["cat"]))
    dataset = read_dataset(file, "val")
    assert [one.path.name for one in dataset.examples] == ["b.jpg"]
    problem = "1 images are rotated by their EXIF data, but were annotated unrotated"
    assert dataset.problems == (f"{file}: {problem}, such as {tmp_path / 'a.jpg'}: skipped",)
    with pytest.raises(DatasetError) as caught:
        read_dataset(file, "val", strict=True)
    assert str(caught.value) == f"{file}: {problem}, such as {tmp_path / 'a.jpg'}; annotate them upright"


@pytest.mark.parametrize("orientation", [1, 6])
def test_images_annotated_upright(tmp_path: Path, orientation: int) -> None:
    write_image(tmp_path / "a.jpg", orientation=orientation)
    size = (40, 30) if orientation == 1 else (30, 40)
    file = write_json(tmp_path / "a.json", as_coco({"a.jpg": [CAT]}, ["cat"], size))
    dataset = read_dataset(file, "val", strict=True)
    assert dataset.problems == ()
    assert [(one.width, one.height) for one in dataset.examples] == [size]


@pytest.mark.parametrize("wrong", [(0, 0), (41, 30), (30, 40)])
def test_wrong_annotated_size(tmp_path: Path, wrong: tuple[int, int]) -> None:
    write_image(tmp_path / "a.jpg")
    file = write_json(tmp_path / "a.json", as_coco({"a.jpg": [CAT]}, ["cat"], wrong))
    dataset = read_dataset(file, "val", strict=True)
    (example,) = dataset.examples
    assert (example.width, example.height) == (40, 30)
    assert example.boxes.tolist() == [list(CAT[1])]
    wrong_image = f"{tmp_path / 'a.jpg'} ({wrong[0]} × {wrong[1]} instead of 40 × 30)"
    problem = f"{file}: 1 images have a wrong annotated size, such as {wrong_image}: the actual size is used"
    assert dataset.problems == (problem,)


@pytest.mark.parametrize("name", ["shapes", "cat"])
def test_supercategory_without_objects_is_not_a_class(tmp_path: Path, name: str) -> None:
    content = small()
    for category in content["categories"]:
        category["supercategory"] = name
    content["categories"].insert(0, {"id": 0, "name": name, "supercategory": "none"})
    check_small(read_dataset(write_small(tmp_path / "annotations.json", content=content), "val"), tmp_path)


def test_supercategory_with_objects_is_a_class(tmp_path: Path) -> None:
    content = small()
    content["categories"][1]["supercategory"] = "cat"
    check_small(read_dataset(write_small(tmp_path / "annotations.json", content=content), "val"), tmp_path)


def test_category_that_is_its_own_supercategory_is_a_class(tmp_path: Path) -> None:
    content = small()
    content["categories"].append({"id": 90, "name": "person", "supercategory": "person"})
    dataset = read_dataset(write_small(tmp_path / "annotations.json", content=content), "val")
    assert dataset.classes == ("cat", "dog", "person")


def test_image_ids_that_are_strings(tmp_path: Path) -> None:
    content = small()
    for image in content["images"]:
        image["id"] = f"image {image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    file = write_small(tmp_path / "annotations.json", content=content)
    assert [one.image_id for one in read_dataset(file, "val").examples] == ["image 700", "image 703"]


@pytest.mark.parametrize("empty", [[], None])
def test_empty_bboxes_are_skipped_and_counted(tmp_path: Path, empty: object) -> None:
    content = small()
    content["annotations"].append({"id": 9, "image_id": 703, "category_id": 10, "bbox": empty})
    file = write_small(tmp_path / "annotations.json", content=content)
    check_small(
        read_dataset(file, "val"),
        tmp_path,
        f"{file}: 1 annotations have an empty bbox, such as in image 703: skipped",
    )


def test_file_names_with_backslashes(tmp_path: Path) -> None:
    content = small()
    for image in content["images"]:
        image["file_name"] = f"images\\{image['file_name']}"
    write_small(tmp_path / "images" / "annotations.json")
    (tmp_path / "images" / "annotations.json").unlink()
    check_small(read_dataset(write_json(tmp_path / "annotations.json", content), "val"), tmp_path / "images")


def test_cvat_export_without_splits(tmp_path: Path) -> None:
    write_small(tmp_path / "images" / "default" / "a.json")
    (tmp_path / "images" / "default" / "a.json").unlink()
    write_json(tmp_path / "annotations" / "instances_default.json", small())
    check_small(read_dataset(tmp_path, "val"), tmp_path / "images" / "default")


INFINITY = float("inf")
NAN = float("nan")
BOXES: list[tuple[list[float], list[float] | None, str | None]] = [
    ([0, 0, 40, 30], [0, 0, 40, 30], None),
    ([-0.4, 0, 40.8, 30], [0, 0, 40, 30], None),  # rounding
    ([30, 20, 20, 30], [30, 20, 40, 30], "extend beyond their image, such as in {}: clipped"),
    ([-5, -5, 10, 10], [0, 0, 5, 5], "extend beyond their image, such as in {}: clipped"),
    ([40, 0, 5, 5], None, "are outside their image, such as in {}: skipped"),
    ([3, -9, 5, 9], None, "are outside their image, such as in {}: skipped"),
    ([3, 3, 0, 5], None, "have no width or height, such as in {}: skipped"),
    ([3, 3, 5, 0], None, "have no width or height, such as in {}: skipped"),
    ([3, 3, -2, 5], None, "have no width or height, such as in {}: skipped"),
    ([3, 3, 1e-9, 5], None, "have no width or height, such as in {}: skipped"),
    ([3, NAN, 5, 5], None, "are not finite, such as in {}: skipped"),
    ([3, 3, 5, INFINITY], None, "are not finite, such as in {}: skipped"),
]


@pytest.mark.parametrize(("box", "expected", "problem"), BOXES, ids=lambda value: str(value))
def test_invalid_boxes(tmp_path: Path, box: list[float], expected: list[float] | None, problem: str | None) -> None:
    content = small()
    for annotation in content["annotations"][:2]:
        annotation["bbox"] = box
        del annotation["area"]
    file = write_small(tmp_path / "annotations.json", content=content)
    dataset = read_dataset(file, "val")
    first, second = dataset.examples
    np.testing.assert_allclose(first.boxes, np.array([expected] * 2 if expected else np.empty((0, 4))), rtol=1e-6)
    assert len(first.labels) == len(first.areas) == len(first.crowd) == len(first.boxes)
    assert (first.areas > 0).all()
    assert second.boxes.tolist() == [list(DOG[1])]
    problems = [line for line in dataset.problems if " 2 boxes " in line]
    assert problems == ([f"{file}: 2 boxes {problem.format(tmp_path / 'a.jpg')}"] if problem else [])


def test_skipped_boxes_and_their_labels(tmp_path: Path) -> None:
    content = as_coco({"a.jpg": [CAT, DOG, CAT, DOG]}, CLASSES)
    content["annotations"][1]["bbox"] = [0, 0, 0, 0]
    content["annotations"][3]["iscrowd"] = 1
    write_image(tmp_path / "a.jpg")
    (example,) = read_dataset(write_json(tmp_path / "a.json", content), "val").examples
    assert example.labels.tolist() == [0, 0, 1]
    assert example.areas.tolist() == [200, 200, 500]
    assert example.crowd.tolist() == [False, False, True]


def test_classes_without_objects(tmp_path: Path) -> None:
    content = as_coco({"a.jpg": [CAT, DOG], "b.png": []}, [*CLASSES, *"efghij"])
    content["annotations"][1]["iscrowd"] = 1
    file = write_small(tmp_path / "annotations.json", content=content)
    dataset = read_dataset(file, "val")
    assert dataset.problems == (f"{file}: 7 classes have no objects: 'dog', 'e', 'f', 'g', 'h', …",)
    assert len(dataset.classes) == 8


def test_annotations_of_unknown_images(tmp_path: Path) -> None:
    content = small()
    for annotation in content["annotations"][1:]:
        annotation["image_id"] = 4711
    file = write_small(tmp_path / "annotations.json", content=content)
    dataset = read_dataset(file, "val")
    assert [len(one.boxes) for one in dataset.examples] == [1, 0]
    assert dataset.problems[0] == (
        f"{file}: 2 annotations are of images that the file does not list, such as 4711: skipped"
    )


def change(*path: str | int, to: object) -> Callable[[Content], object]:
    """Return a function that replaces the value at a path, or removes it if `to` is KeyError."""

    def changed(content: Content) -> object:
        if not path:
            return to
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        if to is KeyError:
            del inner[path[-1]]
        else:
            inner[path[-1]] = to
        return content

    return changed


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(to=[1, 2]), "is not a COCO dataset: it has no list of images or annotations or categories"),
        (change(to=None), "is not a COCO dataset: it has no list of images"),
        (change("annotations", to=KeyError), "is not a COCO dataset: it has no list of annotations"),
        (change("categories", to={"1": "cat"}), "is not a COCO dataset: it has no list of categories"),
        (change("images", to=[]), "the dataset has no images"),
        (change("images", 0, to="a.jpg"), 'an entry of its images is invalid ({}): "a.jpg"'),
        (change("images", 0, "id", to=KeyError), "an entry of its images has no 'id': {"),
        (change("images", 0, "id", to=""), "an entry of its images is invalid (its id is not an integer): {"),
        (change("images", 0, "id", to=1.5), "its id is not an integer"),
        (change("images", 0, "id", to=[1]), "its id is not an integer"),
        (change("images", 1, "id", to=700), "1 ids of its images are not unique, such as 700"),
        (change("images", 0, "file_name", to=KeyError), "an entry of its images has no 'file_name'"),
        (change("images", 0, "file_name", to=None), "its file_name is not a string"),
        (
            change("images", 0, "file_name", to="c.jpg"),
            "1 images are missing, such as {0}/c.jpg; add them or",
        ),
        (change("images", 0, "file_name", to="c" * 5000), "1 images are missing, such as {0}/cccc"),
        (change("images", 0, "file_name", to="\0"), "1 images are missing"),
        (change("images", 0, "file_name", to=""), "1 images are missing"),
        (change("images", 0, "file_name", to="b.png"), "1 images are listed more than once, such as {0}/b.png"),
        (change("images", 0, "width", to="wide"), "its width is not an integer"),
        (change("annotations", 0, to=7), "an entry of its annotations is invalid"),
        (change("annotations", 0, "bbox", to=KeyError), "an entry of its annotations has no 'bbox': {"),
        (change("annotations", 0, "bbox", to=[1, 2, 3]), "its bbox is not [x, y, width, height]"),
        (change("annotations", 0, "bbox", to="1234"), "its bbox is not [x, y, width, height]"),
        (change("annotations", 0, "bbox", to=[1, 2, 3, "x"]), "an entry of its annotations is invalid"),
        (change("annotations", 0, "bbox", to=[1, 2, 3, None]), "an entry of its annotations is invalid"),
        (change("annotations", 0, "bbox", to=[1, 2, 3, 10**400]), "an entry of its annotations is invalid"),
        (change("annotations", 0, "area", to="large"), "an entry of its annotations is invalid"),
        (change("annotations", 0, "image_id", to=None), "its image_id is not an integer"),
        (change("annotations", 0, "image_id", to=NAN), "its image_id is not an integer"),
        (change("annotations", 0, "image_id", to=INFINITY), "its image_id is not an integer"),
        (change("annotations", 0, "category_id", to=KeyError), "an entry of its annotations has no 'category_id'"),
        (
            change("annotations", 0, "category_id", to=4),
            "1 annotations have a category_id that no category has, such as 4; add the category or remove the "
            "annotations (the categories are 10, 20)",
        ),
        (change("categories", 1, "id", to=10), "1 ids of its categories are not unique, such as 10"),
        (change("categories", 1, "name", to="cat"), "1 class names are not unique, such as 'cat'; rename them"),
        (change("categories", 1, "name", to=" cat"), "1 class names are not unique, such as 'cat'; rename them"),
        (change("categories", 1, "name", to=None), "its name is empty or not a string"),
        (change("categories", 1, "name", to=" "), "its name is empty or not a string"),
        (change("categories", 1, "name", to=KeyError), "an entry of its categories has no 'name'"),
    ],
    ids=lambda value: value[:60] if isinstance(value, str) else "",
)
def test_invalid_json_contents(tmp_path: Path, damage: Callable[[Content], object], message: str) -> None:
    file = write_small(tmp_path / "annotations.json")
    write_json(file, damage(small()))
    text = refusal(tmp_path)
    assert text.startswith(str(file))
    for part in message.replace("{0}", str(tmp_path)).split("{}"):
        assert part in text
    assert len(text) < 6000


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\ud83e", '{"images": nonsense}', "9" * 5000])
def test_invalid_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refusal(tmp_path).startswith(f"{tmp_path / 'a.json'} is not JSON: ")


def test_no_objects(tmp_path: Path) -> None:
    content = {**small(), "annotations": []}
    file = write_small(tmp_path / "a.json", content=content)
    assert refusal(file) == f"{file}: the dataset has no objects"
    content = small()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = 1
    assert refusal(write_json(file, content)) == f"{file}: the dataset has no objects"
    content = small()
    for annotation in content["annotations"]:
        annotation["bbox"] = [100, 100, 9, 9]
    assert refusal(write_json(file, content)) == (
        f"{file}: the dataset has no objects (3 boxes are outside their image, such as in {tmp_path / 'a.jpg'}: "
        "skipped)"
    )


def test_no_categories(tmp_path: Path) -> None:
    file = write_small(tmp_path / "a.json", content={**small(), "annotations": [], "categories": []})
    assert refusal(file) == f"{file}: the dataset has no classes"


def test_unreadable_images(tmp_path: Path) -> None:
    file = write_small(tmp_path / "a.json")
    for name in ("a.jpg", "b.png"):
        (tmp_path / name).write_text("not an image")
    assert refusal(file) == (f"{file}: 2 images cannot be read, such as {tmp_path / 'a.jpg'}; repair or remove them")


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**400, "7"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.just("id"), inner, max_size=3),
    max_leaves=6,
)


def paths_in(content: object) -> list[tuple[Any, ...]]:
    """Paths of all values in JSON."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [(), *((key, *path) for key, value in entries for path in paths_in(value))]


@pytest.fixture(scope="module")
def json_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("coco") / "a.json")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_json_gives_a_dataset_or_a_dataset_error(json_file: Path, data: st.DataObject) -> None:
    content: Any = small()
    for path in data.draw(st.lists(st.sampled_from(paths_in(content)), min_size=1, max_size=3, unique=True)):
        try:
            content = change(*path, to=data.draw(JUNK | st.just(KeyError)))(content) if path else data.draw(JUNK)
        except (KeyError, IndexError, TypeError):
            continue  # removed by an earlier change
    write_json(json_file, content)
    dataset, message = None, ""
    try:
        dataset = read_dataset(json_file, "val")
    except DatasetError as error:
        message = str(error)
    if dataset is None:
        assert message.startswith(str(json_file))
        return
    assert len(dataset.classes) == len(set(dataset.category_ids))
    for one in dataset.examples:
        assert len(one.boxes) == len(one.labels) == len(one.areas) == len(one.crowd)
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
        assert (one.boxes >= 0).all()
        assert (one.boxes <= np.array([40, 30, 40, 30])).all()
        assert ((one.labels >= 0) & (one.labels < len(dataset.classes))).all()


def test_heic_images_without_pillow_heif(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_small(tmp_path / "a.json")
    for name in ("a.jpg", "b.png"):
        from_pillow(Image.new("RGB", (40, 30))).save(tmp_path / name)
    assert len(read_dataset(file, "train").examples) == 2
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert refusal(file, "train") == (
        f"{file}: 2 HEIC images cannot be read without pillow-heif, such as {tmp_path / 'a.jpg'}; "
        "pip install 'detrcli[heif]'"
    )
