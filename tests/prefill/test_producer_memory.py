"""Memory: budgets are read, shared out, kept; and what was reached is accounted for."""

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from producer_prefill import some_prompts
from producer_tiny import CONFIGS, SIZES, tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from producer.engine.attention import SharedPrefix, shared_prefix_attention
from producer.engine.layer_source import Target
from producer.engine.memory_needs import MemoryNeeds, measure_needs
from producer.engine.memory_plan import FEWEST_TOKENS, parse_size, plan_memory
from producer.engine.settings import Settings
from producer.engine.skeleton import take_apart
from producer.engine.step import Batch, run_layer
from producer.engine.throughput import matrix_peak, throughput, unique_flops
from producer.engine.waves import plan_batches
from producer.prompts.encode import Prompts
from schemas.errors import UsageError

pytestmark = pytest.mark.producer
MIB = 2**20
NEEDS = MemoryNeeds(
    weights=1000 * MIB, layer=30 * MIB, activation=40_000, hidden=2304, longest=60,
    prefix=10 * MIB, layer_prefix=MIB, last=4 * MIB, head_row=2304,
)  # fmt: skip


@pytest.mark.parametrize(("text", "size"), [("24G", 24 * 2**30), ("512MiB", 512 * MIB), ("1.5k", 1536), ("1000000", 1_000_000)])
def test_sizes_are_read(text: str, size: int) -> None:
    """Sizes take K, M, G, T and fractions, in powers of 1,024."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "ten", "1X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    """The message shows sizes that would do."""
    with pytest.raises(UsageError, match="examples: 24G"):
        parse_size(text)


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("left", [5, 30, 3000])
def test_a_model_that_fits_stays_on_the_device(cores: int, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for weights and a batch, nothing is streamed; the batches under way and the wave that waits stay within the budget."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    budget = 1014 + left
    plan = plan_memory(NEEDS, "cpu", Settings(device_memory=budget * MIB), loaded=True)
    taken = plan.concurrent_tokens * NEEDS.activation + plan.wave_tokens * NEEDS.hidden
    assert plan.workers * plan.batch_tokens <= plan.concurrent_tokens
    assert not plan.streamed
    assert NEEDS.weights + NEEDS.prefix + NEEDS.last + taken <= budget * MIB
    assert plan.workers == (1 if left == 5 else cores)


@pytest.mark.parametrize("cores", [1, 4])
@pytest.mark.parametrize("budget", [100, 200, 999])
def test_a_model_that_does_not_fit_is_streamed_within_the_budget(budget: int, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two layers, a layer's prefix and the activations of all workers stay below the budget; waiting states below the host's."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    plan = plan_memory(NEEDS, "cpu", Settings(device_memory=budget * MIB, host_memory=50 * MIB), loaded=False)
    assert (plan.streamed, plan.workers) == (True, cores)
    assert plan.workers * plan.batch_tokens <= plan.concurrent_tokens
    assert 2 * NEEDS.layer + NEEDS.layer_prefix + plan.concurrent_tokens * NEEDS.activation <= budget * MIB
    assert (plan.wave_tokens - plan.disk_tokens) * NEEDS.hidden + NEEDS.last <= 50 * MIB
    assert plan.head_rows * NEEDS.head_row <= budget * MIB


@pytest.mark.parametrize("longest", [1, 64, 2000])
def test_a_budget_below_the_least_is_refused_with_the_least(longest: int) -> None:
    """Two layers and the longest item, which is never cut, have to fit; what the message says is enough, and a MiB less is not."""
    needs = replace(NEEDS, longest=longest)
    with pytest.raises(UsageError, match=r"the least is \d+ MiB") as refused:
        plan_memory(needs, "cpu", Settings(device_memory=50 * MIB), loaded=False)
    least = int(str(refused.value).split()[-2])
    plan = plan_memory(needs, "cpu", Settings(device_memory=least * MIB), loaded=False)
    assert (plan.streamed, plan.concurrent_tokens >= longest) == (True, True)
    with pytest.raises(UsageError):
        plan_memory(needs, "cpu", Settings(device_memory=(least - 1) * MIB), loaded=False)


def test_weights_that_are_not_on_the_device_are_brought_there() -> None:
    """Room for all weights is no reason to run them where they are not: the order is layer-major until they are loaded."""
    assert plan_memory(NEEDS, "cpu", Settings(device_memory=4000 * MIB), loaded=False).streamed


def test_a_batch_of_one_token_may_be_asked_for() -> None:
    """`--batch-tokens 1` is one item at a time."""
    assert plan_memory(NEEDS, "cpu", Settings(device_memory=4000 * MIB, batch_tokens=1), loaded=True).batch_tokens == 1


@pytest.mark.parametrize("name", ["llama", "qwen3_moe"])
def test_needs_are_those_of_the_tensors(name: str) -> None:
    """Weights count in the run's dtype; the prefix by its keys and values, those of one layer twice as they grow, and its states."""
    model = tiny(name)
    needs = measure_needs(model, torch.bfloat16, some_prompts(n_items=7, n_prefix=10))
    assert needs.weights == 2 * sum(p.numel() for p in model.parameters()) + sum(b.nbytes for b in model.buffers())
    rows = [2 * layer.self_attn.k_proj.weight.shape[0] for layer in model.model.layers]
    width = model.config.hidden_size
    assert (needs.prefix, needs.layer_prefix) == (10 * 2 * (sum(rows) + rows[0] + width), 10 * 2 * (2 * rows[0] + width))
    assert needs.last == 7 * needs.hidden
    assert needs.layer < needs.weights


