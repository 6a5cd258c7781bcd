"""What asking a server costs beside the server's own work: `produce --backend server` against one on loopback that answers at once."""

import resource
import subprocess
import sys
import tempfile
import time

from fake_servers import Fake, serving

SMALL, MANY = 50, 450  # items; the difference leaves out the start of the command


def main() -> None:
    seconds, spent = zip(*(ask(n_items) for n_items in (SMALL, MANY)), strict=True)
    wall, busy = (1e3 * (many - few) / (MANY - SMALL) for few, many in (seconds, spent))
    print(f"server that answers at once: {busy:.2f} ms of CPU an item, {wall:.2f} ms of time")


def ask(n_items: int) -> tuple[float, float]:
    """Return the seconds and the processor seconds of asking so many items; the server runs in this process and is not counted."""
    with serving(Fake("vllm")) as url, tempfile.TemporaryDirectory() as folder:
        before, start = children(), time.perf_counter()
        asked = ["--backend", "server", "--url", url, "--tokenizer", "ref-m", "--task", "urn", "--limit", str(n_items)]
        subprocess.run([sys.executable, "-m", "producer", *asked, "--store", f"{folder}/store"], check=True, capture_output=True)
        return time.perf_counter() - start, children() - before


def children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
