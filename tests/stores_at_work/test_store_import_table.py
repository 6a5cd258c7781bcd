"""The importer of tables: what it reads, and what it refuses in one sentence."""

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from store import open_reader
from store.cli.main import main
from store.exchange.import_runs import import_runs
from store.exchange.parquet_file import write_parquet
from store.importers.importer import Description
from store.importers.table import read_table


def test_parquet_holds_every_logit_and_comes_back(store_url, tmp_path):
    """The Parquet table has a row per run and item, null beyond an item's options, and imports with the same logits."""
    items = tiny_items()
    runs = [tiny_run(items, method="wanda", level=level) for level in ("0.3", "0.5")]
    write_runs(store_url, items, runs)
    path, other = tmp_path / "logits.parquet", str(tmp_path / "other")
    assert write_parquet(open_reader(store_url).keys, path) == 2
    table = pl.read_parquet(path)
    assert len(table) == 24 and table["logit_D"].null_count() == 12 and table["answer"][:3].to_list() == ["A", "B", "C"]
    import_runs(other, read_table(path, Description()), "import")
    reader = open_reader(other)
    assert reader.catalog["level"].to_list() == ["0.3", "0.5"]
    back = reader.run(reader.catalog["name"][0])
    np.testing.assert_array_equal(back.logits, runs[0].logits)
    back_items = reader.items(back.key.items_hash)
    np.testing.assert_array_equal(back_items.demonstration, items.demonstration)
    np.testing.assert_array_equal(back_items.n_options, items.n_options)
    assert back.env.origin.startswith("table logits.parquet sha256:")


def test_csv_of_logits_is_imported(tmp_path):
    """A CSV of per-option logits becomes a run, with items of fewer options where cells are empty."""
    path = tmp_path / "mine.csv"
    path.write_text("id,answer,logit_A,logit_B,logit_C\nq1,A,1.5,0,-1\nq2,B,0.25,2,\n")
    url = str(tmp_path / "store")
    names = ["--model", "m", "--task", "t", "--level", ".50", "--method", "wanda"]
    result = CliRunner().invoke(main, ["import", "table", str(path), "--store", url, *names])
    assert result.exit_code == 0, result.output
    reader = open_reader(url)
    run = reader.run(reader.catalog["name"][0])
    assert run.logits.tolist()[0] == [1.5, 0.0, -1.0] and np.isnan(run.logits[1, 2]) and run.key.level == "0.5"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,answer,logit_A\n1,A,0\n", "logit_B"),
        ("id,answer,logit_A,logit_C\n1,A,0,1\n", "logit_B"),
        ("id,answer,logit_A,logit_B\n1,C,0,1\n", "without a logit"),
        ("id,answer,logit_A,logit_B\n1,,0,1\n", "answer"),
        ("id,answer,logit_A,logit_B\n1,A,0,1\n1,A,0,1\n", "more than once"),
        ("id,answer,logit_A,logit_B\n1,A,x,1\n", "not a number"),
        ("id,answer,logit_A,logit_B\n1,A,,1\n", "gap"),
        ("id,answer,logit_A,logit_B\n1,A,nan,1\n", "NaN or infinite"),
        ("", "not a CSV"),
    ],
)
def test_bad_tables_write_nothing(tmp_path, text, message):
    """A table that lacks something is refused in one sentence, and no store is made."""
    path, url = tmp_path / "mine.csv", tmp_path / "store"
    path.write_text(text)
    result = CliRunner().invoke(main, ["import", "table", str(path), "--store", str(url), "--model", "m", "--task", "t"])
    assert result.exit_code in (1, 2) and message in result.output and "Traceback" not in result.output
    assert not url.exists()
