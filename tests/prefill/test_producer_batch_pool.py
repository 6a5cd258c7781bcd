"""The batch pool: batches run at the same time within a limit, and nothing goes on when one fails or the run is stopped."""

import time
from threading import Lock

import pytest
import torch

from producer.engine.batch_pool import BatchPool

pytestmark = pytest.mark.producer


class Watch:
    """Work that takes a moment and remembers what was under way together."""

    def __init__(self) -> None:
        self.now, self.most, self.together, self.lock = 0, 0, 0, Lock()
        self.done: list[int] = []

    def __call__(self, size: int) -> int:
        with self.lock:
            self.now, self.together = self.now + size, self.together + 1
            self.most = max(self.most, self.now if self.together > 1 else 0)
        time.sleep(0.005)
        with self.lock:
            self.now, self.together = self.now - size, self.together - 1
        self.done.append(size)
        return -size


def test_results_come_in_order_and_never_too_much_is_under_way() -> None:
    """Things larger than the bound go alone; the others together as long as they fit."""
    sizes, watch = [9, 3, 4, 3, 12, 2, 2, 2, 7, 1] * 3, Watch()
    with BatchPool(4, 8) as pool:
        assert list(pool.map(watch, sizes, lambda size: size)) == [-size for size in sizes]
    assert 4 < watch.most <= 8


def test_workers_share_the_cores_and_leave_them_as_they_were() -> None:
    """Each worker has its part of torch's threads and no gradients; afterwards torch has all of them again."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with BatchPool(2, 100) as pool:
            seen = set(pool.map(lambda _: (torch.get_num_threads(), torch.is_inference_mode_enabled()), range(6), lambda _: 1))
        assert seen == {(2, True)}
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_an_error_of_one_ends_the_rest() -> None:
    """What has not begun is dropped; the error comes through as it was raised."""
    watch = Watch()

    def work(size: int) -> int:
        if size == 1:
            raise ValueError("this one")
        return watch(size)

    with pytest.raises(ValueError, match="this one"), BatchPool(2, 100) as pool:
        list(pool.map(work, [2, 1, *[3] * 50], lambda size: size))
    assert len(watch.done) < 50


def test_a_stop_between_batches_drops_what_has_not_begun() -> None:
    """Where the caller raises, those under way are finished and no other begins."""
    watch = Watch()
    with pytest.raises(KeyboardInterrupt), BatchPool(2, 100) as pool:
        for _ in pool.map(watch, [1] * 50, lambda size: size):
            raise KeyboardInterrupt
    assert len(watch.done) < 10
