"""How an image moves through the stages, in order and in bounded memory: many at once in threads, or one by one.

Stages follow one another in one direction, and none knows the next: open → prepare → network → detect → write.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

from ..detections import Detections
from ..errors import DeviceMemoryError, ImageError
from ..host import give_back_freed_memory
from ..images.decode import DecodedImage, ImageFile
from ..images.resize import Pixels
from ..timing import Clock
from .backend import Backend, RawDetections
from .batch_size import BatchSize

Source = TypeVar("Source")
Result = TypeVar("Result")
Stage = TypeVar("Stage")

LOOK_AHEAD = 4
"""Number of batches' worth of images that may wait for others of their shape."""
HELD_BYTES = 2**28
"""Memory that images under way may hold per worker; one that needs more than all of it has it to itself."""


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """Image as a network takes it.

    Attributes:
        pixels: the resized image.
        size: height and width before resizing.
        decoded: the image itself, if it is to be annotated.
        name: name for messages.
    """

    pixels: Pixels
    size: tuple[int, int]
    decoded: DecodedImage | None
    name: str = "an image"


@dataclass(frozen=True)
class Stages(Generic[Source, Result]):
    """Stages before and after the network, as plain functions. Any thread may call them.

    Attributes:
        open: opens an image and reads its header, or raises `ImageError`.
        prepare: decodes and resizes it, or raises `ImageError`.
        detect: turns the network's output for it into detections, or raises `ImageError`.
        write: takes the source, the image itself if it is to be annotated, and its detections, or the error that one
            of the other stages raised; what it returns is the result.
    """

    open: Callable[[Source], ImageFile]
    prepare: Callable[[ImageFile], NetworkInput]
    detect: Callable[[NetworkInput, RawDetections], Detections]
    write: Callable[[Source, DecodedImage | None, Detections | ImageError], Result]

    def finish(self, source: Source, image: NetworkInput | None, raw: RawDetections | ImageError) -> Result:
        """Run the stages after the network on its output, or only the last one on an error of those before it."""
        if image is None or isinstance(raw, ImageError):
            assert isinstance(raw, ImageError)
            return self.write(source, None, raw)
        try:
            detections = self.detect(image, raw)
        except ImageError as error:
            return self.write(source, image.decoded, error)
        return self.write(source, image.decoded, detections)


