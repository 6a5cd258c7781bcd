"""Cliffs: safe levels by hand, breaks that are planted or absent, and honesty on sweeps too short to tell."""

import numpy as np
import pytest
from analyzer_data import MemoryReader, equal_items, item_set, make_run

from analyzer.compare.compare import compare
from analyzer.compare.paired import compressed_pairs
from analyzer.compare.two_axis_verdict import Tolerances
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.stats.broken_line import BrokenLine, broken_line
from analyzer.studies.cliffs import GRADUAL, NO_GROWTH, SIGNIFICANT, THRESHOLD, TOO_FEW, cliffs, growth, safe_level, sweeps
from analyzer.tables.columns import CLIFFS
from analyzer.tables.terminal import render
from schemas.errors import RunNotFoundError

LAC = Question(scorers=("lac",))
LEVELS = ("0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7")


def sweep_of(widths: list[float], n_items: int = 1_500, seed: int = 0, levels: tuple[str, ...] = LEVELS) -> Runs:
    """A sweep whose mean set grows with how many items have lost their answer; `widths` is the share lost at each level, dense first."""
    rng = np.random.default_rng(seed)
    items = equal_items(n_items, 6)
    skilled = rng.normal(size=(n_items, 6))
    lost = skilled + rng.normal(size=skilled.shape)
    skilled[np.arange(n_items), items.answer] += 4.0
    order = rng.random(n_items)
    logits = [np.where(order[:, None] < width, lost, skilled) + 0.05 * rng.normal(size=skilled.shape) for width in widths]
    keys = [{"method": "dense"}, *({"method": "wanda", "level": level} for level in levels)]
    return select_runs(MemoryReader([items], [make_run(items, one, **key) for one, key in zip(logits, keys, strict=True)]), {})


def noise(n_points: int, error: float = 0.04, correlation: float = 0.8) -> np.ndarray:
    return error**2 * (correlation * np.ones((n_points, n_points)) + (1 - correlation) * np.eye(n_points))


SMOOTH = {
    "flat": lambda u: 0 * u,
    "straight": lambda u: u,
    "root": lambda u: u**0.5,
    "parabola": lambda u: u**2,
    "line and cube": lambda u: (u + u**3) / 2,
    "quartic": lambda u: u**4,
    "exponential": lambda u: np.expm1(3 * u) / np.expm1(3),
    "steep exponential": lambda u: np.expm1(6 * u) / np.expm1(6),
    "sigmoid": lambda u: 1 / (1 + np.exp(-(u - 0.5) / 0.1)),
    "wide sigmoid": lambda u: 1 / (1 + np.exp(-(u - 0.6) / 0.15)),
}


def lines(truth: np.ndarray, n_sweeps: int) -> list[BrokenLine]:
    """Broken lines of sweeps up to 0.7 whose true mean sizes are given."""
    rng = np.random.default_rng(truth.size)
    x, covariance = np.linspace(0, 0.7, truth.size), noise(truth.size)
    root = np.linalg.cholesky(covariance)
    return [broken_line(x, truth + root @ rng.standard_normal(truth.size), covariance, rng) for _ in range(n_sweeps)]


@pytest.mark.simulation
@pytest.mark.parametrize("shape", ["straight", "quartic", "exponential", "sigmoid"])
def test_smooth_growth_is_no_threshold(shape: str) -> None:
    """Of 20 sweeps of 7 levels that grow smoothly by one option at most one is called broken."""
    found = lines(SMOOTH[shape](np.linspace(0, 1, 7)), 20)
    assert sum(line.p < SIGNIFICANT for line in found) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n_points", [5, 7, 10])
@pytest.mark.parametrize("grown", [0.5, 3.0])
def test_false_alarms_on_every_smooth_shape(n_points: int, grown: float) -> None:
    """Ten smooth shapes, 30 sweeps each, growth of 28 and of 170 errors: under 5 % of all are called broken, of no shape over 4 of 30."""
    u = np.linspace(0, 1, n_points)
    rates = {name: np.mean([line.p < SIGNIFICANT for line in lines(grown * shape(u), 30)]) for name, shape in SMOOTH.items()}
    assert np.mean(list(rates.values())) < 0.05 and max(rates.values()) <= 4 / 30, rates


