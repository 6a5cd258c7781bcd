"""`python -m producer.bench`: items per second against lm-evaluation-harness and against one prompt per forward pass.

Every ratio comes from this one process, on the same model, prompts, dtype, device and threads; rounds of the three take turns, and a
ratio is given as its median and range over rounds. SmolLM2-135M is measured where it can be had, `ref-l` where its weights are; the
peer where `--lm-eval` names an interpreter that has it.
"""

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from producer.bench_layers import gpu_figures, layer_major_figures
from producer.encode import Prompts, encode
from producer.engine.accounting import throughput
from producer.engine.layers import Target
from producer.engine.memory import Layout, measure_needs, plan_memory
from producer.engine.prefill import Answers, prefill
from producer.models import find_model, load_model, load_tokenizer
from producer.option_tokens import option_tokens
from producer.prompts import render_item, render_prefix
from producer.settings import Settings
from producer.tasks.source import TaskItems, draw, load_task
from schemas.errors import HedgemarkError

TASKS = {"smollm2-135m": ("mmlu", "hellaswag"), "ref-l": ("urn", "facts")}  # ref-l's tokenizer knows the embedded tasks' words only
SHOTS = {"zero-shot": 0, "few-shot": 5}
LIMITS = {"zero-shot": 1.0, "few-shot": 2.5}  # least ratio to lm-evaluation-harness
MOST_GAP, LEAST_SHARE = 1e-4, 0.60
PEER = Path(".venv-lmeval/bin/python")


class Case(NamedTuple):
    """One model on one task with some demonstrations."""

    name: str
    model: Any
    folder: Path
    prompts: Prompts
    texts: list[str]
    option_ids: tuple[int, ...]
    letters: str


def main() -> None:
    """Print every figure of the bench."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m producer.bench", description=__doc__, formatter_class=raw)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the published tasks' items")
    parser.add_argument("--limit", type=int, default=48, help="items per case")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=16, help="lm-evaluation-harness's")
    parser.add_argument("--lm-eval", type=Path, default=PEER, metavar="PYTHON", help="interpreter that has lm-eval")
    parser.add_argument("--part", choices=("rates", "bf16", "layers", "gpu"), action="append", help="only this part (repeatable)")
    arguments = parser.parse_args()
    parts = {"rates": rates, "bf16": bfloat16, "layers": layer_major_figures, "gpu": gpu_figures}
    for name in arguments.part or parts:
        parts[name](arguments)


def rates(arguments: argparse.Namespace) -> None:
    """Print items per second and ratios for every case in float32."""
    for case in cases(arguments, "float32"):
        ours, single, peer = [], [], _Peer(case, arguments)
        answers: Answers | None = None
        for _ in range(arguments.rounds):
            seconds, answers = timed(lambda case=case: answer(case, arguments.device))  # type: ignore[misc]
            ours.append(seconds)
            single.append(timed(lambda case=case: one_by_one(case))[0])  # type: ignore[misc]
            peer.round()
        assert answers is not None, "there is at least one round"
        _print_rates(case, ours, single, peer, answers, arguments.device)


def bfloat16(arguments: argparse.Namespace) -> None:
    """Print our rate in bfloat16 beside the machine's bfloat16 peak."""
    for case in cases(arguments, "bfloat16"):
        seconds = [timed(lambda case=case: answer(case, arguments.device))[0] for _ in range(arguments.rounds)]  # type: ignore[misc]
        print(f"{case.name}:")
        _print_share(case, min(seconds), arguments.device)


def cases(arguments: argparse.Namespace, dtype: str) -> Iterator[Case]:
    """Yield what is measured, as far as models and data are here."""
    for name, tasks in TASKS.items():
        try:
            files = find_model(name)
            model = load_model(files, dtype, arguments.device)
        except (HedgemarkError, OSError) as error:
            print(f"{name}: not measured ({error})")
            continue
        tokenizer = load_tokenizer(files)
        for task in tasks:
            items = draw(load_task(task, arguments.data), arguments.limit, 0)
            for shots, n_shown in SHOTS.items():
                yield _case(f"{name} {task} {shots}", model, files.folder, tokenizer, items, n_shown)


def answer(case: Case, device: str) -> Answers:
    """Answer all items with our engine, laid out as `produce` would."""
    layout, target = _layout(case, device)
    return prefill(case.model, case.prompts, case.option_ids, layout, target, lambda _: None)


