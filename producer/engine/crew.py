"""Batches side by side: on a CPU, cores that take a batch each finish sooner than cores that share every product of one batch.

In: work, and things to do it to.  Out: results in order. A product of 1,000 tokens is too small to share and whatever is no product is
hardly shared at all: `producer/bench/records.md` has the share of the matrix peak before and after. A GPU's crew is one thread.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Condition
from types import TracebackType
from typing import Any


class Crew:
    """Some threads, which share the cores that torch has; left, it drops what has not begun and waits for what has."""

    def __init__(self, workers: int, most: int) -> None:
        """Make a crew that has things of at most so much size under way together, or one thing alone."""
        import torch

        self._cores = torch.get_num_threads()
        each = max(1, self._cores // workers)
        self._pool = ThreadPoolExecutor(workers, "hedgemark-batch", torch.set_num_threads, (each,))
        self._most, self._under_way, self._changed = most, 0, Condition()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import torch

        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._cores)  # a worker's own number is also what threads made later begin with

    def map(self, work: Callable[[Any], Any], things: Iterable[Any], size: Callable[[Any], int]) -> Generator[Any]:
        """Yield the work's results in the order of the things.

        An error of one, or one of the caller, drops what has not begun and waits for what has: only then may weights be taken away.
        """

        def one(thing: Any) -> Any:
            import torch

            with self._room(size(thing)), torch.inference_mode():  # which holds in one thread only
                return work(thing)

        futures = deque(self._pool.submit(one, thing) for thing in things)
        try:
            while futures:
                yield futures.popleft().result()
        finally:
            wait([future for future in futures if not future.cancel()])

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way or self._under_way + size <= self._most)
            self._under_way += size
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= size
                self._changed.notify_all()
