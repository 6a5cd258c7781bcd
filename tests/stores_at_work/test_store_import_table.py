"""The importer of tables: what it reads, and what it refuses in one sentence."""

import datetime
import decimal
import io
import json
import os
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run, write_runs

from schemas.errors import UsageError
from schemas.itemset import ItemSet
from schemas.run import Run
from store import open_reader
from store.cli.main import main
from store.exchange.import_runs import Words, import_runs
from store.exchange.parquet_file import write_parquet
from store.exchange.zip_file import import_zip
from store.format.polars_files import read_polars
from store.importers.importer import Description
from store.importers.table import read_table

GOLDEN = Path(__file__).parents[1] / "golden"


def test_parquet_holds_every_logit_and_comes_back(store_url, tmp_path):
    """The Parquet table has a row per run and item, null beyond an item's options, and imports with the same logits."""
    items = tiny_items()
    runs = [tiny_run(items, method="wanda", level=level) for level in ("0.3", "0.5")]
    write_runs(store_url, items, runs)
    path, other = tmp_path / "logits.parquet", str(tmp_path / "other")
    assert write_parquet(open_reader(store_url).keys, path) == 2
    table = pl.read_parquet(path)
    assert len(table) == 24 and table["logit_D"].null_count() == 12 and table["answer"][:3].to_list() == ["A", "B", "C"]
    import_runs(other, read_table(path, Description()), Words("import"))
    reader = open_reader(other)
    assert reader.catalog["level"].to_list() == ["0.3", "0.5"]
    back = reader.run(reader.catalog["name"][0])
    np.testing.assert_array_equal(back.logits, runs[0].logits)
    back_items = reader.items(back.key.items_hash)
    np.testing.assert_array_equal(back_items.demonstration, items.demonstration)
    np.testing.assert_array_equal(back_items.n_options, items.n_options)
    assert back.env.origin.startswith("table logits.parquet sha256:")


