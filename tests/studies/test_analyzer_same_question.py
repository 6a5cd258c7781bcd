"""Runs are compared only where one model was asked the same: weights of one hash, the same tokens, nothing truncated unsaid."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits

from analyzer.compare.compare import compare
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.runs.pairs import Partners
from analyzer.studies.sets import sets
from schemas.errors import ComparisonError, RunNotFoundError
from schemas.run import Environment, Run

ITEMS = item_set(np.arange(60) % 4)
ONE, TWO = "1" * 64, "2" * 64


def run(seed: int = 0, truncated: int = 0, **key: Any) -> Run:
    logits = skilled_logits(np.random.default_rng(seed), ITEMS.answer.astype(int), 4)
    made = make_run(ITEMS, logits, **{"model": "merged", "weights_hash": ONE} | key)
    return replace(made, env=Environment(truncated_items=truncated))


def selected(*runs: Run, **wanted: Any) -> Runs:
    return select_runs(MemoryReader([ITEMS], list(runs)), wanted, with_dense=True)


def by_name(runs: Runs, **how: Any) -> dict[str, Any]:
    """Return the reason not to trust each compressed run's comparison, by what it was compared with."""
    records = compare(runs, Question(scorers=("lac",)), **how)
    return {record["compared_with"]: record["unreliable"] for record in records if record["method"] != "dense"}


def test_another_model_of_the_same_name_is_no_partner(caplog: pytest.LogCaptureFixture) -> None:
    """The only dense run has other weights than the compressed run's model: nothing is compared, and that is said."""
    runs = selected(run(), run(method="rtn", level="w4a16-g32", weights_hash=TWO))
    with pytest.raises(RunNotFoundError, match="nothing to compare"):
        compare(runs, Question())
    assert "2 models are called 'merged'" in caplog.text
    assert {row["model"] for row in runs.rows} == {"merged@11111111", "merged@22222222"}


def test_each_run_is_paired_with_the_dense_run_of_its_weights() -> None:
    """Two models in folders of one name: each compressed run finds its own dense run, whichever was written first."""
    dense = {weights: run(seed, weights_hash=weights) for seed, weights in enumerate((ONE, TWO))}
    compressed = [run(5, method="rtn", level="w4a16-g32", weights_hash=weights) for weights in (TWO, ONE)]
    runs = selected(*dense.values(), *compressed)
    partners = Partners(runs.rows)
    found = {row["weights_hash"]: partners.of(row)["name"] for row in runs.rows if row["method"] == "rtn"}
    assert found == {weights: each.key.name for weights, each in dense.items()}


@pytest.mark.parametrize(("wanted", "count"), [(["merged"], 2), (["merged@22222222"], 1), ([], 3)])
def test_models_of_one_name_are_selected_by_either_name(wanted: list[str], count: int) -> None:
    """The folder's name selects both, the name that tables show one of them."""
    runs = [run(), run(weights_hash=TWO), run(model="other", weights_hash="3" * 64)]
    assert len(select_runs(MemoryReader([ITEMS], runs), {"model": wanted}).rows) == count


@pytest.mark.parametrize(
    "others", [{"method": "checkpoint", "weights_hash": TWO}, {"method": "rtn", "level": "w4a16-g32", "weights_hash": ""}]
)
def test_weights_of_their_own_or_unknown_ones_do_not_part_a_model(others: dict[str, str]) -> None:
    """A checkpoint differs from its dense model by nature, an imported run has no hash: both are compared by name, as ever."""
    assert by_name(selected(run(), run(1, **others))) == {run().key.name: None}


