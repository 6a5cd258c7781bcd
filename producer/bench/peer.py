"""lm-evaluation-harness in a separate process, loaded once and measured once per round."""

import argparse
import contextlib
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.bench.cases import Case
from schemas.errors import HedgemarkError


class Peer:
    """lm-evaluation-harness on one case; if its interpreter does not exist, nothing is measured and `gaps` stays None.

    seconds : time of each round.
    gaps    : (item, option) log-likelihoods minus the first option's, which are differences of logits.
    """

    def __init__(self, case: Case, arguments: argparse.Namespace) -> None:
        self.seconds: list[float] = []
        self.gaps: NDArray[np.float64] | None = None
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # the process's stderr, closed by `close`
        self._process: subprocess.Popen[str] | None = None
        if arguments.lm_eval.exists():
            argv = [arguments.lm_eval, Path(__file__).with_name("peer_worker.py")]
            self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True)
            self._send(json.dumps(_request(case, arguments)))

    def round(self) -> None:
        """Measure one more round."""
        if self._process is None:
            return
        self._send("")
        assert self._process.stdout is not None, "stdout is a pipe"
        line = self._process.stdout.readline()
        if not line:
            self._stderr.seek(0)
            raise HedgemarkError(f"lm-evaluation-harness failed: {self._stderr.read().strip().splitlines()[-1]}")
        result = json.loads(line)
        self.seconds.append(result["seconds"])
        likelihoods = np.array(result["loglikelihoods"])
        self.gaps = likelihoods - likelihoods[:, :1]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
        self._stderr.close()

    def _send(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None, "stdin is a pipe"
        with contextlib.suppress(BrokenPipeError):  # the process has ended; `round` shows its stderr
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def _request(case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    return {
        "model": str(case.folder), "dtype": "float32", "device": arguments.device, "batch_size": arguments.batch_size,
        "threads": torch.get_num_threads(), "clock": arguments.clock, "contexts": case.texts,
        "continuations": [f" {letter}" for letter in case.letters],
    }  # fmt: skip