def test_runs_over_a_text_are_no_rows_of_a_table(store_url, tmp_path, caplog):
    """A document has no options: as a row with one it would be imported by nothing, and be counted among the questions by everybody."""
    import_zip(GOLDEN / "store_v4.zip", store_url)
    path = tmp_path / "logits.parquet"
    assert write_parquet(open_reader(store_url).keys, path) == 3
    assert sorted(pl.read_parquet(path)["task"].unique()) == ["halusum", "urn"]
    assert "1 run over a text left out, since the table has a row for each item; a .zip has them" in caplog.messages
    assert len(list(read_table(path, Description()))) == 3


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
        ("id,dense,rtn,gold\n1,A,B,A\n", "has no number for each option (logit_A, logit_B, ..., or prob_A, logprob_A ...); it has id"),
        ("id,answer,prediction\n1,A,B\n", "which option was predicted does not say how sure the model was"),
        ("id,answer,logit_A\n1,A,0\n", "logit_B"),
        ("id,answer,logit_A,logit_C\n1,A,0,1\n", "logit_B"),
        ("id,answer,logit_A,logit_B\n1,C,0,1\n", "without a logit"),
        ("id,answer,logit_A,logit_B\n1,,0,1\n", "answer"),
        ("id,answer,logit_A,logit_B\n1,A,0,1\n1,A,0,1\n", "more than once"),
        ("id,answer,logit_A,logit_B\n1,A,x,1\n", "not a number"),
        ("id,answer,logit_A,logit_B\n1,A,,1\n", "gap"),
        ("id,answer,logit_A,logit_B\n1,A,nan,1\n", "NaN or infinite"),
        ("", "mine.csv is empty; expected a line with the names of the columns"),
        ("id,answer,logit_A,logit_B\n", "a header and no rows"),
        ("id,answer,logit_A,logit_B,logit_B\n1,A,1,2,3\n", "two columns called 'logit_B'"),
        ("id,answer,logit_A,logit_B\n1,A,1,2\n2,A,1\n", "row 2 has 3 values for 4 columns"),
        ("id,answer,logit_A,logit_B\n1,A,1,2,3\n", "row 1 has 5 values for 4 columns"),
        ("id,answer,logit_A,logit_B,demonstration\n1,A,0,1,maybe\n", "'maybe'; expected true or false"),
        ("id,answer,logit_A,logit_B,model\n1,A,3,1,x\n2,A,3,1,\n", "column model is empty in row 2"),
        ("id,answer,logit_A,logit_B\n,A,3,1\n", "column id is empty in row 1"),
        ("id,answer,logit_A,logit_B,prob_A,prob_B\n1,A,3,1,1,0\n", "logit_A and prob_A"),
        ("id,answer,logit_A,logit_B,logit_a\n1,A,3,1,1\n", "lacks column logit_C"),
        ("id,answer,prob_A,prob_B\n1,A,0.5,0.5\n2,A,0.9,0.9\n", "row 2 cannot be probabilities"),
        ("id,answer,logprob_A,logprob_B\n1,A,-1,0.5\n", "row 1 cannot be log-probabilities"),
        ("id,answer,logit_A,logit_B,level\n1,A,3,1,a b\n", "level 'a b' is not valid"),
        ("id,answer,logit_A,logit_B,level\n1,A,3,1,1e-99999999\n", "is not valid"),
        ('id,answer,logit_A,logit_B\n"1,A,3,1\n', "not a CSV"),
        ("id;answer;logit_A;logit_B\n1;A;3,5;1,0\n", "has semicolons between its columns; save it with commas there and with points"),
        ("id\tanswer\tlogit_A\tlogit_B\n1\tA\t3\t1\n", "has tabs between its columns"),
        ('id,answer,logit_A,logit_B\n1,A,"1,5","0,5"\n', "column logit_A: a value is not a number"),
        ("id,answer,logit_A,logit_B\n1,A,\u22121.5,0.5\n", "column logit_A: a value is not a number"),
        ("id,answer,logit_A,logit_B\n1,A,1e39,0.5\n", "NaN or infinite"),
        ("id,answer,logit_A,logit_B\n1,1.0,3,0.5\n", "has answer '1.0', which is not one of its options"),
    ],
)
def test_bad_tables_write_nothing(tmp_path, text, message):
    """A table that lacks something is refused in one sentence, and no store is made."""
    path, url = tmp_path / "mine.csv", tmp_path / "store"
    path.write_text(text)
    result = CliRunner().invoke(main, ["import", "table", str(path), "--store", str(url), "--model", "m", "--task", "t"])
    assert result.exit_code in (2, 5) and message in result.output and "Traceback" not in result.output
    assert not url.exists()


def test_numbers_beyond_32_bits_are_infinite_where_that_is_allowed(tmp_path):
    """1e39 is refused, and with --allow-nonfinite stored as infinite, which the analyzer flags."""
    path, url = tmp_path / "mine.csv", str(tmp_path / "store")
    path.write_text("id,answer,logit_A,logit_B\n1,A,1e39,0.5\n2,B,1,0\n")
    asked = ["import", "table", str(path), "--store", url, "--model", "m", "--task", "t"]
    assert CliRunner().invoke(main, asked).exit_code == 5
    assert CliRunner().invoke(main, [*asked, "--allow-nonfinite"]).exit_code == 0
    reader = open_reader(url)
    assert reader.run(reader.catalog["name"][0]).logits.tolist() == [[np.inf, 0.5], [1.0, 0.0]]


