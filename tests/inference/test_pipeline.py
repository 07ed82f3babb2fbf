"""Images on their way through threads: in order, bounded, and over when they should be."""

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from detrcli.errors import DeviceMemoryError, ImageError
from detrcli.images.decode import DecodedImage
from detrcli.inference import pipeline as module
from detrcli.inference.backend import Backend, RawDetections
from detrcli.inference.batch_size import BatchSize
from detrcli.inference.pipeline import LOOK_AHEAD, OneByOne, Opened, Pipeline, Prepared
from detrcli.timing import Clock

PATIENCE = 60


class Echo:
    """A backend that answers with each image's first pixel, and can hold only so many."""

    description = "none"
    device_type, precision = "cpu", "fp32"
    batch_size = 1
    grows = False

    def __init__(self, holds: int = 10**6, concurrency: int = 1) -> None:
        self.holds = holds
        self.concurrency = concurrency
        self.batches: list[int] = []
        self.seen: set[int] = set()

    def shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, pixels: Sequence[NDArray[np.uint8]], sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        if len(pixels) > self.holds:
            raise DeviceMemoryError("too many at once")
        self.batches.append(len(pixels))
        self.seen.update(int(one[0, 0, 0]) for one in pixels)
        nothing = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
        return [RawDetections(*nothing, np.array([one[0, 0, 0]])) for one in pixels]


def opening(prepare: Callable[[int], Prepared], needed: Callable[[int], int] = lambda _: 0) -> Callable[[int], Opened]:
    """Opens any source, and prepares it so."""
    return lambda number: Opened(needed(number), partial(prepare, number))


def prepare(number: int) -> Prepared:
    if number % 7 == 3:
        raise ImageError(f"{number} is broken")
    return Prepared(np.full((2, 2, 3), number % 256, np.uint8), (2, 2), None)


def finish(number: int, _: Prepared | None, answers: RawDetections | ImageError) -> Any:
    return str(answers) if isinstance(answers, ImageError) else int(answers.labels[0])


def pipeline(
    sources: Iterable[int],
    *backends: Backend,
    batch: BatchSize | None = None,
    workers: int = 3,
    prepare: Callable[[int], Prepared] = prepare,
    opened: Callable[[int], Opened] | None = None,
    finish: Callable[[int, Prepared | None, RawDetections | ImageError], Any] = finish,
    clock: Clock | None = None,
) -> Pipeline[int, Any]:
    return Pipeline(
        sources,
        opened=opened or opening(prepare),
        backends=backends or [Echo()],
        finish=finish,
        batch_size=batch or BatchSize(1),
        workers=workers,
        clock=clock or Clock(),
    )


def expected(count: int) -> list[Any]:
    return [f"{number} is broken" if number % 7 == 3 else number % 256 for number in range(count)]


@pytest.mark.parametrize(("batch", "workers", "concurrency"), [(1, 1, 1), (4, 3, 1), (5, 2, 2)])
def test_results_come_in_the_sources_order(batch: int, workers: int, concurrency: int) -> None:
    running = threading.active_count()
    assert list(
        pipeline(range(500), Echo(concurrency=concurrency), batch=BatchSize(batch), workers=workers)
    ) == expected(500)
    assert threading.active_count() <= running + 1  # the one that reads the sources may still be ending


def test_several_backends_share_the_work() -> None:
    meet = threading.Barrier(2, timeout=PATIENCE)

    class Sociable(Echo):
        def run(self, pixels: Any, sizes: Any) -> list[RawDetections]:
            if not self.seen:
                meet.wait()  # both have to come
            return super().run(pixels, sizes)

    first, second = Sociable(), Sociable()
    assert list(pipeline(range(200), first, second)) == expected(200)
    assert first.seen
    assert second.seen
    assert sum(first.batches) + sum(second.batches) == len([one for one in expected(200) if isinstance(one, int)])


def test_a_batch_too_large_for_the_memory_is_halved_and_not_lost() -> None:
    echo, batch = Echo(holds=3), BatchSize(16)
    assert list(pipeline(range(300), echo, batch=batch)) == expected(300)
    assert max(echo.batches) <= 3
    assert batch.most <= 8


def test_a_single_image_too_large_for_the_memory_is_an_error() -> None:
    with pytest.raises(DeviceMemoryError):
        list(pipeline(range(20), Echo(holds=0)))


