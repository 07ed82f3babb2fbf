"""YOLO datasets: layouts, contents, and errors."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrcli.datasets import Dataset, read_dataset
from detrcli.errors import DatasetError

from .written import Box, as_coco, as_yolo, refusal, write_image, write_json, write_text

CAT: tuple[int, Box] = (0, (2, 3, 12, 23))
DOG: tuple[int, Box] = (1, (20, 5, 40, 30))
NAMES = "names: [cat, dog]\n"


def write_small(images: Path) -> None:
    """Write two images, the second without objects, and their labels."""
    write_image(images / "a.jpg")
    write_image(images / "b.PNG")
    labels = Path(*("labels" if part == "images" else part for part in images.parts))
    write_text(labels / "a.txt", as_yolo([CAT, DOG]))
    write_text(labels / "b.txt", "")


def check_small(dataset: Dataset, images: Path, *problems: str) -> None:
    assert dataset.classes == ("cat", "dog")
    assert dataset.category_ids == (1, 2)
    assert dataset.problems == problems
    assert [one.path.resolve() for one in dataset.examples] == [images / "a.jpg", images / "b.PNG"]
    assert [one.image_id for one in dataset.examples] == [1, 2]
    assert [(one.width, one.height) for one in dataset.examples] == [(40, 30)] * 2
    first, second = dataset.examples
    np.testing.assert_allclose(first.boxes, np.array([CAT[1], DOG[1]]), rtol=1e-6)
    assert first.labels.tolist() == [0, 1]
    np.testing.assert_allclose(first.areas, [200, 500], rtol=1e-5)
    assert not first.crowd.any()
    assert second.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("entries", "images"),
    [
        ("train: images/train", "images/train"),
        ("train: train/images", "train/images"),
        ("train: ../train/images", "train/images"),  # Roboflow, whose paths are wrong
        ("train: ./train/images/", "train/images"),
        ("path: set\ntrain: images", "set/images"),
        ("path: ../datasets/moved\ntrain: images", "images"),
        ("path:\ntrain: plain", "plain"),
        ("train: [images/one, images]", "images/one"),
        ("train: .", "deep/er"),
    ],
)
@pytest.mark.parametrize("named", ["data.yaml", "dataset.yml", "pets.yaml", "data.YAML"])
def test_layouts(tmp_path: Path, entries: str, images: str, named: str) -> None:
    write_small(tmp_path / images)
    (tmp_path / "images").mkdir(exist_ok=True)
    file = write_text(tmp_path / named, f"{NAMES}{entries}\nval: nowhere\n")
    check_small(read_dataset(file if named == "data.YAML" else tmp_path, "train"), tmp_path / images)


def test_image_without_label_file(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    (tmp_path / "labels/b.txt").unlink()
    write_text(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    image = tmp_path / "images/b.PNG"
    problem = f"1 of 2 images have no label file, such as {image}: treated as images without objects"
    check_small(read_dataset(tmp_path, "train"), tmp_path / "images", f"{tmp_path / 'data.yaml'} (train): {problem}")


@pytest.mark.parametrize("key", ["val", "valid", "validation", "test"])
def test_names_of_the_val_split(tmp_path: Path, key: str) -> None:
    write_small(tmp_path / "images")
    file = write_text(tmp_path / "data.yaml", f"{NAMES}train: nowhere\n{key}: images\n")
    problems = [f"{file} (test): there is no val split; the test split is used instead"] if key == "test" else []
    check_small(read_dataset(tmp_path, "val"), tmp_path / "images", *problems)


def test_several_yaml_files(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    write_text(tmp_path / "a.yaml", "depth_multiple: 0.33\n")
    write_text(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    write_text(tmp_path / "z.yml", f"{NAMES}train: other\n")
    check_small(read_dataset(tmp_path, "train"), tmp_path / "images")
    (tmp_path / "data.yaml").rename(tmp_path / "pets.yaml")
    assert (
        refusal(tmp_path, "train")
        == f"{tmp_path} contains pets.yaml and z.yml; specify the one that describes the dataset"
    )


@pytest.mark.parametrize(
    "names",
    [
        "names: [cat, dog]",
        "names:\n  - cat\n  - dog",
        "names:\n  0: cat\n  1: dog",
        "names: {1: dog, 0: cat}",
        "names: {'0': cat, '1': dog}\nnc: 2",
    ],
)
def test_names(tmp_path: Path, names: str) -> None:
    write_small(tmp_path / "images")
    write_text(tmp_path / "data.yaml", f"{names}\ntrain: images\n")
    check_small(read_dataset(tmp_path, "train"), tmp_path / "images")


def test_names_that_yaml_would_convert(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    write_text(tmp_path / "data.yaml", "names: [no, on, 12, ~, 1.50, süß]\ntrain: images\n")
    assert read_dataset(tmp_path, "train").classes == ("no", "on", "12", "~", "1.50", "süß")


def test_yaml_runs_no_code(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "a.txt", "0 .5 .5 .5 .5\n")
    command = f"touch {tmp_path}/ran"
    write_text(tmp_path / "data.yaml", f"names: !!python/object/apply:os.system ['{command}']\ntrain: .\n")
    assert read_dataset(tmp_path, "train").classes == (command,)
    assert not (tmp_path / "ran").exists()


def test_class_numbers_with_gaps(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "a.txt", "7 .5 .5 .5 .5\n3 .5 .5 1 1\n")
    write_text(tmp_path / "data.yaml", "names: {7: dog, 3: cat}\ntrain: .\n")
    dataset = read_dataset(tmp_path, "train")
    assert (dataset.classes, dataset.category_ids) == (("cat", "dog"), (3, 7))
    assert dataset.examples[0].labels.tolist() == [1, 0]


def test_list_of_images(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    write_image(tmp_path / "images" / "not listed.jpg")
    write_text(tmp_path / "lists" / "deep.txt", f"../images/a.jpg\r\n\n  images/b.PNG \n{tmp_path}/images/a.jpg\n")
    write_text(tmp_path / "data.yaml", f"{NAMES}train: [lists/deep.txt]\nval: val.txt\n")
    paths = [one.path.resolve() for one in read_dataset(tmp_path, "train").examples]
    assert sorted(set(paths)) == [tmp_path / "images" / "a.jpg", tmp_path / "images" / "b.PNG"]
    write_text(tmp_path / "val.txt", "./images/a.jpg\n./images/b.PNG\n")
    check_small(read_dataset(tmp_path, "val"), tmp_path / "images")
    write_text(tmp_path / "val.txt", "./images/a.jpg\n./images/c.PNG\n")
    text = refusal(tmp_path, "val")
    assert f"1 images are missing, such as {tmp_path / 'images' / 'c.PNG'}; add them or correct their paths" in text


def test_file_that_is_not_a_list_of_images(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_text(tmp_path / "data.yaml", f"{NAMES}train: a.jpg\n")
    assert refusal(tmp_path, "train").startswith(
        f"{tmp_path / 'a.jpg'} is not a list of images; name a folder, or a text file"
    )


def test_hidden_files_and_folders_with_image_suffix_are_ignored(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    write_text(tmp_path / "images" / "._a.jpg", "metadata of macOS")
    write_text(tmp_path / "images" / ".thumbnails" / "a.jpg", "not an image")
    (tmp_path / "images" / "x.jpg").mkdir()
    write_text(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    check_small(read_dataset(tmp_path, "train"), tmp_path / "images")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.jpg", "labels/a.txt"),
        ("images/train/deep/a.b.jpg", "labels/train/deep/a.b.txt"),
        ("images/train/images/a.jpg", "images/train/labels/a.txt"),
        ("images/images.jpg", "images/images.txt"),
    ],
)
def test_location_of_labels(tmp_path: Path, image: str, label: str) -> None:
    write_image(tmp_path / image)
    write_text(tmp_path / label, as_yolo([CAT]))
    write_text(tmp_path / "data.yaml", "names: [cat]\ntrain: .\n")
    (example,) = read_dataset(tmp_path, "train").examples
    np.testing.assert_allclose(example.boxes, np.array([CAT[1]]), rtol=1e-6)


def write_one(folder: Path, label: str | bytes, names: str = NAMES) -> Path:
    """Write a dataset of one image and return its label file."""
    write_image(folder / "a.jpg")
    write_text(folder / "data.yaml", f"{names}train: .\n")
    (folder / "a.txt").write_bytes(label if isinstance(label, bytes) else label.encode())
    return folder / "a.txt"


def test_polygons(tmp_path: Path) -> None:
    write_one(tmp_path, "1 .1 .2  .5 .1  .4 .9\n0 .5 .5 .5 .5\n0 0 0 1 0 1 1 0 1 .5 .5\n")
    (example,) = read_dataset(tmp_path, "train").examples
    expected = np.array([[4, 3, 20, 27], [10, 7.5, 30, 22.5], [0, 0, 40, 30]])
    np.testing.assert_allclose(example.boxes, expected, rtol=1e-6)
    np.testing.assert_allclose(example.areas, [384, 300, 1200], rtol=1e-5)
    assert example.labels.tolist() == [1, 0, 0]


def test_variants_of_lines(tmp_path: Path) -> None:
    write_one(tmp_path, b"\xef\xbb\xbf0.0 .5 .5 .5 .5\r\n\r\n\t1   5e-1 .5 .5 .5")
    assert read_dataset(tmp_path, "train").examples[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 .5 .5 .5 .5", "line 3: class 2 has no name in the dataset's YAML file"),
        ("-1 .5 .5 .5 .5", "line 3: class -1 has no name"),
        ("0.5 .5 .5 .5 .5", "line 3: class 0.5 has no name"),
        ("nan .5 .5 .5 .5", "line 3: class nan has no name"),
        ("inf .5 .5 .5 .5", "line 3: class inf has no name"),
        ("cat .5 .5 .5 .5", "line 3 is not a YOLO label: could not convert string to float: 'cat'"),
        ("0, .5, .5, .5, .5", "line 3 is not a YOLO label: could not convert"),
        (
            "0",
            "expected the four numbers of a box or the points of a polygon after the class, not 0 numbers",
        ),
        ("0 .5 .5 .5", "line 3 is not a YOLO label"),
        ("0 .5 .5 .5 .5 .5 .5 .5", "not 7 numbers; keypoints need a kpt_shape in the YAML file"),
    ],
)
def test_invalid_lines(tmp_path: Path, line: str, message: str) -> None:
    file = write_one(tmp_path, f"0 .5 .5 .5 .5\n\n{line}\n")
    text = refusal(tmp_path, "train")
    assert text.startswith(str(file))
    assert message in text


def test_label_file_that_is_not_text(tmp_path: Path) -> None:
    file = write_one(tmp_path, b"0 .5 .5 .5 \xff")
    assert refusal(tmp_path, "train") == f"{file} is not text in UTF-8"


def test_invalid_boxes(tmp_path: Path) -> None:
    write_one(tmp_path, "0 .5 .5 0 .5\n1 .1 .1 .4 .1\n0 2 2 .1 .1\n1 nan .5 .5 .5\n0 .5 .5 .5 -.5\n")
    dataset = read_dataset(tmp_path, "train")
    np.testing.assert_allclose(dataset.examples[0].boxes, [[0, 1.5, 12, 4.5]], rtol=1e-6)
    assert dataset.examples[0].labels.tolist() == [1]
    name, image = f"{tmp_path / 'data.yaml'} (train)", tmp_path / "a.jpg"
    assert sorted(dataset.problems) == [
        f"{name}: 1 boxes are not finite, such as in {image}: skipped",
        f"{name}: 1 boxes are outside their image, such as in {image}: skipped",
        f"{name}: 1 boxes extend beyond their image, such as in {image}: clipped",
        f"{name}: 1 classes have no objects: 'cat'",
        f"{name}: 2 boxes have no width or height, such as in {image}: skipped",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a YOLO dataset: it has no names"),
        ("[1, 2]", "is not a YOLO dataset: it has no names"),
        ("train: images", "is not a YOLO dataset: it has no names"),
        ("names: [a\ntrain: .", "is not YAML: while parsing a flow sequence"),
        ("names: {? [a] : b}\ntrain: .", "is not YAML"),
        ("names: cat", "names is neither a list nor a mapping from numbers to names"),
        ("names: {cat: 0}", "names is neither a list nor a mapping from numbers to names"),
        ("names: [[cat], {a: b}]", "names is neither a list nor a mapping from numbers to names"),
        ("names: []\ntrain: .", "the dataset has no classes"),
        ("names: [a, b, a]\ntrain: .", "1 class names are not unique, such as 'a'; rename them"),
        ("names: [a, ' ', '']\ntrain: .", "2 classes have no name, such as 1; name them"),
        ("names: [a, 'a ']\ntrain: .", "1 class names are not unique, such as 'a'"),
        ("names: [a, b]\nnc: 3\ntrain: .", "nc is 3, but there are 2 names; correct one of them"),
        ("names: [a]\nnc: [1]\ntrain: .", "nc is ['1'], but there are 1 names"),
        ("names: [a]\ntrain: .", "the dataset has no objects (labels were expected in files such as {}/a.txt)"),
        ("names: [a]", "has no train split; add a line “train: …” with the location of its images"),
        ("names: [a]\nval: .\ntrain:", "has no train split"),
        ("names: [a]\ntrain: no/where", "names {}/no/where, which does not exist; correct"),
        ("names: [a]\ntrain: {a: b}", "which does not exist"),
        ("names: [a]\ntrain: [[a], .]", "which does not exist"),
        (f"names: [a]\ntrain: {'a' * 5000}", "which does not exist"),
        ("names: [a]\ntrain: empty", "the dataset has no images"),
        ("names: " + "[" * 1000, "is not YAML"),
        ("names: [a]\ntrain: '\\udc80\\0'", "which does not exist"),
        ("\0", "is not YAML"),
    ],
    ids=lambda value: value[:40].strip("\0") if isinstance(value, str) else "",
)
def test_invalid_descriptions(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "a.jpg")
    file = write_text(tmp_path / "data.yaml", content)
    text = refusal(tmp_path, "train")
    assert text.startswith(str(file))
    assert message.format(tmp_path) in text


def test_yaml_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes(b"names: [\xff]")
    assert refusal(tmp_path, "train").startswith(f"{tmp_path / 'data.yaml'} is not YAML: ")


def test_labels_in_the_wrong_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.jpg")
    write_text(tmp_path / "annotations" / "train" / "a.txt", as_yolo([CAT]))
    file = write_text(tmp_path / "data.yaml", f"{NAMES}train: images/train\n")
    expected_file = tmp_path / "labels" / "train" / "a.txt"
    expected = f"{file} (train): the dataset has no objects (labels were expected in files such as {expected_file})"
    assert refusal(tmp_path, "train") == expected
    write_text(expected_file, "\n")
    assert refusal(tmp_path, "train") == expected


def test_labels_in_pixels(tmp_path: Path) -> None:
    write_one(tmp_path, "0 20 15 10 10\n")
    assert refusal(tmp_path, "train") == (
        f"{tmp_path / 'data.yaml'} (train): the dataset has no objects "
        f"(1 boxes are outside their image, such as in {tmp_path / 'a.jpg'}: skipped)"
    )


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").mkdir()
    assert refusal(tmp_path, "train") == f"cannot read {tmp_path / 'data.yaml'}: Is a directory"


@pytest.fixture(scope="module")
def both_formats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with images for annotations in both formats."""
    folder = tmp_path_factory.mktemp("both")
    for name in "ab":
        write_image(folder / f"{name}.png", (64, 48), orientation=6)
    write_text(folder / "data.yaml", "names: [x, y, z]\ntrain: .\n")
    return folder


