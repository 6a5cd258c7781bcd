"""Every compression method's model, through the engine: the same logits as its own forward pass, in memory and layer by layer."""

import numpy as np
import pytest
from producer_prefill import OPTIONS, plain, run, some_prompts
from producer_tiny import AT_HAND, tiny, tiny_data, tiny_level

from producer.methods import METHODS

pytestmark = pytest.mark.producer
DATA_FREE = [name for name, method in METHODS.items() if not method.needs_data(tiny_level(name))]


CASES = [pytest.param(name, "llama", marks=[] if name in DATA_FREE else pytest.mark.slow) for name in AT_HAND]


@pytest.mark.parametrize(("name", "architecture"), [*CASES, ("magnitude", "qwen3_moe")])
def test_the_engine_runs_what_methods_make(name: str, architecture: str) -> None:
    """Pruned shapes, rounded activations, rotations and replaced modules come out as they do from the model's own forward pass."""
    method = METHODS[name]
    model = method.apply(tiny(architecture), tiny_level(name), tiny_data() if method.needs_data(tiny_level(name)) else None, 0).model
    prompts = some_prompts(5)
    expected = plain(model, prompts)[:, OPTIONS]
    np.testing.assert_allclose(run(model, prompts).logits, expected, atol=1e-4)
    np.testing.assert_allclose(run(model, prompts, streamed=True, wave_tokens=10_000).logits, expected, atol=1e-4)
