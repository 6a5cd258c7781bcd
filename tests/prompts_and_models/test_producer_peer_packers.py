"""GPTQ and AWQ layers packed by AutoGPTQ and AutoAWQ themselves come out as these libraries dequantize them.

Neither installs beside the other libraries, so their packers, a module of plain Python each, are imported alone from a folder into which
`make test-packers` unpacks both.
"""

import importlib
import itertools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from producer.models.integer_weights import unpack_integers
from producer.models.stored_as import Quantization
from schemas.errors import HedgemarkError

torch = pytest.importorskip("torch")
VARIABLE = "HEDGEMARK_PACKERS"
pytestmark = [
    pytest.mark.producer,
    pytest.mark.skipif(not os.environ.get(VARIABLE), reason=f"no folder with auto_gptq and awq is named by ${VARIABLE}"),
]
INPUTS, OUTPUTS = 64, 32


@pytest.fixture
def packer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return an import of one module of a package whose own start would import what is not installed."""

    def load(name: str, *stand_ins: ModuleType) -> Any:
        folder = Path(os.environ[VARIABLE])
        parents = list(itertools.accumulate(name.split(".")[:-1], lambda one, part: f"{one}.{part}"))
        for parent in parents:
            package = ModuleType(parent)
            package.__path__ = [str(folder / parent.replace(".", "/"))]
            monkeypatch.setitem(sys.modules, parent, package)
        for module in stand_ins:
            monkeypatch.setitem(sys.modules, module.__name__, module)
        return importlib.import_module(name)

    return load


def drawn(bits: int, group: int, symmetric: bool, lowest: int = 1) -> tuple[Any, Any, Any]:
    """Return a linear layer that lies on a grid, with the scales and zero points (output, group) of it."""
    draw, n_groups = torch.Generator().manual_seed(bits), INPUTS // group
    scales = (torch.rand(OUTPUTS, n_groups, generator=draw) / 10 + 0.01).half().float()
    zeros = torch.randint(lowest, 2**bits, (OUTPUTS, n_groups), generator=draw).float()
    zeros = torch.full_like(zeros, 2 ** (bits - 1)) if symmetric else zeros
    groups = torch.arange(INPUTS) // group
    integers = (zeros[:, groups] + torch.randn(OUTPUTS, INPUTS, generator=draw)).round().clamp(0, 2**bits - 1)  # weights lie around zero
    layer = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
    layer.weight.data = (integers - zeros[:, groups]) * scales[:, groups]
    return layer, scales, zeros


def read(packed: Any, settings: dict[str, Any]) -> Any:
    """Return the weight that is read from a packed layer."""
    tensors = {f"layer.{name}": buffer for name, buffer in packed.state_dict().items()}
    [(name, weight)] = unpack_integers(tensors, Quantization(settings["quant_method"], settings))
    assert name == "layer.weight"
    assert not tensors
    return weight


def gptq(packer: Any, bits: int, group: int, drawn_layer: tuple[Any, Any, Any]) -> Any:
    """Pack a layer with AutoGPTQ."""
    layer, scales, zeros = drawn_layer
    module = packer("auto_gptq.nn_modules.qlinear.qlinear_cuda_old")
    packed = module.QuantLinear(bits, group, INPUTS, OUTPUTS, False, weight_dtype=torch.float32)
    packed.pack(layer, scales.clone(), zeros.clone(), None)
    return packed


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [16, 32, 64])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_what_autogptq_packs_is_what_it_dequantizes(bits: int, group: int, symmetric: bool, packer: Any) -> None:
    """Every number of bits, groups of three sizes, symmetric or not: the weight meant, and what the library's own layer multiplies with."""
    made = drawn(bits, group, symmetric)
    packed = gptq(packer, bits, group, made)
    found = read(packed, {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric})
    torch.testing.assert_close(found, made[0].weight.data, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found, packed(torch.eye(INPUTS)).T, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_zero_points_that_autogptq_destroys_are_refused(bits: int, packer: Any) -> None:
    """A zero point of 0 overwrites those after it in its word, so that the library's own layer is another than the one meant."""
    layer, scales, zeros = drawn(bits, 32, symmetric=False)
    zeros[1, 0], zeros[2, 0] = 0, 2
    packed = gptq(packer, bits, 32, (layer, scales, zeros))
    assert not torch.allclose(packed(torch.eye(INPUTS)).T, layer.weight.data, atol=1e-3)
    with pytest.raises(HedgemarkError, match="layer layer has zero points of 0 that were written over those beside them"):
        read(packed, {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": False})


@pytest.mark.parametrize("group", [16, 32, 64])
def test_what_autoawq_packs_is_what_it_dequantizes(group: int, packer: Any) -> None:
    """Zero points of 0 too, in AWQ's order of fields: the weight meant, and the library's own, which is in 16 bits."""
    utilities = ModuleType("awq.utils.utils")
    utilities.get_best_device = lambda: "cpu"  # type: ignore[attr-defined]
    layer, scales, zeros = drawn(4, group, symmetric=False, lowest=0)
    packing = packer("awq.utils.packing_utils")
    module = packer("awq.modules.linear.gemm", *(sys.modules[name] for name in ("awq.utils", "awq.utils.packing_utils")), utilities)
    packed = module.WQLinear_GEMM.from_linear(layer, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
    found = read(packed, {"quant_method": "awq", "bits": 4, "group_size": group})
    torch.testing.assert_close(found, layer.weight.data, atol=1e-6, rtol=1e-6)
    theirs = packing.dequantize_gemm(packed.qweight, packed.qzeros, packed.scales, 4, group)
    torch.testing.assert_close(found, theirs.T.float(), atol=1e-3, rtol=1e-3)