@pytest.mark.slow
@pytest.mark.parametrize("n_points", [5, 7, 10])
@pytest.mark.parametrize("place", [0.2, 0.35, 0.5, 0.65])
def test_a_planted_break_is_found_where_it_is(n_points: int, place: float) -> None:
    """A rise by one option (56 errors) after any place, the last level's included: its interval holds it in over 90 % of 40 sweeps.

    It is called a threshold in over 80 %, but after 0.5 in five levels, of which one point alone shows that it is no steep sigmoid.
    """
    found = lines(np.maximum(np.linspace(0, 0.7, n_points) - place, 0) / (0.7 - place), 40)
    assert np.mean([line.low <= place <= line.high for line in found]) > 0.9
    if (n_points, place) != (5, 0.5):
        assert np.mean([line.p < SIGNIFICANT for line in found]) > 0.8


@pytest.mark.simulation
def test_sweeps_from_logits_end_to_end() -> None:
    """From logits through thresholds: no growth, and a cliff after 0.4 whose safe level is 0.4; on six seeds of each."""
    flat = [0.0] * 8
    cliff = [0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.3, 0.4]
    for seed in range(6):
        assert cliffs(sweep_of(flat, seed=seed), LAC)[0]["growth"] == NO_GROWTH
    found = [cliffs(sweep_of(cliff, seed=seed), LAC)[0] for seed in range(6)]
    assert sum(record["growth"] == THRESHOLD for record in found) >= 5
    assert sum(record["safe_level"] == "0.4" for record in found) >= 5
    assert all(0.35 <= record["break_strength"] <= 0.5 for record in found)


@pytest.mark.slow
def test_rates_of_the_cliff_finder_on_sweeps_from_logits() -> None:
    """Sweeps of seven levels and 1,500 items: straight growth is called a threshold in under 5 % of 200, a cliff in over 80 % of 100.

    The cliff: no item loses its answer up to level 0.4, a fifth do at 0.5, three tenths at 0.6 and four tenths at 0.7. Straight growth:
    from 14 % of the items to 28 %; there the mean set grows by 0.18 options a level, within 0.02 (seen with 40,000 items).
    """
    straight, cliff = list(np.linspace(0.14, 0.28, 8)), [0.0, 0.0, 0.0, 0.0, 0.0, 0.2, 0.3, 0.4]
    alarms = sum(cliffs(sweep_of(straight, seed=seed), LAC)[0]["growth"] == THRESHOLD for seed in range(200))
    found = sum(cliffs(sweep_of(cliff, seed=seed), LAC)[0]["growth"] == THRESHOLD for seed in range(100))
    assert alarms < 0.05 * 200 and found > 0.8 * 100, (alarms, found)


def test_growth_that_starts_at_once_leaves_no_safe_level() -> None:
    """A sweep that grows from its first level on has no safe level and ends in words, not in a threshold at its end."""
    record = cliffs(sweep_of([0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]), LAC)[0]
    assert record["safe_level"] is None
    assert record["growth"] in (GRADUAL, THRESHOLD)
    assert record["n_levels"] == 7


def test_short_sweeps_say_that_they_are_short() -> None:
    """Three levels give a safe level but no shape."""
    record = cliffs(sweep_of([0.0, 0.0, 0.3, 0.6], levels=LEVELS[:3]), LAC)[0]
    assert (record["growth"], record["note"]) == (TOO_FEW, "3 levels run; at least 4 needed")
    assert (record["safe_level"], record["break_strength"]) == ("0.1", None)


def test_accuracy_and_sets_have_their_own_safe_levels() -> None:
    """The safe level of each axis follows from that axis alone."""
    sweep = sweeps(compressed_pairs(sweep_of([0.0, 0.0, 0.05, 0.4, 0.6], levels=LEVELS[:4]), LAC))[0]
    assert safe_level(sweep, "accuracy_change", 0.1) == "0.2"
    assert safe_level(sweep, "set_size_change", 5.0) == "0.4"
    assert growth(sweep, 6.0).result == NO_GROWTH


