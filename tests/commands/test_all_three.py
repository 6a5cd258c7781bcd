"""The three commands, one after the other: a model goes in, a verdict comes out, and every figure can be had by hand from the logits."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import analyzer.cli.main
import producer.cli.main
import store.cli.main
from store import open_reader

pytestmark = pytest.mark.producer
MAINS = {"produce": producer.cli.main.main, "store": store.cli.main.main, "analyze": analyzer.cli.main.main}
N_ITEMS = 12  # 924 ways to choose the six that calibrate


def command(*words: str) -> Result:
    return CliRunner().invoke(MAINS[words[0]], words[1:])


def succeed(*words: str) -> str:
    result = command(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that a dense and a quantized model were pushed to, from the one that they were produced into."""
    folder = tmp_path_factory.mktemp("stores")
    made, shared = str(folder / "made"), str(folder / "shared")
    succeed("produce", "--model", "ref-s", "--method", "dense", "--method", "rtn", "--level", "w4a16-g32", "--task", "urn",
            "--limit", str(N_ITEMS), "--store", made)  # fmt: skip
    succeed("store", "push", shared, "--store", made)
    return shared


def by_hand(address: str, method: str) -> tuple[float, float, float]:
    """Accuracy, and coverage and set size of LAC at alpha 0.2 over all splits, from the stored logits and the definitions alone."""
    reader = open_reader(address)
    row = next(row for row in reader.catalog.iter_rows(named=True) if row["method"] == method)
    run, items = reader.run(row["name"]), reader.items(row["items_hash"])
    logits = np.asarray(run.logits, dtype=float)
    probs = np.exp(logits - np.nanmax(logits, axis=1, keepdims=True))
    scores = 1 - probs / np.nansum(probs, axis=1, keepdims=True)
    everyone = range(N_ITEMS)
    of_answer = [scores[i, items.answer[i]] for i in everyone]
    covered, sizes = [], []
    for calibration in combinations(everyone, N_ITEMS // 2):
        threshold = max(of_answer[i] for i in calibration)  # k = ceil((6 + 1) * 0.8) = 6 of 6
        test = [i for i in everyone if i not in calibration]
        covered += [of_answer[i] <= threshold for i in test]
        sizes += [int(np.sum(scores[i] <= threshold)) for i in test]
    return float(np.mean(np.nanargmax(logits, axis=1) == items.answer)), float(np.mean(covered)), float(np.mean(sizes))


@pytest.mark.parametrize("method", ["dense", "rtn"])
def test_sets_are_those_of_the_definition(method: str, shared_store: str) -> None:
    """What `analyze sets` prints of a pushed store equals the mean over all 924 splits, done one by one."""
    words = ("--store", shared_store, "--method", method, "--alpha", "0.2", "--scorer", "lac", "--format", "json")
    printed = succeed("analyze", "sets", *words)
    (record,) = json.loads(printed)
    figures = record["accuracy"], record["coverage"], record["set_size"]
    assert figures == pytest.approx(by_hand(shared_store, method), abs=1e-12)


def test_compare_prints_the_difference_of_sets(shared_store: str) -> None:
    """The changes that `analyze compare` prints are the differences of what the definition gives for both runs."""
    printed = succeed("analyze", "compare", "--store", shared_store, "--alpha", "0.2", "--scorer", "lac", "--format", "json")
    record = next(record for record in json.loads(printed) if record["method"] == "rtn")
    changes = np.subtract(by_hand(shared_store, "rtn"), by_hand(shared_store, "dense"))
    assert [record[f"{name}_change"] for name in ("accuracy", "coverage", "set_size")] == pytest.approx(changes, abs=1e-12)


def test_the_gate_tells_a_harmless_compression_from_a_ruinous_one(tmp_path: Path) -> None:
    """Of 300 items each, weights rounded to 8 bits pass (exit 0) and a model without four fifths of its weights fails (exit 1)."""
    address = str(tmp_path / "store")
    succeed("produce", "--model", "ref-s", "--method", "dense", "--method", "rtn", "--level", "w8a16-g32", "--method", "magnitude",
            "--level", "0.8", "--task", "urn", "--limit", "300", "--store", address)  # fmt: skip
    for method, code, outcome in (("rtn", 0, "pass"), ("magnitude", 1, "fail")):
        words = ("--store", address, "--method", method, "--limit", "accuracy_loss=0.1", "--format", "json")
        result = command("analyze", "gate", *words)
        records = {record["check"]: record["result"] for record in json.loads(result.stdout)}
        assert (result.exit_code, records["accuracy_loss"]) == (code, outcome), result.output


def test_the_report_is_of_the_snapshot_that_was_pushed(shared_store: str, tmp_path: Path) -> None:
    """`analyze report` writes one page, which names both runs' model and the snapshot that `store log` lists first."""
    page = tmp_path / "report.html"
    succeed("analyze", "report", "--store", shared_store, "--out", str(page))
    text = page.read_text(encoding="utf-8")
    assert "ref-s" in text and open_reader(shared_store).snapshot in text
