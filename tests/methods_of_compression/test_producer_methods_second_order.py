"""GPTQ and SparseGPT against the column-by-column definition with the inverse Hessian, in float64."""

from typing import Any

import pytest
from producer_tiny import CONFIGS, tiny, tiny_data

from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from schemas.errors import PostConditionError
from schemas.levels import parse_level

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
DAMPENING = 0.01


def first_layer_inputs(model: Any, data: Any) -> Any:
    """Inputs of the first attention's projections: nothing before them is compressed. (token, column) float64."""
    seen: list[Any] = []
    hook = model.model.layers[0].self_attn.q_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0].double().flatten(0, -2)))
    with torch.no_grad():
        model(input_ids=torch.tensor(data.input_ids), use_cache=False)
    hook.remove()
    return torch.cat(seen)


def inverse_hessian(x: Any) -> Any:
    hessian = 2 * x.T @ x
    return torch.linalg.inv(hessian + DAMPENING * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=hessian.dtype))


def eliminate(inverse: Any, column: int) -> Any:
    """Inverse Hessian of the columns behind `column` (Gaussian elimination of one row and column)."""
    return inverse - torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]


def gptq_reference(weight: Any, x: Any, bits: int, group: int) -> Any:
    """Frantar et al. 2023, equations 2 and 3, columns in the order of the Hessian diagonal, scales from the dense weights."""
    groups = weight.unflatten(1, (-1, group))
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    rest, result, inverse = weight.clone(), torch.zeros_like(weight), inverse_hessian(x)
    for column in x.square().sum(0).argsort(descending=True).tolist():
        s, z = scale[:, column // group], zero[:, column // group]
        result[:, column] = ((rest[:, column] / s + z).round().clamp(0, 2**bits - 1) - z) * s
        error = (rest[:, column] - result[:, column]) / inverse[column, column]
        rest = rest - torch.outer(error, inverse[column])
        inverse = eliminate(inverse, column)
    return result


def sparsegpt_reference(weight: Any, x: Any, text: str) -> Any:
    """Frantar and Alistarh 2023, algorithm 1: masks chosen as the columns come, pruned weights made up for behind."""
    level, rest, inverse = parse_level(text), weight.clone(), inverse_hessian(x)
    result, mask = weight.clone(), torch.zeros_like(weight, dtype=torch.bool)
    # What is left of the inverse's diagonal when a column's turn comes; its order is fixed, so it is known from the start.
    diagonals, shrinking = [], inverse.clone()
    for column in range(weight.shape[1]):
        diagonals.append(shrinking[column, column].clone())
        shrinking = eliminate(shrinking, column)
    diagonal = torch.stack(diagonals)
    if level.kind == "sparsity":  # no layer here is wider than one block of 128 columns
        order = (rest.square() / diagonal).flatten().argsort()
        mask.view(-1)[order[: round(weight.numel() * level.fraction)]] = True
    for column in range(weight.shape[1]):
        if level.kind == "pattern" and column % level.of == 0:
            ahead = slice(column, column + level.of)
            order = (rest[:, ahead].square() / diagonal[ahead]).argsort(dim=1)[:, : level.of - level.kept]
            mask[:, ahead].scatter_(1, order, True)
        result[:, column] = rest[:, column].masked_fill(mask[:, column], 0)
        error = (rest[:, column] - result[:, column]) / inverse[column, column]
        rest = rest - torch.outer(error, inverse[column])
        inverse = eliminate(inverse, column)
    return result


def output_error(weight: Any, dense: Any, x: Any) -> float:
    return float(torch.linalg.matrix_norm(x @ (weight.detach().double() - dense).T) / torch.linalg.matrix_norm(x @ dense.T))


@pytest.mark.parametrize(("text", "bits", "group"), [("w4a16-g16", 4, 16), ("w3a16-g32", 3, 32)])
def test_gptq_is_the_column_by_column_definition(text: str, bits: int, group: int) -> None:
    """The output error of every first projection equals the float64 reference's to 1e-4, and is below rounding's."""
    model, data = tiny(), tiny_data(sequences=32)
    x, dense = first_layer_inputs(model, data), model.model.layers[0].self_attn.q_proj.weight.detach().double().clone()
    rounded = METHODS["rtn"].apply(tiny(), parse_level(text), None, 0).model.model.layers[0].self_attn.q_proj.weight
    found = METHODS["gptq"].apply(model, parse_level(text), data, 0).model.model.layers[0].self_attn.q_proj.weight
    reference = gptq_reference(dense, x, bits, group)
    assert output_error(found, dense, x) == pytest.approx(output_error(reference, dense, x), rel=1e-4)
    assert (found.double() - reference).abs().gt(1e-5).double().mean() < 1e-3
    assert output_error(found, dense, x) < output_error(rounded, dense, x)


@pytest.mark.parametrize("text", ["0.5", "0.3", "2:4", "1:4"])
def test_sparsegpt_is_the_column_by_column_definition(text: str) -> None:
    """Mask and weights of a first projection equal the float64 reference's, errors to 1e-4."""
    model, data = tiny(), tiny_data(sequences=32)
    x, dense = first_layer_inputs(model, data), model.model.layers[0].self_attn.q_proj.weight.detach().double().clone()
    found = METHODS["sparsegpt"].apply(model, parse_level(text), data, 0).model.model.layers[0].self_attn.q_proj.weight
    reference = sparsegpt_reference(dense, x, text)
    assert torch.equal(found == 0, reference == 0)
    assert output_error(found, dense, x) == pytest.approx(output_error(reference, dense, x), rel=1e-4)


@pytest.mark.parametrize("layout", CONFIGS)
@pytest.mark.parametrize("name", ["gptq", "sparsegpt", "awq"])
def test_second_order_methods_take_every_layout(name: str, layout: str) -> None:
    """Every layout, every expert; the post-conditions that `apply` checks hold."""
    level = parse_level("0.5" if name == "sparsegpt" else "w4a16-g8")
    assert METHODS[name].apply(tiny(layout), level, tiny_data(), 0).conditions["logit_change"] > 0


@pytest.mark.parametrize(("name", "text"), [("gptq", "w4a16"), ("sparsegpt", "0.5")])
def test_a_hessian_that_cannot_be_inverted_stops_the_run(name: str, text: str) -> None:
    """Infinite activations leave no Hessian; the layer is named instead of being rounded or pruned without one."""
    model = tiny()
    model.model.layers[1].input_layernorm.weight.data.fill_(1e30)
    with pytest.raises(PostConditionError, match=r"Hessian of model\.layers\.1\..* cannot be inverted"):
        METHODS[name].apply(model, parse_level(text), tiny_data(), 0)


def test_sparsegpt_prunes_exactly_its_share_of_wide_layers() -> None:
    """A layer wider than one block of 128 columns has the level's share of zeros in each block."""
    from producer_tiny import SIZES
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(**(SIZES | {"intermediate_size": 200, "num_hidden_layers": 1}))).eval()
    after = METHODS["sparsegpt"].apply(model, parse_level("0.5"), tiny_data(), 0).model
    down = target_layers(after)["model.layers.0.mlp.down_proj"].weight == 0
    assert [int(down[:, :128].sum()), int(down[:, 128:].sum())] == [64 * 64, 64 * 36]