def test_levels_of_different_kinds_make_different_sweeps() -> None:
    """n:m patterns and fractions of one method are not one axis, and the levels are ordered by strength, not by text."""
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, 60))
    keys = [{"method": "dense"}, *({"method": "rtn", "level": level} for level in ("w4a16", "w8a8", "w3a16", "0.5", "2:4"))]
    runs = [make_run(items, rng.normal(size=(60, 4)), **key) for key in keys]
    found = sweeps(compressed_pairs(select_runs(MemoryReader([items], runs), {}), LAC))
    assert [[cell.row["level"] for cell in sweep] for sweep in found] == [["2:4"], ["w4a16", "w3a16", "w8a8"], ["0.5"]]
    records = cliffs(select_runs(MemoryReader([items], runs), {}), LAC, tolerances=Tolerances(1, 6))
    assert {record["strength"] for record in records} == {0.5, 12, 13, 16}


def test_a_sweep_has_the_p_values_and_verdicts_of_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Corrected over the table, as `compare` prints them for the same pairs; of 499 permutations each, instead of 9,999."""
    monkeypatch.setattr("analyzer.conformal.swap_test.N_DRAWS", 499)
    runs = sweep_of([0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4], n_items=300)
    names = ("accuracy_p_holm", "set_size_p_holm", "verdict")
    swept = {record["level"]: [record[name] for name in names] for record in cliffs(runs, LAC)}
    assert swept == {record["level"]: [record[name] for name in names] for record in compare(runs, LAC) if record["compared_with"]}


def test_no_level_is_no_sweep() -> None:
    """A dense run beside a checkpoint as found has no levels to walk along."""
    items = item_set(np.array([0, 1, 2, 3] * 10))
    runs = [make_run(items, np.random.default_rng(0).normal(size=(40, 4)), method=name) for name in ("dense", "checkpoint")]
    with pytest.raises(RunNotFoundError, match="no sweep"):
        cliffs(select_runs(MemoryReader([items], runs), {}), LAC)


def test_named_levels_stand_in_the_order_of_their_bits() -> None:
    """Checkpoints called by their GGUF types are one sweep from more bits to fewer; a name without bits is in none."""
    runs = sweep_of([0, 0, 0.01, 0.02, 0.03, 0.04], n_items=200, levels=("Q2_K", "Q8_0", "merged", "Q4_K_M", "exl3-6.0bpw"))
    assert [row["level"] for row in runs.rows] == ["-", "Q8_0", "exl3-6.0bpw", "Q4_K_M", "Q2_K", "merged"]
    records = cliffs(runs, LAC)
    assert [(record["level"], record["strength"]) for record in records] == [
        ("Q8_0", 7.5),
        ("exl3-6.0bpw", 10.0),
        ("Q4_K_M", 11.1),
        ("Q2_K", 12.83),
    ]


def test_two_checkpoints_at_one_level_are_two_rows_that_are_told_apart() -> None:
    """A second checkpoint with as many bits is a run of its own: both must be safe, and the table has the end of each one's name."""
    rng = np.random.default_rng(0)
    items = item_set(np.arange(400) % 4)
    good = rng.normal(size=(400, 4)) + 4 * np.eye(4)[items.answer]
    logits = {"a" * 8: good, "b" * 8: rng.normal(size=(400, 4)), "": good}
    keys = {digest: {"method": "checkpoint", "level": "w4a16-g128", "weights_hash": digest} if digest else {} for digest in logits}
    runs = select_runs(MemoryReader([items], [make_run(items, logits[digest], **key) for digest, key in keys.items()]), {})
    records = cliffs(runs, LAC)
    assert [(record["n_levels"], record["safe_level"]) for record in records] == [(1, None)] * 2
    first, second = (record["run"].rpartition(".")[2] for record in records)
    lines = render(records, CLIFFS).splitlines()
    assert [sum(f"#{digest}" in line for line in lines) for digest in (first, second)] == [1, 1]
    assert "run" not in render(records[:1], CLIFFS).split()


def test_sudden_growth_is_called_a_cliff_in_the_table() -> None:
    """The glossary explains cliff; `threshold`, which the record has, is the word for another thing there."""
    cell = {column.title: column.text for column in CLIFFS}["growth"]
    records = [{"note": None, "growth": kind} for kind in (THRESHOLD, GRADUAL, NO_GROWTH)]
    shown = [cell(record) for record in [*records, {"note": "why", "growth": THRESHOLD}]]
    assert shown == ["cliff", "gradual", "none", "why"]
