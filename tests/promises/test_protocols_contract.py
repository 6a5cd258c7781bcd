"""Every protocol of the registry: it asks a question of its own, refuses what it fixes, and gives cells whose figures can be."""

import math
from dataclasses import fields

import numpy as np
import pytest
from analyzer_data import item_set, make_view, skilled_logits

from analyzer.measure.question import Question
from analyzer.protocols import PROTOCOLS, protocol_named
from analyzer.protocols.ask import CHOICES, ask
from analyzer.runs.view import RunView
from schemas.errors import UsageError

N_ITEMS = 400
# An argument that asks for something else than any protocol's default, per option that a protocol may fix.
OTHER: dict[str, object] = {
    "split": "11", "calibration_fraction": "0.3", "stratify": True, "sizes": True, "quantiles": True,
    "parameters": {"raps": {"penalty": 0.2}},
    **{name: choices[-1] for name, choices in CHOICES.items()},
}  # fmt: skip


def view(n_items: int = N_ITEMS) -> RunView:
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 6, n_items)
    return make_view(item_set(answers, 6), skilled_logits(rng, answers, 6, 2.0))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_its_question_is_its_own(name: str) -> None:
    """Without options, `ask` gives the protocol's default, which names the protocol."""
    assert ask(protocol=name) == PROTOCOLS[name].default and ask(protocol=name).protocol == name


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in PROTOCOLS for option in PROTOCOLS[name].fixed])
def test_what_it_fixes_is_refused(name: str, option: str) -> None:
    """Every field that a protocol fixes is one of a question's, and asking for another value is an error that names it."""
    assert option in {field.name for field in fields(Question)}
    with pytest.raises(UsageError, match=option.replace("_", "-")):
        ask(protocol=name, **{option: OTHER[option]})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_its_cells_can_be(name: str) -> None:
    """One cell per scorer and alpha, over items of the view, coverage about 1 - alpha, sizes between 0 and all options."""
    protocol = protocol_named(name)
    question = protocol.default
    chosen = protocol.choose(view())
    assert 0 < chosen.n_items <= N_ITEMS
    for scorer in question.scorers:
        cells = list(protocol.measure(chosen, scorer, question))
        assert [cell.alpha for cell in cells] == list(question.alphas)
        for cell in cells:
            assert abs(cell.estimates["coverage"].value - float(1 - cell.alpha)) < 4 * math.sqrt(0.1 * 0.9 / (N_ITEMS / 4))
            assert 0 < cell.estimates["set_size"].value <= 6
            assert 0 < cell.n_calibration < chosen.n_items


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("n_items", [0, 1, 6])
def test_few_items_are_no_traceback(name: str, n_items: int) -> None:
    """With hardly any items, every cell is there and none claims more than its items allow."""
    protocol = protocol_named(name)
    few = view().keep(np.arange(N_ITEMS) < n_items)
    for cell in protocol.measure(protocol.choose(few), "lac", protocol.default):
        coverage = cell.estimates["coverage"].value
        assert math.isnan(coverage) or 0 <= coverage <= 1
