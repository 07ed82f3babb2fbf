"""Plan of a run, which decides its outputs; a run can be resumed only with the same plan."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from reprlib import Repr
from typing import Any

from ..errors import OtherRunError, UsageError
from ..files import STATE_FOLDER
from ..images.sources import CocoId
from .formats import FORMATS, PER_IMAGE, PER_RUN, image_format, run_format
from .journal import JOURNAL, RecordedRun, read_journal, read_setting
from .record import OutputSettings
from .shards import Shard, parse_shard


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run's outputs.

    Attributes:
        model: name of the model.
        digest: digest of the model's files.
        class_names: name of each label of the model.
        root: folder that the outputs mirror.
        shard: part of the images to take, or None for all.
        formats: output formats.
        draw: whether to write annotated images.
        prediction: options that decide which detections are kept and how they are computed; "answers" in a journal.
        image_root: see `OutputSettings`.
        image_ids: digest of the COCO file that image and category ids are from, or "".
        category_ids: see `OutputSettings`.
    """

    model: str
    digest: str
    class_names: tuple[str, ...]
    root: str
    shard: Shard | None
    formats: tuple[str, ...]
    draw: bool
    prediction: dict[str, Any]
    image_root: str = ""
    image_ids: str = ""
    category_ids: tuple[CocoId | None, ...] | None = None

    def as_setting(self) -> dict[str, Any]:
        """Plain data for the first line of a journal."""
        setting = {"answers" if name == "prediction" else name: value for name, value in vars(self).items()}
        plain: dict[str, Any] = json.loads(json.dumps({**setting, "shard": self.shard and str(self.shard)}))
        return plain

    def places(self, relative: PurePosixPath) -> list[PurePosixPath]:
        """Paths of an image's own outputs, below the output folder."""
        places = [image_format(name).path_for(relative) for name in self.formats if name in PER_IMAGE]
        return [*places, relative] if self.draw else places


def output_settings(setting: Mapping[str, Any], folder: Path) -> OutputSettings:
    """What formats need to know of a plan that `Plan.as_setting` turned into plain data."""
    image_root, ids = setting.get("image_root", ""), setting.get("category_ids")
    return OutputSettings(tuple(setting["class_names"]), folder, image_root, None if ids is None else tuple(ids))


def read_run(journal: Path) -> RecordedRun | None:
    """Run that a journal records, or None if the journal is missing or holds no valid plan.

    Raises:
        JournalError: the journal cannot be read.
    """
    run = read_journal(journal)
    if run is None:
        return None
    try:
        shard, formats, names = (run.setting[key] for key in ("shard", "formats", "class_names"))
        known = (shard is None or parse_shard(shard)) and set(formats) <= FORMATS.keys() and "draw" in run.setting
        return run if known and all(isinstance(name, str) for name in names) else None
    except (KeyError, TypeError, UsageError):
        return None


def ensure_same_plan(run: RecordedRun, plan: Plan, output: Path) -> None:
    """Refuse to resume a run with another plan.

    Raises:
        OtherRunError: the plans differ.
    """
    short = Repr()
    short.maxlist, short.maxstring = 3, 200
    different = [
        f"{name} = {short.repr(before)}, not {short.repr(now)}"
        for name, before, now in differences(run.setting, plan.as_setting())
    ]
    if different:
        raise OtherRunError(f"the run in {output} began with {'; '.join(different)}")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name of each setting that differs, its value before, and its value now."""
    for name, value in now.items():
        other = before.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from differences(other, value)
        elif value != other:
            yield name, other, value


def has_annotated_images(folder: Path) -> bool:
    """Whether runs wrote annotated images into an output folder."""
    settings = (read_setting(path) for path in (folder / STATE_FOLDER).glob(f"**/{JOURNAL}"))
    return any(setting.get("draw") for setting in settings if setting is not None)


def files_for_all(formats: Iterable[str], *, only_over_images: bool = False) -> list[str]:
    """Names of the files for all images that formats have.

    Args:
        formats: names of the formats.
        only_over_images: leave out files that do not depend on the images, such as `data.yaml`.
    """
    chosen = PER_RUN - PER_IMAGE if only_over_images else PER_RUN
    return [name for one in formats if one in chosen for name in run_format(one).FILES]
