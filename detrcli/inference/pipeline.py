"""Images on their way through the stages, in bounded memory and in order: several at once, or one by one."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DeviceMemoryError, ImageError
from ..host import give_back_freed_memory
from ..images.decode import DecodedImage
from ..timing import Clock
from .backend import Backend, RawDetections
from .batch_size import BatchSize

Source = TypeVar("Source")
Result = TypeVar("Result")
Step = TypeVar("Step")

LOOK_AHEAD = 4
"""How many batches' worth of images may wait for others of their shape."""
HELD_BYTES = 2**28
"""How much memory images on their way may hold for each worker; one that needs more than all of it has it to itself."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image that a network can look at.

    Attributes:
        pixels: (H, W, 3) uint8, resized.
        size: height and width before.
        image: the image itself, if someone still needs it.
        name: what messages call it.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    image: DecodedImage | None
    name: str = "an image"


@dataclass(frozen=True, eq=False)
class Opened:
    """An image whose size is known, but whose pixels have not been decoded.

    Attributes:
        needed_bytes: the most memory that it takes until it is finished.
        prepare: makes it ready for the network, or raises `ImageError`.
    """

    needed_bytes: int
    prepare: Callable[[], Prepared]


@dataclass(eq=False)
class _Job(Generic[Source, Result]):
    source: Source
    opened: Opened | None = None
    prepared: Prepared | None = None
    held_bytes: int = 0
    results: list[Result] = field(default_factory=list)
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Pipeline(Generic[Source, Result]):
    """Reads, runs and finishes images in threads of their own; iterating gives the results in the sources' order.

    Only images of equal resized shape are run together. An image waits for others of its shape until a batch is
    full, until as many as a batch wait in all, or until no more are being prepared. An image is decoded only when the
    memory that it needs is free, so no thread ever waits for memory.

    Args:
        sources: what to read; taken one by one while work goes on.
        opened: reads the header of a source's image, or raises `ImageError`.
        backends: what runs the network; all take part.
        finish: makes the result of a source, of what was prepared, and of the answers to it; or of the error.
        batch_size: how many images a backend takes at once.
        workers: threads that prepare and finish.
        clock: is told what the network takes.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        opened: Callable[[Source], Opened],
        backends: Sequence[Backend],
        finish: Callable[[Source, Prepared | None, RawDetections | ImageError], Result],
        batch_size: BatchSize,
        workers: int,
        clock: Clock,
    ) -> None:
        self._sources, self._open_one, self._finish_one = sources, opened, finish
        self._batch_size, self._clock = batch_size, clock
        runners = [one for one in backends for _ in range(one.concurrency)]
        self._backends = backends
        self._spare = 2 * workers + len(runners)
        self._most_ahead = 2 * workers
        self._most_bytes = HELD_BYTES * workers
        self._changed = threading.Condition()
        # all that follows changes with `_changed` held
        self._under_way = self._held_bytes = 0
        self._not_begun = 0  # of those under way, whose memory is not theirs yet
        self._coming = 0  # of those under way, which will be waiting for a batch whatever becomes of others
        self._for_memory: deque[_Job[Source, Result]] = deque()
        self._waiting: list[_Job[Source, Result]] = []
        self._stopped = self._closed = False
        self._ordered: queue.SimpleQueue[_Job[Source, Result] | BaseException | None] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._helpers = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._helpers += [threading.Thread(target=self._run, args=(one,), daemon=True) for one in runners]

    def stop(self) -> None:
        """Begin no more images; those under way are finished. May be called in a signal handler."""
        self._stopped = True
        self._ordered.put(None)

    def __iter__(self) -> Generator[Result, None, None]:
        with ExitStack() as stack:
            for backend in self._backends:
                stack.enter_context(backend.shared())
            yield from self._results()

    def _results(self) -> Generator[Result, None, None]:
        for thread in (self._feeder, *self._helpers):
            thread.start()
        try:
            while (job := self._ordered.get()) is not None:
                if isinstance(job, BaseException):
                    raise job
                job.done.wait()
                if job.failure is not None:
                    raise job.failure
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()
                yield job.results[0]
        except KeyboardInterrupt:
            self._close()  # and wait for nobody
            raise
        except BaseException:
            self._close()
            self._join()
            raise
        self._close()
        self._join()

    def _close(self) -> None:
        with self._changed:
            self._stopped = self._closed = True
            self._changed.notify_all()
        for _ in self._helpers:
            self._tasks.put(None)

    def _join(self) -> None:
        """Wait for all threads but the one that may wait for a source for ever."""
        for thread in self._helpers:
            thread.join()

    def _feed(self) -> None:
        try:
            for source in self._sources:
                job: _Job[Source, Result] = _Job(source)
                with self._changed:
                    self._changed.wait_for(self._has_room)
                    if self._stopped:
                        return
                    self._under_way += 1
                    self._not_begun += 1
                    self._coming += 1
                self._ordered.put(job)
                self._tasks.put(partial(self._open, job))
            self._ordered.put(None)
        except BaseException as error:  # the iterating thread raises it
            self._ordered.put(error)

    def _has_room(self) -> bool:
        most = LOOK_AHEAD * self._batch_size.most + self._spare
        return self._stopped or (self._under_way < most and self._not_begun < self._most_ahead)

    def _work(self) -> None:
        while not self._closed and (task := self._tasks.get()) is not None:
            task()
            del task  # and with it the job's source, which would stay until the next one comes

    def _open(self, job: _Job[Source, Result]) -> None:
        opened = self._tried(job, partial(self._open_one, job.source))
        with self._changed:
            self._coming -= 1
            if isinstance(opened, Opened):
                job.opened = opened
                self._for_memory.append(job)
            else:
                self._not_begun -= 1
            self._begin()
        if isinstance(opened, ImageError):
            self._finish(job, opened)

    def _begin(self) -> None:
        """Begin, in order, the jobs for which there is memory."""
        while self._for_memory:
            job = self._for_memory[0]
            assert job.opened is not None
            needed = job.opened.needed_bytes
            if self._held_bytes and self._held_bytes + needed > self._most_bytes:
                break
            self._for_memory.popleft()
            job.held_bytes = needed
            self._held_bytes += needed
            self._not_begun -= 1
            self._coming += 1
            self._tasks.put(partial(self._prepare, job))
        self._changed.notify_all()

    def _prepare(self, job: _Job[Source, Result]) -> None:
        assert job.opened is not None
        prepared = self._tried(job, job.opened.prepare)
        job.opened = None
        keeps = isinstance(prepared, Prepared) and prepared.image is not None
        if not keeps:
            self._give_back(job)
        with self._changed:
            self._coming -= 1
            if isinstance(prepared, Prepared):
                job.prepared = prepared
                job.held_bytes += prepared.pixels.nbytes
                self._held_bytes += prepared.pixels.nbytes
                self._waiting.append(job)
            self._begin()
        if isinstance(prepared, ImageError):
            self._finish(job, prepared)

    def _give_back(self, job: _Job[Source, Result]) -> None:
        """Give back the memory that a job has held, so that others can begin."""
        if job.held_bytes > HELD_BYTES:
            give_back_freed_memory()
        with self._changed:
            self._held_bytes -= job.held_bytes
            job.held_bytes = 0
            self._begin()

    def _tried(self, job: _Job[Source, Result], step: Callable[[], Step]) -> Step | ImageError | None:
        """What a step of a job gives or is refused with, or None where it failed for good."""
        try:
            return step()
        except ImageError as error:
            return error
        except BaseException as failure:
            job.failure = failure
            job.done.set()
            return None

    def _run(self, backend: Backend) -> None:
        while batch := self._take():
            self._run_batch(backend, batch)

    def _run_batch(self, backend: Backend, batch: Sequence[_Job[Source, Result]]) -> None:
        try:
            prepared = [job.prepared for job in batch if job.prepared is not None]
            began = time.perf_counter()
            with self._clock.timing("network"):
                answers = self._answers(backend, prepared)
            work = sum(one.pixels.size for one in prepared)
            self._batch_size.note(len(batch), work, time.perf_counter() - began)
        except BaseException as failure:
            for job in batch:
                job.failure = failure
                job.done.set()
            return
        for job, answer in zip(batch, answers, strict=True):
            self._tasks.put(partial(self._finish, job, answer))

    def _answers(self, backend: Backend, prepared: Sequence[Prepared]) -> list[RawDetections]:
        try:
            return backend.run([one.pixels for one in prepared], [one.size for one in prepared])
        except DeviceMemoryError:
            if len(prepared) == 1:
                raise
        self._batch_size.halve()
        middle = len(prepared) // 2
        return self._answers(backend, prepared[:middle]) + self._answers(backend, prepared[middle:])

    def _take(self) -> list[_Job[Source, Result]]:
        with self._changed:
            batch: list[_Job[Source, Result]] = []

            def ready() -> bool:
                batch[:] = self._batch()
                return self._closed or bool(batch)

            self._changed.wait_for(ready)
            if self._closed:
                return []
            taken = set(map(id, batch))
            self._waiting = [job for job in self._waiting if id(job) not in taken]
            return batch

    def _batch(self) -> list[_Job[Source, Result]]:
        """A full batch, or, where waiting for one is no use, what the oldest one that waits can share a batch with."""
        most = self._batch_size.most
        alike: dict[tuple[int, ...], list[_Job[Source, Result]]] = {}
        for job in self._waiting:
            assert job.prepared is not None
            group = alike.setdefault(job.prepared.pixels.shape, [])
            group.append(job)
            if len(group) >= most:
                return group
        if not self._waiting or (self._coming and len(self._waiting) < most):
            return []
        return next(iter(alike.values()))

    def _finish(self, job: _Job[Source, Result], answer: RawDetections | ImageError) -> None:
        try:
            job.results.append(self._finish_one(job.source, job.prepared, answer))
        except BaseException as failure:
            job.failure = failure
        job.prepared = None
        self._give_back(job)
        job.done.set()


class OneByOne(Generic[Source, Result]):
    """Reads, runs and finishes one image after the other in the thread that iterates; for a few, threads cost more.

    Args:
        sources: what to read; each is taken when it is its turn.
        opened: as of `Pipeline`.
        backend: what runs the network.
        finish: as of `Pipeline`.
        clock: is told what the network takes.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        opened: Callable[[Source], Opened],
        backend: Backend,
        finish: Callable[[Source, Prepared | None, RawDetections | ImageError], Result],
        clock: Clock,
    ) -> None:
        self._sources, self._open, self._finish = sources, opened, finish
        self._backend, self._clock = backend, clock
        self._stopped = False

    def stop(self) -> None:
        """Begin no more images. May be called in a signal handler."""
        self._stopped = True

    def __iter__(self) -> Generator[Result, None, None]:
        for source in self._sources:
            if self._stopped:
                return
            try:
                prepared = self._open(source).prepare()
            except ImageError as error:
                yield self._finish(source, None, error)
                continue
            with self._clock.timing("network"):
                (answers,) = self._backend.run([prepared.pixels], [prepared.size])
            yield self._finish(source, prepared, answers)
