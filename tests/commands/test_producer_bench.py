"""The bench's own parts, on small shapes: what it times must be what it says. Timings themselves are never tested."""

import argparse
import mmap
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from producer_standin import save_standin

from producer.bench.__main__ import record
from producer.bench.cases import SHOTS, Case, make_case
from producer.bench.gpu import SHAPES, Shape, gpu, random_model, random_prompts, shape_line
from producer.bench.peak import in_use, peak_memory
from producer.bench.peer import Peer
from producer.bench.rates import answer, one_by_one, spread
from producer.bench.saved import LEVELS_ASKED_AGAIN, SAVEABLE, saved
from producer.bench.share import share
from producer.bench.two_paths import paths
from producer.methods import METHODS
from producer.models.find import find_model
from producer.models.load import load_model, load_tokenizer
from producer.tasks.source import draw, load_task
from schemas.errors import HedgemarkError
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
MIB = 2**20
PEER = """
class HFLM:
    def __init__(self, **how): pass
    def tok_encode(self, text): return list(text.encode())
    def _loglikelihood_tokens(self, requests, disable_tqdm): return [(-whole[-1], True) for _, _, whole in requests]
"""


def test_one_prompt_per_forward_is_the_same_question(tmp_path: Path) -> None:
    """The published way gives the same option logits as ours, zero-shot and few-shot, so the ratio compares like with like."""
    files = find_model(str(save_standin(tmp_path)))
    model, items = load_model(files, "float32", "cpu"), draw(load_task("urn"), 4, 0)
    for shots in SHOTS.values():
        case = make_case("standin urn", model, files.folder, load_tokenizer(files), items, shots)
        np.testing.assert_allclose(answer(case, "cpu").logits, one_by_one(case), atol=2e-5)


@pytest.mark.parametrize("budget", [0, 4 * MIB])
def test_random_layouts_run_in_memory_and_layer_major(budget: int) -> None:
    """A layout of any size runs through the code that measures a GPU's share of peak."""
    shape = Shape("tiny", hidden=32, inner=64, layers=3, heads=4, kv_heads=2, budget=budget, least_share=0.5)
    line = shape_line(shape, "cpu", random_prompts(n_items=3, n_prefix=5, n_own=4))
    assert ("layer-major" if budget else "in memory") in line
    assert "of the measured bf16 peak (target: at least 50%)" in line


def test_layers_on_the_host_share_their_weights() -> None:
    """Eighty layers of a 70B model would not fit the host; one layer's tensors stand for all."""
    model = random_model(Shape("tiny", 32, 64, 3, 4, 2, 1, 0.0), "cpu")
    first, last = model.model.layers[0].mlp.up_proj.weight, model.model.layers[2].mlp.up_proj.weight
    assert first.data_ptr() == last.data_ptr()
    assert not any(p.is_meta for p in model.parameters())


