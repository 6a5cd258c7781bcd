"""Stores for the report's tests: hostile names among ordinary ones, two tasks and prompts, runs of NaN, with notes, without partner."""

import base64
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from analyzer_data import skilled_logits

from analyzer.report.data.study import Study, open_study
from schemas.items import Item
from schemas.itemset import ItemSet, build_item_set
from schemas.run import Environment, Run, RunKey
from store import init_store, open_writer

N_ITEMS = 240
MARKUP = '<img src=x onerror="window.hacked=1">'
CLOSING = "</script><script>window.hacked=1</script>"
FORMULA = "=1+1"
LEVELS = (("wanda", "0.2"), ("wanda", "0.4"), ("wanda", "0.5"), ("wanda", "0.6"), ("rtn", "w4a16-g128"))
FEW = LEVELS[1:2]
OPTIONS: dict[str, Any] = {
    "at": None, "model": (), "method": (), "level": (), "task": (), "prompt": (), "alpha": "0.1", "scorers": (), "parameters": (),
    "protocols": (), "cluster": None, "against": None,
    "policy": None, "limits": (), "prices": None, "predictor": None, "watch": None, "accuracy_tolerance": 0.02, "set_size_tolerance": 0.1,
}  # fmt: skip


def quiz(task: str, n_items: int = N_ITEMS, subjects: int = 3) -> ItemSet:
    """Return items with text, some of it markup."""
    rng = np.random.default_rng(len(task))
    choices = dict(zip("ABCD", (MARKUP, "two", "three", "four"), strict=True))
    items = [
        Item(id=str(i), answer="ABCD"[rng.integers(4)], question=f"{CLOSING} {task} {i}?", choices=choices, subject=f"s{i % subjects}")
        for i in range(n_items)
    ]
    return build_item_set(task, items)


def run_of(items: ItemSet, logits: np.ndarray, parameters: int = 0, notes: tuple[str, ...] = (), **key: Any) -> Run:
    """Return a run with these logits and notes of its making."""
    fields = {"method": "dense", "prompt": "base", "task": items.task, "items_hash": items.digest} | key
    n = len(items)
    env = Environment(parameters=parameters, notes=notes)
    return Run(RunKey(**fields), logits.astype(np.float32), np.full(n, np.nan, np.float32), np.full(n, -1, np.int32), env)


def family(items: ItemSet, model: str, seed: int, parameters: int = 0, levels: Any = LEVELS, **key: Any) -> list[Run]:
    """Return a dense run and compressed ones that are noisier the more is removed."""
    rng = np.random.default_rng(seed)
    dense = skilled_logits(rng, items.answer, 4, 2.0)
    runs = [run_of(items, dense, parameters, model=model, **key)]
    for method, level in levels:
        noise = 3 * float(level) ** 2 if method == "wanda" else 0.05
        logits = dense + noise * rng.normal(size=dense.shape)
        runs.append(run_of(items, logits, parameters, model=model, method=method, level=level, **key))
    return runs


def write(url: str, parts: list[tuple[ItemSet, list[Run]]]) -> str:
    """Write runs into a new store, those of NaN as well."""
    init_store(url)
    with open_writer(url) as writer:
        for items, runs in parts:
            for run in runs:
                writer.write(items, run, allow_nonfinite=True)
    return url


def mixed_store(folder: Path) -> str:
    """Return the address of the store that most tests look at."""
    first, second = quiz("quiz"), quiz("exam")
    broken = run_of(first, np.full((N_ITEMS, 4), np.nan), model="small-1b", method="rtn", level="w2a16")
    notes = ("3 prompts were cut at the left", f"a name of {MARKUP}")
    alone = run_of(first, skilled_logits(np.random.default_rng(9), first.answer, 4), model="optimum", method="bayes", notes=notes)
    runs = [*family(first, "small-1b", 1, 10**9), *family(first, "small-7b", 2, 7 * 10**9, FEW), broken, alone]
    runs += [*family(first, "small-13b", 3, 13 * 10**9, FEW), *family(first, MARKUP, 4, levels=FEW)]
    runs += family(first, "small-1b", 5, 10**9, FEW, prompt="shared")
    others = [*family(second, "small-1b", 6, 10**9, FEW), *family(second, CLOSING, 7, levels=FEW)]
    others.append(run_of(second, runs[0].logits, model=FORMULA))
    return write(str(folder / "store"), [(first, runs), (second, others)])


def study_of(url: str, **options: Any) -> Study:
    """Return the study of a store, as the command asks for it."""
    return open_study(OPTIONS | {"store_url": url} | options)


def embedded(html: str) -> dict[str, Any]:
    return json.loads(zlib.decompress(base64.b64decode(re.search(r'<script type="text/plain" id="data">(.*?)</script>', html, re.S)[1])))


def rows(data: dict[str, Any], table: str) -> list[dict[str, Any]]:
    columns = data["tables"][table]
    return [{name: values[0 if len(values) == 1 else i] for name, values in columns.items()} for i in range(columns["n"][0])]


def panel_html(html: str, name: str) -> str:
    return re.search(rf'<section class="panel" id="panel-{name}">(.*?)</section>', html, re.S)[1]
