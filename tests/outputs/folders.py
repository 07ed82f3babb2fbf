"""Folders of small images, some of them broken in various ways."""

import io
import random
import struct
import zlib
from pathlib import Path

from PIL import Image

EVERY = 50
"""One image in this many is broken."""


def small_image(number: int) -> Image.Image:
    """Image of a few colors, different for each number."""
    random_numbers = random.Random(number)
    width, height = random_numbers.randint(20, 60), random_numbers.randint(20, 60)
    colors = bytes(random_numbers.randrange(256) for _ in range(4 * 3 * 3))
    return Image.frombytes("RGB", (4, 3), colors).resize((width, height), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def broken(number: int) -> bytes:
    """Bytes that no decoder reads as an image."""
    image, random_numbers = small_image(number), random.Random(number)
    jpeg, png = encoded(image, "JPEG"), encoded(image.resize((60, 60), Image.Resampling.BICUBIC), "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = png[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    ways = (
        b"",
        bytes(number % 4000 + 1),
        random_numbers.randbytes(number % 4000 + 1),
        b"<!DOCTYPE html><title>404 Not Found</title>" * (number % 9 + 1),
        jpeg[: len(jpeg) - 40 - number % 60],
        jpeg[: 3 + number % 100],
        png[: len(png) // 2 + number % 40],
        png[: 9 + number % 20],
        png[:1] + bytes([random_numbers.randrange(255)]) + png[2:8] + b"\xff" * 60,
        bomb,
        encoded(image, "GIF")[: 20 + number % 30],
        encoded(image, "BMP")[: 60 + number % 90],
        encoded(image, "TIFF")[: 4 + number % 4],
        b"RIFF" + struct.pack("<I", number) + b"WEBPVP8 " + bytes(20),
    )
    return ways[number // EVERY % len(ways)]


def write_folder(folder: Path, count: int) -> list[str]:
    """Write a number of images, in folders of a thousand.

    Returns:
        The names of the broken ones, below the folder, in order.
    """
    bad = []
    for number in range(count):
        name = f"{number // 1000:03}/{number:06}.{('jpg', 'png')[number % 2]}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % EVERY == EVERY - 1:
            path.write_bytes(broken(number))
            bad.append(name)
        else:
            path.write_bytes(encoded(small_image(number), ("JPEG", "PNG")[number % 2]))
    return bad
