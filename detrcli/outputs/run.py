"""A run that writes files: per-image files and annotated images, files for the whole run, and a list of failures."""

import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from heapq import merge
from itertools import chain
from pathlib import Path, PurePosixPath
from reprlib import Repr
from secrets import token_hex
from shutil import rmtree
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from ..errors import ImageError, OutputError, UsageError
from ..files import PART_SUFFIX, STATE_FOLDER, as_output_error, atomic_file, shorten_name
from ..images.decode import DecodedImage
from ..images.sources import SUFFIXES, CocoId, ImageReference, original_path
from ..images.urls import is_url
from ..timing import Clock
from .formats import FORMATS, PER_IMAGE, PER_RUN, image_format, run_format
from .journal import Entry, Failure, Journal, Names, Record, ensure_not_locked, read_journal, setting_of
from .record import ImageResult
from .settings import OutputSettings
from .shards import Shard, parse_shard
from .written import OverwriteError, Written

if TYPE_CHECKING:
    from ..images.fonts import Fonts

JOURNAL = "journal.jsonl"
FAILURES = "failures.jsonl"
COMPUTING = ("device", "precision")
"""Answers' settings that change no more than their last digits, in which shards may differ."""
OF_THIS_IMAGE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP)
"""What a system says where one file cannot be written, but others can."""


