"""The Python API: xarray in, polars out, the same figures as the commands; sensitivity and p-values."""

from fractions import Fraction

import numpy as np
import pytest
import xarray as xr
from analyzer_data import skilled_logits

from analyzer.api import cliffs, compare, cost, decoupling, gate, p_values, scale, sensitivity, sets, transfer, view_of
from analyzer.conformal.ranks import threshold_rank
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.scorers import SCORERS
from analyzer.studies.cost import Prices
from analyzer.studies.sensitivity import _survives
from schemas.errors import HedgemarkError, UsageError

N_ITEMS = 400


def data_set(noise: float = 0.0, **attributes: str) -> xr.Dataset:
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, N_ITEMS)
    logits = skilled_logits(rng, answers, 4, 2.0)
    logits = logits + noise * np.random.default_rng(1).normal(size=logits.shape)
    return xr.Dataset({"logits": (("item", "option"), logits), "answer": ("item", answers)}, attrs={"model": "m", "task": "t"} | attributes)


def sweep() -> list[xr.Dataset]:
    return [data_set(), data_set(0.2, method="wanda", level="0.3"), data_set(1.5, method="wanda", level="0.5")]


def test_sets_of_a_data_set_are_a_polars_frame() -> None:
    """One row per scorer and alpha, with coverage k / (n + 1)."""
    found = sets(data_set(), alphas=["0.1", "0.2"], scorers=["lac", "aps"])
    assert found.shape[0] == 4
    assert found["coverage"].to_list() == pytest.approx([181 / 201, 161 / 201] * 2)


def test_compare_pairs_data_sets() -> None:
    """The compressed runs are held against the dense one, and more noise makes larger sets."""
    changes = compare(sweep(), scorers=["lac"])["set_size_change"].to_list()
    assert changes[0] is None
    assert changes[2] > changes[1]


@pytest.mark.parametrize(
    ("finding", "conclusions", "survives"),
    [
        ("sets grow", ["sets grow"] * 3, True),
        ("sets grow", ["sets grow", "inconclusive"], True),
        ("sets grow", ["sets grow"] + ["inconclusive"] * 5, None),
        ("sets grow", ["sets grow"] * 9 + ["sets shrink"], False),
        ("sets shrink", ["sets shrink", "sets grow", "inconclusive"], False),
        ("inconclusive", ["inconclusive"] * 4, None),
        ("inconclusive", ["inconclusive", "sets grow"], None),
    ],
)
def test_what_survives(finding: str, conclusions: list[str], survives: bool | None) -> None:
    """An inconclusive finding has nothing that could survive, and one variant in six is not enough."""
    assert _survives(finding, conclusions) is survives


def test_sensitivity_says_which_conclusions_survive() -> None:
    """Heavy noise grows sets whatever is varied; light noise concludes nothing under the default."""
    found = sensitivity(sweep(), scorers=["lac"]).to_dicts()
    assert {row["varied"] for row in found} == {"alpha", "scorer", "calibration fraction", "items", "split"}
    heavy = [row for row in found if row["level"] == "0.5"]
    assert all(row["conclusion"] == "sets grow" and row["survives"] for row in heavy)
    assert all(row["set_size_change_least"] <= row["set_size_change_most"] for row in found)
    assert all(-1 <= row["rank_agreement"] <= 1 for row in found)


def test_sensitivity_of_dense_runs_is_about_sizes_and_the_ranking_of_models() -> None:
    """Without a compressed run nothing is concluded; sizes span those of the variants, and models in the same order agree fully."""
    models = [data_set(noise, model=name) for name, noise in (("good", 0.0), ("poor", 1.0), ("worst", 4.0))]
    table = sensitivity(models, scorers="lac")
    assert table.group_by("model").len()["len"].to_list() == [5, 5, 5]
    assert table["conclusion"].null_count() == table["survives"].null_count() == table["set_size_change_least"].null_count() == 15
    of_alpha = table.filter(varied="alpha", model="poor").to_dicts()[0]
    sizes = sets(models, scorers="lac", model="poor", alphas=[0.01, 0.05, 0.1, 0.15, 0.2, 0.3])["set_size"]
    assert (of_alpha["set_size_least"], of_alpha["set_size_most"]) == (sizes.min(), sizes.max())
    assert table.filter(varied="split")["rank_agreement"].to_list() == [1.0] * 3


