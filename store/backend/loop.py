"""Wait for Icechunk's coroutines from ordinary code, also where an event loop already runs (a notebook).

No coroutine may be under way when the interpreter goes down: Icechunk's threads report to it, and abort the process when it is gone.
"""

import asyncio
import atexit
import functools
import os
import sys
import threading
import time
from collections.abc import Awaitable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

LAST_S = 5.0  # given to what an interrupted call left under way


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on this process's background loop and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


async def gather(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Return all results in order, or raise the first failure once every other one has ended too."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]  # no exception is among them


@functools.cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"hedgemark-store-{pid}", daemon=True)
    thread.start()
    atexit.register(_stop, loop, thread)
    return loop


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    asyncio.run_coroutine_threadsafe(_finish(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    _let_go()


async def _finish() -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=LAST_S)


def _let_go() -> None:
    """Wait for Icechunk's threads that have delivered a result and are still within Python's code, waiting for their turn to leave it.

    A command that ended meanwhile was seen to crash after its last word: exit code 139 or 134 in one of fifty on a busy machine.
    """
    deadline = time.monotonic() + LAST_S
    while set(sys._current_frames()) - {thread.ident for thread in threading.enumerate()} and time.monotonic() < deadline:
        time.sleep(0.001)