@dataclass(eq=False)
class _Job(Generic[Source, Result]):
    source: Source
    file: ImageFile | None = None
    image: NetworkInput | None = None
    held_bytes: int = 0
    results: list[Result] = field(default_factory=list)
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Pipeline(Generic[Source, Result]):
    """Takes images through the stages in threads; iterating gives the results in the order of the sources.

    Only images of equal resized shape are batched. An image waits for others of its shape until a batch is full,
    until as many as a batch wait in all, or until no more are being prepared. An image is decoded only when the memory
    that it needs is free, so no thread ever waits for memory.

    Args:
        sources: images, taken one by one while work goes on.
        stages: stages before and after the network.
        backends: backends that share the work of the network.
        batch_size: size of a backend's batches.
        workers: number of threads for the stages other than the network.
        clock: clock that the network is timed with.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        stages: Stages[Source, Result],
        *,
        backends: Sequence[Backend],
        batch_size: BatchSize,
        workers: int,
        clock: Clock,
    ) -> None:
        self._sources, self._stages = sources, stages
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
        """Begin no more images, but finish those under way. May be called in a signal handler."""
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
            while (job := self._next()) is not None:
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
            self._close()  # without joining the threads
            raise
        except BaseException:
            self._close()
            self._join()
            raise
        self._close()
        self._join()

    def _next(self) -> "_Job[Source, Result] | BaseException | None":
        """Wait for what comes next; a signal that arrives as the wait begins is handled within a second."""
        while True:
            with suppress(queue.Empty):
                return self._ordered.get(timeout=1)

    def _close(self) -> None:
        with self._changed:
            self._stopped = self._closed = True
            self._changed.notify_all()
        for _ in self._helpers:
            self._tasks.put(None)

    def _join(self) -> None:
        """Wait for all threads but the one that may wait for a source forever."""
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
        most = LOOK_AHEAD * self._batch_size.current + self._spare
        return self._stopped or (self._under_way < most and self._not_begun < self._most_ahead)

    def _work(self) -> None:
        while not self._closed and (task := self._tasks.get()) is not None:
            task()
            del task  # and with it the job's source, which would stay until the next one comes

    def _open(self, job: _Job[Source, Result]) -> None:
        file = self._try(job, partial(self._stages.open, job.source))
        with self._changed:
            self._coming -= 1
            if isinstance(file, ImageFile):
                job.file = file
                self._for_memory.append(job)
            else:
                self._not_begun -= 1
            self._begin()
        if isinstance(file, ImageError):
            self._finish(job, file)

    def _begin(self) -> None:
        """Begin the jobs for which there is memory, in order."""
        while self._for_memory:
            job = self._for_memory[0]
            assert job.file is not None
            needed = job.file.needed_bytes
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
        assert job.file is not None
        image = self._try(job, partial(self._stages.prepare, job.file))
        job.file = None
        if not isinstance(image, NetworkInput) or image.decoded is None:
            self._free(job)
        with self._changed:
            self._coming -= 1
            if isinstance(image, NetworkInput):
                job.image = image
                job.held_bytes += image.pixels.nbytes
                self._held_bytes += image.pixels.nbytes
                self._waiting.append(job)
            self._begin()
        if isinstance(image, ImageError):
            self._finish(job, image)

    def _free(self, job: _Job[Source, Result]) -> None:
        """Free the memory that a job holds, so that others can begin."""
        if job.held_bytes > HELD_BYTES:
            give_back_freed_memory()
        with self._changed:
            self._held_bytes -= job.held_bytes
            job.held_bytes = 0
            self._begin()

    def _try(self, job: _Job[Source, Result], stage: Callable[[], Stage]) -> Stage | ImageError | None:
        """Return what a stage returns or the `ImageError` that it raises; None if it ends the job by another error."""
        try:
            return stage()
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
            images = [job.image for job in batch if job.image is not None]
            began = time.perf_counter()
            with self._clock.timing("network"):
                raw = self._raw_detections(backend, images)
            work = sum(one.pixels.size for one in images)
            self._batch_size.record(len(batch), work, time.perf_counter() - began)
        except BaseException as failure:
            for job in batch:
                job.failure = failure
                job.done.set()
            return
        for job, one in zip(batch, raw, strict=True):
            self._tasks.put(partial(self._finish, job, one))

    def _raw_detections(self, backend: Backend, images: Sequence[NetworkInput]) -> list[RawDetections]:
        try:
            settled = self._batch_size.settled
            return backend.run([one.pixels for one in images], [one.size for one in images], settled=settled)
        except DeviceMemoryError:
            if len(images) == 1:
                raise
        self._batch_size.halve()
        middle = len(images) // 2
        return self._raw_detections(backend, images[:middle]) + self._raw_detections(backend, images[middle:])

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
        """Full batch, or, if waiting for one is of no use, the oldest waiting image and all of its shape."""
        most = self._batch_size.current
        alike: dict[tuple[int, ...], list[_Job[Source, Result]]] = {}
        for job in self._waiting:
            assert job.image is not None
            group = alike.setdefault(job.image.pixels.shape, [])
            group.append(job)
            if len(group) >= most:
                return group
        if not self._waiting or (self._coming and len(self._waiting) < most):
            return []
        return next(iter(alike.values()))

    def _finish(self, job: _Job[Source, Result], raw: RawDetections | ImageError) -> None:
        try:
            job.results.append(self._stages.finish(job.source, job.image, raw))
        except BaseException as failure:
            job.failure = failure
        job.image = None
        self._free(job)
        job.done.set()


class OneByOne(Generic[Source, Result]):
    """Takes one image after the other through the stages in the iterating thread; for a few, threads cost more.

    Args:
        sources: images, each taken when it is its turn.
        stages: stages before and after the network.
        backend: backend that runs the network.
        clock: clock that the network is timed with.
    """

    def __init__(
        self, sources: Iterable[Source], stages: Stages[Source, Result], *, backend: Backend, clock: Clock
    ) -> None:
        self._sources, self._stages, self._backend, self._clock = sources, stages, backend, clock
        self._stopped = False

    def stop(self) -> None:
        """Begin no more images. May be called in a signal handler."""
        self._stopped = True

    def __iter__(self) -> Generator[Result, None, None]:
        for source in self._sources:
            if self._stopped:
                return
            try:
                image = self._stages.prepare(self._stages.open(source))
            except ImageError as error:
                yield self._stages.finish(source, None, error)
                continue
            with self._clock.timing("network"):
                (raw,) = self._backend.run([image.pixels], [image.size])
            yield self._stages.finish(source, image, raw)