@pytest.mark.parametrize(
    ("n_prefix", "merges", "window"), [(0, True, None), (0, True, 20), (800, True, None), (800, True, 60), (800, False, None)]
)
@pytest.mark.parametrize("name", [*CONFIGS, "narrow experts"])
def test_activations_of_a_layer_stay_below_what_is_planned(
    name: str, n_prefix: int, merges: bool, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors alive together within a layer, weights apart, are within the plan: experts, and copies of the prefix where none merges it."""
    monkeypatch.setattr("producer.engine.step.can_merge", lambda *_: merges)
    monkeypatch.setattr("producer.engine.memory_needs.merges_on", lambda *_: merges)
    narrow = {"num_experts": 8, "num_experts_per_tok": 6, "moe_intermediate_size": 16}  # copies for experts outweigh what is within them
    model = tiny(name) if name in CONFIGS else Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **narrow)).eval()
    window = None if model.config.model_type == "llama" else window  # a Llama has no window, whatever its config says
    model.config.sliding_window, model.config.use_sliding_window, model.config.layer_types = window, True, None
    n_items, n_tokens = 40, 50
    skeleton, needs = take_apart(model), measure_needs(model, torch.float32, of_length([n_tokens] * n_items, n_prefix)).on("cpu")
    batch = Batch(range(n_items), torch.randn(n_items, n_tokens, needs.hidden // 4), torch.zeros(n_items, dtype=torch.long), n_prefix)
    attention = skeleton.layers[0].self_attn
    keys = torch.randn(1, attention.k_proj.weight.shape[0] // attention.head_dim, n_prefix, attention.head_dim)
    with torch.no_grad(), shared_prefix_attention(model), Alive() as alive:
        run_layer(skeleton.layers[0], window, skeleton.rotaries[0], batch, SharedPrefix((keys, keys.clone())) if n_prefix else None)
    assert alive.most - needs.layer <= n_items * (n_tokens * needs.activation + needs.item)


def of_length(lengths: list[int], n_prefix: int) -> Prompts:
    return Prompts((1,) * n_prefix, [[1] * length for length in lengths], [False] * len(lengths))


@pytest.mark.parametrize(("device", "window", "cores"), [("cuda", None, 1), ("cpu", 90, 1), ("cpu", 90, 3)])
@pytest.mark.parametrize("lengths", [[50] * 40, [*range(1, 200)], [1] * 300 + [120], [300]])
@pytest.mark.parametrize("budget", [8, 30, 500])
def test_batches_with_copies_of_the_prefix_stay_within_the_budget(  # noqa: PLR0913, PLR0917  # each is a way to copy
    device: str, window: int | None, cores: int, lengths: list[int], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 on a GPU, and under a window that binds, batches of all workers and parts of the prefix are within what is left."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    model, prompts = tiny("mistral"), of_length(lengths, 800)
    model.config.sliding_window = window
    needs = measure_needs(model, torch.float32, prompts)
    settings = Settings(device_memory=budget * MIB + needs.weights + needs.prefix, host_memory=MIB)
    plan, there = plan_memory(needs, device, settings, loaded=True), needs.on(device)
    batches = plan_batches(lengths, plan.batch_tokens)
    largest = max(len(batch) * (lengths[batch[0]] * there.activation + there.item) for batch in batches)
    part = min(800, max(FEWEST_TOKENS, plan.batch_tokens)) * there.activation + there.item
    room = settings.device_memory - there.prefix - there.last
    room -= 2 * there.layer if plan.streamed else there.weights + min(plan.wave_tokens, sum(lengths)) * there.hidden
    assert there.item == 800 * (2 * 32 + 2 * 64) * 4
    assert max(plan.workers * largest, part) <= room


def test_a_kernel_that_merges_leaves_room_for_larger_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """PrefixCopies that no layer makes are not counted, and a batch has four times as many tokens."""
    model, settings = tiny(), Settings(device_memory=20 * MIB)
    monkeypatch.setattr("producer.engine.memory_needs.merges_on", lambda device, *_: device == "cuda:1")
    needs = measure_needs(model, torch.float32, of_length([50] * 900, 800))
    copying, merging = (plan_memory(needs, device, settings, loaded=True).batch_tokens for device in ("cuda:0", "cuda:1"))
    assert needs.on("cuda:1").activation == measure_needs(model, torch.float32, some_prompts()).activation
    assert 4 * copying < merging


class Alive(TorchDispatchMode):
    """Watches the bytes of all tensors made within it that are alive together."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.sizes:
                storage = tensor.untyped_storage()
                self.sizes[storage.data_ptr()] = storage.nbytes()
                weakref.finalize(storage, self.sizes.pop, storage.data_ptr(), None)
        self.most = max(self.most, sum(self.sizes.values()))
        return out


def test_operations_are_counted_once_per_unique_token() -> None:
    """Two items with the same prefix cost its tokens once: checked against a hand count for one layer shape."""
    model, prompts = tiny("llama"), some_prompts(n_items=2, n_prefix=5, cut=0)
    tokens = 5 + sum(len(suffix) for suffix in prompts.suffixes)
    linear = 3 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 96)
    pairs = 12.5 + sum(len(s) * (5 + len(s) / 2) for s in prompts.suffixes)
    assert unique_flops(model, prompts) == 2 * tokens * linear + 4 * 3 * 64 * pairs + 2 * 2 * 128 * 64


def test_throughput_is_measured_against_this_machine() -> None:
    """Rates are positive and the share of peak is their quotient."""
    rates = throughput(tiny(), some_prompts(), Target("cpu", torch.float32), seconds=2.0, padding=0.01)
    assert rates["items_per_s"] == 3.5
    assert rates["share_of_peak"] == pytest.approx(rates["flops_per_s"] / matrix_peak(Target("cpu", torch.float32)))