@pytest.mark.parametrize("write", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n"), lambda text: text + "\n\n"])
def test_what_spreadsheets_do_to_a_csv_changes_nothing(write, tmp_path):
    """A byte-order mark, carriage returns and blank lines at the end leave the same items and logits."""
    text = "id,answer,logit_A,logit_B\n001,A,1.5E+00,-.5\n002,B,3,4\n"
    (tmp_path / "plain.csv").write_text(text)
    (tmp_path / "other.csv").write_bytes(write(text).encode())
    (_, first), (_, second) = (next(read_table(tmp_path / f"{name}.csv", Description("m", task="t"))) for name in ("plain", "other"))
    np.testing.assert_array_equal(second.logits, first.logits)
    assert second.key == first.key


ODD_COLUMNS = {
    "dictionary": lambda texts: pa.array(texts).dictionary_encode(),
    "large": lambda texts: pa.array(texts, pa.large_string()),
    "view": lambda texts: pa.array(texts, pa.string_view()),
    "bytes": lambda texts: pa.array([text.encode() for text in texts]),
}


@pytest.mark.parametrize("kind", ODD_COLUMNS)
@pytest.mark.parametrize("name", ["table.parquet", "table.pq", "TABLE.PARQUET", "table.csv"])
def test_parquet_is_known_by_its_bytes_and_text_by_its_content(kind, name, tmp_path):
    """However Parquet stores text and whatever the file is called, ids and answers are the same; decimals are numbers."""
    logits = pa.array([decimal.Decimal("1.50"), decimal.Decimal("-0.25")], pa.decimal128(10, 2))
    columns = {"id": ODD_COLUMNS[kind](["0001", "1"]), "answer": ODD_COLUMNS[kind](["A", "B"]), "logit_A": logits, "logit_B": [0.5, 1.0]}
    pq.write_table(pa.table(columns), tmp_path / name)
    items, run = next(read_table(tmp_path / name, Description("m", task="t")))
    assert (list(items.original_ids), items.answer.tolist()) == (["0001", "1"], [0, 1])
    assert run.logits.tolist() == [[1.5, 0.5], [-0.25, 1.0]]


@pytest.mark.parametrize("values", [[True, False], [datetime.date(2026, 1, 1)] * 2, [[1.0], [2.0]]])
def test_columns_that_are_no_numbers_are_no_logits(values, tmp_path):
    """Flags, dates and lists turn into numbers in many libraries; here they are refused."""
    pl.DataFrame({"id": ["1", "2"], "answer": ["A", "B"], "logit_A": values, "logit_B": [0.5, 1.0]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"column logit_A holds .*; expected numbers"):
        next(read_table(tmp_path / "t.parquet", Description("m", task="t")))


@pytest.mark.parametrize("n", [19, 20])
def test_numbers_between_0_and_1_are_asked_about(n, tmp_path):
    """Probabilities of option tokens sum to less than 1; in 20 rows or more numbers from 0 to 1 are not taken for logits unasked."""
    rng = np.random.default_rng(0)
    probs = {f"logit_{letter}": rng.uniform(0, 0.24, n) for letter in "ABCD"}
    for letter, prob in zip("ABCD", (1e-9, 1.0000001, 1e-9, 1e-9), strict=True):
        probs[f"logit_{letter}"][1] = prob  # as 32 bits round a probability of 1
    pl.DataFrame({"id": [f"q{i}" for i in range(n)], "answer": ["A"] * n, **probs}).write_csv(tmp_path / "t.csv")
    if n < 20:
        assert len(list(read_table(tmp_path / "t.csv", Description("m", task="t")))) == 1
        return
    with pytest.raises(UsageError, match="all numbers of 20 rows lie between 0 and 1"):
        next(read_table(tmp_path / "t.csv", Description("m", task="t")))
    _, run = next(read_table(tmp_path / "t.csv", Description("m", task="t"), "probabilities"))
    np.testing.assert_allclose(run.logits[:, 0], np.log(probs["logit_A"]), rtol=1e-6)


def test_what_32_bits_and_empty_cells_change_is_said(tmp_path, caplog):
    """Two logits that 32 bits cannot tell apart, and cells that pandas left empty for NaN, are counted on stderr."""
    (tmp_path / "t.csv").write_text("id,answer,logit_A,logit_B,logit_C\n1,A,16777216,16777217,0\n2,B,1,0,\n")
    _, run = next(read_table(tmp_path / "t.csv", Description("m", task="t")))
    assert run.logits[0, 0] == run.logits[0, 1]
    assert "m dense - t: in 1 items the two likeliest options are equal to 32 bits" in caplog.text
    assert "m dense - t: 1 of 2 items have empty cells" in caplog.text


IDS = ["0001", "10", "0010", "1e5", "1.0", "true", " x", "NaN", "null", "12345678901234567890123"]
LETTERS = "ABCD"


def frame(n: int = 10, **columns: Any) -> pl.DataFrame:
    """Return a table of random logits of four options."""
    rng = np.random.default_rng(0)
    logits = {f"logit_{letter}": rng.normal(size=n) * 3 for letter in LETTERS}
    return pl.DataFrame({"id": IDS[:n], "answer": [LETTERS[i % 4] for i in range(n)], **logits} | columns)


def read(table: pl.DataFrame, path: Path, values: str | None = None) -> tuple[ItemSet, Run]:
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)
    [pair] = read_table(path, Description(model="m", task="t"), values)
    return pair


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"subject": ["007", "7", "7.0", ""] * 2 + ["x", "y"]},
        {"id": range(10)},
        {"id": [float(i) for i in range(10)]},
        {"id": pl.Series(IDS, dtype=pl.Categorical)},
        {"demonstration": [i == 3 for i in range(10)]},
    ],
)
def test_csv_and_parquet_of_one_content_are_one_item_set(tmp_path, columns):
    """Ids, answers and subjects are text in both: nothing becomes a number on the way, and the runs can be compared."""
    table = frame(**columns)
    (csv_items, csv_run), (parquet_items, parquet_run) = (read(table, tmp_path / name) for name in ("a.csv", "a.parquet"))
    assert csv_items.digest == parquet_items.digest
    np.testing.assert_array_equal(csv_run.logits, parquet_run.logits)
    np.testing.assert_array_equal(csv_run.logits, table.select("^logit_.*$").to_numpy().astype(np.float32))