@pytest.mark.parametrize(
    ("dense", "compressed", "reason"),
    [
        ({}, {"truncated": 3}, "3 of its prompts were truncated, 0 of the dense run's"),
        ({"truncated": 60}, {"truncated": 59}, "59 of its prompts were truncated, 60 of the dense run's"),
        ({"truncated": 7}, {"truncated": 7}, "7 of 60 prompts were longer than the context"),
        ({"tokens_hash": ONE}, {"tokens_hash": TWO}, "its prompts are other tokens than those of the dense run"),
        ({"tokens_hash": ONE}, {"tokens_hash": ONE}, None),
        ({"tokens_hash": ONE}, {"tokens_hash": ""}, None),
    ],
)
@pytest.mark.parametrize("method", ["rtn", "checkpoint"])
def test_prompts_that_were_not_the_same_are_said(
    method: str, dense: dict[str, Any], compressed: dict[str, Any], reason: str | None
) -> None:
    """Unequal truncation, more than a few truncated prompts, or other tokens make a comparison unreliable."""
    (said,) = by_name(selected(run(**dense), run(1, method=method, level="w4a16-g32", **compressed))).values()
    assert (reason in said) if reason else (said is None)


def test_a_checkpoint_asked_other_tokens_than_the_model_it_came_from_is_said() -> None:
    """Also with --against, where the names differ; another dense model has a tokenizer of its own, and is compared in silence."""
    original = run(model="original", tokens_hash=ONE)
    checkpoint = run(1, model="artifact", method="checkpoint", weights_hash=TWO, tokens_hash=TWO)
    runs = selected(original, checkpoint)
    assert "the tokenizers differ" in by_name(runs, partners=Partners(runs.rows, "original"))[original.key.name]
    rows = selected(original, run(1, model="larger", weights_hash=TWO, tokens_hash=TWO))
    records = compare(rows, Question(scorers=("lac",)), partners=Partners(rows.rows, "original"))
    assert [record["unreliable"] for record in records] == [None, None]


@pytest.mark.parametrize("common_items", [False, True])
def test_other_wording_or_demonstrations_under_one_prompt_name_are_said(common_items: bool) -> None:
    """Two models that were shown other demonstrations, or another --prompt-file, are flagged; chat templates differ by nature."""
    for prompt, reason in (("task", "prompt 'task' has other wording or demonstrations than in the run"), ("task-chat", None)):
        runs = selected(run(model="a", prompt=prompt, prompt_hash=ONE), run(1, model="b", prompt=prompt, prompt_hash=TWO))
        records = compare(runs, Question(scorers=("lac",)), partners=Partners(runs.rows, "a", common_items))
        (said,) = [record["unreliable"] for record in records if record["compared_with"]]
        assert (reason in said) if reason else (said is None)
    with pytest.raises(ComparisonError, match="differ in wording of the prompt"):
        compare(selected(run(prompt_hash=ONE), run(1, method="rtn", level="w4a16-g32", prompt_hash=TWO)), Question())


def test_of_two_dense_runs_the_one_that_was_asked_the_same_tokens_is_the_partner() -> None:
    """A folder whose tokenizer settings were changed has two dense runs of one weights hash; neither is taken at random."""
    dense = [run(seed, tokens_hash=tokens) for seed, tokens in enumerate((ONE, TWO))]
    compressed = [run(5, method="rtn", level="w4a16-g32", tokens_hash=tokens) for tokens in (TWO, ONE)]
    runs = selected(*dense, *compressed)
    partners = Partners(runs.rows)
    found = {row["tokens_hash"]: partners.of(row)["name"] for row in runs.rows if row["method"] == "rtn"}
    assert found == {each.key.tokens_hash: each.key.name for each in dense}
    runs = selected(*dense, run(5, method="rtn", level="w4a16-g32", tokens_hash="3" * 64))
    with pytest.raises(ComparisonError, match="2 dense partners alike"):
        compare(runs, Question())


def test_a_truncated_run_is_unreliable_by_itself() -> None:
    """More than one prompt in a hundred without its beginning is a reason, also without a dense run; none, or fewer, is not."""
    for truncated, reason in ((0, None), (1, "1 of 60 prompts were longer than the context and lost their beginning")):
        (record,) = sets(selected(run(truncated=truncated)), Question(scorers=("lac",)))
        assert record["unreliable"] == reason
