"""`store verify` and `analyze` agree on every store: what one refuses, the other refuses too, in one sentence and with exit code 4."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from store_tiny import tiny_items, tiny_run

import analyzer.cli.main
import store.cli.main
from schemas.itemset import ItemSet
from schemas.layout import group_document, sealed
from schemas.run import Run
from store.format.item_sets import encode_items
from store.format.runs import encode_run
from store.repository.repository import open_repository

N_ITEMS = 24
Nodes = dict[str, bytes]
Made = tuple[ItemSet, Run]


def made(rng: np.random.Generator) -> Made:
    items = tiny_items(n_items=N_ITEMS)
    return items, tiny_run(items, seed=int(rng.integers(100)))


def with_items(rng: np.random.Generator, name: str, values: list[int]) -> Made:
    """Items of which one entry of an array is another, and a run on exactly these."""
    items, run = made(rng)
    array = getattr(items, name).copy()
    array[tuple(rng.integers(n) for n in array.shape)] = rng.choice(values)
    items = replace(items, **{name: array})
    return items, replace(run, key=run.key.model_copy(update={"items_hash": items.digest}))


def with_run(rng: np.random.Generator, name: str, values: list[float]) -> Made:
    """A run of which one entry of an array is another."""
    items, run = made(rng)
    array = getattr(run, name).copy()
    array[tuple(rng.integers(n) for n in array.shape)] = rng.choice(values)
    return items, replace(run, **{name: array})


def with_rows(rng: np.random.Generator) -> Made:
    """Rows too few, or a column too many."""
    items, run = made(rng)
    if rng.random() < 0.5:
        n = int(rng.integers(1, N_ITEMS))
        return items, replace(run, logits=run.logits[:n], logsumexp=run.logsumexp[:n], top_token=run.top_token[:n])
    return items, replace(run, logits=np.hstack([run.logits, run.logits[:, :1]]))


def empty(rng: np.random.Generator) -> Made:
    """No item at all."""
    items, run = made(rng)
    items = replace(items, texts=(), **{name: array[:0] for name, array in items.arrays().items()})
    key = run.key.model_copy(update={"items_hash": items.digest})
    return items, replace(run, key=key, logits=run.logits[:0], logsumexp=run.logsumexp[:0], top_token=run.top_token[:0])


def with_texts(rng: np.random.Generator) -> Made:
    """Texts of other items, or rubbish."""
    items, run = made(rng)
    other = tuple(rng.permutation(items.texts).tolist()) if rng.random() < 0.5 else ("{}",) * N_ITEMS
    return replace(items, texts=other), run


def with_key(rng: np.random.Generator) -> Made:
    """A run that says another task than its items do."""
    items, run = made(rng)
    return items, replace(run, key=run.key.model_copy(update={"task": "mmlu"}))


ARRAYS: dict[str, Callable[[np.random.Generator], Made]] = {
    "nothing": made,
    "answer": lambda rng: with_items(rng, "answer", [-1, 3, 9, 30_000]),
    "n_options": lambda rng: with_items(rng, "n_options", [-1, 0, 1, 2, 99]),
    "subject": lambda rng: with_items(rng, "subject", [-1, 2, 2**31 - 1]),
    "item_id": lambda rng: with_items(rng, "item_id", [0, 1]),
    "content": lambda rng: with_items(rng, "content", [0, 1]),
    "demonstration": lambda rng: with_items(rng, "demonstration", [0, 1]),
    "logits": lambda rng: with_run(rng, "logits", [np.nan, np.inf, -np.inf, 1e38, 0.0]),
    "logsumexp": lambda rng: with_run(rng, "logsumexp", [np.nan, np.inf, -np.inf, -1e38, 1e38]),
    "top_token": lambda rng: with_run(rng, "top_token", [-(2**31), -1, 2**31 - 1]),
    "rows": with_rows,
    "empty": empty,
    "texts": with_texts,
    "key": with_key,
}
HOSTILE: list[Any] = [
    None, True, -1, 2**63, 2**80, 10**400, 1e308, "", "x" * 5_000, "\x1b[2J", "w" + "9" * 50 + "a16", "1e-99999999", "nan", [], {}, [[]],
    {"": None}, 0.5, 0,
]  # fmt: skip


def packed(items: ItemSet, run: Run) -> Nodes:
    """A run with its items, and the same logits as those of a compressed model, so that there is something to compare."""
    compressed = replace(run, key=run.key.model_copy(update={"method": "rtn", "level": "w4a16-g128"}))
    n_options = items.n_options[: len(run.logits)]
    return dict([*encode_items(items), *encode_run(run, n_options), *encode_run(compressed, n_options)])


def with_attribute(rng: np.random.Generator) -> Nodes:
    """One attribute, or one member of key or environment, is of another kind; the seal fits, and so does the name of a run."""
    items, run = made(rng)
    nodes = packed(items, run)
    groups = [name for name in nodes if name.endswith("zarr.json") and "attributes" in json.loads(nodes[name])]
    name = rng.choice([each for each in groups if json.loads(nodes[each])["attributes"]])
    attributes = json.loads(nodes[name])["attributes"]
    inner = attributes[rng.choice(["key", "env"])] if "key" in attributes and rng.random() < 0.7 else attributes
    inner[rng.choice(sorted(inner))] = HOSTILE[rng.integers(len(HOSTILE))]
    attributes.pop("seal", None)
    nodes[name] = json.dumps(group_document(sealed(attributes))).encode()
    return nodes


def commit(url: str, nodes: Nodes) -> None:
    """Write nodes past every check, as a stranger's program could."""
    repository = open_repository(url)
    session = repository.writable()
    repository.keys_of(session).set_many(nodes.items())
    with repository.lock():
        session.commit("crafted")


