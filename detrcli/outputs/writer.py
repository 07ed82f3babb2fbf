"""Writing of what belongs to a single image: the annotated image and the per-image files."""

import errno
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..detections import Detections
from ..errors import ImageError, ImageOverwriteError, OutputError, OverwriteError, OwnImageError
from ..files import atomic_file, shorten_name
from ..images.decode import DecodedImage
from ..images.sources import ImageReference
from ..timing import Clock
from .formats import FORMATS, PER_IMAGE, image_format
from .namesakes import find_namesake
from .overwriting import is_within
from .plan import Plan
from .record import ImageResult, OutputSettings
from .written import Written

if TYPE_CHECKING:
    from ..images.fonts import Fonts

OF_THIS_IMAGE = (errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.ELOOP)
"""Errors of a system that concern one file, while others can still be written."""


class ImageWriter:
    """Writes an image's own outputs. May be used by any number of threads.

    Args:
        plan: what to write.
        settings: what formats need to know besides the images.
        written: files that runs wrote.
        staging: folder for files that are not complete yet.
        reserved: paths of files for all images.
        fonts: fonts for class names in annotated images.
        clock: clock that drawing and writing are timed with.
    """

    def __init__(
        self,
        plan: Plan,
        settings: OutputSettings,
        written: Written,
        staging: Path,
        reserved: set[Path],
        fonts: "Fonts | None",
        clock: Clock,
    ) -> None:
        self._plan, self._settings, self._output = plan, settings, settings.folder
        self._real_output = os.path.realpath(self._output)
        self._written, self._staging, self._reserved = written, staging, reserved
        self._fonts, self._clock = fonts, clock

    def write(
        self, reference: ImageReference, decoded: DecodedImage | None, detections: Detections, result: ImageResult
    ) -> Path | None:
        """Write the outputs of one image.

        Args:
            reference: the image.
            decoded: its pixels, if an annotated image is to be written.
            detections: what to draw.
            result: what to write into files.

        Returns:
            Path of the annotated image, or None if there is none.

        Raises:
            ImageError: they cannot be written, but those of other images may.
            OutputError: nothing can be written any more.
        """
        try:
            annotated = self._draw(reference, decoded, detections) if decoded is not None else None
            with self._clock.timing("write"):
                for name in self._plan.formats:
                    if name in PER_IMAGE:
                        self._write_file(name, reference, result)
        except OverwriteError as error:
            raise ImageOverwriteError(f"{reference.path}: {error}", "not written") from error
        except OutputError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in OF_THIS_IMAGE:
                raise ImageError(f"{reference.path}: {error}", "not written") from error
            raise
        return annotated

    def _draw(self, reference: ImageReference, decoded: DecodedImage, detections: Detections) -> Path:
        from ..images.draw import draw, save_annotated

        target = self._checked(self._output / reference.relative, reference)
        if target.exists() and os.path.exists(reference.path) and os.path.samefile(target, reference.path):
            raise OwnImageError(f"{reference.path}: its annotated image would overwrite it", "not written")
        with self._clock.timing("draw"):
            try:
                annotated = draw(decoded, detections, self._fonts)
                return save_annotated(
                    annotated, decoded, target, staging=self._staging, before_rename=self._written.admit
                )
            except (OverflowError, ValueError, SystemError) as error:
                raise ImageError(f"{reference.path}: cannot be annotated ({error})", "not written") from error

    def _write_file(self, name: str, reference: ImageReference, result: ImageResult) -> None:
        if FORMATS[name].by_stem and (other := find_namesake(reference.path)):
            raise ImageError(
                f"{reference.path}: {name} has one file for it and for {other}, whose name differs only in its suffix; "
                "rename one",
                "not written",
            )
        stem = os.path.splitext(reference.path)[0]
        if name == "labelme" and "json" in self._plan.formats and os.path.isfile(stem):
            raise ImageError(
                f"{reference.path}: labelme has one file for it and json for {stem}; rename one", "not written"
            )
        form = image_format(name)
        path = self._checked(self._output / form.path_for(PurePosixPath(result.relative)), reference)
        with atomic_file(path, staging=self._staging, before_rename=self._written.admit) as file:
            file.write(form.render(result, self._settings))

    def _checked(self, path: Path, reference: ImageReference) -> Path:
        """Path, shortened if it is too long, that is not reserved and that no link leads out of the output folder."""
        if path in self._reserved:
            raise ImageError(f"{reference.path}: its outputs would overwrite {path}; rename it", "not written")
        if not is_within(os.path.realpath(path.parent), self._real_output):
            if os.path.realpath(self._output) != self._real_output:
                raise OutputError(f"{self._output} was replaced while it was written to")
            raise ImageError(f"{reference.path}: {path.parent} leads out of the output folder", "not written")
        return shorten_name(path)