@st.composite
def objects(draw: st.DrawFn) -> tuple[int, Box]:
    between_edges = st.integers(-160, 640).map(lambda eighths: eighths / 8 + 1 / 16)  # insensitive to rounding
    x1, x2 = sorted((draw(between_edges), draw(between_edges)))
    y1, y2 = sorted((draw(between_edges), draw(between_edges)))
    return draw(st.integers(0, 2)), (x1, y1, x2, y2)


@settings(deadline=None, max_examples=50)
@given(st.lists(objects(), max_size=5), st.lists(objects(), max_size=5))
def test_yolo_agrees_with_coco(both_formats: Path, first: list[tuple[int, Box]], second: list[tuple[int, Box]]) -> None:
    valid: tuple[int, Box] = (0, (1, 2, 30, 40))  # a dataset needs an object
    images = {"a.png": list(dict.fromkeys([valid, *first])), "b.png": list(dict.fromkeys(second))}
    content = as_coco(images, "xyz", (48, 64))
    for annotation in content["annotations"]:
        del annotation["area"]  # YOLO has only the areas of the clipped boxes
    coco = read_dataset(write_json(both_formats / "coco.json", content), "train")
    for name, found in images.items():
        write_text(both_formats / f"{name[0]}.txt", as_yolo(found, (48, 64)))
    yolo = read_dataset(both_formats / "data.yaml", "train")
    assert coco.classes == yolo.classes == ("x", "y", "z")
    for one, other in zip(coco.examples, yolo.examples, strict=True):
        assert (one.path, one.width, one.height) == (other.path, 48, 64)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.crowd.tolist() == other.crowd.tolist()
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.areas, other.areas, rtol=1e-3, atol=1e-2)
    without_name = [[line.partition(": ")[2] for line in dataset.problems] for dataset in (coco, yolo)]
    assert without_name[0] == without_name[1]