@pytest.mark.parametrize("where", ["sources", "opened", "prepare", "run", "finish"])
def test_what_goes_wrong_anywhere_ends_it(where: str) -> None:
    def fail(*_: Any) -> Any:
        raise ZeroDivisionError(where)

    def sources() -> Iterator[int]:
        yield from range(20)
        if where == "sources":
            fail()

    class Failing(Echo):
        run = fail  # type: ignore[assignment]

    results: list[Any] = []
    run = pipeline(
        sources(),
        Failing() if where == "run" else Echo(),
        opened=fail if where == "opened" else None,
        prepare=fail if where == "prepare" else prepare,
        finish=fail if where == "finish" else finish,
    )
    with pytest.raises(ZeroDivisionError, match=where):
        results.extend(run)
    assert results == (expected(20) if where == "sources" else [])


def test_only_so_many_are_begun() -> None:
    begun = 0

    def counted() -> Iterator[int]:
        nonlocal begun
        for number in range(10_000):
            begun += 1
            yield number

    results = iter(pipeline(counted(), batch=BatchSize(2), workers=1))
    for taken in range(100):
        next(results)
        assert begun <= taken + 1 + 2 * LOOK_AHEAD + 2 + 1 + 2
    results.close()


KEPT = DecodedImage(Image.new("RGB", (1, 1)))


class Memory:
    """Notes how much the images on their way need together; `needs[number]` for each source."""

    def __init__(self, needs: Sequence[int]) -> None:
        self.needs, self.now, self.peak, self.at_once, self.under_way = needs, 0, 0, 0, 0
        self.lock = threading.Lock()

    def add(self, number: int, direction: int) -> None:
        with self.lock:
            self.now += direction * self.needs[number]
            self.under_way += direction
            self.peak, self.at_once = max(self.peak, self.now), max(self.at_once, self.under_way)

    def prepare(self, number: int) -> Prepared:
        self.add(number, 1)
        return Prepared(np.full((2, 2, 3), number, np.uint8), (2, 2), KEPT)

    def finish(self, number: int, _: Prepared | None, answers: RawDetections | ImageError) -> int:
        assert isinstance(answers, RawDetections)
        self.add(number, -1)
        return int(answers.labels[0])

    def run(self, workers: int, batch: int) -> list[Any]:
        opened = opening(self.prepare, lambda number: self.needs[number])
        sources = range(len(self.needs))
        return list(pipeline(sources, batch=BatchSize(batch), workers=workers, opened=opened, finish=self.finish))


@given(st.lists(st.integers(0, 900), max_size=40), st.integers(1, 4), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_images_are_begun_only_with_the_memory_that_they_need(needs: list[int], workers: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "HELD_BYTES", 200)
        memory = Memory(needs)
        assert memory.run(workers, batch) == list(range(len(needs)))
    assert memory.peak <= max(200 * workers, *needs, 0)


def test_an_image_that_needs_more_than_all_memory_has_it_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 200)
    memory = Memory([10**9] * 16)
    assert memory.run(16, 1) == list(range(16))
    assert memory.at_once == 1


def test_memory_for_several_is_used_by_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 200)
    meet = threading.Barrier(2, timeout=PATIENCE)

    def in_pairs(number: int) -> Prepared:
        meet.wait()
        return prepare(0)

    opened = opening(in_pairs, lambda _: 200)
    assert list(pipeline(range(40), workers=2, opened=opened)) == [0] * 40


def test_an_image_that_is_not_kept_gives_its_memory_back_once_it_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1000)
    both_prepared = threading.Event()

    class Waiting(Echo):
        def run(self, pixels: Any, sizes: Any) -> list[RawDetections]:
            assert both_prepared.wait(PATIENCE)
            return super().run(pixels, sizes)

    def noting(number: int) -> Prepared:
        if number == 1:
            both_prepared.set()
        return Prepared(np.full((2, 2 + number, 3), number, np.uint8), (2, 2), None)

    opened = opening(noting, lambda _: 900)
    assert list(pipeline(range(2), Waiting(), workers=1, opened=opened)) == [0, 1]


def test_nothing_keeps_an_image_once_it_is_finished() -> None:
    images: list[weakref.ref[Image.Image]] = []
    gone: list[bool] = []

    def kept(number: int) -> Prepared:
        image = Image.new("RGB", (8, 8))
        images.append(weakref.ref(image))
        return Prepared(np.full((2, 2, 3), number, np.uint8), (2, 2), DecodedImage(image))

    def slow() -> Iterator[int]:
        yield 0
        assert finished.wait(PATIENCE)
        for _ in range(100):
            gone.append(images[0]() is None)
            if gone[-1]:
                break
            threading.Event().wait(0.01)
        yield 1

    finished = threading.Event()
    for _ in pipeline(slow(), prepare=kept, workers=1):
        finished.set()
    assert gone[-1]


