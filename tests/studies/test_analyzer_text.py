"""`analyze text`: KL, same top token and perplexity of runs over a text, with intervals by document."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analyzer_data import make_run, skilled_logits
from click.testing import CliRunner
from store_tiny import write_runs

from analyzer.api import text
from analyzer.cli.main import main
from schemas.errors import HedgemarkError
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Run, RunKey, TokenArrays
from store import init_store, open_dataset, open_reader
from store.exchange.zip_file import import_zip, write_zip
from store.upkeep.verify import verify_store

SIZES = (40, 60, 3, 97)


def documents(n_documents: int = len(SIZES)) -> ItemSet:
    items = [Item(id=str(number), answer="A", source=f"document {number}") for number in range(n_documents)]
    return build_item_set("text:story", items, n_options=[1] * n_documents)


def text_run(items: ItemSet, logprob: Any, kl: Any, same: Any, sizes: Any = SIZES, **key: Any) -> Run:
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = TokenArrays(np.asarray(logprob, np.float32), np.asarray(kl, np.float32), np.asarray(same, np.bool_), offsets)
    fields = {"model": "toy", "method": "dense", "task": items.task, "items_hash": items.digest, "prompt": "text"} | key
    means = np.array([[part.mean()] for part in np.split(tokens.logprob, offsets[1:-1])], np.float32)
    return Run(RunKey(**fields), means, np.zeros(len(items), np.float32), np.full(len(items), -1, np.int32), tokens=tokens)


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A dense and a compressed run over a text of four documents of very different size, and runs over items beside them."""
    address, rng, n_tokens = str(tmp_path / "store"), np.random.default_rng(0), sum(SIZES)
    init_store(address)
    items, logprob = documents(), -rng.exponential(2.0, n_tokens)
    worse = logprob - rng.exponential(0.1, n_tokens)
    kl, same = rng.exponential(0.05, n_tokens), rng.random(n_tokens) < 0.9
    dense = text_run(items, logprob, np.zeros(n_tokens), np.ones(n_tokens, bool))
    write_runs(address, items, [dense, text_run(items, worse, kl, same, method="rtn", level="w4a16")])
    quiz = build_item_set("quiz", [Item(id=str(i), question=f"{i}?", choices={"A": "x", "B": "y"}, answer="A") for i in range(60)])
    logits = skilled_logits(rng, quiz.answer, 2)
    write_runs(address, quiz, [make_run(quiz, logits), make_run(quiz, logits, method="rtn", level="w4a16")])
    return address


def test_figures_are_means_over_tokens_with_errors_between_documents(store: str) -> None:
    """Every figure is the mean over tokens; its error is the jackknife that leaves out a document, written as a loop."""
    table = text(store)
    assert table["method"].to_list() == ["dense", "rtn"] and table["kl"][0] is None and table["same_top"][0] is None
    row = table.row(1, named=True)
    reader = open_reader(store)
    dense, run = (reader.run(name).tokens for name in table["run"])
    assert dense is not None and run is not None
    assert row["kl"] == pytest.approx(float(run.kl.astype(np.float64).mean()), rel=1e-12)
    assert row["same_top"] == pytest.approx(run.same_top.mean()) and (row["n_tokens"], row["n_documents"]) == (200, 4)
    assert row["perplexity"] == pytest.approx(math.exp(-run.logprob.astype(np.float64).mean()), rel=1e-12)
    ratio = math.exp(float((dense.logprob.astype(np.float64) - run.logprob).mean()))
    assert row["perplexity_ratio"] == pytest.approx(ratio, rel=1e-12)
    assert row["perplexity_ratio_low"] < ratio < row["perplexity_ratio_high"]
    left = []
    for document in range(4):
        kept = np.ones(200, bool)
        kept[run.offsets[document] : run.offsets[document + 1]] = False
        left.append(float(run.kl[kept].astype(np.float64).mean()))
    error = math.sqrt(3 / 4 * sum((value - row["kl"]) ** 2 for value in left))
    units = 200**2 / sum(size**2 for size in SIZES)
    from scipy.special import stdtrit

    assert row["kl_high"] - row["kl"] == pytest.approx(float(stdtrit(units - 1, 0.975)) * error, rel=1e-6)