@dataclass(frozen=True)
class Plan:
    """What decides a run's outputs; a run goes on only with the same.

    Attributes:
        model: its name.
        digest: of the model's file.
        class_names: the name of each label of the model.
        root: the folder that the outputs mirror.
        shard: the part of the images to take, or None for all.
        formats: what to write.
        draw: whether to draw.
        answers: which answers are kept, and how they are computed.
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
    answers: dict[str, Any]
    image_root: str = ""
    image_ids: str = ""
    category_ids: tuple[CocoId | None, ...] | None = None

    def as_setting(self) -> dict[str, Any]:
        """Plain data for JSON."""
        plain: dict[str, Any] = json.loads(json.dumps({**vars(self), "shard": self.shard and str(self.shard)}))
        return plain


class OutputRun:
    """Writes a run's outputs. `write` may be called from any thread, all else from one.

    Args:
        output: the folder.
        plan: what to write.
        keep: whether someone may go on with it; else it leaves its outputs alone.
        list_failures: whether to write what failed, if someone may go on with it.
        resume: True to go on with the run that was stopped, if there is one; False to begin anew; None to begin anew
            unless one was stopped.
        overwrite: whether to overwrite files that no run wrote, or that have changed since, and files for other
            images.
        coming: gives all images, each with its place among all, or only the first where they cannot be listed yet.
        listable: whether it gives all.
        fonts: for class names in annotated images.

    Attributes:
        before: how many images had been done before.
        failures: the name of the file that lists what failed.

    Raises:
        UsageError: there is a run that was stopped, and it is not said what to do with it, or it was another one, or
            another process is at it; or files would be overwritten.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        output: Path,
        plan: Plan,
        *,
        keep: bool = True,
        list_failures: bool = True,
        resume: bool | None = None,
        overwrite: bool = False,
        coming: Callable[[], Iterable[tuple[int, ImageReference]]] = tuple,
        listable: bool = True,
        fonts: "Fonts | None" = None,
    ) -> None:
        self._output, self._plan, self._keep, self._fonts = output, plan, keep, fonts
        self._settings = OutputSettings(plan.class_names, output, plan.image_root, plan.category_ids)
        self._place, self._folder = os.path.realpath(output), _folder_of(output, plan.shard)
        _check_own_folder(self._folder, self._place)
        path, shard = self._folder / JOURNAL, plan.shard
        record = _run_in(path) if keep else None
        if record is not None and resume is None and record.done and not record.finished:
            ensure_not_locked(path)
            raise UsageError(
                f"{output} holds a run that was stopped; go on with --resume, begin anew with --no-resume, "
                "or name another --output"
            )
        if record is not None and resume:
            _check_same(record, plan, output)
        self._record = record if resume else None
        self._written = Written(output, self._folder, overwrite=overwrite)
        self.failures = f"failures-{shard.index}-of-{shard.count}.jsonl" if shard else FAILURES
        self._lists_failures = keep and list_failures
        self._reserved = {output / name for name in (FAILURES, self.failures, *files_for_all(plan.formats))}
        self._others: Names | None = None
        if not overwrite and _is_occupied(output):
            if not resume:
                self._check_other_images(path, coming(), listable=listable)
            self._check_foreign(self.remaining(iter(coming())) if listable else ())
        if not keep:
            self._folder = output / STATE_FOLDER / f"single-{token_hex(8)}"
            self._discard = finalize(self, _remove, self._folder)
        with as_output_error(output):
            new = [one for one in (self._folder, *self._folder.parents) if not one.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
        holding = {output, self._folder.parent, *(one.parent for one in new)}
        path = self._folder / JOURNAL
        self._journal = Journal(path, plan.as_setting(), self._record, holding, self._written.sync)
        for part in self._folder.glob(f"*{PART_SUFFIX}"):  # what a kill left; the journal is ours alone now
            with suppress(OSError):
                part.unlink()
        self.before = self._record.done if self._record else 0

    def _check_foreign(self, coming: Iterable[tuple[int, ImageReference]]) -> None:
        """Refuse to begin where files would be overwritten that no run wrote, or that have changed since."""
        for_all = () if self._plan.shard else files_for_all(self._plan.formats)
        names = (*for_all, self.failures) if self._lists_failures else for_all
        own = (self._output / place for _, one in coming for place in self._places(PurePosixPath(one.relative)))
        own = (path for path in map(shorten_name, own) if path not in self._reserved)
        _refuse_foreign(self._written, chain((self._output / name for name in names), own))

    def _check_other_images(
        self, journal: Path, coming: Iterable[tuple[int, ImageReference]], *, listable: bool
    ) -> None:
        """Refuse to begin where what is kept of other images would be overwritten."""
        if self._plan.shard:
            self._over_others, journals = journal, [journal]
        else:
            files = [self._output / name for name in files_for_all(self._plan.formats, only_over_images=True)]
            files = [path for path in files if path.exists()]
            if not files:
                return
            self._over_others, journals = files[0], sorted((self._output / STATE_FOLDER).glob(f"**/{JOURNAL}"))
        records = [one for path in journals if (one := _run_in(path)) is not None and one.finished]
        names = (_name_of(one.path) for _, one in coming)
        if listable:
            _refuse_other_images(self._over_others, records, names)
        elif records:
            # whether all of them come again will be known when the list ends
            self._others = Names(name for name, _ in _named(records))
            if any(name not in self._others for name in names):
                _refuse_other_images(self._over_others, records, ())

    def remaining(self, images: Iterator[tuple[int, ImageReference]]) -> Iterator[tuple[int, ImageReference]]:
        """Those of the images, each with its place among all, that this run is still to look at."""
        return images if self._record is None else self._record.remaining(images)

    def write(
        self,
        reference: ImageReference,
        decoded: DecodedImage | None,
        detections: Detections,
        labelled: ImageResult,
        clock: Clock,
    ) -> Path | None:
        """Write an image's own outputs.

        Returns:
            Where the annotated image went, if there is one.

        Raises:
            ImageError: they cannot be written, but those of other images may.
            OutputError: nothing can be written any more.
        """
        try:
            annotated = self._draw(reference, decoded, detections, clock) if decoded is not None else None
            with clock.timing("write"):
                for name in self._plan.formats:
                    if name in PER_IMAGE:
                        self._write_one(name, reference, labelled)
        except OutputError as error:
            cause = error.__cause__
            if isinstance(error, OverwriteError) or (isinstance(cause, OSError) and cause.errno in OF_THIS_IMAGE):
                raise ImageError(f"{reference.path}: {error}", "not written") from error
            raise
        return annotated

    def add(self, index: int, result: ImageResult | Failure) -> None:
        """Take note that an image is done."""
        if self._others is not None:
            self._others.drop(_name_of(result.path))
        self._journal.add(Entry(index, result), self._folders(result))

    def close(self, *, finished: bool) -> Counter[str]:
        """Write what failed, and the files for all images, those of a shard excepted, which are merged.

        Args:
            finished: whether the run came to its end; else only what failed is written, and a run that goes on may
                write the rest.

        Returns:
            How many images failed in which way, those of the run that was stopped included; none for a run that
            nobody may go on with.

        Raises:
            OutputError: a file cannot be written.
        """
        with closing(self._journal):
            records = [self._journal.so_far()]
            if finished and self._others is not None and (left := self._others.left):
                raise OutputError(
                    f"the list lacks {left} of the images of {self._over_others}; --overwrite replaces it"
                )
            if finished and self._plan.shard is None:
                write_for_all(self._plan.formats, records, self._settings, self._written, staging=self._folder)
            kinds = Counter[str]()
            if self._lists_failures:
                path = self._output / self.failures
                kinds = write_failures(records, path, self._written, staging=self._folder)
            if finished:
                self._journal.finish([self._output])
        self._written.close()
        if not self._keep:
            self._discard()
        return kinds

    def _draw(self, reference: ImageReference, decoded: DecodedImage, detections: Detections, clock: Clock) -> Path:
        from ..images.draw import draw, save_annotated

        target = self._checked(self._output / reference.relative, reference)
        if target.exists() and os.path.exists(reference.path) and os.path.samefile(target, reference.path):
            raise ImageError(
                f"{reference.path}: its annotated image would overwrite it; choose another --output", "not written"
            )
        with clock.timing("draw"):
            try:
                annotated = draw(decoded, detections, self._fonts)
                return save_annotated(
                    annotated, decoded, target, staging=self._folder, before_rename=self._written.admit
                )
            except (OverflowError, ValueError, SystemError) as error:
                raise ImageError(f"{reference.path}: cannot be annotated ({error})", "not written") from error

    def _write_one(self, name: str, reference: ImageReference, labelled: ImageResult) -> None:
        if FORMATS[name].by_stem and (other := _namesake(reference.path)):
            raise ImageError(
                f"{reference.path}: {name} has one file for it and for {other}, whose name differs only in its ending; "
                "rename one",
                "not written",
            )
        if name == "labelme" and "json" in self._plan.formats and os.path.isfile(os.path.splitext(reference.path)[0]):
            raise ImageError(
                f"{reference.path}: labelme has one file for it and json for {os.path.splitext(reference.path)[0]}; "
                "rename one",
                "not written",
            )
        form = image_format(name)
        place = form.path_for(PurePosixPath(labelled.relative))
        self._write_file(self._checked(self._output / place, reference), form.render(labelled, self._settings))

    def _folders(self, result: ImageResult | Failure) -> set[Path]:
        """Those that hold an image's own outputs, and those that hold these, from the output folder on."""
        if isinstance(result, Failure):
            return set()
        places = self._places(PurePosixPath(result.relative))
        return {self._output / folder for place in places for folder in place.parents}

    def _places(self, relative: PurePosixPath) -> list[PurePosixPath]:
        """Where the outputs of an image belong, below the output folder."""
        places = [image_format(name).path_for(relative) for name in self._plan.formats if name in PER_IMAGE]
        return [*places, relative] if self._plan.draw else places

    def _checked(self, path: Path, reference: ImageReference) -> Path:
        """A path that no file of the whole run needs, not too long, in the output folder though links be followed."""
        if path in self._reserved:
            raise ImageError(f"{reference.path}: its outputs would overwrite {path}; rename it", "not written")
        folder = os.path.realpath(path.parent)
        if not _is_within(folder, self._place):
            if os.path.realpath(self._output) != self._place:
                raise OutputError(f"{self._output} was replaced while it was written to")
            raise ImageError(f"{reference.path}: {path.parent} leads out of the output folder", "not written")
        return shorten_name(path)

    def _write_file(self, path: Path, content: bytes) -> None:
        with atomic_file(path, staging=self._folder, before_rename=self._written.admit) as file:
            file.write(content)


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    Attributes:
        written: the files.
        failed: how many images failed in which way.
        elsewhere: folders that hold annotated images and files of single images, other than that of the files.
    """

    written: list[Path]
    failed: Counter[str]
    elsewhere: list[Path]


def merged(folders: Sequence[Path], output: Path, formats: Sequence[str] | None, *, overwrite: bool = False) -> Merged:
    """Write what one run would have written for all images together, from the journals of its shards.

    Args:
        folders: what the shards had as output folders.
        output: where to write.
        formats: what to write, or None for what the shards were told.
        overwrite: whether to overwrite files that no run wrote, or that have changed since, and files for other
            images.

    Raises:
        UsageError: a shard is missing, has not come to its end, or is of another run; or files would be overwritten.
        OutputError: a file cannot be written.
    """
    records = _all_shards(folders)
    setting = records[0].setting
    chosen = [name for name in formats or setting["formats"] if name in PER_RUN]
    categories = setting.get("category_ids")
    settings = OutputSettings(
        tuple(setting["class_names"]),
        output,
        setting.get("image_root", ""),
        None if categories is None else tuple(categories),
    )
    _check_own_folder(output / STATE_FOLDER, os.path.realpath(output))
    written = Written(output, output / STATE_FOLDER, overwrite=overwrite)
    if not overwrite and _is_occupied(output):
        _refuse_foreign(written, (output / name for name in (*files_for_all(chosen), FAILURES)))
        whole = _run_in(output / STATE_FOLDER / JOURNAL)
        files = [output / name for name in files_for_all(chosen, only_over_images=True)]
        if whole is not None and whole.finished and (there := [path for path in files if path.exists()]):
            _refuse_other_images(there[0], [whole], (name for name, _ in _named(records)))
    files = write_for_all(chosen, records, settings, written)
    of_each = setting["draw"] or any(name in PER_IMAGE for name in setting["formats"])
    elsewhere = [one for one in folders if of_each and os.path.realpath(one) != os.path.realpath(output)]
    failed = write_failures(records, output / FAILURES, written)
    written.close()
    return Merged(files, failed, elsewhere)


def _all_shards(folders: Sequence[Path]) -> list[Record]:
    paths = [path for folder in folders for path in sorted((folder / STATE_FOLDER).glob(f"*-of-*/{JOURNAL}"))]
    records = {record.setting["shard"]: record for path in paths if (record := _run_in(path)) is not None}
    if not records:
        raise UsageError(f"no shards were written into {' or '.join(map(str, folders))}")
    first = next(iter(records.values()))
    counts = sorted({int(shard.partition("/")[2]) for shard in records})
    if len(counts) > 1:
        raise UsageError(
            f"{' and '.join(map(str, folders))} holds shards of runs in {' and in '.join(map(str, counts))} parts; "
            f"remove those that are not wanted, such as {first.path.parent}"
        )
    for record in records.values():
        differences = _differences(first.setting, record.setting)
        different = [name for name, *_ in differences if name not in ("shard", *COMPUTING)]
        if different:
            raise UsageError(f"{first.path} and {record.path} are of different runs: they differ in {different[0]}")
        if not record.finished:
            raise UsageError(f"shard {record.setting['shard']} has not come to its end; go on with it with --resume")
    (count,) = counts
    missing = [str(shard) for index in range(count) if str(shard := Shard(index, count)) not in records]
    if missing:
        raise UsageError(f"shard {' and '.join(missing)} is missing in {' and '.join(map(str, folders))}")
    return list(records.values())


def drawn(folder: Path) -> bool:
    """Whether the images in an output folder are annotated images."""
    settings = (setting_of(path) for path in (folder / STATE_FOLDER).glob(f"**/{JOURNAL}"))
    return any(setting.get("draw") for setting in settings if setting is not None)


def write_for_all(
    formats: Iterable[str],
    records: Sequence[Record],
    settings: OutputSettings,
    written: Written,
    *,
    staging: Path | None = None,
) -> list[Path]:
    """Write the files that a format has for all images together; see `atomic_file` for `staging`.

    Returns:
        The files.

    Raises:
        OutputError: one cannot be written, or would overwrite what is not in `written`.
    """
    files = []
    for name in formats:
        if name in PER_RUN:
            for file_name, write in run_format(name).FILES.items():
                path = settings.folder / file_name
                with atomic_file(path, staging=staging, before_rename=written.admit) as file:
                    write(file, _Images(records), settings)
                files.append(path)
    return files


def write_failures(
    records: Sequence[Record], path: Path, written: Written, *, staging: Path | None = None
) -> Counter[str]:
    """Write a line for each image that failed, or take the file away if none did; see `atomic_file` for `staging`.

    Returns:
        How many failed in which way.

    Raises:
        OutputError: it cannot be written, or would overwrite what is not in `written`.
    """
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        file = None
        for entry in _in_order(records):
            if isinstance(entry.result, Failure):
                kinds[entry.result.kind] += 1
                file = file or stack.enter_context(atomic_file(path, staging=staging, before_rename=written.admit))
                file.write(json.dumps(vars(entry.result)).encode() + b"\n")
    if not kinds:
        written.check(path)
        with as_output_error(path):
            path.unlink(missing_ok=True)
    return kinds


@dataclass(frozen=True)
class _Images:
    """All images that were looked at, in order, as often as it takes."""

    records: Sequence[Record]

    def __iter__(self) -> Iterator[ImageResult]:
        return (entry.result for entry in _in_order(self.records) if isinstance(entry.result, ImageResult))


def _run_in(journal: Path) -> Record | None:
    """What a journal knows of a run, or None if it is no run's."""
    record = read_journal(journal)
    if record is None:
        return None
    try:
        shard, formats, names = (record.setting[key] for key in ("shard", "formats", "class_names"))
        known = (shard is None or parse_shard(shard)) and set(formats) <= FORMATS.keys() and "draw" in record.setting
        return record if known and all(isinstance(name, str) for name in names) else None
    except (KeyError, TypeError, UsageError):
        return None


def files_for_all(formats: Iterable[str], *, only_over_images: bool = False) -> list[str]:
    """Names of the files that formats have for all images; only those that say something of each, or all."""
    chosen = PER_RUN - PER_IMAGE if only_over_images else PER_RUN
    return [name for one in formats if one in chosen for name in run_format(one).FILES]


def _is_occupied(folder: Path) -> bool:
    """Whether a folder holds anything but what runs keep to themselves."""
    try:
        with os.scandir(folder) as listing:
            return any(entry.name != STATE_FOLDER for entry in listing)
    except OSError:
        return False


def _is_within(path: str, folder: str) -> bool:
    return Path(path).is_relative_to(folder)


def _check_own_folder(folder: Path, output: str) -> None:
    if not _is_within(os.path.realpath(folder), output):
        raise UsageError(f"{folder} leads out of the output folder; remove that link, or name another --output")


def _refuse_foreign(written: Written, paths: Iterable[Path]) -> None:
    foreign = (path for path in paths if written.is_foreign(path))
    first = next(foreign, None)
    if first is not None:
        more = sum(1 for _ in foreign)
        files = f"{first} and {more} more were" if more else f"{first} was"
        raise UsageError(
            f"{files} not written by detr, or changed since; replace with --overwrite, or name another --output"
        )


def _refuse_other_images(file: Path, records: Sequence[Record], coming: Iterable[str]) -> None:
    """Refuse to overwrite a file with one that lacks images that are still there."""
    names = Names(coming)
    lost = (path for name, path in _named(records) if name not in names and (is_url(path) or os.path.lexists(name)))
    first = next(lost, None)
    if first is not None:
        count = 1 + sum(1 for _ in lost)
        others = f"{count} other images, such as {first}" if count > 1 else f"another image, {first}"
        raise UsageError(
            f"{file} is of {others}; name all images in one run (… | detr predict -), add to it with --resume, "
            "or replace it with --overwrite"
        )


def _named(records: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Of each image that runs have looked at, what tells it from others, and its path as the user named it."""
    for record in records:
        root = str(record.setting.get("root"))
        for entry in record.entries():
            if isinstance(entry.result, ImageResult):
                path = entry.result.path
                yield path if is_url(path) else original_path(root, entry.result.relative), path


def _name_of(path: str) -> str:
    return path if is_url(path) else os.path.abspath(path)


def _in_order(records: Sequence[Record]) -> Iterator[Entry]:
    return merge(*(record.entries() for record in records), key=lambda entry: entry.index)


def _check_same(record: Record, plan: Plan, output: Path) -> None:
    shown = Repr()
    shown.maxlist, shown.maxstring = 3, 200
    different = [
        f"{name} = {shown.repr(before)}, not {shown.repr(now)}"
        for name, before, now in _differences(record.setting, plan.as_setting())
    ]
    if different:
        raise UsageError(
            f"the run in {output} began with {'; '.join(different)}; resume with what it began with, "
            "or name another --output"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Name of each thing that differs, what it was, and what it is."""
    for name, value in now.items():
        other = before.get(name)
        if isinstance(value, dict) and isinstance(other, dict):
            yield from _differences(other, value)
        elif value != other:
            yield name, other, value


def _remove(folder: Path) -> None:
    """Take away what a run that nobody may go on with kept to itself."""
    rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others may have theirs beside it
        folder.parent.rmdir()


def _folder_of(output: Path, shard: Shard | None) -> Path:
    return output / STATE_FOLDER / f"{shard.index}-of-{shard.count}" if shard else output / STATE_FOLDER


def _namesake(path: str) -> str | None:
    """An image beside this one whose name differs in the ending alone."""
    if is_url(path):
        return None
    folder, name = os.path.split(os.path.abspath(path))
    stem, suffix = os.path.splitext(name)
    if suffix.lower() not in SUFFIXES:  # which no folder is searched for
        digests = _stem_digests(folder)
        place = int(np.searchsorted(digests, hash(stem)))
        if place == len(digests) or digests[place] != hash(stem):
            return None
        return next((other for one, other in _stems(folder) if one == stem), None)
    return next((other for other in _namesakes(folder).get(stem, ()) if other != name), None)


@lru_cache(maxsize=16)
def _namesakes(folder: str) -> dict[str, list[str]]:
    """The images of a folder whose names differ in the ending alone, by what is before it."""
    digests = _stem_digests(folder)
    repeated = set(digests[1:][digests[1:] == digests[:-1]].tolist())
    seen: dict[str, list[str]] = {}
    for stem, name in _stems(folder):
        if hash(stem) in repeated:
            seen.setdefault(stem, []).append(name)
    return {stem: names for stem, names in seen.items() if len(names) > 1}


@lru_cache(maxsize=16)
def _stem_digests(folder: str) -> NDArray[np.int64]:
    """Of each image in a folder, a digest of what is before the ending of its name; sorted."""
    # of a million names, digests take a tenth of the memory
    return np.sort(np.fromiter((hash(stem) for stem, _ in _stems(folder)), np.int64))


def _stems(folder: str) -> Iterator[tuple[str, str]]:
    """Of each image in a folder, what is before the ending of its name, and the name."""
    with suppress(OSError), os.scandir(folder) as listing:
        for entry in listing:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() in SUFFIXES:
                yield stem, entry.name
