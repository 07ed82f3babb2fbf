"""A run that writes files: those of each image, a journal, those for all images, and a list of failures."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path, PurePosixPath
from secrets import token_hex
from shutil import rmtree
from typing import TYPE_CHECKING
from weakref import finalize

from ..detections import Detections
from ..errors import ImageError, OverwriteError, StoppedRunError
from ..files import PART_SUFFIX, STATE_FOLDER, as_output_error, shorten_name
from ..images.decode import DecodedImage
from ..images.sources import ImageReference
from ..timing import Clock
from . import overwriting
from .journal import JOURNAL, Journal, ensure_not_locked
from .name_counts import NameCounts
from .plan import Plan, ensure_same_plan, files_for_all, read_run
from .record import Failure, ImageResult, IndexedReference, Outcome, OutputSettings
from .run_files import FAILURES, write_failures, write_for_all
from .writer import ImageWriter
from .written import Written

if TYPE_CHECKING:
    from ..images.fonts import Fonts


class Run:
    """Run over images that writes no files.

    Args:
        model: name of the model.

    Attributes:
        before: number of images that were done before the run was resumed.
        failures: path of the file that lists the failures, or None.
        resumable: whether the run can be resumed.
    """

    before = 0
    failures: Path | None = None
    resumable = False

    def __init__(self, model: str) -> None:
        self._model = model

    def remaining(self, images: Iterator[IndexedReference]) -> Iterator[IndexedReference]:
        """Images of the run that are not done yet."""
        return images

    def write(
        self, item: IndexedReference, decoded: DecodedImage | None, detections: Detections | ImageError
    ) -> Outcome:
        """Write the outputs of one image, in any thread and order.

        Args:
            item: the image.
            decoded: its pixels, if an annotated image is to be written.
            detections: its detections, or why there are none.

        Raises:
            OutputError: nothing can be written any more.
        """
        index, reference = item
        if isinstance(detections, ImageError):
            return Outcome.failed(index, reference.path, detections)
        try:
            result = ImageResult.from_detections(reference, self._model, detections)
            return Outcome(index, result, self._write(reference, decoded, detections, result))
        except ImageError as error:
            return Outcome.failed(index, reference.path, error)
        except MemoryError:
            text = f"{reference.path}: not enough memory to annotate it or to write its files"
            return Outcome.failed(index, reference.path, ImageError(text, "too large"))

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of an image; outcomes come in the images' order, all from one thread."""

    def close(self, *, finished: bool) -> Counter[str]:
        """End the run; see `OutputRun.close`."""
        return Counter()

    def _write(
        self, reference: ImageReference, decoded: DecodedImage | None, detections: Detections, result: ImageResult
    ) -> Path | None:
        """Write an image's files; see `ImageWriter.write`."""
        return None


