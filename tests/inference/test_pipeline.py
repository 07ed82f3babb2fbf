"""Pipeline: results in order, in bounded memory, that ends when it should."""

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detrcli.detections import Detections
from detrcli.errors import DeviceMemoryError, ImageError
from detrcli.images.decode import DecodedImage, ImageFile
from detrcli.images.resize import Pixels
from detrcli.inference import pipeline as module
from detrcli.inference.backend import Backend, RawDetections
from detrcli.inference.batch_size import BatchSize
from detrcli.inference.pipeline import LOOK_AHEAD, NetworkInput, OneByOne, Pipeline, Stages
from detrcli.timing import Clock

PATIENCE = 60


class Echo:
    """Backend that detects each image's first pixel as its label, with memory for a limited batch."""

    description = "none"
    device_type, engine, precision = "cpu", "none", "fp32"
    batch_size = 1
    grows = False

    def __init__(self, holds: int = 10**6, concurrency: int = 1) -> None:
        self.holds = holds
        self.concurrency = concurrency
        self.batches: list[int] = []
        self.seen: set[int] = set()

    def shared(self) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, pixels: Sequence[Pixels], sizes: Sequence[tuple[int, int]], **_: Any) -> list[RawDetections]:
        if len(pixels) > self.holds:
            raise DeviceMemoryError("too many at once")
        self.batches.append(len(pixels))
        self.seen.update(int(one[0, 0, 0]) for one in pixels)
        nothing = np.zeros((1, 4), np.float32), np.zeros(1, np.float32)
        return [RawDetections(*nothing, np.array([one[0, 0, 0]])) for one in pixels]


IMAGE = DecodedImage(Image.new("RGB", (1, 1)))


def open_number(number: int, needed_bytes: int = 0) -> ImageFile:
    """Image whose name is its number."""
    return ImageFile(str(number), needed_bytes, lambda: IMAGE)


def prepare(number: int) -> NetworkInput:
    if number % 7 == 3:
        raise ImageError(f"{number} is broken")
    return NetworkInput(np.full((2, 2, 3), number % 256, np.uint8), (2, 2), None)


def detect(_: NetworkInput, raw: RawDetections) -> Detections:
    return Detections(raw.boxes, raw.scores, raw.labels, ("thing",), 2, 2)


def write(number: int, _: DecodedImage | None, detections: Detections | ImageError) -> Any:
    return str(detections) if isinstance(detections, ImageError) else int(detections.labels[0])


def stages(
    *,
    prepare: Callable[[int], NetworkInput] = prepare,
    open_image: Callable[[int], ImageFile] = open_number,
    write: Callable[[int, DecodedImage | None, Detections | ImageError], Any] = write,
) -> Stages[int, Any]:
    return Stages(open_image, lambda file: prepare(int(file.name)), detect, write)