@settings(deadline=None, max_examples=100)
@given(st.text("0123456789 .-\n\teninfa", max_size=60))
def test_any_label_file_gives_boxes_or_a_dataset_error(both_formats: Path, text: str) -> None:
    write_text(both_formats / "a.txt", text)
    write_text(both_formats / "b.txt", "0 .5 .5 .5 .5\n")
    dataset, message = None, ""
    try:
        dataset = read_dataset(both_formats / "data.yaml", "train")
    except DatasetError as error:
        message = str(error)
    if dataset is None:
        assert message.startswith(str(both_formats / "a.txt"))
        return
    boxes = dataset.examples[0].boxes
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert len(dataset.examples[0].areas) == len(boxes) == len(dataset.examples[0].labels)


def read_labels(folder: Path, labels: str, description: str = f"{NAMES}train: .\n") -> Dataset:
    """Read a dataset of one image of 40 × 30 pixels with the given labels."""
    write_image(folder / "a.jpg")
    write_text(folder / "a.txt", labels)
    write_text(folder / "data.yaml", description)
    return read_dataset(folder, "train")


BOX = [[4.0, 3.0, 12.0, 9.0]]
"""Box of `0 .2 .2 .2 .2` in an image of 40 × 30 pixels."""


@pytest.mark.parametrize(
    ("shape", "keypoints"),
    [
        ("[4, 2]", ".9 .9 .8 .8 .7 .7 .6 .6"),  # as many numbers as for a polygon of six points
        ("[17, 3]", " ".join([".9 .9 2"] * 17)),
        ("[1, 2]", ".9 .9"),
        ("[4, 2]", ""),
    ],
)
def test_pose_labels_are_boxes_and_keypoints(tmp_path: Path, shape: str, keypoints: str) -> None:
    description = f"{NAMES}train: .\nkpt_shape: {shape}\n"
    dataset = read_labels(tmp_path, f"0 .2 .2 .2 .2 {keypoints}\n", description)
    np.testing.assert_allclose(dataset.examples[0].boxes, BOX, rtol=1e-5)


