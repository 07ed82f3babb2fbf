"""Looks at damaged pictures for a while, and keeps what ends in anything but a picture or one clear error.

    python -m tests.labelling.fuzz FOLDER [--minutes N] [--seed N]

FOLDER gets the files. Each is decoded as `detr predict` would, resized, drawn on and encoded again, in a few seconds.
"""

import argparse
import io
import random
import signal
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType

from PIL import Image

from detrcli.detections import Wanted
from detrcli.draw import draw, save_drawing
from detrcli.errors import ImageError
from detrcli.images.decode import read_picture
from detrcli.images.resize import Exactly, resized_pixels

from .folders import small_picture

KINDS = (
    "JPEG",
    "PNG",
    "GIF",
    "TIFF",
    "WEBP",
    "BMP",
    "PPM",
    "TGA",
    "ICO",
    "JPEG2000",
    "AVIF",
    "PCX",
    "SGI",
    "MPO",
    "QOI",
)
MODES = ("RGB", "L", "P", "RGBA", "CMYK", "1", "I;16", "LA", "F")
LONGEST = 10
"""Seconds for one picture."""


class TooLong(BaseException):
    """A picture took too long."""


def seeds(numbers: random.Random) -> list[bytes]:
    """Sound pictures in as many formats and modes as there are."""
    found = []
    for kind in KINDS:
        for mode in MODES:
            file = io.BytesIO()
            image = small_picture(numbers.randrange(1000))
            exif = Image.Exif()
            exif[274] = numbers.randrange(1, 9)
            try:
                image.convert(mode).save(file, kind, **({"exif": exif} if kind in ("JPEG", "TIFF", "PNG") else {}))
            except (OSError, ValueError, KeyError):
                continue
            found.append(file.getvalue())
    return found


def mutated(content: bytes, numbers: random.Random) -> bytes:
    """The same with bytes changed, cut out, doubled or cut off, mostly where a format says what it is."""
    raw = bytearray(content)
    for _ in range(numbers.choice((1, 1, 2, 4, 16))):
        end = len(raw) if numbers.random() < 0.5 else min(len(raw), 200)
        place = numbers.randrange(max(1, end))
        way = numbers.randrange(6)
        if way <= 2:
            raw[place : place + 1] = bytes([numbers.choice((0, 1, 127, 128, 255, numbers.randrange(256)))])
        elif way == 3:
            del raw[place : place + numbers.randrange(1, 40)]
        elif way == 4:
            raw[place:place] = raw[place : place + numbers.randrange(1, 40)]
        else:
            del raw[place + numbers.randrange(200) :]
    return bytes(raw)


def look(path: Path, output: Path) -> str:
    """What becomes of a picture, in a word."""
    try:
        picture = read_picture(path)
        pixels = resized_pixels(picture.image, Exactly(64, 64), Image.Resampling.BILINEAR)
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == "uint8"
        import numpy as np

        box = np.array([[1, 1, 20, 20]], np.float32)
        found = Wanted().select(box, np.ones(1, np.float32), np.zeros(1, np.int64), ("thing",), picture.image.size)
        if picture.image.width * picture.image.height < 10**6:
            save_drawing(draw(picture, found), picture, output)
    except ImageError as error:
        return error.kind if str(error).strip() else "BUG: nothing is said"
    return "fine"


def main() -> None:
    """Look until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    numbers = random.Random(options.seed)
    sound = seeds(numbers)
    outcomes: Counter[str] = Counter()

    def too_long(_: int, __: FrameType | None) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, too_long)
    path, ends = options.folder / "now.bin", time.monotonic() + 60 * options.minutes
    while time.monotonic() < ends:
        path.write_bytes(mutated(numbers.choice(sound), numbers))
        signal.alarm(LONGEST)
        try:
            outcomes[look(path, options.folder / "drawn" / "now.bin")] += 1
        except (Exception, TooLong) as error:  # whatever it is, it is what is looked for
            outcomes[f"BUG {type(error).__name__}"] += 1
            kept = options.folder / f"bug-{outcomes.total()}.bin"
            path.rename(kept)
            kept.with_suffix(".txt").write_text(traceback.format_exc())
        finally:
            signal.alarm(0)
    print(f"{len(sound)} sound pictures, {outcomes.total()} damaged ones: {dict(outcomes.most_common())}")


if __name__ == "__main__":
    main()
