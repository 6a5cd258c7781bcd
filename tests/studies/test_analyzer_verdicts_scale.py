"""Scale and decoupling: slopes and correlations against scipy, sizes of models, and what too few of them say."""

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from scipy.stats import spearmanr, theilslopes

from analyzer.compare.compare import compare
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.studies.decoupling import decoupling, method_kind, rank_correlation
from analyzer.studies.scale import family, model_size, scale, slope

LAC = Question(scorers=("lac",))


def family_of(noise: dict[str, float], n_items: int = 1_000) -> Runs:
    """Models of one family, each with one compressed run of its own noise."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, n_items)
    items = item_set(answers)
    runs = []
    for model, strength in noise.items():
        logits = skilled_logits(rng, answers, 4, 3.0)
        runs.append(make_run(items, logits, model=model))
        runs.append(make_run(items, logits + strength * rng.normal(size=logits.shape), model=model, method="rtn", level="w4a16"))
    return select_runs(MemoryReader([items], runs), {})


def test_slope_is_theil_sens() -> None:
    """The median of pairwise slopes equals scipy's, ties in x left out; one odd point does not turn it."""
    rng = np.random.default_rng(0)
    x, y = np.repeat(np.arange(4.0), 2), rng.normal(size=8)
    assert slope(x, y) == pytest.approx(theilslopes(y, x).slope)
    line = np.arange(6.0)
    bent = line.copy()
    bent[5] = 100
    assert slope(line, bent) == 1.0
    assert np.isnan(slope(np.ones(3), np.arange(3.0)))


def test_inflation_that_falls_with_size_has_a_negative_slope() -> None:
    """Five sizes whose noise falls: the interval of the slope lies below zero, for these models and for the family."""
    noise = {"m-1b": 3.0, "m-3b": 2.4, "m-10b": 1.8, "m-30b": 1.2, "m-100b": 0.6}
    record = scale(family_of(noise), LAC)[0]
    assert record["family"] == "m" and record["parameters_source"] == "from the name"
    assert record["slope_high"] < 0 and record["slope_family_high"] < 0
    assert record["note"] == "parameters are read off the name of a model"


def test_too_few_sizes_are_said() -> None:
    """Two sizes give no slope, three give one that is said to hold for these models only."""
    two, three = (scale(family_of(dict(list({"m-1b": 2.0, "m-3b": 1.5, "m-9b": 1.0}.items())[:n])), LAC)[0] for n in (2, 3))
    assert two["slope"] is None and "2 sizes: too few for a slope, 3 are needed" in two["note"]
    assert three["slope"] < 0 and three["slope_family_low"] is None and "5 are needed for others" in three["note"]


@pytest.mark.parametrize(
    ("model", "expected", "parameters"),
    [
        ("llama2-7b", "llama2", 7e9),
        ("Llama-2-70b-hf", "Llama-2-hf", 70e9),
        ("SmolLM2-135M-Instruct", "SmolLM2-Instruct", 135e6),
        ("qwen3-30b-a3b", "qwen3-a3b", 30e9),
        ("gpt-4.1", "gpt-4.1", None),
        ("ref-s", "ref", None),
        ("s", "s", None),
    ],
)
def test_family_and_size_are_read_off_a_name(model: str, expected: str, parameters: float | None) -> None:
    """The size leaves the name, whatever else is in it; what is recorded goes before what the name says."""
    assert family(model) == expected
    assert model_size({"model": model, "parameters": 0}).parameters == parameters
    assert model_size({"model": model, "parameters": 5}) == (5.0, "recorded")


@pytest.mark.simulation
def test_rank_correlation_is_spearmans() -> None:
    """The value equals scipy's with ties; the interval holds it and covers the truth in 91 to 99 % of 400 normal samples."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 30), rng.integers(0, 5, 30)
    assert rank_correlation(list(x), list(y))[0] == pytest.approx(spearmanr(x, y).statistic)
    truth, hits = 6 / np.pi * np.arcsin(0.7 / 2), 0
    for _ in range(400):
        x = rng.normal(size=40)
        _, low, high = rank_correlation(list(x), list(0.7 * x + np.sqrt(1 - 0.49) * rng.normal(size=40)))
        hits += low <= truth <= high
    assert 0.91 <= hits / 400 <= 0.99
    assert all(np.isnan(rank_correlation([1, 2, 3], [1, 2, 3])))
    assert all(np.isnan(rank_correlation([1, 1, 1, 1], [1, 2, 3, 4])))


def pairs_of(rng: np.random.Generator, spread: float, together: float, alone: bool = False) -> list[dict[str, object]]:
    """Records of 24 pairs: errors of 1 that correlate by -0.5, a share of them the dense run's, and true changes of sd `spread`."""
    records = []
    errors = np.array([[1.0, -0.5], [-0.5, 1.0]]) / 2
    for model in range(24 if alone else 3):
        dense = rng.multivariate_normal([0, 0], errors)
        for level in range(1 if alone else 8):
            true = spread * rng.multivariate_normal([0, 0], [[1, together], [together, 1]])
            x, y = true + dense + rng.multivariate_normal([0, 0], errors)
            names = {"model": f"m{model}", "compared_with": f"m{model}/dense", "level": f"0.{level}", "task": "quiz", "snapshot": "s"}
            ends = {"accuracy_change_low": x - 1.96, "accuracy_change_high": x + 1.96, "set_size_change_low": y - 1.96}
            ends |= {"set_size_change_high": y + 1.96, "accuracy_change": x, "set_size_change": y, "error_correlation": -0.5}
            records.append(names | ends | {"verdict": "inconclusive", "unreliable": None})
    return records


