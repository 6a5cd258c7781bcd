"""Run several batches at the same time on a CPU, within a limit on their total size.

In: a function, and items to call it on.  Out: its results, in the order of the items.

A matrix product of 1,000 tokens is too small to run efficiently on many cores, and torch hardly parallelises anything but matrix products.
So each core takes a batch of its own; `producer/bench/records.md` has the share of the matrix peak before and after. On a GPU the
pool has one thread.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Condition
from types import TracebackType
from typing import Any


class BatchPool:
    """Threads that divide torch's CPU cores among them; on exit pending items are cancelled and running ones awaited."""

    def __init__(self, workers: int, most: int) -> None:
        """Start `workers` threads; the total size of running items stays at `most` or below, unless a single item exceeds it."""
        import torch

        self._cores = torch.get_num_threads()
        each = max(1, self._cores // workers)
        self._threads = ThreadPoolExecutor(workers, "hedgemark-batch", torch.set_num_threads, (each,))
        self._most, self._running, self._changed = most, 0, Condition()

    def __enter__(self) -> "BatchPool":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        import torch

        self._threads.shutdown(cancel_futures=True)
        torch.set_num_threads(self._cores)  # a worker's set_num_threads also sets the default for threads created later

    def map(self, work: Callable[[Any], Any], items: Iterable[Any], size: Callable[[Any], int]) -> Generator[Any]:
        """Yield `work(item)` in the order of the items.

        size : an item's share of the pool's limit.
        If one item fails, or the caller stops early, pending items are cancelled and running ones awaited before the exception
        propagates, because the caller may then remove the weights that they use.
        """

        def one(item: Any) -> Any:
            import torch

            with self._reserved(size(item)), torch.inference_mode():  # inference mode is thread-local
                return work(item)

        futures = deque(self._threads.submit(one, item) for item in items)
        try:
            while futures:
                yield futures.popleft().result()
        finally:
            wait([future for future in futures if not future.cancel()])

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._running or self._running + size <= self._most)
            self._running += size
        try:
            yield
        finally:
            with self._changed:
                self._running -= size
                self._changed.notify_all()
