"""docs/planted.py, the fault that the demo plants: accuracy holds to the last digit, and sets grow."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from store_tiny import tiny_run, write_runs

from analyzer.api import compare
from analyzer.compare.two_axis_verdict import HOLDS_GROW
from schemas.items import Item
from schemas.itemset import build_item_set
from store import init_store

SCRIPT = Path(__file__).parents[2] / "docs" / "planted.py"
N_ITEMS = 1_500


@pytest.mark.large
def test_a_planted_fault_changes_no_answer_and_makes_sets_grow(tmp_path: Path) -> None:
    """A model whose margin says how often it is right loses that: no flip, and the sets of LAC and APS grow beyond the tolerance."""
    items = build_item_set("quiz", [Item(id=str(i), answer="ABCD"[i % 4], source="quiz") for i in range(N_ITEMS)], n_options=[4] * N_ITEMS)
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(N_ITEMS, 4))
    logits[np.arange(N_ITEMS), items.answer] += rng.gamma(2.0, 0.8, N_ITEMS)
    dense = replace(tiny_run(items), logits=logits.astype(np.float32), logsumexp=np.full(N_ITEMS, 9.0, np.float32))
    url = str(tmp_path / "store")
    init_store(url)
    write_runs(url, items, [dense])
    for arguments, code, said in (
        ([url, "ref-x", "quiz"], 5, "no dense run of model 'ref-x' on task 'quiz', where one is needed; dense runs it has: ref-s on quiz"),
        ([str(tmp_path / "absent"), "ref-s", "quiz"], 5, "StoreNotFoundError"),
        ([url, "ref-s"], 2, "Usage: python docs/planted.py STORE MODEL TASK"),
    ):
        refused = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, check=False)
        assert refused.returncode == code and said in refused.stderr and len(refused.stderr.splitlines()) == 1
    for _ in range(2):  # the second time, the run is there
        subprocess.run([sys.executable, SCRIPT, url, "ref-s", "quiz"], check=True, capture_output=True)
    found = compare(url, scorers=["lac", "aps"], alphas=[0.1]).filter(method="planted").to_dicts()
    assert {row["scorer"] for row in found} == {"lac", "aps"}
    for row in found:
        assert row["accuracy_change"] == 0
        assert row["flips"] == 0
        assert row["verdict"] == HOLDS_GROW