def verdicts(url: str) -> dict[str, int]:
    """Run the commands that read a whole store; each ends in one sentence where it refuses it. Return their exit codes."""
    codes = {}
    for words in (("verify",), ("sets", "--scorer", "lac"), ("sets", "--p-values"), ("compare", "--scorer", "lac"), ("ls",)):
        main = store.cli.main.main if words[0] in ("verify", "ls") else analyzer.cli.main.main
        done = CliRunner().invoke(main, [*words, "--store", url])
        assert "Traceback" not in done.output and "internal error" not in done.output, (words, done.output)
        assert done.exit_code != 4 or done.stderr.splitlines()[-1].startswith("Error: StoreInvalidError: "), (words, done.stderr)
        codes[" ".join(words)] = done.exit_code
    return codes


def agree(codes: dict[str, int], unread: tuple[str, ...] = ("ls",)) -> bool:
    """Whether all refuse a store, or none; a command that does not read what is wrong may show the rest."""
    refused = {words: code == 4 for words, code in codes.items() if words not in unread or code == 4}
    return len(set(refused.values())) == 1


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("seed", range(3))
def test_verify_and_analyze_agree_on_crafted_arrays(kind: str, seed: int, store_url: str) -> None:
    """Contents that cannot be, with digests and seals that hold."""
    items, run = ARRAYS[kind](np.random.default_rng([seed, *kind.encode()]))
    commit(store_url, packed(items, run))
    codes = verdicts(store_url)
    unread = ("ls", "sets --scorer lac", "compare --scorer lac") if kind in ("texts", "content") else ("ls",)  # only p-values name items
    assert agree(codes, unread), codes
    assert kind != "nothing" or 4 not in codes.values()


@pytest.mark.parametrize("seed", range(40))
def test_verify_and_analyze_agree_on_crafted_attributes(seed: int, store_url: str) -> None:
    """Attributes of another kind, with seals that hold."""
    commit(store_url, with_attribute(np.random.default_rng(seed)))
    codes = verdicts(store_url)
    assert agree(codes), codes