def test_without_kpt_shape_the_numbers_are_a_polygon(tmp_path: Path) -> None:
    dataset = read_labels(tmp_path, "0 .2 .2 .2 .2 .9 .9 .8 .8 .7 .7 .6 .6\n")
    np.testing.assert_allclose(dataset.examples[0].boxes, [[8, 6, 36, 27]], rtol=1e-5)


@pytest.mark.parametrize("shape", ["17", "[17]", "[a, b]", "{a: b}"])
def test_invalid_kpt_shape(tmp_path: Path, shape: str) -> None:
    with pytest.raises(DatasetError, match=r"data\.yaml: kpt_shape is not \[number of keypoints, 2 or 3\]"):
        read_labels(tmp_path, "0 .2 .2 .2 .2\n", f"{NAMES}train: .\nkpt_shape: {shape}\n")


def test_wrong_number_of_keypoints(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="a box and 8 of keypoints after the class, not 10 numbers"):
        read_labels(tmp_path, f"0 {'.2 ' * 10}\n", f"{NAMES}train: .\nkpt_shape: [4, 2]\n")


@pytest.mark.parametrize("fifth", ["7", "0.93"])
def test_track_ids_and_confidences_are_ignored_and_counted(tmp_path: Path, fifth: str) -> None:
    dataset = read_labels(tmp_path, f"0 .2 .2 .2 .2 {fifth}\n1 .5 .5 .5 .5\n")
    np.testing.assert_allclose(dataset.examples[0].boxes[:1], BOX, rtol=1e-5)
    problem = f"1 label lines have a track id or a confidence after the box, such as in {tmp_path / 'a.txt'}: ignored"
    assert dataset.problems == (f"{tmp_path / 'data.yaml'} (train): {problem}",)