@pytest.mark.parametrize("marked", ["true", "True", "1", "1.0", 1, 1.0, True])
def test_demonstrations_are_marked_in_any_usual_way(tmp_path, marked):
    """true, True, 1 and 1.0 mark a demonstration, and their opposites or nothing do not."""
    other = {str: "", int: 0, float: 0.0, bool: False}[type(marked)]
    items, _ = read(frame(demonstration=[marked if i == 3 else other for i in range(10)]), tmp_path / "a.parquet")
    assert np.flatnonzero(items.demonstration).tolist() == [3]
    items, _ = read(frame(demonstration=[str(marked) if i == 3 else str(other) for i in range(10)]), tmp_path / "a.csv")
    assert np.flatnonzero(items.demonstration).tolist() == [3]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": [[i] for i in range(10)]}, "column id holds List"),
        ({"id": [b"\xff%d" % i for i in range(10)]}, "column id holds Binary that is not text"),
        ({"id": [None] * 10}, "column id holds Null"),
        ({"answer": [{"a": 1}] * 10}, "column answer holds Struct"),
        ({"logit_B": [[1.0]] * 10}, "column logit_B holds List"),
        ({"demonstration": [2] * 10}, "'2'; expected true or false"),
        ({"model": ["m"] * 9 + [None]}, "column model is empty in row 10"),
    ],
)
def test_columns_of_other_kinds_are_refused(tmp_path, columns, words):
    """Lists, bytes that are no text, and missing names are one sentence that names the column."""
    with pytest.raises(UsageError, match=words):
        read(frame(**columns), tmp_path / "a.parquet")


def test_bytes_that_are_text_and_a_byte_order_mark_are_read(tmp_path):
    """Ids stored as UTF-8 bytes are those texts, and a CSV may begin with a byte-order mark."""
    plain, _ = read(frame(), tmp_path / "a.parquet")
    assert read(frame(id=[text.encode() for text in IDS]), tmp_path / "b.parquet")[0].digest == plain.digest
    path = tmp_path / "c.csv"
    buffer = io.BytesIO()
    frame().write_csv(buffer)
    path.write_bytes(b"\xef\xbb\xbf" + buffer.getvalue().replace(b"\n", b"\r\n"))
    [(items, _)] = read_table(path, Description(model="m", task="t"))
    assert items.digest == plain.digest


def softmax(logits: np.ndarray) -> np.ndarray:
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


