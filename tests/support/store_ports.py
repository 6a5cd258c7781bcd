"""Ports for the servers of the store's tests, which no other test process takes meanwhile.

In: how many.  Out: a held lock and port numbers. A free port does not stay free between the look and the server's start, so the processes
of a test run, and runs beside it, agree by lock files: a block of ports is its holder's until the lock is released.
"""

import os
import socket
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

GRPC = 10_000  # SeaweedFS has a gRPC port for each port; ours are that much higher
FIRST, BLOCK, BLOCKS = 11_000, 4, 2_500  # up to 31,000: from 32,768 on the kernel hands ports to clients, a killed server's too


def reserve_ports(count: int) -> tuple[FileLock, list[int]]:
    """Return the lock of a block and its first `count` ports; each is free, and so is the one GRPC above it."""
    folder = Path(tempfile.gettempdir()) / f"hedgemark-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    start = os.getpid() * 7  # neighbouring pids begin apart, so that few blocks are tried
    for number in range(start, start + BLOCKS):
        block = number % BLOCKS
        ports = [FIRST + BLOCK * block + offset for offset in range(count)]
        lock = FileLock(folder / str(block))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        if all(_free(port) and _free(port + GRPC) for port in ports):
            return lock, ports
        lock.release()
    raise RuntimeError(f"no {count} free ports among {BLOCKS} blocks from {FIRST}")


def _free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