def test_sensitivity_marks_an_unreliable_run() -> None:
    """A dense run with non-finite logits is not ranked without a word."""
    broken = data_set(model="broken")
    broken["logits"][7] = np.nan
    table = sensitivity([data_set(model="good"), broken], scorers="lac")
    assert set(table.filter(model="good")["unreliable"]) == {None}
    assert all("1 of 400 items have non-finite logits" in reason for reason in table.filter(model="broken")["unreliable"])


def test_sensitivity_varies_every_scorer_there_is() -> None:
    """The variants of the scorer are the registry's, so that a new scorer is among them."""
    found = sensitivity(sweep(), scorers=["lac"], level="0.5").filter(varied="scorer")
    assert set(found["variants"].item().split()) == set(SCORERS)


def test_sensitivity_leaves_alone_what_the_protocol_fixes() -> None:
    """Under ye2024 neither split nor calibration fraction is varied, and only its two scorers are compared."""
    found = sensitivity(sweep(), protocol="ye2024", level="0.5")
    assert set(found["varied"]) == {"alpha", "scorer", "items"}
    assert found.filter(varied="scorer")["variants"].item() == "lac aps"


def test_every_verdict_has_a_function_of_its_commands_name() -> None:
    """Data sets in, frames out: a light pair passes the gate, heavy noise fails it, and the rest agrees with `compare`."""
    runs, asked = sweep(), {"scorers": ["lac"]}
    results = dict(gate(runs, {"accuracy_loss": 0.5, "kl": 2.0}, level=["0.3"], **asked).select("check", "result").iter_rows())
    assert results == {"reliable": "pass", "accuracy_loss": "pass", "kl": "pass"}
    assert "fail" in gate(runs, {"kl": 0.01}, level=["0.5"], **asked)["result"].to_list()
    growth = compare(runs, **asked)["set_size_change"].to_list()[1:]
    assert cliffs(runs, **asked)["set_size_change"].to_list() == growth
    assert decoupling(runs, **asked)["n_pairs"].to_list()[0] == 2
    assert transfer(runs, **asked)["recalibrated_coverage"].to_list() == pytest.approx([181 / 201] * 2)
    assert scale(runs, **asked)["inflation"].to_list()[1] > 0
    assert cost(runs, Prices(review=1.0), **asked)["cost_change"].to_list()[2] > 0


def test_p_values_decide_membership() -> None:
    """The answer's p-value is at most alpha for at most a share alpha of the items, and calibration items have none."""
    data = data_set()
    answer = data["answer"].to_numpy()
    alone = p_values(data).to_numpy()[np.arange(N_ITEMS), answer]
    for alpha in (0.05, 0.1, 0.5):
        assert (alone <= alpha).mean() == pytest.approx(alpha, abs=2 / N_ITEMS)
    split = p_values(data, "aps", calibration_ids=range(200)).to_numpy()
    assert np.isnan(split[:200]).all()
    assert (split[200:] >= 1 / 201).all()


def test_p_values_and_sets_agree_option_by_option() -> None:
    """Under a given split an option's p-value exceeds alpha exactly where `score <= threshold` puts it in the set."""
    data, alpha = data_set(), Fraction(1, 10)
    values = p_values(data, "aps", calibration_ids=range(150)).to_numpy()[150:]
    view = view_of(data)
    scores = scores_of(view, view.probs, "aps", Question())
    of_answer = np.sort(scores[np.arange(150), view.answer[:150]])
    np.testing.assert_array_equal(values > float(alpha), scores[150:] <= of_answer[threshold_rank(150, alpha) - 1])


