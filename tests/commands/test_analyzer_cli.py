"""The command `analyze` as a user meets it: output forms, what is refused, what is said of runs that cannot be trusted."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from analyzer_data import item_set, make_run, skilled_logits
from click.testing import CliRunner, Result

from analyzer.cli.main import main
from analyzer.protocols import PROTOCOLS
from analyzer.scorers import SCORERS
from store import init_store, open_writer

N_ITEMS = 120
DESIGN_FIELDS = [
    "model", "method", "level", "task", "prompt", "scorer", "alpha", "n_items", "n_calibration",
    "accuracy", "coverage", "set_size", "uacc", "empty_rate", "singleton_rate", "unreliable", "snapshot",
]  # fmt: skip


@pytest.fixture(scope="module")
def store_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with a dense run, two compressed ones, one all NaN, and one without a dense partner."""
    url = str(tmp_path_factory.mktemp("analyze") / "store")
    rng = np.random.default_rng(0)
    items = item_set(rng.integers(0, 4, N_ITEMS))
    dense = skilled_logits(rng, items.answer, 4)
    noisy = dense + rng.normal(size=dense.shape)
    init_store(url)
    with open_writer(url) as writer:
        writer.write(items, make_run(items, dense))
        writer.write(items, make_run(items, noisy, method="wanda", level="0.5"))
        writer.write(items, make_run(items, dense + 0.1 * noisy, method="rtn", level="w4a16-g128"))
        writer.write(items, make_run(items, np.full_like(dense, np.nan), method="rtn", level="w2a16"), allow_nonfinite=True)
        writer.write(items, make_run(items, dense * 1.5, model="bayes", method="bayes"))
    return url


def analyze(store_url: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [arguments[0], "--store", store_url, *arguments[1:]])


