"""Fonts for class names in any script."""

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

from ..errors import FontWarning, MissingGlyphWarning, UsageError
from ..files import open_file

NO_CHARACTER = "\U0010ffff"
"""Code point without a character, for which a font draws its glyph for missing characters."""
FONTCONFIG_TIMEOUT = 20
"""Timeout of fontconfig in seconds; its first call reads all fonts."""
VARIATIONS = frozenset(map(chr, range(0xFE00, 0xFE10)))
"""Variation selectors."""
NEEDS_SHAPING = ((0x0590, 0x109F), (0x1780, 0x18AF), (0xFB1D, 0xFEFC))
"""Code points of scripts that need text shaping: Hebrew to Myanmar, Khmer to Mongolian, and the presentation forms of
Hebrew and Arabic."""

Font = ImageFont.FreeTypeFont


@dataclass(frozen=True)
class Face:
    """Font of any size.

    Attributes:
        path: path of the font file.
        index: index of the font in the file.
        ranges: first and last code point of each range that it has, or None if unknown.
    """

    path: str
    index: int = 0
    ranges: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)

    def has(self, letter: str) -> bool:
        """Whether the font has a character; format characters count as present."""
        if unicodedata.category(letter) == "Cf" or letter in VARIATIONS:
            return True
        if self.ranges is not None:
            return any(first <= ord(letter) <= last for first, last in self.ranges)
        return _rasterize(self, letter) != _rasterize(self, NO_CHARACTER)

    def at(self, size: int) -> Font:
        """Return the font at a size in pixels.

        Raises:
            OSError: the file is missing or not a font.
        """
        return _loaded(self.path, self.index, size)

    def usable(self) -> bool:
        """Whether the font can be loaded."""
        try:
            self.at(16)
        except OSError:
            return False
        return True


DEJAVU_SANS = Face(str(Path(__file__).with_name("DejaVuSans.ttf")))
"""Font of this package, with Latin, Greek and Cyrillic letters and many symbols."""


class Fonts:
    """Fonts to choose from: a given file, DejaVu Sans, and the system's fonts according to fontconfig.

    Warns once about a name with a character that no font has. Thread-safe.

    Args:
        file: font file to prefer, or None.

    Raises:
        UsageError: the file cannot be read as a font.
    """

    def __init__(self, file: str | None = None) -> None:
        self._preferred = [DEJAVU_SANS] if file is None else [Face(file), DEJAVU_SANS]
        self._face_by_letter: dict[str, Face | None] = {}
        self._warned: set[type[FontWarning]] = set()
        try:
            if file is not None and os.path.exists(file):  # otherwise Pillow searches the system fonts
                open_file(file).close()
            self.base(16)
        except OSError as error:
            raise UsageError(f"cannot read the font {file}: {error.strerror or error}") from error

    def base(self, size: int) -> Font:
        """Return the preferred font."""
        return self._preferred[0].at(size)

    def runs(self, name: str, score: str, size: int) -> list[tuple[str, Font]] | None:
        """Split a name and its score into pieces, each with a font that has all of its characters.

        Returns:
            The pieces from left to right, or None if no font has one of the characters.
        """
        found: list[tuple[str, Face]] = []
        for letter in name + score:
            last = found[-1] if found else ("", None)
            joins = letter.isspace() or unicodedata.category(letter)[0] in "MC"  # stays with the previous character
            face = last[1] if joins and last[1] is not None and last[1].has(letter) else self._face_for(letter)
            if face is None:
                text = f"no font has all letters of {name!r}; annotated images show class ids instead of such names"
                self._warn_once(MissingGlyphWarning(text))
                return None
            if face is last[1]:
                found[-1] = (last[0] + letter, face)
            else:
                found.append((letter, face))
        if not features.check_feature("raqm") and any(
            first <= ord(one) <= last for one in name for first, last in NEEDS_SHAPING
        ):
            text = f"Pillow lacks Raqm; the letters of {name!r} are drawn one by one from left to right"
            self._warn_once(FontWarning(text))
        return [(part, face.at(size)) for part, face in found]

    def _face_for(self, letter: str) -> Face | None:
        if letter not in self._face_by_letter:
            usable = (face for face in self._faces() if face.has(letter) and face.usable())
            self._face_by_letter[letter] = next(usable, None)
        return self._face_by_letter[letter]

    def _faces(self) -> Iterator[Face]:
        yield from self._preferred
        yield from _installed()

    def _warn_once(self, warning: FontWarning) -> None:
        if type(warning) not in self._warned:
            self._warned.add(type(warning))
            warnings.warn(warning, stacklevel=2)


@lru_cache(maxsize=256)
def _loaded(path: str, index: int, size: int) -> Font:
    return ImageFont.truetype(path, size, index)


@lru_cache(maxsize=4096)
def _rasterize(face: Face, letter: str) -> tuple[tuple[int, int], bytes]:
    font = ImageFont.truetype(face.path, 16, face.index, layout_engine=ImageFont.Layout.BASIC)
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@lru_cache(maxsize=1)
def _installed() -> tuple[Face, ...]:
    """Return the fonts that fontconfig lists for plain text, best match first."""
    program = shutil.which("fc-match")
    if program is None:
        return ()
    form = "%{file}\t%{index}\t%{scalable}\t%{color}\t%{charset}\n"
    try:
        run = subprocess.run(  # noqa: S603 (fixed arguments)
            [program, "-s", "-f", form, "sans"], capture_output=True, timeout=FONTCONFIG_TIMEOUT, check=True
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
