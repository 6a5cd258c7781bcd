"""`analyze sets --reference`: which rows agree to the last stated digit, which differ, and what cannot be compared."""

import csv
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import item_set, make_run, skilled_logits
from click.testing import CliRunner, Result
from store_tiny import write_runs

from analyzer.api import sets
from analyzer.cli.main import main
from schemas.errors import UsageError
from store import init_store


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense run and two compressed ones of one model, and two models that differ in their owners only."""
    url = str(tmp_path_factory.mktemp("replayed") / "store")
    init_store(url)
    rng = np.random.default_rng(5)
    items = item_set(rng.integers(0, 4, 80))
    logits = skilled_logits(rng, items.answer, 4)
    keys = [
        {"model": "org/Toy-1b-hf"},
        {"model": "org/Toy-1b-hf", "method": "rtn", "level": "w4a16-g128"},
        {"model": "org/Toy-1b-hf", "method": "rtn", "level": "w4a16-g32"},
        {"model": "one/twin"},
        {"model": "two/twin"},
    ]
    runs = [
        make_run(items, logits + rng.normal(size=logits.shape).astype(np.float32) * number / 4, **key) for number, key in enumerate(keys)
    ]
    write_runs(url, items, runs)
    return url


def asked(address: str, path: Path, text: str, *words: str) -> Result:
    path.write_text(text, encoding="utf-8")
    done = CliRunner().invoke(main, ["sets", "--store", address, "--reference", str(path), *words])
    assert done.exit_code == 0, done.output
    return done


def agreements(address: str, path: Path, text: str, **options: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    return sets(address, reference=path, **options)["agreement"].to_list()


def test_a_table_that_sets_printed_agrees_with_itself(address: str, tmp_path: Path) -> None:
    """In every figure, alphas and scorers being those of the file; a changed last digit is seen, and what lacks is counted."""
    words = ["sets", "--store", address, "--alpha", "0.3", "--scorer", "margin", "--format", "csv"]
    printed = CliRunner().invoke(main, words).stdout
    path = tmp_path / "own.csv"
    assert "5 of 5 rows" in asked(address, path, printed).stderr
    rows = list(csv.DictReader(printed.splitlines()))
    digit = rows[1]["set_size"]
    changed = printed.replace(f",{digit},", f",{float(digit) + 1e-9!r},", 1)
    done = asked(address, path, changed)
    assert "4 of 5 rows" in done.stderr and "Rows with other figures here (1): line 3" in done.stderr and "set_size stated" in done.stderr
    assert "≠" in done.stdout
    fewer = "\n".join(printed.splitlines()[:-1])
    assert "1 of 5 measured results are not in the file." in asked(address, path, fewer).stderr


def test_digits_are_those_of_the_column(address: str, tmp_path: Path) -> None:
    """A figure agrees within half a unit of the column's last digit; `0.7` in a column of four digits means 0.7000."""
    accuracy = sets(address, model="org/Toy-1b-hf", method="dense", scorers="lac", alphas=0.1)["accuracy"][0]
    head = "model,task,prompt,scorer,alpha,accuracy\nToy-1b,quiz,base,lac,0.1,"
    one, path = round(accuracy, 1), tmp_path / "digits.csv"
    assert accuracy != one
    assert agreements(address, path, f"{head}{one}\n") == ["agrees"]
    assert f"{one} = {one} " in asked(address, path, f"{head}{one}\n").stdout
    assert f"{one + 0.1:.1f} ≠ {one} " in asked(address, path, f"{head}{one + 0.1:.1f}\n").stdout
    assert agreements(address, path, f"{head}{one}\nToy-1b,quiz,base,lac,0.1,{accuracy:.4f}\n") == ["differs", "agrees"]
    assert agreements(address, path, f"{head.replace('accuracy', 'accuracy_pct')}{100 * accuracy:.2f}\n") == ["agrees"]


@pytest.mark.parametrize(
    ("row", "agreement"),
    [
        ("Toy-1B,,,0.1", "agrees"),  # dense, whatever the case and the owner
        ("Toy-1b,rtn,w4a16-g32,0.1", "differs"),
        ("Toy-1b,rtn,w4a16,0.1", "several runs"),
        ("Toy-1b,rtn,w8a16,0.1", "no run"),
        ("Toy-2b,,,0.1", "no run"),
        ("twin,,,0.1", "several runs"),
        ("two/twin,,,0.1", "differs"),
        ("Toy-1b,,,0.2", "no run"),
    ],
)
def test_a_row_means_one_run_or_says_so(address: str, tmp_path: Path, row: str, agreement: str) -> None:
    """Rows that fit no run or several are named, and never compared with one of them."""
    size = sets(address, model="org/Toy-1b-hf", method="dense", scorers="lac", alphas=0.1)["set_size"][0]
    model, method, level, alpha = row.split(",")
    text = f"model,method,level,task,prompt,scorer,alpha,set_size\n{model},{method},{level},quiz,base,lac,{alpha},{size!r}\n"
    done = asked(address, tmp_path / "row.csv", text, "--alpha", "0.1")
    assert agreement in done.stdout
    assert f"{int(agreement == 'agrees')} of 1 rows" in done.stderr
    assert ("(1): line 2, " in done.stderr) == (agreement != "agrees")


def test_one_figure_a_row_and_means_over_scorers(address: str, tmp_path: Path) -> None:
    """A file of metric and value without prompts and scorers is compared with means over both."""
    mean = sets(address, model="org/Toy-1b-hf", method="dense", average=True)
    text = (
        f"model,task,metric,value\nToy-1b,quiz,set_size,{mean['set_size'][0]!r}\nToy-1b,quiz,coverage_pct,{100 * mean['coverage'][0]:.1f}\n"
    )
    assert agreements(address, tmp_path / "one.csv", text) == ["agrees", "agrees"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column 'model'"),
        ("model,task,set_size\n", "has no rows"),
        ("model,task\nToy-1b,quiz\n", "line 2 states no figure"),
        ("model,task,set_size\nToy-1b,quiz,large\n", "line 2: set_size 'large' is not a number"),
        ("model,task,set_size\nToy-1b,quiz,nan\n", "line 2: set_size 'nan' is not a finite number"),
        ("model,task,set_size\nToy-1b,quiz,2,0\n", "line 2 has more values than there are columns"),
        ("model,task,set_size\nToy-1b,,2.0\n", "line 2 has no task"),
        ("model,task,metric,value\nToy-1b,quiz,size,2.0\n", "line 2: unknown metric 'size'"),
        ("model,task,metric,value\nToy-1b,quiz,set_size,\n", "line 2: set_size '' is not a number"),
        ("model,task,alpha,set_size\nToy-1b,quiz,one,2.0\n", "line 2: alpha 'one' is not a number"),
    ],
)
def test_what_cannot_be_read_is_named(address: str, tmp_path: Path, text: str, said: str) -> None:
    """With its line, before anything is measured."""
    path = tmp_path / "wrong.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=said):
        sets(address, reference=path)


def test_p_values_have_no_reference(address: str, tmp_path: Path) -> None:
    """Two options that exclude each other are wrong usage."""
    done = CliRunner().invoke(main, ["sets", "--store", address, "--p-values", "--reference", str(tmp_path / "a.csv")])
    assert done.exit_code == 2 and "leave one of them out" in done.output
