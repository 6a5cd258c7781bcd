"""What is read is checked as what is written: a store with digests that hold and contents that cannot be is refused or flagged."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import item_set, make_run, make_view, skilled_logits
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.cli.main
import store.cli.main
from analyzer.measure.unreliable import run_reasons
from schemas.errors import HedgemarkError, ItemError, StoreInvalidError
from schemas.run import Run
from store import open_reader
from store.exchange.import_runs import Words, import_runs
from store.format.item_sets import encode_items
from store.format.runs import encode_run
from store.repository.repository import open_repository


def commit(url: str, nodes: list[tuple[str, bytes]]) -> None:
    """Write nodes past every check, as a stranger's program could."""
    repository = open_repository(url)
    session = repository.writable()
    repository.keys_of(session).set_many(nodes)
    with repository.lock():
        session.commit("crafted")


@pytest.mark.parametrize(
    ("array", "value"),
    [("answer", 9), ("answer", -1), ("n_options", 1), ("n_options", 99), ("subject", 7), ("subject", -1), ("item_id", 0)],
)
def test_items_that_cannot_be_are_refused(array: str, value: int, store_url: str) -> None:
    """An answer beyond the options, a subject that is none, ids twice: reading, analyze and verify end with exit code 4, one sentence."""
    items = tiny_items(n_items=30)
    wrong = getattr(items, array).copy()
    wrong[[3, 4]] = value
    crafted = replace(items, **{array: wrong})
    with pytest.raises(ItemError):
        crafted.check()
    run = tiny_run(items)
    run = replace(run, key=run.key.model_copy(update={"items_hash": crafted.digest}))
    commit(store_url, [*encode_items(crafted), *encode_run(run, items.n_options)])
    with pytest.raises(StoreInvalidError):
        open_reader(store_url).items(crafted.digest)
    for main, words in ((analyzer.cli.main.main, ["sets"]), (store.cli.main.main, ["verify"])):
        result = CliRunner().invoke(main, [*words, "--store", store_url])
        assert result.exit_code == 4, result.output
        assert "Traceback" not in result.output


def test_a_run_of_fewer_rows_than_items_is_refused(store_url: str) -> None:
    """Logits of 29 items for an item set of 30 end with exit code 4 in analyze and in verify."""
    items, run = tiny_items(n_items=30), tiny_run(tiny_items(n_items=30))
    short = Run(run.key, run.logits[:-1], run.logsumexp[:-1], run.top_token[:-1], run.env)
    commit(store_url, [*encode_items(items), *encode_run(short, items.n_options[:-1])])
    for main, words in ((analyzer.cli.main.main, ["sets"]), (store.cli.main.main, ["verify"])):
        result = CliRunner().invoke(main, [*words, "--store", store_url])
        assert (result.exit_code, "do not fit 30 items" in result.output) == (4, True), result.output


def test_a_mass_above_one_is_flagged_where_it_is_stored(store_url: str) -> None:
    """Options that hold more than the whole vocabulary: no traceback, every row of the run says why it is unreliable, verify notes it."""
    items = tiny_items(n_items=60)
    run = tiny_run(items)
    commit(store_url, [*encode_items(items), *encode_run(replace(run, logsumexp=run.logsumexp - 9), items.n_options)])
    result = CliRunner().invoke(analyzer.cli.main.main, ["sets", "--store", store_url, "--format", "json"])
    assert (result.exit_code, result.stdout.count("logsumexp and logits disagree")) == (0, 2), result.output
    assert "analyses flag it" in CliRunner().invoke(store.cli.main.main, ["verify", "--store", store_url]).output


def test_a_mass_above_one_is_not_imported(tmp_path: Path) -> None:
    """A new run whose logsumexp is not that of its logits is refused, and no store is made."""
    items = tiny_items(n_items=60)
    run = tiny_run(items)
    with pytest.raises(HedgemarkError, match="more than all of it"):
        import_runs(str(tmp_path / "store"), [(items, replace(run, logsumexp=run.logsumexp - 9))], Words("import"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_no_disagreement(dtype: str) -> None:
    """Options that hold all of the vocabulary up to the rounding of the run's dtype are fine; twice as much is not."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 500)
    logits = 20 + skilled_logits(rng, answers, 4)
    exact = np.log(np.exp(logits.astype(float)).sum(axis=1))
    step = 2.0**-22 if dtype == "float32" else 2.0**-9
    rounded = (exact * (1 + step * rng.uniform(-1, 1, exact.size))).astype(np.float32)
    items = item_set(answers)
    fine = replace(make_run(items, logits, dtype=dtype), logsumexp=rounded)
    assert fine.too_much_mass(items.n_options) is None
    assert "1.99" in (replace(fine, logsumexp=(exact - np.log(1.999)).astype(np.float32)).too_much_mass(items.n_options) or "")


def test_runs_without_a_logsumexp_are_not_judged() -> None:
    """An imported run that never saw the vocabulary has no option mass, and nothing is said of it."""
    answers = np.arange(40) % 4
    view = make_view(item_set(answers), skilled_logits(np.random.default_rng(0), answers, 4))
    assert view.disagreement == "" and not any("disagree" in reason for reason in run_reasons(view))


def test_a_text_that_is_not_its_items_is_found(store_url: str) -> None:
    """Offsets that cut the texts elsewhere are covered by no digest of arrays; verify holds each text against its item's content."""
    items = tiny_items(n_items=30)
    write_runs(store_url, items, [tiny_run(items)])
    swapped = replace(items, texts=(items.texts[1], items.texts[0], *items.texts[2:]))
    commit(store_url, list(encode_items(swapped)))
    result = CliRunner().invoke(store.cli.main.main, ["verify", "--store", store_url])
    assert (result.exit_code, "text 0 is not that of its item" in result.output) == (4, True), result.output