def test_what_is_no_data_set_is_refused() -> None:
    """Missing arrays, an answer outside the options and an unknown argument are named."""
    with pytest.raises(UsageError, match=r"lacks \['answer'\]"):
        sets(data_set().drop_vars("answer"))
    wrong = data_set()
    wrong["answer"][0] = 4
    with pytest.raises(UsageError, match="index of one of its item's"):
        sets(wrong)
    with pytest.raises(UsageError, match="unknown argument 'banana'"):
        sets(data_set(), banana=1)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("answer", np.full(N_ITEMS, 1.5), "answer holds float64 values"),
        ("answer", np.full(N_ITEMS, -1), "answer holds int64 values from -1 on"),
        ("item_id", np.arange(N_ITEMS) - 7, "item_id holds int64 values from -7 on"),
        ("item_id", np.arange(N_ITEMS) // 2, "item_id occurs more than once"),
    ],
)
def test_an_answer_or_id_that_is_no_whole_number_is_refused(name: str, values: np.ndarray, said: str) -> None:
    """A float is not cut to an index, a negative id does not wrap, and an id names one item."""
    with pytest.raises(HedgemarkError, match=said):
        sets(data_set().assign({name: ("item", values)}))


def test_two_data_sets_of_one_name_are_refused() -> None:
    """The second would take the place of the first, and its figures the first one's row."""
    with pytest.raises(UsageError, match="two data sets are the run m~dense~t~base"):
        compare([data_set(), data_set(0.5)])


def test_a_level_is_one_however_it_is_written() -> None:
    """`.50` names the level 0.5, so that it is selected as such."""
    assert sets([data_set(method="wanda", level=".50")], level="0.5", scorers="lac")["level"].to_list() == ["0.5"]


def test_every_comparison_is_against_the_model_that_is_named() -> None:
    """Renaming the dense model and naming it gives the figures of its own comparison; a checkpoint without a dense run needs no other."""
    shipped = [data_set(0.2, model="ships", method="wanda", level="0.3"), data_set(1.5, model="ships", method="wanda", level="0.5")]
    own, apart = [data_set(model="ships"), *shipped], [data_set(model="teacher"), *shipped]
    prices, named = Prices(review=2.0), {"against": "teacher", "model": "ships", "scorers": "lac"}
    plain = {"model": "ships", "scorers": "lac"}
    for one, other, fields in (
        (cliffs(own, **plain), cliffs(apart, **named), ["set_size_change", "safe_level"]),
        (cost(own, prices, **plain).filter(method="wanda"), cost(apart, prices, **named).filter(method="wanda"), ["cost", "cost_change"]),
        (transfer(own, **plain), transfer(apart, **named), ["coverage", "set_size"]),
        (sensitivity(own, **plain), sensitivity(apart, **named), ["set_size_change_least", "set_size_change_most", "conclusion"]),
        (gate(own, {"flips": 0.1}, **plain), gate(apart, {"flips": 0.1}, **named), ["check", "amount", "result"]),
    ):
        assert one.select(fields).rows() == other.select(fields).rows() and one.height
    with pytest.raises(HedgemarkError, match="nothing to compare"):
        gate(apart, {"flips": 0.1}, **plain)


def test_only_selected_runs_are_held_against_another_model() -> None:
    """The dense run of a selected run's own model is not judged beside it."""
    rows = [*sweep(), data_set(model="teacher")]
    judged = gate(rows, {"flips": 0.9}, against="teacher", method="wanda", scorers="lac")
    assert set(judged["method"]) == {"wanda"}
    assert compare(rows, against="teacher", method="wanda", scorers="lac").filter(method="dense")["model"].to_list() == ["teacher"]


def test_a_threshold_is_reused_from_a_known_source() -> None:
    """An unknown source, or another model's dense run beside a source that is none, is a sentence."""
    with pytest.raises(UsageError, match="cannot be reused from 'nowhere'"):
        transfer(sweep(), "nowhere")
    with pytest.raises(UsageError, match="that of another prompt is"):
        transfer(sweep(), "prompt", against="m")
