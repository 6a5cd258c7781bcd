"""One sort of a run under a scorer serves all questions about it."""

from dataclasses import replace

import numpy as np
from analyzer_data import item_set, make_view, skilled_logits

from analyzer.measure.question import Question
from analyzer.measure.scored import ranks_of
from analyzer.scorers.lac import lac
from analyzer.stats.arrays import FloatArray
from analyzer.stats.probs import rising_order


def test_ranks_are_shared_by_equal_questions_and_by_no_others() -> None:
    """Another alpha or split finds the same ranks; another scorer, parameter, rule for empty sets or function has its own."""
    rng = np.random.default_rng(3)
    answers = rng.integers(0, 4, 60)
    view = make_view(item_set(answers), skilled_logits(rng, answers, 4, 1.0))

    def doubled(probs: FloatArray) -> FloatArray:
        return 2 * lac(probs)

    def reversed_order(probs: FloatArray) -> FloatArray:
        return -lac(probs)

    plain = Question()
    first = ranks_of(view, "lac", plain)
    assert ranks_of(view, "lac", replace(plain, alphas=(), by="label", sizes=True)) is first
    assert ranks_of(view.keep(np.ones(60, dtype=np.bool_)), "lac", plain) is not first
    penalties = [ranks_of(view, "raps", replace(plain, parameters={"raps": {"penalty": p}})) for p in (0.1, 0.5)]
    assert not np.array_equal(penalties[0].option, penalties[1].option)
    assert (ranks_of(view, "lac", replace(plain, empty="top1")).option.min(axis=0) == 0).all()
    own = [ranks_of(view, "mine", replace(plain, functions={"mine": function})) for function in (doubled, reversed_order)]
    np.testing.assert_array_equal(own[0].option, first.option)
    assert not np.array_equal(own[1].option, first.option)


def test_order_is_that_of_a_stable_sort_of_floats() -> None:
    """Ties, zeros, signs, infinities, NaN of either sign and values that differ in their last bits only come in the order of numpy."""
    rng = np.random.default_rng(5)
    plain = rng.standard_normal(3_000)
    special = np.array([0.0, -0.0, np.inf, -np.inf, 5e-324, -5e-324])
    arrays = {
        "none": plain[:0],
        "one": plain[:1],
        "distinct": plain,
        "tied": np.round(8 * plain) / 8,
        "special": rng.choice(special, 500),
        "nan": np.where(rng.random(3_000) < 0.1, np.nan, plain),
        "nan with a sign": np.where(rng.random(3_000) < 0.1, np.copysign(np.nan, -1.0), plain),
        "last bits": rng.permutation(1.0 - np.arange(3_000) * 2.0**-53),
        "not contiguous": rng.standard_normal((300, 4))[:, 1],
    }
    for name, values in arrays.items():
        np.testing.assert_array_equal(rising_order(values), np.argsort(values, kind="stable"), err_msg=name)