def pipeline(
    sources: Iterable[int],
    *backends: Backend,
    batch: BatchSize | None = None,
    workers: int = 3,
    clock: Clock | None = None,
    **others: Any,
) -> Pipeline[int, Any]:
    return Pipeline(
        sources,
        stages(**others),
        backends=backends or [Echo()],
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
        def run(self, pixels: Any, sizes: Any, **_: Any) -> list[RawDetections]:
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
    assert batch.current <= 8


def test_a_single_image_too_large_for_the_memory_is_an_error() -> None:
    with pytest.raises(DeviceMemoryError):
        list(pipeline(range(20), Echo(holds=0)))


@pytest.mark.parametrize("where", ["sources", "open", "prepare", "run", "write"])
def test_an_error_in_any_stage_ends_the_pipeline(where: str) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(where)

    def sources() -> Iterator[int]:
        yield from range(20)
        if where == "sources":
            fail()

    class Failing(Echo):
        run = fail

    results: list[Any] = []
    run = pipeline(
        sources(),
        Failing() if where == "run" else Echo(),
        open_image=fail if where == "open" else open_number,
        prepare=fail if where == "prepare" else prepare,
        write=fail if where == "write" else write,
    )
    with pytest.raises(ZeroDivisionError, match=where):
        results.extend(run)
    assert results == (expected(20) if where == "sources" else [])


def test_the_number_of_images_under_way_is_bounded() -> None:
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


class Memory:
    """Record of the memory that images under way need; `needs[number]` for each source."""

    def __init__(self, needs: Sequence[int]) -> None:
        self.needs, self.now, self.peak, self.at_once, self.under_way = needs, 0, 0, 0, 0
        self.lock = threading.Lock()

    def add(self, number: int, direction: int) -> None:
        with self.lock:
            self.now += direction * self.needs[number]
            self.under_way += direction
            self.peak, self.at_once = max(self.peak, self.now), max(self.at_once, self.under_way)

    def prepare(self, number: int) -> NetworkInput:
        self.add(number, 1)
        return NetworkInput(np.full((2, 2, 3), number, np.uint8), (2, 2), IMAGE)

    def write(self, number: int, _: DecodedImage | None, detections: Detections | ImageError) -> int:
        assert isinstance(detections, Detections)
        self.add(number, -1)
        return int(detections.labels[0])

    def run(self, workers: int, batch: int) -> list[Any]:
        others: dict[str, Any] = {
            "open_image": lambda number: open_number(number, self.needs[number]),
            "prepare": self.prepare,
            "write": self.write,
        }
        return list(pipeline(range(len(self.needs)), batch=BatchSize(batch), workers=workers, **others))


@given(st.lists(st.integers(0, 900), max_size=40), st.integers(1, 4), st.integers(1, 8))
@settings(deadline=None, max_examples=50)
def test_images_are_decoded_only_with_the_memory_that_they_need(needs: list[int], workers: int, batch: int) -> None:
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


def test_memory_for_several_images_is_used_in_parallel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 200)
    meet = threading.Barrier(2, timeout=PATIENCE)

    def in_pairs(number: int) -> NetworkInput:
        meet.wait()
        return prepare(0)

    run = pipeline(range(40), workers=2, open_image=partial(open_number, needed_bytes=200), prepare=in_pairs)
    assert list(run) == [0] * 40


def test_the_memory_of_an_image_that_is_not_kept_is_free_once_it_is_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 1000)
    both_prepared = threading.Event()

    class Waiting(Echo):
        def run(self, pixels: Any, sizes: Any, **_: Any) -> list[RawDetections]:
            assert both_prepared.wait(PATIENCE)
            return super().run(pixels, sizes)

    def noting(number: int) -> NetworkInput:
        if number == 1:
            both_prepared.set()
        return NetworkInput(np.full((2, 2 + number, 3), number, np.uint8), (2, 2), None)

    open_image = partial(open_number, needed_bytes=900)
    assert list(pipeline(range(2), Waiting(), workers=1, open_image=open_image, prepare=noting)) == [0, 1]


def test_finished_images_are_garbage_collected() -> None:
    images: list[weakref.ref[Image.Image]] = []
    gone: list[bool] = []

    def kept(number: int) -> NetworkInput:
        image = Image.new("RGB", (8, 8))
        images.append(weakref.ref(image))
        return NetworkInput(np.full((2, 2, 3), number, np.uint8), (2, 2), DecodedImage(image))

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


def test_an_image_that_cannot_be_opened_is_written_as_an_error() -> None:
    def open_even(number: int) -> ImageFile:
        if number % 2:
            raise ImageError(f"{number} is no image")
        return open_number(number)

    assert list(pipeline(range(6), open_image=open_even)) == [
        0,
        "1 is no image",
        2,
        "3 is no image",
        4,
        "5 is no image",
    ]


def test_the_batch_size_learns_how_long_batches_take() -> None:
    class Noting(BatchSize):
        def record(self, images: int, work: float, seconds: float) -> None:
            noted.append((images, work))
            assert images * 0.001 <= seconds < time.perf_counter() - began

    class Slow(Echo):
        def run(self, pixels: Any, sizes: Any, **_: Any) -> list[RawDetections]:
            time.sleep(len(pixels) * 0.001)
            return super().run(pixels, sizes)

    noted: list[tuple[int, float]] = []
    echo, began = Slow(), time.perf_counter()
    assert list(pipeline(range(40), echo, batch=Noting(4))) == expected(40)
    assert noted == [(count, 12 * count) for count in echo.batches]


