"""Models of 8B and 70B parameters with random weights: how much of the card's speed the engine uses, and within how much memory."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.bench.gpu import GIB, SHAPES, Shape, random_model, random_prompts, run_shape
from producer.engine.attention import merges_on
from producer.prompts.encode import Prompts

PREFIX_TOKENS, ITEM_TOKENS = 500, 120  # tokens: about MMLU with five demonstrations
SHARED_ITEMS = 2000  # with a shared prefix
UNSHARED_ITEMS = 400  # with the same tokens, each on its own
STREAMED_ITEMS = 600  # layer by layer
SMALL = (
    Shape("8B", 64, 128, 4, 4, 2, 0, 0.0),
    Shape("70B", 64, 128, 6, 8, 2, GIB // 8, 0.0),
)


def in_memory(where: Where) -> Iterator[Finding]:
    """Yield the share of the bf16 peak of an 8B model with all weights on the device, with a shared prefix and without."""
    shape = (SMALL if where.small else SHAPES)[0]
    model = random_model(shape, where.device, where.device)
    yield attempt("kernels", lambda: _merge(model, where.device))
    yield attempt("first batch", partial(_run, shape, model, where.device, _prompts(where, 64)))  # loads kernels; its figures are no speed
    yield attempt("with a shared prefix", partial(_run, shape, model, where.device, _prompts(where, SHARED_ITEMS)))
    yield attempt("without a shared prefix", partial(_run, shape, model, where.device, _unshared(_prompts(where, UNSHARED_ITEMS))))


def layer_by_layer(where: Where) -> Iterator[Finding]:
    """Yield the time of a wave of a 70B model through 24 GB: of a few items, which is that of copying, and of many."""
    shape = (SMALL if where.small else SHAPES)[1]
    model = random_model(shape, "cpu", where.device)
    yield attempt("one wave of 8 items", partial(_run, shape, model, where.device, _prompts(where, 8)))
    yield attempt(f"one wave of {STREAMED_ITEMS} items", partial(_run, shape, model, where.device, _prompts(where, STREAMED_ITEMS)))


def _merge(model: Any, device: str) -> Measured:
    """Require the kernels that share a prefix without copying it, which need FlashAttention."""
    measured = Measured()
    head = model.config.hidden_size // model.config.num_attention_heads
    measured.require(merges_on(device, model.dtype, head), "no kernel returns the log-sum-exp here, so the prefix is copied for every item")
    return measured


def _run(shape: Shape, model: Any, device: str, prompts: Prompts) -> Measured:
    rates = run_shape(shape, model, device, prompts)
    figures: dict[str, Any] = {name: rates[name] for name in ("seconds", "items_per_s", "tokens_per_s", "padding")}
    figures |= {"TFLOP/s": rates["flops_per_s"] / 1e12, "share of the bf16 peak": rates["share_of_peak"]}
    measured = Measured(figures)
    if shape.budget:
        weights = sum(weight.numel() * weight.element_size() for layer in model.model.layers for weight in layer.parameters())
        figures["weights copied GB/s"] = weights / rates["seconds"] / 1e9
    if "peak_memory_bytes" in rates:
        figures["reserved GiB"] = rates["reserved_memory_bytes"] / GIB
        measured.at_most("peak GiB", rates["peak_memory_bytes"] / GIB, (shape.budget or float("inf")) / GIB)
    return measured


def _prompts(where: Where, n_items: int) -> Prompts:
    return random_prompts(max(2, n_items // 100), 12, 6) if where.small else random_prompts(n_items, PREFIX_TOKENS, ITEM_TOKENS)


def _unshared(prompts: Prompts) -> Prompts:
    """Return the same prompts, each with the prefix as tokens of its own."""
    return Prompts((), [[*prompts.prefix, *suffix] for suffix in prompts.suffixes], prompts.cut)
