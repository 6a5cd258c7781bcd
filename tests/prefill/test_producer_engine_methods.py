"""Every compression method's model, through the engine: the same logits as its own forward pass, in memory and layer by layer."""

import numpy as np
import pytest
from producer_prefill import OPTIONS, plain, run, some_prompts
from producer_tiny import tiny, tiny_data

from producer.methods import METHODS
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
LEVELS = {"rtn": "w4a16-g32", "gptq": "w4a16-g32", "awq": "w4a16-g32"}  # the tiny model's 64 columns take no group of 128
DATA_FREE = [name for name, method in METHODS.items() if not method.needs_data]


CASES = [pytest.param(name, "llama", marks=[] if name in DATA_FREE else pytest.mark.slow) for name in METHODS]


@pytest.mark.parametrize(("name", "architecture"), [*CASES, ("magnitude", "qwen3_moe")])
def test_the_engine_runs_what_methods_make(name: str, architecture: str) -> None:
    """Pruned shapes, rounded activations, rotations and replaced modules come out as they do from the model's own forward pass."""
    method = METHODS[name]
    level = parse_level(LEVELS.get(name, method.default_level))
    model = method.apply(tiny(architecture), level, tiny_data() if method.needs_data else None, 0).model
    prompts = some_prompts(5)
    expected = plain(model, prompts)[:, OPTIONS]
    np.testing.assert_allclose(run(model, prompts).logits, expected, atol=1e-4)
    np.testing.assert_allclose(run(model, prompts, streamed=True, wave_tokens=10_000).logits, expected, atol=1e-4)