def test_duplicate_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    dataset = read_labels(tmp_path, "0 .2 .2 .2 .2\n1 .5 .5 .5 .5\n" * 2 + "0  .2 .2 .2 .2 \n0 .2 .2 .2 .21\n")
    assert dataset.examples[0].labels.tolist() == [0, 1, 0]
    problem = f"3 label lines are duplicates, such as in {tmp_path / 'a.txt'}: skipped"
    assert dataset.problems == (f"{tmp_path / 'data.yaml'} (train): {problem}",)


@pytest.mark.parametrize("names", ["classes.txt", "obj.names"])
@pytest.mark.parametrize("images", ["images", "images/val", "val/images", ""])
@pytest.mark.parametrize("by_file", [False, True])
def test_list_of_class_names(tmp_path: Path, names: str, images: str, by_file: bool) -> None:
    write_small(tmp_path / images)
    write_text(tmp_path / "notes.json", "{}")  # of Label Studio
    file = write_text(tmp_path / names, "cat\ndog\n\n")
    check_small(read_dataset(file if by_file else tmp_path, "val"), tmp_path / images)


def test_labels_beside_images_below_images(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    write_text(tmp_path / "images" / "a.txt", "0 .2 .2 .2 .2\n")
    write_text(tmp_path / "data.yaml", f"{NAMES}train: images\n")
    np.testing.assert_allclose(read_dataset(tmp_path, "train").examples[0].boxes, BOX, rtol=1e-5)


def test_yaml_file_without_splits(tmp_path: Path) -> None:
    write_small(tmp_path / "images")
    write_text(tmp_path / "data.yaml", NAMES)
    check_small(read_dataset(tmp_path, "train"), tmp_path / "images")


def test_the_test_split(tmp_path: Path) -> None:
    write_small(tmp_path / "held")
    write_text(tmp_path / "data.yaml", f"{NAMES}val: nowhere\ntest: held\n")
    assert len(read_dataset(tmp_path, "test").examples) == 2


def test_darknet(tmp_path: Path) -> None:
    write_small(tmp_path / "obj_val_data")
    write_text(tmp_path / "obj.names", "cat\ndog\n")
    write_text(tmp_path / "val.txt", "data/obj_val_data/a.jpg\ndata/obj_val_data/b.PNG\n")
    write_text(tmp_path / "obj.data", "classes = 2\nval = data/val.txt\nnames = data/obj.names\nbackup = backup/\n")
    check_small(read_dataset(tmp_path, "val"), tmp_path / "obj_val_data")
