"""Run Icechunk's coroutines from ordinary code, also when an event loop is already running (in a notebook).

No coroutine may still be running when the interpreter shuts down: Icechunk's threads would then call into it and abort the process.
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

LAST_S = 5.0  # seconds to wait at exit for coroutines and threads that an interrupted call left running


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on this process's background loop and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


async def gather(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """Return all results in order, or raise the first failure after all others have ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]  # none of them is an exception


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
    _wait_for_threads()


async def _finish() -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    if running:
        await asyncio.wait(running, timeout=LAST_S)


def _wait_for_threads() -> None:
    """Wait for Icechunk's threads that have delivered their result but have not yet returned from Python's code.

    Without this wait, one of fifty commands on a busy machine crashed after its last output, with exit code 139 or 134.
    """
    deadline = time.monotonic() + LAST_S
    while set(sys._current_frames()) - {thread.ident for thread in threading.enumerate()} and time.monotonic() < deadline:
        time.sleep(0.001)