def records(store_url: str, *arguments: str) -> list[dict[str, object]]:
    result = analyze(store_url, *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_json_has_the_designed_fields_in_order(store_url: str) -> None:
    """Every record is flat, in the glossary's words, and cites the snapshot."""
    rows = records(store_url, "sets", "--model", "toy", "--method", "dense")
    assert [row["scorer"] for row in rows] == ["lac", "aps"]
    for row in rows:
        present = [name for name in row if name in DESIGN_FIELDS]
        assert present == DESIGN_FIELDS
        assert row["set_size_low"] < row["set_size"] < row["set_size_high"]
        assert row["unreliable"] is None
        assert (row["n_items"], row["n_calibration"]) == (N_ITEMS, N_ITEMS // 2)


def test_all_forms_hold_the_same_figures(store_url: str, tmp_path: Path) -> None:
    """JSON, CSV and Parquet are the same records."""
    rows = records(store_url, "sets")
    from_csv = list(csv.DictReader(io.StringIO(analyze(store_url, "sets", "--format", "csv").stdout)))
    parquet = tmp_path / "results.parquet"
    parquet.write_bytes(analyze(store_url, "sets", "--format", "parquet").stdout_bytes)
    assert pl.read_parquet(parquet).to_dicts() == rows
    assert [float(row["set_size"] or "nan") for row in from_csv] == pytest.approx([row["set_size"] or np.nan for row in rows], nan_ok=True)


def test_a_broken_run_is_flagged_and_has_no_figures(store_url: str) -> None:
    """A run of NaN logits never crashes an analysis: its figures are null, its reason is given, in JSON and in the table."""
    (row,) = records(store_url, "sets", "--level", "w2a16", "--scorer", "lac")
    assert row["set_size"] is None
    assert row["unreliable"] == f"{N_ITEMS} of {N_ITEMS} items have non-finite logits and are left out"
    table = analyze(store_url, "sets")
    assert "!1 unreliable: " in table.stdout
    assert "rows are unreliable" in table.stderr


def test_a_mean_over_prompts_and_scorers_says_what_it_includes(store_url: str) -> None:
    """--average gives one row per run here, and a mean over a broken run has no figure and says so."""
    rows = records(store_url, "sets", "--average")
    assert len(rows) == 5
    assert {row["scorer"] for row in rows} == {"lac+aps"}
    broken = next(row for row in rows if row["level"] == "w2a16")
    assert broken["set_size"] is None
    assert broken["unreliable"] == "120 of 120 items have non-finite logits and are left out"  # once, since it holds for every scorer


def test_compare_pairs_each_run_with_its_dense_run(store_url: str) -> None:
    """Changes are against the dense run of the same items; runs without one are listed with null changes."""
    rows = records(store_url, "compare", "--scorer", "lac")
    by_run = {(row["method"], row["level"]): row for row in rows}
    dense, wanda = by_run["dense", "-"], by_run["wanda", "0.5"]
    assert wanda["set_size_change"] == pytest.approx(wanda["set_size"] - dense["set_size"])
    assert wanda["set_size_change_low"] < wanda["set_size_change"] < wanda["set_size_change_high"]
    assert wanda["flips"] > 0
    assert wanda["kl"] > by_run["rtn", "w4a16-g128"]["kl"] > 0
    assert by_run["bayes", "-"]["set_size_change"] is None
    assert dense["kl"] is None


def test_compare_finds_the_dense_run_that_a_filter_left_out(store_url: str) -> None:
    """--method wanda still compares with dense, and shows it."""
    rows = records(store_url, "compare", "--method", "wanda", "--level", ".50", "--scorer", "aps")
    assert [row["method"] for row in rows] == ["dense", "wanda"]
    assert rows[1]["accuracy_change"] is not None


def test_a_calibration_set_too_small_for_alpha_gives_full_sets_and_says_so(store_url: str) -> None:
    """60 calibration items cannot carry alpha 0.01: sets of all 4 options, said in the record and on stderr."""
    result = analyze(store_url, "sets", "--model", "toy", "--method", "dense", "--scorer", "lac", "--alpha", "0.01", "--format", "json")
    (row,) = json.loads(result.stdout)
    assert (row["set_size"], row["coverage"]) == (4.0, 1.0)
    assert row["unreliable"] == "60 calibration items are too few for alpha 0.01: every set is full"
    assert "too few for alpha 0.01" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--alpha", "0"], 2, "alpha '0'"),
        (["--alpha", "1"], 2, "alpha '1'"),
        (["--alpha=-0.1"], 2, "alpha '-0.1'"),
        (["--alpha", "x"], 2, "alpha 'x'"),
        (["--scorer", "nope"], 2, f"unknown scorer 'nope'; known: {', '.join(SCORERS)}"),
        (["--protocol", "nope"], 2, f"unknown protocol 'nope'; known: {', '.join(PROTOCOLS)}"),
        (["--protocol", "ye2024", "--split", "7"], 2, "fixes its split"),
        (["--protocol", "ye2024", "--scorer", "aps-rand"], 2, "has no scorer 'aps-rand'"),
        (["--split", "some"], 2, "split 'some'"),
        (["--split", "0"], 2, "split '0'"),
        (["--calibration-fraction", "2"], 2, "calibration fraction '2'"),
        (["--calibration-fraction", "0.001"], 2, "calibrates 0, tests 120"),
        (["--model", "nope"], 5, "no run with model 'nope'"),
        (["--method", "nope"], 5, "known: bayes, dense, rtn, wanda"),
        (["--task", "nope"], 5, "known: quiz"),
        (["--prompt", "nope"], 5, "known: base"),
        (["--level", "0.7"], 5, "known: -, 0.5, w2a16, w4a16-g128"),
    ],
)
def test_bad_input_gets_one_sentence_and_a_code(store_url: str, arguments: list[str], code: int, said: str) -> None:
    """What cannot be meant is refused with one clear sentence that quotes it, and nothing on stdout."""
    result = analyze(store_url, "sets", *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_compare_without_a_pair_says_so(store_url: str) -> None:
    """Nothing to compare is an error, not an empty table."""
    result = analyze(store_url, "compare", "--method", "bayes")
    assert result.exit_code == 5
    assert "nothing to compare" in result.stderr


def test_drawn_splits_are_the_same_for_every_run(store_url: str) -> None:
    """`--split seed:3` calibrates the same items in every run, so identical runs get identical figures, and N splits start with seed 0."""
    first = records(store_url, "sets", "--split", "seed:3", "--scorer", "lac")
    again = records(store_url, "sets", "--split", "seed:3", "--scorer", "lac")
    assert first == again
    one, seed = (records(store_url, "sets", "--split", split, "--scorer", "lac", "--method", "wanda")[0] for split in ("1", "seed:0"))
    assert one["set_size"] == seed["set_size"]


def test_p_values_are_printed_for_every_judged_item(store_url: str) -> None:
    """One record per item and scorer: all items by the others, or the test items of one split; several splits are refused."""
    asked = ["sets", "--p-values", "--method", "dense", "--scorer", "lac"]
    everyone, tested = records(store_url, *asked), records(store_url, *asked, "--split", "seed:3")
    assert (len(everyone), len(tested)) == (N_ITEMS, N_ITEMS // 2)
    assert all(row["p_answer"] == row[f"p_{row['answer']}"] for row in everyone)
    assert "p of answer" in analyze(store_url, *asked).stdout
    for wrong, said in ((["--split", "5"], "belong to one split"), (["--mondrian", "label"], "leave --mondrian out")):
        result = analyze(store_url, *asked, *wrong)
        assert (result.exit_code, result.stdout) == (2, "")
        assert said in result.stderr


def test_aps_rand_and_top1_are_measured(store_url: str) -> None:
    """Randomised scores give empty sets under keep, and none under top1."""
    asked = ["sets", "--model", "bayes", "--scorer", "aps-rand", "--alpha", "0.6"]
    keep, top1 = (records(store_url, *asked, "--empty", empty)[0] for empty in ("keep", "top1"))
    assert keep["empty_rate"] > 0
    assert top1["empty_rate"] == 0
    assert top1["set_size"] == pytest.approx(keep["set_size"] + keep["empty_rate"])


def test_help_is_light(store_url: str) -> None:
    """Asking for help loads neither scipy nor polars: heavy imports live where they are used."""
    import subprocess
    import sys

    ask = "from analyzer.cli.main import main; main(['sets', '--help'], standalone_mode=False)"
    code = f"import sys; {ask}; assert not {{'scipy', 'polars'}} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