def test_the_command_prints_what_the_function_returns(store: str) -> None:
    """Command and function agree; commands about options leave texts out, and text leaves options out."""
    result = CliRunner().invoke(main, ["text", "--store", store, "--format", "json"])
    assert result.exit_code == 0 and json.loads(result.stdout) == json.loads(text(store).write_json())
    shown = CliRunner().invoke(main, ["text", "--store", store])
    assert "perplexity ratio" in shown.stdout and "same top" in shown.stdout
    compared = CliRunner().invoke(main, ["compare", "--store", store, "--format", "json", "--scorer", "lac"])
    assert {record["task"] for record in json.loads(compared.stdout)} == {"quiz"}
    page = CliRunner().invoke(main, ["report", "--store", store, "--format", "md"])
    assert page.exit_code == 0 and "text:story" not in page.stdout


def test_one_document_has_no_interval(tmp_path: Path) -> None:
    """The tokens of one document are no independent units: its figures have no interval and say why."""
    address, items = str(tmp_path / "store"), documents(1)
    init_store(address)
    write_runs(address, items, [text_run(items, [-1.0, -2.0], [0, 0], [True, True], (2,))])
    row = text(address).row(0, named=True)
    assert row["perplexity"] == pytest.approx(math.exp(1.5)) and row["perplexity_low"] is None and "one document" in row["note"]
    refused = CliRunner().invoke(main, ["sets", "--store", address])
    assert refused.exit_code != 0 and "are over a text" in refused.stderr


@pytest.mark.parametrize(
    ("logprob", "kl", "sizes", "said"),
    [
        ([-1, math.nan], [0, 0], (2,), "no finite"),
        ([-1, -1], [0, math.inf], (2,), "no finite"),
        ([-1, 0.5], [0, 0], (2,), "log-probability above 0"),
        ([-1, -1], [0, -0.1], (2,), "KL is below 0"),
        ([-1, -1], [0, 0], (3,), "do not divide"),
        ([-1, -1], [0, 0], (1, 1), "do not fit 1 documents"),
    ],
)
def test_broken_arrays_are_not_stored(tmp_path: Path, logprob: Any, kl: Any, sizes: Any, said: str) -> None:
    """Token arrays that cannot be those of the documents are refused on writing."""
    address, items = str(tmp_path / "store"), documents(1)
    init_store(address)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    tokens = TokenArrays(np.asarray(logprob, np.float32), np.asarray(kl, np.float32), np.ones(2, bool), offsets)
    key = RunKey(model="m", method="dense", task=items.task, items_hash=items.digest, prompt="text")
    run = Run(key, np.full((1, 1), -1, np.float32), np.zeros(1, np.float32), np.full(1, -1, np.int32), tokens=tokens)
    with pytest.raises(HedgemarkError, match=said):
        write_runs(address, items, [run])


def test_text_runs_go_everywhere_a_run_goes(store: str, tmp_path: Path) -> None:
    """They are verified, opened as a data set, and come back from a zip file byte for byte; a changed token is noticed."""
    assert verify_store(store).problems == []
    reader = open_reader(store)
    name = next(row["name"] for row in reader.catalog.to_dicts() if row["n_tokens"] and row["method"] == "rtn")
    assert dict(open_dataset(store, name).sizes) == {"item": 4, "option": 1, "token": 200, "document_boundary": 5}
    write_zip(reader.keys, tmp_path / "runs.zip")
    import_zip(tmp_path / "runs.zip", str(tmp_path / "copy"))
    copy = open_reader(str(tmp_path / "copy"))
    assert copy.run(name).digest == reader.run(name).digest and text(str(tmp_path / "copy"))["kl"][1] == text(store)["kl"][1]
    import zarr

    from store.repository.repository import open_repository

    session = open_repository(str(tmp_path / "copy")).session(None)
    assert zarr.open_group(session.store, mode="r")[f"runs/{name}/token_kl"].shape == (200,)
    changed = copy.run(name)
    assert changed.tokens is not None
    changed.tokens.kl[0] += 1
    assert Run(changed.key, changed.logits, changed.logsumexp, changed.top_token, changed.env, changed.tokens).digest != changed.digest
