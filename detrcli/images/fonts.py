"""Fonts that have the letters of a text, whatever its script."""

import os
import shutil
import subprocess
import unicodedata
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont, features

from ..errors import FontWarning, UsageError
from ..files import open_file

NO_CHARACTER = "\U0010ffff"
"""Unicode has no letter here, so a font draws what it has for letters that it lacks."""
PATIENCE = 20
"""Seconds that fontconfig may take; it reads all fonts when it is called for the first time."""
VARIATIONS = frozenset(map(chr, range(0xFE00, 0xFE10)))
"""Marks that choose between forms of the letter before them."""
SHAPED = ((0x0590, 0x109F), (0x1780, 0x18AF), (0xFB1D, 0xFEFC))
"""Letters that are written from right to left, or change their form or place beside others: Hebrew to Myanmar, Khmer,
Mongolian, and what Unicode has for the forms of Hebrew's and Arabic's."""

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Face:
    """A font at any size.

    Attributes:
        path: of the file.
        index: of the font in the file.
        ranges: first and last of each row of letters that it has, in order, or None if it has to be asked.
    """

    path: str
    index: int = 0
    ranges: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)

    def has(self, letter: str) -> bool:
        """Whether it has a letter; all have what only changes how others look."""
        if unicodedata.category(letter) == "Cf" or letter in VARIATIONS:
            return True
        if self.ranges is not None:
            return any(first <= ord(letter) <= last for first, last in self.ranges)
        return _drawn(self, letter) != _drawn(self, NO_CHARACTER)

    def at(self, size: int) -> Font:
        """The font at a size in pixels.

        Raises:
            OSError: its file is missing or no font.
        """
        return _loaded(self.path, self.index, size)

    def usable(self) -> bool:
        """Whether it can be loaded."""
        try:
            self.at(16)
        except OSError:
            return False
        return True


DEJAVU_SANS = Face(str(Path(__file__).with_name("DejaVuSans.ttf")))
"""The font that comes with this package: Latin, Greek and Cyrillic letters, and many symbols."""


class Fonts:
    """Finds fonts for names: the user's own, DejaVu Sans, and what fontconfig finds on this system.

    A name that none of them has all letters of is told of once, by a warning. May be used by several threads.

    Args:
        file: a font to look into first, or None.

    Raises:
        UsageError: the file holds no font that can be used.
    """

    def __init__(self, file: str | None = None) -> None:
        self._own: tuple[Face, ...] = (Face(file),) if file is not None else ()
        self._faces_of: dict[str, Face | None] = {}
        self._told: set[str] = set()
        for face in self._own:
            try:
                if file is not None and os.path.exists(file):  # else Pillow looks for it among the system's
                    open_file(file).close()
                face.at(16)
            except OSError as error:
                raise UsageError(f"cannot read the font {file}: {error.strerror or error}") from error

    def base(self, size: int) -> Font:
        """The font of most letters."""
        return next(self._faces()).at(size)

    def runs(self, name: str, score: str, size: int) -> list[tuple[str, Font]] | None:
        """Split a name and what is behind it into pieces, each with a font that has its letters.

        Returns:
            The pieces from left to right, or None if there are letters that no font has.
        """
        found: list[tuple[str, Face]] = []
        for letter in name + score:
            last = found[-1] if found else ("", None)
            joins = letter.isspace() or unicodedata.category(letter)[0] in "MC"  # belongs to the letter before it
            face = last[1] if joins and last[1] is not None and last[1].has(letter) else self._face_for(letter)
            if face is None:
                self._tell(
                    "letters",
                    f"no font here has all letters of {name!r}; annotated images show numbers in place of such names. "
                    "Install a font for the script, as Noto's, or name a font file",
                )
                return None
            if face is last[1]:
                found[-1] = (last[0] + letter, face)
            else:
                found.append((letter, face))
        if not features.check_feature("raqm") and any(
            first <= ord(one) <= last for one in name for first, last in SHAPED
        ):
            self._tell(
                "raqm", f"Pillow has no Raqm here, so the letters of {name!r} are drawn one by one, left to right"
            )
        return [(part, face.at(size)) for part, face in found]

    def _face_for(self, letter: str) -> Face | None:
        if letter not in self._faces_of:
            usable = (face for face in self._faces() if face.has(letter) and face.usable())
            self._faces_of[letter] = next(usable, None)
        return self._faces_of[letter]

    def _faces(self) -> Iterator[Face]:
        yield from self._own
        yield DEJAVU_SANS
        yield from _installed()

    def _tell(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            warnings.warn(text, FontWarning, stacklevel=2)


@lru_cache(maxsize=256)
def _loaded(path: str, index: int, size: int) -> Font:
    return ImageFont.truetype(path, size, index)


@lru_cache(maxsize=4096)
def _drawn(face: Face, letter: str) -> tuple[tuple[int, int], bytes]:
    font = ImageFont.truetype(face.path, 16, face.index, layout_engine=ImageFont.Layout.BASIC)
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _installed() -> tuple[Face, ...]:
    """The fonts that fontconfig knows, the fittest for plain text first."""
    program = shutil.which("fc-match")
    if program is None:
        return ()
    form = "%{file}\t%{index}\t%{scalable}\t%{color}\t%{charset}\n"
    try:
        run = subprocess.run(  # noqa: S603 — its arguments are ours
            [program, "--sort", "--format", form, "sans"], capture_output=True, timeout=PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    rows = (line.split("\t") for line in os.fsdecode(run.stdout).splitlines())
    return tuple(
        Face(row[0], int(row[1]), tuple(_ranges(row[4])))
        for row in rows
        if len(row) == 5 and row[2] == "True" and row[3] != "True"
    )


def _ranges(charset: str) -> Iterator[tuple[int, int]]:
    for part in charset.split():
        first, _, last = part.partition("-")
        yield int(first, 16), int(last or first, 16)
