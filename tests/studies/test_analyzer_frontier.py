"""Bytes against quality: which runs dominate which, with known truth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits

from analyzer.api import ask
from analyzer.measure.records import Record
from analyzer.runs.loading import select_runs
from analyzer.studies.frontier import frontier
from schemas.errors import RunNotFoundError
from schemas.itemset import ItemSet
from schemas.run import Environment, Run

BILLION = 10**9
QUESTION = ask(scorers="lac")


def sized(items: ItemSet, logits: np.ndarray, parameters: int = 0, conditions: dict[str, Any] | None = None, **key: Any) -> Run:
    return replace(make_run(items, logits, **key), env=Environment(parameters=parameters, post_conditions=conditions or {}))


def family(n_items: int, damage: dict[str, tuple[int, float]], seed: int = 0) -> tuple[ItemSet, list[Run]]:
    """Return items, a dense run of 2e9 bytes, and runs whose bytes and noise are given by level."""
    rng = np.random.default_rng(seed)
    items = item_set(rng.integers(0, 4, n_items))
    dense = skilled_logits(rng, items.answer, 4, 2.0)
    runs = [sized(items, dense, BILLION)]
    for level, (n_bytes, noise) in damage.items():
        logits = dense + noise * rng.normal(size=dense.shape)
        runs.append(sized(items, logits, BILLION, {"bytes": n_bytes, "bits_per_weight": 4.5}, method="rtn", level=level))
    return items, runs


def records_of(items: ItemSet, runs: list[Run]) -> list[Record]:
    return frontier(select_runs(MemoryReader([items], runs), {}), QUESTION)


def by_level(records: list[Record]) -> dict[str, tuple[str, str | None]]:
    return {record["level"]: (record["finding"], record["dominated_by"]) for record in records}


def test_a_larger_and_worse_run_is_dominated_and_the_smallest_is_on_the_frontier() -> None:
    """Ruined at more bytes than a sound run: dominated by it. Ruined at fewer bytes than all: on the frontier, as is the dense run."""
    items, runs = family(2000, {"w4a16": (500, 0.0), "w8a16": (900, 3.0), "w2a16": (200, 3.0)})
    found = by_level(records_of(items, runs))
    names = {run.key.level: run.key.name for run in runs}
    assert found["w8a16"] == ("dominated", names["w4a16"])
    assert found["w2a16"] == ("frontier", None) and found["w4a16"] == ("frontier", None)
    assert found["-"][0] == "inconclusive"  # it equals w4a16 on every item, which shows no difference but proves none


def test_bytes_are_those_of_the_weights() -> None:
    """Measured ones where a method packs weights, 16 bits a parameter elsewhere; rising within the table; unknown ones are said."""
    items, runs = family(200, {"w4a16": (300, 0.1)})
    logits = runs[0].logits
    runs.append(sized(items, logits, BILLION, {"parameters": 700}, method="llm-pruner", level="0.3"))
    runs.append(sized(items, logits, BILLION, {"parameters": 700}, method="checkpoint", level="Q4_K_M"))
    runs.append(sized(items, logits, BILLION, {"parameters": 200, "cache_bits_per_value": 8.5}, method="kv", level="int8"))
    records = records_of(items, runs)
    assert [record["level"] for record in records] == ["w4a16", "int8", "0.3", "-", "Q4_K_M"]
    assert [record["bytes"] for record in records] == [300, 400, 1400, 2 * BILLION, None]
    assert records[-1]["finding"] == "bytes unknown" and records[1]["cache_bits"] == 8.5
    per_parameter = [300 * 8 / BILLION, 400 * 8 / BILLION, 1400 * 8 / BILLION, 16, None]
    assert [record["effective_bits"] for record in records] == per_parameter


def test_nothing_is_said_where_no_run_states_its_bytes() -> None:
    """Imported runs know neither bytes nor parameters; the sentence says so."""
    items, runs = family(100, {"w4a16": (300, 0.1)})
    with pytest.raises(RunNotFoundError, match="how many bytes its weights take"):
        records_of(items, [replace(run, env=Environment()) for run in runs])


def test_a_broken_run_dominates_nothing() -> None:
    """A flagged run has no finding and is no rival, however small it is."""
    items, runs = family(400, {"w8a16": (900, 0.3)})
    perfect = np.where(np.arange(4) == items.answer[:, None], 50.0, 0.0)
    perfect[:, :] = np.roll(perfect, 1, axis=0)  # answers of other items: labels are misaligned
    runs.append(sized(items, perfect, BILLION, {"bytes": 100}, method="rtn", level="w2a16"))
    found = by_level(records_of(items, runs))
    assert found["w2a16"] == ("unreliable", None)
    assert found["w8a16"] == ("frontier", None)


@pytest.mark.simulation
@pytest.mark.parametrize("n_items", [60, 300])
def test_equal_runs_are_seldom_called_dominated(n_items: int) -> None:
    """Five runs that are equally good by construction: a run is wrongly dominated in at most 5 % of samples, beyond Monte Carlo error."""
    levels = {f"w{bits}a16": (100 * bits, 0.8) for bits in (2, 3, 4, 5, 6)}
    samples = 60
    wrong = dict.fromkeys(levels, 0)
    for seed in range(samples):
        found = by_level(records_of(*family(n_items, levels, seed)))
        for level in levels:
            wrong[level] += found[level][0] == "dominated"
    assert max(wrong.values()) / samples <= 0.05 + 2 * (0.05 * 0.95 / samples) ** 0.5, wrong
