"""Pictures on their way through the stages, in bounded memory and in order: several at once, or one by one."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from .backends import Answers, Backend
from .batches import BatchSize
from .clock import Clock
from .errors import DeviceMemoryError, ImageError
from .images.decode import Picture

Source = TypeVar("Source")
Result = TypeVar("Result")

LOOK_AHEAD = 4
"""How many batches' worth of pictures may wait for others of their shape."""
HELD_BYTES = 2**27
"""How much memory pictures on their way may hold for each worker before no more are begun."""
SUPPOSED_BYTES = 2**25
"""What a picture is supposed to hold while nothing is known."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture that a network can look at.

    Attributes:
        pixels: (H, W, 3) uint8, resized.
        size: height and width before.
        picture: the picture itself, if someone still needs it.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    picture: Picture | None

    @property
    def held_bytes(self) -> int:
        """Memory that it takes."""
        whole = self.picture.image.width * self.picture.image.height * 3 if self.picture else 0
        return whole + self.pixels.nbytes


@dataclass(eq=False)
class _Job(Generic[Source, Result]):
    source: Source
    prepared: Prepared | None = None
    held_bytes: int = 0
    results: list[Result] = field(default_factory=list)
    failure: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Pipeline(Generic[Source, Result]):
    """Reads, runs and finishes pictures in threads of their own; iterating gives the results in the sources' order.

    Only pictures of equal resized shape are run together. A picture waits for others of its shape until a batch is
    full, until as many as a batch wait in all, or until no more are being prepared.

    Args:
        sources: what to read; taken one by one while work goes on.
        prepare: makes a picture of a source ready for the network, or raises `ImageError`.
        backends: what runs the network; all take part.
        finish: makes the result of a source, of what was prepared, and of the answers to it; or of the error.
        batch_size: how many pictures a backend takes at once.
        workers: threads that prepare and finish.
        clock: is told what the network takes.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        prepare: Callable[[Source], Prepared],
        backends: Sequence[Backend],
        finish: Callable[[Source, Prepared | None, Answers | ImageError], Result],
        batch_size: BatchSize,
        workers: int,
        clock: Clock,
    ) -> None:
        self._sources, self._prepare_one, self._finish_one = sources, prepare, finish
        self._batch_size, self._clock = batch_size, clock
        runners = [one for one in backends for _ in range(one.at_once)]
        self._backends = backends
        self._spare = 2 * workers + len(runners)
        self._most_bytes = HELD_BYTES * workers
        self._changed = threading.Condition()
        # all that follows changes with `_changed` held
        self._under_way = self._preparing = self._held_bytes = 0
        self._usual_bytes: float = SUPPOSED_BYTES
        self._waiting: list[_Job[Source, Result]] = []
        self._stopped = self._closed = False
        self._ordered: queue.SimpleQueue[_Job[Source, Result] | BaseException | None] = queue.SimpleQueue()
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._feeder = threading.Thread(target=self._feed, daemon=True)
        self._helpers = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._helpers += [threading.Thread(target=self._run, args=(one,), daemon=True) for one in runners]

    def stop(self) -> None:
        """Begin no more pictures; those under way are finished. May be called in a signal handler."""
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
                    self._held_bytes -= job.held_bytes
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
                    self._preparing += 1
                self._ordered.put(job)
                self._tasks.put(partial(self._prepare, job))
            self._ordered.put(None)
        except BaseException as error:  # the iterating thread raises it
            self._ordered.put(error)

    def _has_room(self) -> bool:
        most = LOOK_AHEAD * self._batch_size.most + self._spare
        bytes_then = self._held_bytes + (self._preparing + 1) * self._usual_bytes
        return self._stopped or not self._under_way or (self._under_way < most and bytes_then <= self._most_bytes)

    def _work(self) -> None:
        while not self._closed and (task := self._tasks.get()) is not None:
            task()

    def _prepare(self, job: _Job[Source, Result]) -> None:
        error: ImageError | None = None
        try:
            job.prepared = self._prepare_one(job.source)
            job.held_bytes = job.prepared.held_bytes
        except ImageError as problem:
            error = problem
        except BaseException as failure:
            job.failure = failure
            job.done.set()
        with self._changed:
            self._preparing -= 1
            if job.prepared is not None:
                self._held_bytes += job.held_bytes
                self._usual_bytes += (job.held_bytes - self._usual_bytes) / 8  # of late
                self._waiting.append(job)
            self._changed.notify_all()
        if error is not None:
            self._finish(job, error)

    def _run(self, backend: Backend) -> None:
        while batch := self._take():
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
                continue
            for job, answer in zip(batch, answers, strict=True):
                self._tasks.put(partial(self._finish, job, answer))

    def _answers(self, backend: Backend, prepared: Sequence[Prepared]) -> list[Answers]:
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
        if not self._waiting or (self._preparing and len(self._waiting) < most):
            return []
        return next(iter(alike.values()))

    def _finish(self, job: _Job[Source, Result], answer: Answers | ImageError) -> None:
        try:
            job.results.append(self._finish_one(job.source, job.prepared, answer))
        except BaseException as failure:
            job.failure = failure
        job.prepared = None
        job.done.set()


class OneByOne(Generic[Source, Result]):
    """Reads, runs and finishes one picture after the other in the thread that iterates; for a few, threads cost more.

    Args:
        sources: what to read; each is taken when it is its turn.
        prepare: as of `Pipeline`.
        backend: what runs the network.
        finish: as of `Pipeline`.
        clock: is told what the network takes.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        *,
        prepare: Callable[[Source], Prepared],
        backend: Backend,
        finish: Callable[[Source, Prepared | None, Answers | ImageError], Result],
        clock: Clock,
    ) -> None:
        self._sources, self._prepare, self._finish = sources, prepare, finish
        self._backend, self._clock = backend, clock
        self._stopped = False

    def stop(self) -> None:
        """Begin no more pictures. May be called in a signal handler."""
        self._stopped = True

    def __iter__(self) -> Generator[Result, None, None]:
        for source in self._sources:
            if self._stopped:
                return
            try:
                prepared = self._prepare(source)
            except ImageError as error:
                yield self._finish(source, None, error)
                continue
            with self._clock.timing("network"):
                (answers,) = self._backend.run([prepared.pixels], [prepared.size])
            yield self._finish(source, prepared, answers)
