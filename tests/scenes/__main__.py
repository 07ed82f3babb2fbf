"""`python -m tests.scenes FOLDER` writes rendered scenes."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detrcli.errors import DetrError

from . import FIRST_OF_VAL, write


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a set to train on and one to validate on, of different scenes whatever their numbers."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenes", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="gets the folders train and val")
    parser.add_argument("--train", type=int, default=20_000, help="scenes to train on (default: %(default)s)")
    parser.add_argument("--val", type=int, default=500, help="scenes to validate on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another gives other scenes (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        for split, count, first in (("train", options.train, 0), ("val", options.val, FIRST_OF_VAL)):
            write(options.folder / split, count, options.seed, first)
            print(f"{options.folder / split}: {count} scenes", flush=True)
    except DetrError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