FORMS = {
    "probabilities": lambda probs: probs,
    "percentages": lambda probs: 100 * probs,
    "log-probabilities": np.log,
    "negative-log-probabilities": lambda probs: -np.log(probs),
}


@pytest.mark.parametrize("values", FORMS)
@pytest.mark.parametrize("said", [True, False])
def test_probabilities_in_any_form_are_what_softmax_gives_back(tmp_path, caplog, values, said):
    """Recognised by every row being a distribution, or named by the user, they come out as the probabilities that they are."""
    table = frame()
    probs = softmax(table.select("^logit_.*$").to_numpy())
    given = table.with_columns(pl.Series(f"logit_{letter}", FORMS[values](probs)[:, k]) for k, letter in enumerate(LETTERS))
    _, run = read(given, tmp_path / "a.csv", values if said else None)
    np.testing.assert_allclose(softmax(run.logits.astype(np.float64)), probs, atol=1e-6)
    assert ("taken as such" in caplog.text) == (not said and values != "log-probabilities")
    assert run.env.origin.endswith(f", {values}") or not (said or "taken" in caplog.text)


def rounded(probs: np.ndarray, kind: str) -> np.ndarray:
    """Return probabilities as a file of this precision has them: float16, float32, and bfloat16, which is float32 cut to 8 bits."""
    if kind != "bfloat16":
        return probs.astype(kind)
    bits = probs.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("n_options", [2, 4, 26])
def test_probabilities_of_each_precision_sum_to_1_within_its_rounding(tmp_path, caplog, n_options, kind, said):
    """In 16 and 32 bits every row is a distribution, under prob_A ... as under logit_A ..., and so is one that rounds above 1."""
    rng = np.random.default_rng(0)
    probs = rounded(softmax(3 * rng.normal(size=(200, n_options))), kind)
    probs[0], probs[0, 0] = 0, np.nextafter(np.float32(1), np.float32(2)) if kind != "float16" else np.float16(1.001)
    assert np.abs(probs.astype(np.float64).sum(axis=1) - 1).max() > (1e-8 if kind == "float32" else 1e-4)
    columns = {f"{'prob' if said else 'logit'}_{ascii_uppercase[k]}": probs[:, k] for k in range(n_options)}
    pl.DataFrame({"id": list(map(str, range(200))), "answer": ["A"] * 200, **columns}).write_parquet(tmp_path / "a.parquet")
    _, run = next(read_table(tmp_path / "a.parquet", Description("m", task="t")))
    wanted = probs.astype(np.float64) / probs.astype(np.float64).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(run.logits.astype(np.float64)), wanted, atol=1e-6)
    assert ("the numbers of every row are probabilities" in caplog.text) is not said


def test_numbers_are_logits_where_the_user_says_so(tmp_path):
    """--values logits keeps numbers that look like probabilities, and one row that is no distribution does as well."""
    table = frame(2, **{f"logit_{letter}": [0.25, 0.1 * k] for k, letter in enumerate(LETTERS)})
    assert read(table, tmp_path / "a.csv", "logits")[1].logits[0].tolist() == [0.25] * 4
    assert read(table, tmp_path / "a.csv")[1].logits[0].tolist() == [0.25] * 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_probability_of_zero_stays_the_least_likely(tmp_path, caplog, dtype):
    """Probabilities of 16 bits underflow to 0, which has no logarithm: it stays below every other, softmax gives 0 back, and it is said."""
    probs = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.9, 0.1, 1e-7, 0]]).astype(dtype)
    table = frame(3, id=["a", "b", "c"], **{f"prob_{letter}": probs[:, k] for k, letter in enumerate(LETTERS)})
    items, run = read(table.drop("^logit_.*$"), tmp_path / "a.parquet")
    wanted = probs.astype(np.float64) / probs.astype(np.float64).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax(run.logits.astype(np.float64)), wanted, atol=1e-6)
    assert np.all(np.isfinite(run.logits)) and f"{(probs == 0).sum()} probabilities are 0" in caplog.text
    assert items.answer.tolist() == [0, 1, 2]