def test_peak_memory_sees_what_was_taken_and_given_back() -> None:
    """A block that lived for a moment within the watch counts, though it is gone at the end."""
    with peak_memory() as peak:
        block = mmap.mmap(-1, 64 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # malloc would reuse what earlier tests freed
        np.frombuffer(block, dtype=np.uint8)[:] = 1
        time.sleep(0.1)
        block.close()
    assert 60 * MIB < peak[0] < 96 * MIB


def test_memory_in_use_is_what_is_allocated_and_not_freed() -> None:
    """A tensor that lived for a moment counts to the byte or nearly, whatever malloc keeps of it afterwards."""
    with peak_memory(in_use) as peak:
        block = torch.ones(16 * MIB)
        time.sleep(0.1)
        del block
    assert 60 * MIB < peak[0] < 80 * MIB


def test_the_share_of_the_peak_is_given_in_both_dtypes() -> None:
    """A line for float32 and one for bfloat16, each a share with its range, on as many items as were asked for."""
    asked = argparse.Namespace(model=["ref-l"], task=["urn"], shots=None, items=4, data=Path(), device="cpu", rounds=2, clock="wall")
    for line, dtype in zip(share(asked), ("float32", "bfloat16"), strict=True):
        assert line.startswith(f"ref-l urn few-shot in {dtype}, 4 items: ")
        assert re.search(r": \d+% \(\d+% to \d+%\) of the matrix peak$", line)


def test_both_paths_are_timed_on_the_same_prompts() -> None:
    """Zero-shot prompts once; prompts with demonstrations shared and whole, which give the same logits on both paths."""
    asked = argparse.Namespace(model=["ref-l"], task=["urn"], shots=None, items=4, data=Path(), device="cpu", rounds=1)
    lines = list(paths(asked))
    assert [line for line in lines if not line.startswith(" ")] == [f"ref-l urn {shots}, 4 items, in processor seconds" for shots in SHOTS]
    assert sum("s with the prefill engine" in line for line in lines) == 3
    gaps = [float(found[1]) for line in lines if (found := re.search(r"difference of option logits (\S+) ", line))]
    assert len(gaps) == 3 and max(gaps) < 1e-4
    assert re.search(r"takes the engine \d+\.\d\d .* own forward pass \d+\.\d\d \(", lines[-1])


def test_every_method_that_can_be_saved_is_measured() -> None:
    """A method added to the package is in the bench of saved models too, at levels that it has."""
    saveable = {name for name, method in METHODS.items() if method.changes and not method.unsavable}
    assert saveable - {"dense"} == {*SAVEABLE}
    for name, levels in SAVEABLE.items():
        for level in levels:
            METHODS[name].check_level(parse_level(level))
    assert all(level in SAVEABLE[name] for name, level in LEVELS_ASKED_AGAIN.items())


@pytest.mark.slow
def test_saved_models_are_compared_and_another_prompt_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One method of a small model: its change within what is allowed, its bytes, and the seconds of one more prompt."""
    monkeypatch.setattr("producer.bench.saved.SAVEABLE", {"rtn": ("w4a16-g32",)})
    monkeypatch.setattr("producer.bench.saved.LEVELS_ASKED_AGAIN", {"rtn": "w4a16-g32"})
    monkeypatch.setattr("producer.bench.saved.DATA", "embedded:4x32")
    _, _, line, prompt = saved(argparse.Namespace(model=["ref-s"], method=["rtn"], items=8, rounds=1))
    [(change, allowed)] = re.findall(r"largest change of an option logit (\S+), (\S+) allowed; [\d.]+ MB, pack-quantized", line)
    assert float(change) <= float(allowed)
    assert re.search(r"one more prompt: \d+ processor seconds with --models, \d+ with compressing again", prompt)


def test_without_a_gpu_the_bench_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """GPU figures are missing by name, not silently."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert list(gpu(argparse.Namespace())) == ["models of 8B and 70B: not run, they need a GPU and there is none here"]
    assert SHAPES[1].budget == 24 * 2**30


def test_a_ratio_has_its_spread() -> None:
    """Ratios pair the times of a round: median first, then the range."""
    assert spread([2.0, 9.0, 4.0], [1.0, 3.0, 1.0]) == "3.00 (2.00 to 4.00)"


def test_a_record_names_command_and_device_but_no_path() -> None:
    """A record can be repeated elsewhere: the options are there, the places of one machine are not."""
    text = record(["--part", "rates", "--data", "/somewhere", "--items", "4"], "cpu", ["a figure"])
    assert "$ python -m producer.bench --part rates --items 4\n" in text
    assert "somewhere" not in text
    assert text.endswith("    a figure\n")
    assert "threads" in text.splitlines()[1]


@pytest.fixture
def asked_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """Return a case for the peer, whose interpreter finds an empty torch: only the talk between two processes is under test."""
    (tmp_path / "torch.py").write_text("def set_num_threads(number): pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return Case("standin", None, tmp_path, random_prompts(2, 1, 2), ["one", "three"], (1, 2), "AB", 1.0)


def test_the_peer_is_loaded_once_and_asked_every_round(asked_case: Case, tmp_path: Path) -> None:
    """Every round adds its seconds; log-likelihoods become gaps to the first option."""
    (tmp_path / "lm_eval" / "models").mkdir(parents=True)
    (tmp_path / "lm_eval" / "models" / "huggingface.py").write_text(PEER)
    peer = Peer(asked_case, argparse.Namespace(lm_eval=Path(sys.executable), device="cpu", batch_size=16, clock="cpu"))
    for _ in range(2):
        peer.round()
    peer.close()
    assert len(peer.seconds) == 2
    np.testing.assert_array_equal(peer.gaps, [[0, -1], [0, -1]])


def test_a_peer_that_fails_says_why(asked_case: Case) -> None:
    """The last line of what it said on stderr is the message."""
    peer = Peer(asked_case, argparse.Namespace(lm_eval=Path(sys.executable), device="cpu", batch_size=16, clock="cpu"))
    with pytest.raises(HedgemarkError, match="lm-evaluation-harness failed: ModuleNotFoundError"):
        peer.round()
    peer.close()
