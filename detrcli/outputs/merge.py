"""Merging of shards into the files that one run would have written for all images."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnfinishedShardError, UsageError
from ..files import STATE_FOLDER
from .formats import PER_IMAGE, PER_RUN
from .journal import JOURNAL, RecordedRun
from .overwriting import ensure_inside, ensure_no_image_is_lost, ensure_not_foreign, is_occupied, keyed_images
from .plan import differences, files_for_all, output_settings, read_run
from .run_files import FAILURES, write_failures, write_for_all
from .shards import Shard
from .written import Written

COMPUTING = ("device", "precision", "engine")
"""Settings in which shards may differ, because they change no more than the last digits of detections."""


@dataclass(frozen=True)
class Merged:
    """Result of a merge.

    Attributes:
        written: paths of the files.
        failed: number of failed images of each kind.
        elsewhere: other folders, which still hold annotated images and files of single images.
    """

    written: list[Path]
    failed: Counter[str]
    elsewhere: list[Path]


def merge_shards(
    folders: Sequence[Path], output: Path, formats: Sequence[str] | None, *, overwrite: bool = False
) -> Merged:
    """Write the files for all images from the journals of a run's shards.

    Args:
        folders: output folders of the shards.
        output: folder for the files.
        formats: output formats, or None for those of the shards.
        overwrite: whether to overwrite files that no run wrote, or that were changed since, and files for other images.

    Raises:
        UsageError: a shard is missing, unfinished, or of another run; or files would be overwritten.
        OutputError: a file cannot be written.
    """
    shards = _read_shards(folders)
    setting = shards[0].setting
    chosen = [name for name in formats or setting["formats"] if name in PER_RUN]
    ensure_inside(output / STATE_FOLDER, os.path.realpath(output))
    written = Written(output, output / STATE_FOLDER, overwrite=overwrite)
    if not overwrite and is_occupied(output):
        ensure_not_foreign(written, (output / name for name in (*files_for_all(chosen), FAILURES)))
        whole = read_run(output / STATE_FOLDER / JOURNAL)
        files = [output / name for name in files_for_all(chosen, only_over_images=True)]
        if whole is not None and whole.finished and (existing := [path for path in files if path.exists()]):
            ensure_no_image_is_lost(existing[0], [whole], (key for key, _ in keyed_images(shards)))
    files = write_for_all(chosen, shards, output_settings(setting, output), written)
    of_each = setting["draw"] or any(name in PER_IMAGE for name in setting["formats"])
    elsewhere = [one for one in folders if of_each and os.path.realpath(one) != os.path.realpath(output)]
    failed = write_failures(shards, output / FAILURES, written)
    written.close()
    return Merged(files, failed, elsewhere)


def _read_shards(folders: Sequence[Path]) -> list[RecordedRun]:
    """All shards of one run, finished."""
    paths = [path for folder in folders for path in sorted((folder / STATE_FOLDER).glob(f"*-of-*/{JOURNAL}"))]
    shards = {run.setting["shard"]: run for path in paths if (run := read_run(path)) is not None}
    if not shards:
        raise UsageError(f"no shards were written into {' or '.join(map(str, folders))}")
    first = next(iter(shards.values()))
    counts = sorted({int(shard.partition("/")[2]) for shard in shards})
    if len(counts) > 1:
        raise UsageError(
            f"found shards of different runs, of {' and of '.join(map(str, counts))} parts; "
            f"remove those of other runs, such as {first.path.parent}"
        )
    for run in shards.values():
        different = [name for name, *_ in differences(first.setting, run.setting) if name not in ("shard", *COMPUTING)]
        if different:
            raise UsageError(f"{first.path} and {run.path} are of different runs: they differ in {different[0]}")
        if not run.finished:
            raise UnfinishedShardError(f"shard {run.setting['shard']} is not finished")
    (count,) = counts
    missing = [str(shard) for index in range(count) if str(shard := Shard(index, count)) not in shards]
    if missing:
        raise UsageError(f"missing from {' and '.join(map(str, folders))}: shard {', '.join(missing)}")
    return list(shards.values())