def test_what_runs_of_one_table_hold_is_said_once_and_is_the_same(tmp_path, caplog):
    """Two runs of probabilities are one warning; where only one of them looks like it, the user must say what they are."""
    logits = frame().select("^logit_.*$").to_numpy()
    probs = [pl.Series(f"logit_{letter}", softmax(logits)[:, k]) for k, letter in enumerate(LETTERS)]
    first, second = frame(method=["dense"] * 10).with_columns(probs), frame(method=["rtn"] * 10)
    pl.concat([first, second.with_columns(probs)]).write_csv(tmp_path / "a.csv")
    assert len(list(read_table(tmp_path / "a.csv", Description(model="m", task="t")))) == 2
    assert len([record for record in caplog.records if "taken as such" in record.message]) == 1
    pl.concat([first, second]).write_csv(tmp_path / "a.csv")
    with pytest.raises(UsageError, match="some runs look like logits and some like probabilities; say with --values"):
        list(read_table(tmp_path / "a.csv", Description(model="m", task="t")))


def test_two_spellings_of_one_level_are_not_two_runs(tmp_path):
    """Levels .50 and 0.5 are one run, which a table holds once."""
    table = pl.concat([frame(), frame()]).with_columns(method=pl.lit("rtn"), level=pl.Series([".50"] * 10 + ["0.5"] * 10))
    table.write_csv(tmp_path / "t.csv")
    with pytest.raises(UsageError, match=r"the input holds run m~rtn~0.5~quiz~imported.* 2 times"):
        import_runs(str(tmp_path / "s"), read_table(tmp_path / "t.csv", Description(model="m", task="quiz")), Words("import"))


def test_a_level_without_a_method_is_said(tmp_path, caplog):
    """A run at level int4 that is called dense would be what others are compared with."""
    frame().write_csv(tmp_path / "a.csv")
    list(read_table(tmp_path / "a.csv", Description(model="m", task="t", level="int4")))
    assert "m at level int4 is stored as a dense run" in caplog.text


def test_items_of_fewer_options_may_hold_probabilities(tmp_path):
    """A row of two options is a distribution over these two."""
    path = tmp_path / "a.csv"
    path.write_text("id,answer,logit_A,logit_B,logit_C\n1,A,0.5,0.25,0.25\n2,B,0.75,0.25,\n")
    [(items, run)] = read_table(path, Description(model="m", task="t"))
    np.testing.assert_allclose(np.exp(run.logits[1, :2]), [0.75, 0.25], rtol=1e-6)
    assert items.n_options.tolist() == [3, 2] and np.isnan(run.logits[1, 2])


@pytest.mark.parametrize("name", ["correct", "acc", "prediction"])
def test_a_table_that_contradicts_its_own_result_is_refused(tmp_path, name):
    """A column of right and wrong, or of predictions, is compared with the logits, and the first item that disagrees is named."""
    table = frame()
    likeliest = table.select("^logit_.*$").to_numpy().argmax(axis=1)
    own = [LETTERS[k] for k in likeliest] if name == "prediction" else [int(k == i % 4) for i, k in enumerate(likeliest)]
    assert read(table.with_columns(pl.Series(name, own)), tmp_path / "a.csv")[1].logits.shape == (10, 4)
    own[6] = "D" if name == "prediction" else 1 - own[6]
    with pytest.raises(UsageError, match=f"item ' x': the largest logit is that of {LETTERS[likeliest[6]]}.*column {name} says"):
        read(table.with_columns(pl.Series(name, own)), tmp_path / "a.csv")
    own[6] = None
    assert len(read(table.with_columns(pl.Series(name, own)), tmp_path / "a.csv")[0]) == 10  # nothing said, nothing to compare
    odd = pl.Series(name, ["E" if name == "prediction" else "half"] * 10)
    with pytest.raises(UsageError, match=name):
        read(table.with_columns(odd), tmp_path / "a.csv")