@pytest.mark.simulation
@pytest.mark.parametrize("alone", [False, True])
def test_no_correlation_is_found_among_errors_alone(alone: bool) -> None:
    """Without a true change at most 5 % of 300 intervals exclude 0, two errors more; over raw changes more than 30 % do."""
    rng, false, raw = np.random.default_rng(0), 0, 0
    for _ in range(300):
        pairs = pairs_of(rng, 0.0, 0.0, alone)
        whole = decoupling(pairs)[0]
        false += whole["correlation_low"] is not None and not whole["correlation_low"] <= 0 <= whole["correlation_high"]
        _, low, high = rank_correlation([p["accuracy_change"] for p in pairs], [p["set_size_change"] for p in pairs])
        raw += not low <= 0 <= high
    assert false / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300) and raw / 300 > 0.3, (false, raw)


@pytest.mark.simulation
@pytest.mark.parametrize("spread", [1.0, 2.0, 4.0])
def test_independent_true_changes_are_not_taken_for_a_correlation(spread: float) -> None:
    """Both changes differ truly, but independently: their errors, which correlate, make at most 5 % of 300 intervals exclude 0."""
    rng, false = np.random.default_rng(7), 0
    for _ in range(300):
        whole = decoupling(pairs_of(rng, spread, 0.0))[0]
        false += whole["correlation_low"] is not None and not whole["correlation_low"] <= 0 <= whole["correlation_high"]
    assert false / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300), false


@pytest.mark.slow
def test_several_models_without_a_true_change_show_no_correlation() -> None:
    """300 samples, four models of different skill, five compressed runs each, all as noisy as the dense run: at most 5 % exclude 0."""
    rng, items, false = np.random.default_rng(8), item_set(np.arange(200) % 4), 0
    for _ in range(300):
        runs = []
        for number, skill in enumerate((0.5, 1.0, 2.0, 3.0)):
            core = skilled_logits(rng, items.answer, 4, skill)
            for level in range(6):
                key = {"method": "wanda", "level": f"0.{level}"} if level else {}
                runs.append(make_run(items, core + 0.5 * rng.normal(size=core.shape), model=f"m{number}", **key))
        whole = decoupling(compare(select_runs(MemoryReader([items], runs), {}), LAC))[0]
        assert whole["n_pairs"] == 20
        false += whole["correlation_low"] is not None and not whole["correlation_low"] <= 0 <= whole["correlation_high"]
    assert false / 300 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300), false


@pytest.mark.simulation
def test_a_true_correlation_is_found() -> None:
    """True changes six times as large as their errors that correlate by -0.8 are found in 95 % of 60 samples."""
    rng = np.random.default_rng(1)
    found = [decoupling(pairs_of(rng, 6.0, -0.8))[0]["correlation_high"] for _ in range(60)]
    assert np.mean([high is not None and high < 0 for high in found]) >= 0.95


def test_decoupling_counts_quadrants_and_leaves_unreliable_pairs_out() -> None:
    """Shares of the verdicts add up to one over the reliable pairs; the others are counted."""
    records = compare(family_of({"m-1b": 3.0, "m-3b": 2.0, "m-9b": 1.0, "m-30b": 0.0}), LAC)
    records[-1]["unreliable"] = "planted"
    found = decoupling(records)
    whole = found[0]
    assert (whole["by"], whole["n_pairs"], whole["n_unreliable"]) == ("all", 3, 1)
    assert sum(value for name, value in whole.items() if name.startswith("share_")) == pytest.approx(1)
    assert {record["part"] for record in found if record["by"] == "model"} == {"m-1b", "m-3b", "m-9b", "m-30b"}


@pytest.mark.parametrize(
    ("level", "kind"),
    [
        ("w4a16-g128", "weight-only"),
        ("w4a4", "weight and activation"),
        ("0.5", "pruned"),
        ("2:4", "pruned n:m"),
        ("-", "other"),
        ("q", "other"),
    ],
)
def test_kinds_follow_from_levels(level: str, kind: str) -> None:
    """The kind of a method is read off its level, never off its name."""
    assert method_kind({"level": level}) == kind
