"""Let a process end with the one that started it, also when that one is killed by `kill -9` and can end nothing itself. On Linux only."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
STARTS_VLLM = "HEDGEMARK_VLLM_PID"  # the environment variable that has the number of the process that starts vLLM's engine


def end_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies, and exit now if the parent is already dead.

    parent : number of the process that started this one.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def end_vllm_engine_with_command() -> None:
    """Called by vLLM early in each of its processes: let the engine that backend `vllm` starts end with the command.

    By itself the engine of vLLM 0.32 does not notice that its parent was killed, and keeps its memory; the processes of several devices
    notice the end of the engine. vLLM calls this because it is named in pyproject.toml as a platform, and it names none: other plug-ins are
    called only when the engine has heard from its parent, for which it waits five minutes. A vLLM that others start is left alone.
    """
    command = int(os.environ.get(STARTS_VLLM, "0"))
    if command and command != os.getpid():
        del os.environ[STARTS_VLLM]  # processes that the engine starts have another parent
        end_with_parent(command)