def test_of_equal_logits_either_may_be_meant(tmp_path):
    """Another tool breaks ties its own way, so its result agrees where any of the largest logits gives it."""
    tied = {f"logit_{letter}": [1.0, 1.0] if k < 2 else [0.0, 0.0] for k, letter in enumerate(LETTERS)}
    for correct in ([1, 0], [0, 1]):
        assert len(read(frame(2, correct=correct, **tied), tmp_path / "a.csv")[0]) == 2


def test_what_is_not_read_is_said(tmp_path, caplog):
    """Columns of other names are named, so that a mistyped one is seen."""
    read(frame(subjects=["x"] * 10), tmp_path / "a.csv")
    assert "not read: column subjects" in caplog.text


@pytest.mark.parametrize("token", [3.7, -5.0, 1e12, np.inf])
def test_a_top_token_that_is_no_token_is_refused(token, tmp_path):
    """A fraction was cut off, and a number beyond 32 bits became -2147483648; -1 and empty cells say that it is unknown."""
    assert read(frame(top_token=[7, -1, None] + [0] * 7), tmp_path / "a.csv")[1].top_token.tolist()[:3] == [7, -1, -1]
    with pytest.raises(UsageError, match=r"column top_token holds .*; expected token ids"):
        read(frame(top_token=[token] + [0.0] * 9), tmp_path / "b.csv")


def test_an_export_comes_back_with_what_the_vocabulary_showed(store_url, tmp_path):
    """logsumexp and top_token of an exported table come back, so that the option mass is still known."""
    items = tiny_items()
    run = tiny_run(items)
    write_runs(store_url, items, [run])
    path = tmp_path / "logits.parquet"
    write_parquet(open_reader(store_url).keys, path)
    [(_, back)] = read_table(path, Description())
    np.testing.assert_array_equal(back.logsumexp, run.logsumexp)
    np.testing.assert_array_equal(back.top_token, run.top_token)


def test_damaged_parquet_files_are_one_sentence_or_whole(tmp_path):
    """300 files with one byte changed are read or refused; none ends in a panic of the reader."""
    frame().write_parquet(tmp_path / "a.parquet")
    whole, rng, refused = (tmp_path / "a.parquet").read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(whole)
        broken[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.parquet").write_bytes(broken)
        try:
            list(read_table(tmp_path / "b.parquet", Description(model="m", task="t")))
        except UsageError:
            refused += 1
    assert 30 < refused < 300


def test_ids_as_their_owner_wrote_them_stay_usable_and_shown(tmp_path):
    """Ids of a table are what p-values and the export print, and what `--split file:` takes."""
    from analyzer.cli.main import main as analyze

    url, path = str(tmp_path / "store"), tmp_path / "a.csv"
    frame().write_csv(path)
    assert CliRunner().invoke(main, ["import", "table", str(path), "--store", url, "--model", "m", "--task", "t"]).exit_code == 0
    asked = ["sets", "--store", url, "--scorer", "lac", "--p-values", "--format", "json"]
    assert [row["id"] for row in json.loads(CliRunner().invoke(analyze, asked).stdout)] == IDS
    assert " x" in CliRunner().invoke(analyze, asked[:-2]).stdout
    calibrates = tmp_path / "calibration.txt"
    calibrates.write_text("\n".join(["0010", "10", " x"]))
    judged = json.loads(CliRunner().invoke(analyze, [*asked, "--split", f"file:{calibrates}"]).stdout)
    assert [row["id"] for row in judged] == [name for name in IDS if name not in ("0010", "10", " x")]
    write_parquet(open_reader(url).keys, tmp_path / "b.parquet")
    assert pl.read_parquet(tmp_path / "b.parquet")["id"].to_list() == IDS


def test_a_librarys_stack_trace_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """What polars prints on stderr itself while it reads a damaged file is discarded; its error is a ValueError of one line."""

    def panic(_: object) -> pl.DataFrame:
        os.write(2, b"thread 'async-executor-1' panicked\nstack backtrace:\n")
        raise pl.exceptions.PanicException("assertion failed\nsecond line")

    with pytest.raises(ValueError, match=r"^assertion failed$"):
        read_polars(panic, "table.parquet")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