@pytest.mark.parametrize("grows", [True, False])
def test_a_backend_knows_whether_other_batch_sizes_will_be_tried(grows: bool) -> None:
    class Noting(Echo):
        def run(self, pixels: Any, sizes: Any, **others: Any) -> list[RawDetections]:
            noted.append(others["settled"])
            return super().run(pixels, sizes)

    noted: list[bool] = []
    list(pipeline(range(4), Noting(), batch=BatchSize(2, grows=grows)))
    assert set(noted) == {not grows}


def test_a_backend_is_shared_while_it_runs() -> None:
    class Shared(Echo):
        @contextmanager
        def shared(self) -> Iterator[None]:
            self.inside = True
            yield
            self.inside = False

        def run(self, pixels: Any, sizes: Any, **_: Any) -> list[RawDetections]:
            assert self.inside
            return super().run(pixels, sizes)

        inside = False

    echo = Shared()
    assert list(pipeline(range(20), echo)) == expected(20)
    assert not echo.inside


def test_results_come_while_the_sources_block() -> None:
    more = threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        assert more.wait(PATIENCE)
        yield 2

    results = iter(pipeline(slow(), batch=BatchSize(8)))
    assert next(results) == 1
    more.set()
    assert list(results) == [2]


def test_images_of_many_shapes_do_not_wait_for_a_slow_one() -> None:
    some_came = threading.Event()

    def of_its_own_shape(number: int) -> NetworkInput:
        if number == 6:
            assert some_came.wait(PATIENCE)
        return NetworkInput(np.full((2, 2 + number, 3), number, np.uint8), (2, 2), None)

    results = iter(pipeline(range(7), batch=BatchSize(4), prepare=of_its_own_shape))
    assert next(results) == 0
    some_came.set()
    assert list(results) == [1, 2, 3, 4, 5, 6]


def test_a_batch_is_filled_while_images_are_being_read() -> None:
    echo, all_begun = Echo(), threading.Event()

    def noting() -> Iterator[int]:
        yield from range(5)
        all_begun.set()

    def once_all_are_begun(number: int) -> NetworkInput:
        assert all_begun.wait(PATIENCE)
        return NetworkInput(np.full((2, 2, 3), number, np.uint8), (2, 2), None)

    run = pipeline(noting(), echo, batch=BatchSize(5), workers=2, prepare=once_all_are_begun)
    assert list(run) == list(range(5))
    assert echo.batches == [5]


def test_stopping_finishes_only_the_images_under_way() -> None:
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


def test_the_clock_times_the_network() -> None:
    class Slow(Echo):
        def run(self, pixels: Any, sizes: Any, **_: Any) -> list[RawDetections]:
            time.sleep(0.01)
            return super().run(pixels, sizes)

    clock = Clock()
    assert len(list(pipeline(range(3), Slow(), clock=clock))) == 3
    assert clock.seconds["network"] >= 0.03


def test_one_by_one_runs_in_the_calling_thread() -> None:
    thread_ids, backend = set[int](), Echo()

    def noting(number: int) -> NetworkInput:
        thread_ids.add(threading.get_ident())
        return prepare(number)

    run = OneByOne(range(20), stages(prepare=noting), backend=backend, clock=Clock())
    assert list(run) == [f"{number} is broken" if number % 7 == 3 else number for number in range(20)]
    assert thread_ids == {threading.get_ident()}
    assert set(backend.batches) == {1}


def test_one_by_one_stops_after_the_current_image() -> None:
    run = OneByOne(range(20), stages(), backend=Echo(), clock=Clock())
    found = []
    for one in run:
        found.append(one)
        if one == 2:
            run.stop()
    assert found == [0, 1, 2]
