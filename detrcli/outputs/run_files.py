"""Files that a run has for all its images together, written from journals."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from heapq import merge
from pathlib import Path

from ..files import as_output_error, atomic_file
from .formats import PER_RUN, run_format
from .journal import RecordedRun
from .record import Failure, ImageResult, Outcome, OutputSettings
from .written import Written

FAILURES = "failures.jsonl"


def write_for_all(
    formats: Iterable[str],
    runs: Sequence[RecordedRun],
    settings: OutputSettings,
    written: Written,
    *,
    staging: Path | None = None,
) -> list[Path]:
    """Write the files that formats have for all images together; see `atomic_file` for `staging`.

    Returns:
        Paths of the files.

    Raises:
        OutputError: a file cannot be written, or would overwrite one that is not in `written`.
    """
    files = []
    for name in formats:
        if name in PER_RUN:
            for file_name, write in run_format(name).FILES.items():
                path = settings.folder / file_name
                with atomic_file(path, staging=staging, before_rename=written.admit) as file:
                    write(file, _Results(runs), settings)
                files.append(path)
    return files


def write_failures(
    runs: Sequence[RecordedRun], path: Path, written: Written, *, staging: Path | None = None
) -> Counter[str]:
    """Write a line for each image that failed, or remove the file if none did; see `atomic_file` for `staging`.

    Returns:
        Number of failures of each kind.

    Raises:
        OutputError: the file cannot be written, or would overwrite one that is not in `written`.
    """
    kinds: Counter[str] = Counter()
    with ExitStack() as stack:
        file = None
        for outcome in _in_order(runs):
            if isinstance(outcome.result, Failure):
                kinds[outcome.result.kind] += 1
                file = file or stack.enter_context(atomic_file(path, staging=staging, before_rename=written.admit))
                file.write(json.dumps(vars(outcome.result)).encode() + b"\n")
    if not kinds:
        written.check(path)
        with as_output_error(path):
            path.unlink(missing_ok=True)
    return kinds


@dataclass(frozen=True)
class _Results:
    """Results of all images in order, which can be iterated any number of times."""

    runs: Sequence[RecordedRun]

    def __iter__(self) -> Iterator[ImageResult]:
        return (outcome.result for outcome in _in_order(self.runs) if isinstance(outcome.result, ImageResult))


def _in_order(runs: Sequence[RecordedRun]) -> Iterator[Outcome]:
    return merge(*(run.outcomes() for run in runs), key=lambda outcome: outcome.index)