def one_by_one(case: Case) -> NDArray[np.float32]:
    """Answer all items in the way of the published benchmark: one prompt per forward pass, the full head at every position."""
    import torch

    with torch.inference_mode():
        rows = [_one(case, item) for item in range(len(case.texts))]
    return np.array(rows, np.float32)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return wall seconds and result."""
    clock = time.perf_counter()
    result = work()
    return time.perf_counter() - clock, result


class _Peer:
    """lm-evaluation-harness in a process of its own per round."""

    def __init__(self, case: Case, arguments: argparse.Namespace) -> None:
        import torch

        self.seconds: list[float] = []
        self.gaps: NDArray[np.float64] | None = None
        self._python = arguments.lm_eval if arguments.lm_eval.exists() else None
        self._asked = {
            "model": str(case.folder), "dtype": "float32", "device": arguments.device, "batch_size": arguments.batch_size, "rounds": 1,
            "threads": torch.get_num_threads(), "contexts": case.texts, "continuations": [f" {letter}" for letter in case.letters],
        }  # fmt: skip

    def round(self) -> None:
        """Measure once more."""
        if self._python is None:
            return
        worker = Path(__file__).with_name("bench_peer.py")
        done = subprocess.run([self._python, worker], input=json.dumps(self._asked), capture_output=True, text=True, check=False)
        if done.returncode:
            raise HedgemarkError(f"lm-evaluation-harness failed: {done.stderr.strip().splitlines()[-1]}")
        result = json.loads(done.stdout.splitlines()[-1])
        self.seconds += result["seconds"]
        likelihoods = np.array(result["loglikelihoods"])
        self.gaps = likelihoods - likelihoods[:, :1]


def _case(name: str, model: Any, folder: Path, tokenizer: Any, items: TaskItems, n_shown: int) -> Case:  # noqa: PLR0913, PLR0917
    shown = items.demonstrations[:n_shown]
    prompts = encode(tokenizer, "", shown, items.items, model.config.max_position_embeddings)
    letters = "ABCDEF"[: max(len(item.choices) for item in items.items)]
    texts = [render_prefix("", shown) + render_item(item) for item in items.items]
    return Case(name, model, folder, prompts, texts, option_tokens(tokenizer, len(letters)).ids, letters)


def _layout(case: Case, device: str) -> tuple[Layout, Target]:
    target = Target(device, case.model.dtype)
    needs = measure_needs(case.model, target.dtype, len(case.prompts.prefix))
    return plan_memory(needs, device, Settings(), loaded=True), target


def _one(case: Case, item: int) -> list[float]:
    import torch

    ids = torch.tensor([case.prompts.whole(item)], device=case.model.device)
    logits = case.model(input_ids=ids, use_cache=False).logits[0, -1, list(case.option_ids)]
    return [float(value) for value in logits]


def _print_rates(case: Case, ours: list[float], single: list[float], peer: _Peer, answers: Answers, device: str) -> None:  # noqa: PLR0913, PLR0917
    n_items = len(case.texts)
    print(f"{case.name}: {n_items / min(ours):.2f} items/s ours, {n_items / min(single):.2f} one prompt per forward {_ratio(single, ours)}")
    if peer.gaps is not None:
        gap = float(np.abs(answers.logits - answers.logits[:, :1] - peer.gaps).max())
        least = LIMITS[case.name.rsplit(" ", 1)[1]]
        print(f"    {n_items / min(peer.seconds):.2f} lm-evaluation-harness {_ratio(peer.seconds, ours)}, limit {least}")
        print(f"    largest difference of option-logit gaps {gap:.1e}, limit {MOST_GAP:.0e}")
    else:
        print("    lm-evaluation-harness is not installed here: no ratio")
    _print_share(case, min(ours), device)


def _print_share(case: Case, seconds: float, device: str) -> None:
    measured = throughput(case.model, case.prompts, Target(device, case.model.dtype), seconds, 0.0)
    reached, peak = measured["flops_per_s"] / 1e9, measured["peak_flops_per_s"] / 1e9
    print(f"    {measured['tokens_per_s']:,.0f} unique tokens/s in {case.model.dtype}, {reached:,.0f} of {peak:,.0f} GFLOP/s: ", end="")
    print(f"{measured['share_of_peak']:.0%} (SmolLM2 in float32: at least {LEAST_SHARE:.0%})")


def _ratio(slow: list[float], fast: list[float]) -> str:
    ratios = sorted(s / f for s, f in zip(slow, fast, strict=True))
    return f"(ours is {statistics.median(ratios):.2f} times as fast, {ratios[0]:.2f} to {ratios[-1]:.2f})"


if __name__ == "__main__":
    main()