class OutputRun(Run):
    """Run that writes files. `write` may be called from any thread, everything else from one.

    Args:
        output: output folder.
        plan: what to write.
        resumable: whether the run can be resumed; if not, it leaves only its outputs behind.
        list_failures: whether to write a list of failures, if the run can be resumed.
        resume: True to resume the run that was stopped, if there is one; False to start anew; None to start anew
            unless one was stopped.
        overwrite: whether to overwrite files that no run wrote, or that were changed since, and files for other
            images.
        coming: returns all images of the run, or only the first if they cannot be listed beforehand.
        listable: whether `coming` returns all.
        fonts: fonts for class names in annotated images.
        clock: clock that drawing and writing are timed with.

    Raises:
        StoppedRunError: a run was stopped, and `resume` is None.
        OtherRunError: the run to resume has another plan.
        LockedError: another process is writing the run.
        UsageError: files would be overwritten.
        OutputError: the folder cannot be written to.
    """

    def __init__(
        self,
        output: Path,
        plan: Plan,
        *,
        resumable: bool = True,
        list_failures: bool = True,
        resume: bool | None = None,
        overwrite: bool = False,
        coming: Callable[[], Iterable[IndexedReference]] = tuple,
        listable: bool = True,
        fonts: "Fonts | None" = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(plan.model)
        self._output, self._plan, self.resumable = output, plan, resumable
        self._folder = output / STATE_FOLDER
        if plan.shard:
            self._folder /= f"{plan.shard.index}-of-{plan.shard.count}"
        overwriting.ensure_inside(self._folder, os.path.realpath(output))
        path, shard = self._folder / JOURNAL, plan.shard
        recorded = read_run(path) if resumable else None
        if recorded is not None and resume is None and recorded.done and not recorded.finished:
            ensure_not_locked(path)
            raise StoppedRunError(f"{output} holds a run that was stopped")
        if recorded is not None and resume:
            ensure_same_plan(recorded, plan, output)
        self._recorded = recorded if resume else None
        self._written = Written(output, self._folder, overwrite=overwrite)
        self.failures: Path = output / (f"failures-{shard.index}-of-{shard.count}.jsonl" if shard else FAILURES)
        self._lists_failures = resumable and list_failures
        for_all = {output / name for name in files_for_all(plan.formats)}
        self._reserved = {output / FAILURES, self.failures, *for_all}
        self._at_stake: NameCounts | None = None
        if not overwrite and overwriting.is_occupied(output):
            if not resume:
                self._check_other_images(path, coming(), listable=listable)
            self._check_foreign(self.remaining(iter(coming())) if listable else ())
        if not resumable:
            self._folder = output / STATE_FOLDER / f"single-{token_hex(8)}"
            self._discard = finalize(self, _remove, self._folder)
        with as_output_error(output):
            new = [one for one in (self._folder, *self._folder.parents) if not one.exists()]
            self._folder.mkdir(parents=True, exist_ok=True)
        holding = {output, self._folder.parent, *(one.parent for one in new)}
        path = self._folder / JOURNAL
        self._journal = Journal(path, plan.as_setting(), self._recorded, holding, self._written.sync)
        for part in self._folder.glob(f"*{PART_SUFFIX}"):  # left by a kill; the journal's lock keeps others out
            with suppress(OSError):
                part.unlink()
        self.before = self._recorded.done if self._recorded else 0
        self._settings = OutputSettings(plan.class_names, output, plan.image_root, plan.category_ids)
        self._writer = ImageWriter(
            plan, self._settings, self._written, self._folder, self._reserved, fonts, clock or Clock()
        )

    def remaining(self, images: Iterator[IndexedReference]) -> Iterator[IndexedReference]:
        """Images of the run that are not done yet."""
        return images if self._recorded is None else self._recorded.remaining(images)

    def add(self, outcome: Outcome) -> None:
        """Record the outcome of an image in the journal; outcomes come in the images' order, all from one thread."""
        if self._at_stake is not None:
            self._at_stake.drop(overwriting.image_key(outcome.result.path))
        self._journal.add(outcome, self._folders(outcome.result))

    def close(self, *, finished: bool) -> Counter[str]:
        """Write the list of failures, and, unless the run is a shard, the files for all images.

        Args:
            finished: whether the run came to its end; if not, the files for all images are left to the run that
                resumes it.

        Returns:
            Number of failures of each kind, including those before the run was resumed; empty if the run cannot be
            resumed.

        Raises:
            OutputError: a file cannot be written.
        """
        with closing(self._journal):
            runs = [self._journal.recorded()]
            if finished and self._at_stake is not None and (left := self._at_stake.left):
                raise OverwriteError(f"the list lacks {left} of the images of {self._file_at_stake}")
            if finished and self._plan.shard is None:
                write_for_all(self._plan.formats, runs, self._settings, self._written, staging=self._folder)
            kinds = Counter[str]()
            if self._lists_failures:
                kinds = write_failures(runs, self.failures, self._written, staging=self._folder)
            if finished:
                self._journal.finish([self._output])
        self._written.close()
        if not self.resumable:
            self._discard()
        return kinds

    def _write(
        self, reference: ImageReference, decoded: DecodedImage | None, detections: Detections, result: ImageResult
    ) -> Path | None:
        return self._writer.write(reference, decoded, detections, result)

    def _check_foreign(self, coming: Iterable[IndexedReference]) -> None:
        """Refuse to begin where files would be overwritten that no run wrote, or that were changed since."""
        for_all = () if self._plan.shard else tuple(self._output / name for name in files_for_all(self._plan.formats))
        failures = (self.failures,) if self._lists_failures else ()
        own = (self._output / place for _, one in coming for place in self._plan.places(PurePosixPath(one.relative)))
        own = (path for path in map(shorten_name, own) if path not in self._reserved)
        overwriting.ensure_not_foreign(self._written, chain(for_all, failures, own))

    def _check_other_images(self, journal: Path, coming: Iterable[IndexedReference], *, listable: bool) -> None:
        """Refuse to begin where a file of other images would be overwritten."""
        if self._plan.shard:
            self._file_at_stake, journals = journal, [journal]
        else:
            files = [self._output / name for name in files_for_all(self._plan.formats, only_over_images=True)]
            files = [path for path in files if path.exists()]
            if not files:
                return
            self._file_at_stake, journals = files[0], sorted((self._output / STATE_FOLDER).glob(f"**/{JOURNAL}"))
        runs = [one for path in journals if (one := read_run(path)) is not None and one.finished]
        keys = (overwriting.image_key(one.path) for _, one in coming)
        if listable:
            overwriting.ensure_no_image_is_lost(self._file_at_stake, runs, keys)
        elif runs:
            # whether all of them come again will be known when the list ends
            self._at_stake = NameCounts(key for key, _ in overwriting.keyed_images(runs))
            if any(key not in self._at_stake for key in keys):
                overwriting.ensure_no_image_is_lost(self._file_at_stake, runs, ())

    def _folders(self, result: ImageResult | Failure) -> set[Path]:
        """Folders that hold an image's own outputs, and their parents from the output folder on."""
        if isinstance(result, Failure):
            return set()
        places = self._plan.places(PurePosixPath(result.relative))
        return {self._output / folder for place in places for folder in place.parents}


def _remove(folder: Path) -> None:
    """Remove the own folder of a run that cannot be resumed."""
    rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # others may have theirs beside it
        folder.parent.rmdir()
