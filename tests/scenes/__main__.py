"""Write rendered scenes: `python -m tests.scenes FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from detrcli.errors import DetrError

from . import FIRST_OF_VAL, write


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a training set and a validation set of rendered scenes, which have no scene in common."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenes", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="parent of the folders train and val")
    parser.add_argument("--train", type=int, default=20_000, help="number of training scenes (default: %(default)s)")
    parser.add_argument("--val", type=int, default=500, help="number of validation scenes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="random seed (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        for split, count, first in (("train", options.train, 0), ("val", options.val, FIRST_OF_VAL)):
            write(options.folder / split, count, options.seed, first)
            print(f"{options.folder / split}: {count} scenes", flush=True)
    except DetrError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