def test_what_cannot_be_opened_is_finished_as_an_error() -> None:
    def opened(number: int) -> Opened:
        if number % 2:
            raise ImageError(f"{number} is no image")
        return Opened(0, lambda: Prepared(np.full((2, 2, 3), number, np.uint8), (2, 2), None))

    assert list(pipeline(range(6), opened=opened)) == [0, "1 is no image", 2, "3 is no image", 4, "5 is no image"]


def test_the_batch_size_is_told_how_long_batches_take() -> None:
    class Noting(BatchSize):
        def note(self, images: int, work: float, seconds: float) -> None:
            noted.append((images, work))
            assert seconds > 0

    noted: list[tuple[int, float]] = []
    echo = Echo()
    assert list(pipeline(range(40), echo, batch=Noting(4))) == expected(40)
    assert noted == [(count, 12 * count) for count in echo.batches]


def test_a_backend_is_shared_while_it_runs() -> None:
    class Shared(Echo):
        @contextmanager
        def shared(self) -> Iterator[None]:
            self.inside = True
            yield
            self.inside = False

        def run(self, pixels: Any, sizes: Any) -> list[RawDetections]:
            assert self.inside
            return super().run(pixels, sizes)

        inside = False

    echo = Shared()
    assert list(pipeline(range(20), echo)) == expected(20)
    assert not echo.inside


def test_a_result_comes_though_the_sources_keep_one_waiting() -> None:
    more = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        assert more.wait(PATIENCE)
        yield 2

    results = iter(pipeline(slow(), batch=BatchSize(8)))
    assert next(results) == 1
    more.set()
    assert list(results) == [2]


def test_images_of_many_shapes_do_not_wait_for_one_that_is_being_read() -> None:
    some_came = threading.Event()

    def of_its_own_shape(number: int) -> Prepared:
        if number == 6:
            assert some_came.wait(PATIENCE)
        return Prepared(np.full((2, 2 + number, 3), number, np.uint8), (2, 2), None)

    results = iter(pipeline(range(7), batch=BatchSize(4), prepare=of_its_own_shape))
    assert next(results) == 0
    some_came.set()
    assert list(results) == [1, 2, 3, 4, 5, 6]


def test_a_batch_is_filled_while_images_are_being_read() -> None:
    echo, all_begun = Echo(), threading.Event()

    def noting() -> Iterator[int]:
        yield from range(5)
        all_begun.set()

    def once_all_are_begun(number: int) -> Prepared:
        assert all_begun.wait(PATIENCE)
        return Prepared(np.full((2, 2, 3), number, np.uint8), (2, 2), None)

    run = pipeline(noting(), echo, batch=BatchSize(5), workers=2, prepare=once_all_are_begun)
    assert list(run) == list(range(5))
    assert echo.batches == [5]


def test_stopping_finishes_what_is_under_way_and_nothing_more() -> None:
    for_ever = threading.Event()

    def endless() -> Iterator[int]:
        yield from range(8)
        for_ever.wait(PATIENCE)
        yield 8

    run = pipeline(endless())
    results = iter(run)
    got = [next(results) for _ in range(8)]
    run.stop()
    assert got + list(results) == expected(8)
    for_ever.set()


def test_the_clock_knows_what_the_network_took() -> None:
    clock = Clock()
    run = Pipeline(
        range(3),
        opened=opening(prepare),
        backends=[Echo()],
        finish=finish,
        batch_size=BatchSize(1),
        workers=1,
        clock=clock,
    )
    assert len(list(run)) == 3
    assert clock.seconds["network"] > 0


def test_one_by_one_nothing_leaves_the_thread() -> None:
    threads, backend = set[int](), Echo()

    def noting(number: int) -> Prepared:
        threads.add(threading.get_ident())
        return prepare(number)

    run = OneByOne(range(20), opened=opening(noting), backend=backend, finish=finish, clock=Clock())
    assert list(run) == [f"{number} is broken" if number % 7 == 3 else number for number in range(20)]
    assert threads == {threading.get_ident()}
    assert set(backend.batches) == {1}


def test_one_by_one_a_stop_begins_no_more() -> None:
    run = OneByOne(range(20), opened=opening(prepare), backend=Echo(), finish=finish, clock=Clock())
    found = []
    for one in run:
        found.append(one)
        if one == 2:
            run.stop()
    assert found == [0, 1, 2]
