"""Wait for Icechunk's coroutines from ordinary code, also where an event loop already runs (a notebook)."""

import asyncio
import atexit
import functools
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on this process's background loop and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid())).result()


@functools.cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name=f"hedgemark-store-{pid}", daemon=True)
    thread.start()
    atexit.register(_stop, loop, thread)  # a loop still running while the interpreter goes down was seen to abort it
    return loop


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
