"""What is damaged, one kind of foreign material each, and which commands then meet it.

In: a generator, and an empty folder.  Out: a `Trial`: the command lines to run, and for those that read a damaged store what they
print of the undamaged one. Honest material is made once a process.
"""

import json
import os
import pickle
import shutil
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from mutate import HOSTILE, damaged_bytes, damaged_document, hostile
from store_tiny import tiny_items, tiny_run, write_runs

import analyzer.cli.main
import producer.cli.main
import store.cli.main
from store import init_store

MAINS: dict[str, Any] = {"produce": producer.cli.main.main, "store": store.cli.main.main, "analyze": analyzer.cli.main.main}
READERS = [
    ("analyze", "sets", "--format", "json"),
    ("analyze", "compare", "--format", "json", "--scorer", "lac"),
    ("analyze", "gate", "--format", "json", "--limit", "flips=0.9"),
    ("analyze", "sets", "--format", "csv", "--at", "v1"),
    ("store", "ls", "--format", "json"),
    ("store", "log"),
    ("store", "show", "--format", "json", "RUN"),
    ("store", "verify"),
    ("store", "verify", "--key", "KEY"),
]


HAS_TORCH = find_spec("torch") is not None


class Trial(NamedTuple):
    """Command lines, and for each what it prints when nothing is damaged; None where nothing is known of its output."""

    lines: list[tuple[str, ...]]
    truths: list[str | None]


def invoke(line: tuple[str, ...]) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(MAINS[line[0]], line[1:])


@cache
def honest(kind: str) -> Path:
    """A folder of undamaged material, made once a process and gone with it."""
    folder = Path(tempfile.mkdtemp(prefix=f"honest-{kind}-", dir=os.environ["FUZZ_FOLDER"]))
    MAKERS[kind](folder)
    return folder


def make_store(folder: Path) -> None:
    """Three runs of one model and one of another task, in two commits, signed and tagged."""
    address = str(folder / "store")
    init_store(address)
    items = tiny_items(n_items=60)
    levels = (("dense", "-"), ("wanda", "0.5"), ("rtn", "w4a16-g128"))
    write_runs(address, items, [tiny_run(items, seed=seed, method=m, level=level) for seed, (m, level) in enumerate(levels)])
    other = tiny_items("facts", n_items=40)
    write_runs(address, other, [tiny_run(other)])
    key = Ed25519PrivateKey.generate()
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    done = invoke(("store", "tag", "v1", "--sign", str(folder / "key.pem"), "--store", address))
    assert done.exit_code == 0, done.output


def make_items(folder: Path) -> None:
    """The same questions as JSON, JSON lines and CSV."""
    rows = [
        {"id": str(i), "question": f"Which, {i}?", "choices": {"A": f"a{i}", "B": "b", "C": "c"}, "answer": "ABC"[i % 3], "subject": "s"}
        for i in range(12)
    ]
    (folder / "items.json").write_text(json.dumps(rows))
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))


def make_tables(folder: Path) -> None:
    """Twenty rows of logits as CSV and Parquet."""
    import polars as pl

    rng = np.random.default_rng(0)
    rows = [
        {"id": f"{i:04d}", "answer": "ABC"[i % 3], "subject": "s"} | {f"logit_{letter}": round(float(rng.normal()), 4) for letter in "ABC"}
        for i in range(20)
    ]
    pl.DataFrame(rows).write_csv(folder / "table.csv")
    pl.DataFrame(rows).write_parquet(folder / "table.parquet")


def make_samples(folder: Path) -> None:
    """Log-likelihood samples as lm-evaluation-harness writes them."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(12):
        values = rng.normal(-5, 1, 4).round(3).tolist()
        arguments = [[f"Question {i}?\nAnswer:", f" choice {k}"] for k in range(4)]
        responses = [[[value, False]] for value in values]
        doc = {"question": f"Question {i}?", "choices": [f"choice {k}" for k in range(4)], "answer": i % 4}
        lines.append(
            {"doc_id": i, "doc": doc, "target": i % 4}
            | {"arguments": arguments, "resps": responses, "filtered_resps": [r[0] for r in responses], "filter": "none"}
            | {"acc": float(int(np.argmax(values)) == i % 4)}
        )  # fmt: skip
    (folder / "samples_quiz_2026-01-01T00-00-00.jsonl").write_text("\n".join(map(json.dumps, lines)))


def make_pickles(folder: Path) -> None:
    """One file of published logits in the benchmark's own form, with its items."""
    make_items(folder)
    rows = json.loads((folder / "items.json").read_text())
    logits = {row["id"]: np.arange(3, dtype=np.float32) + i for i, row in enumerate(rows)}
    (folder / "quiz_m_base.pkl").write_bytes(pickle.dumps([{"id": key, "logits_options": value} for key, value in logits.items()]))


def make_zip(folder: Path) -> None:
    """A store as `store export` writes it."""
    done = invoke(("store", "export", str(folder / "export.zip"), "--store", str(honest("store") / "store")))
    assert done.exit_code == 0, done.output


TOMLS = {
    "policy": "[limits]\naccuracy_loss = 0.02\nset_size_growth = 0.1\n[task.urn]\nflips = 0.3\n",
    "prices": "currency = 'EUR'\n",
    "sweep": 'limit = 5\ntask = ["urn"]\n[[sweep]]\nmodel = ["ref-s"]\nmethod = ["dense", "wanda"]\nlevel = ["0.5"]\n',
}


def make_tomls(folder: Path) -> None:
    """A policy, a price list and a sweep."""
    for name, text in TOMLS.items():
        (folder / f"{name}.toml").write_text(text)
    line = ("produce", "--plan", str(folder / "sweep.toml"), "--dry-run", "--store", str(folder / "s"))
    done = invoke(line)  # so that no case waits for torch to be imported
    assert done.exit_code == 0 or not HAS_TORCH, done.output


def make_model(folder: Path) -> None:
    """The smallest embedded model as a folder of its own; it runs once, so that no case waits for torch to be imported."""
    shutil.copytree(Path(producer.__path__[0]) / "reference" / "models" / "ref-s", folder / "model")
    done = invoke(("produce", "--model", str(folder / "model"), "--task", "urn", "--limit", "3", "--store", str(folder / "store")))
    assert done.exit_code == 0, done.output


MAKERS: dict[str, Callable[[Path], None]] = {
    "store": make_store, "items": make_items, "tables": make_tables, "samples": make_samples, "pickles": make_pickles, "zips": make_zip,
    "tomls": make_tomls, "models": make_model,
}  # fmt: skip


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def damage_one(rng: np.random.Generator, paths: list[Path]) -> Path:
    """Damage one file in place: its bytes, or its document where it is JSON."""
    path = paths[rng.integers(len(paths))]
    data = path.read_bytes()
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.7:
        lines = data.decode().split("\n") if path.suffix == ".jsonl" else [data.decode()]
        at = int(rng.integers(len(lines)))
        try:
            lines[at] = json.dumps(damaged_document(rng, json.loads(lines[at])))
        except RecursionError:
            lines[at] = "[" * 5_000
        path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(damaged_bytes(rng, data))
    return path


def reader(rng: np.random.Generator) -> tuple[str, ...]:
    """Draw a command that reads a store."""
    words = {"KEY": str(honest("store") / "public.pem"), "RUN": tiny_run(tiny_items("facts", n_items=40)).key.name}
    return tuple(words.get(word, word) for word in READERS[rng.integers(len(READERS))])


@cache
def truth(line: tuple[str, ...]) -> str:
    """What a command prints of the undamaged store."""
    done = invoke((*line, "--store", str(honest("store") / "store")))
    assert done.exit_code in (0, 1, 3), (line, done.output)
    return done.stdout


def damaged_store(rng: np.random.Generator, folder: Path) -> Trial:
    """One file of a store is damaged, missing, or another's content."""
    address = folder / "store"
    shutil.copytree(honest("store") / "store", address)
    paths = files_of(address)
    kind = rng.integers(6)
    if kind == 0:
        paths[rng.integers(len(paths))].unlink()
    elif kind == 1:
        first, second = (paths[k] for k in rng.integers(0, len(paths), 2))
        first.write_bytes(second.read_bytes())
    else:
        damage_one(rng, paths)
    line = reader(rng)
    return Trial([(*line, "--store", str(address))], [truth(line)])


def damaged_cache(rng: np.random.Generator, folder: Path) -> Trial:
    """The store is whole, what this machine remembers of it is not."""
    os.environ["HEDGEMARK_CACHE"] = os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    line = reader(rng)
    whole = (*line, "--store", str(honest("store") / "store"))
    invoke(whole)
    paths = files_of(folder / "cache")
    if paths:
        damage_one(rng, paths)
    return Trial([whole], [truth(line)])


def damaged_items(rng: np.random.Generator, folder: Path) -> Trial:
    """A file of questions."""
    shutil.copytree(honest("items"), folder, dirs_exist_ok=True)
    path = damage_one(rng, files_of(folder))
    lines: list[tuple[str, ...]] = [
        ("produce", "--model", "bayes", "--method", "bayes", "--task", str(path), "--store", str(folder / "s"), "--dry-run"),
        ("store", "items", "check", str(path)),
    ]
    return Trial([lines[rng.integers(len(lines))]], [None])


def imported(importer: str, *words: str) -> Callable[[np.random.Generator, Path], Trial]:
    """Damage one of an importer's files, import it, and look at the result."""

    def trial(rng: np.random.Generator, folder: Path) -> Trial:
        shutil.copytree(honest(importer), folder, dirs_exist_ok=True)
        path = damage_one(rng, files_of(folder))
        address = str(folder / "made")
        named = [word.replace("FILE", str(path)).replace("FOLDER", str(folder)) for word in words]
        return Trial([("store", "import", *named, "--store", address), ("analyze", "sets", "--store", address)], [None, None])

    return trial


def damaged_toml(rng: np.random.Generator, folder: Path) -> Trial:
    """A policy, a price list or a sweep with a line that is wrong."""
    shutil.copytree(honest("tomls"), folder, dirs_exist_ok=True)
    name = list(TOMLS)[rng.integers(len(TOMLS))]
    path = folder / f"{name}.toml"
    rows = path.read_text().splitlines()
    at = int(rng.integers(len(rows)))
    left = rows[at].split("=")[0]
    try:
        right = json.dumps(hostile(rng)) if rng.random() < 0.9 else "[" * 5_000
    except RecursionError:
        right = "[" * 5_000
    rows[at] = f"{left}= {right}" if rng.random() < 0.8 else damaged_bytes(rng, rows[at].encode()).decode("latin-1")
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    whole = str(honest("store") / "store")
    line = {
        "policy": ("analyze", "gate", "--policy", str(path), "--store", whole),
        "prices": ("analyze", "cost", "--prices", str(path), "--store", whole),
        "sweep": ("produce", "--plan", str(path), "--dry-run", "--store", str(folder / "s")),
    }[name]
    return Trial([line], [None])


def hostile_words(rng: np.random.Generator, folder: Path) -> Trial:
    """Addresses and option values that no one means."""
    honest("tomls")  # so that no case waits for torch to be imported
    words = [str(value) for value in HOSTILE if isinstance(value, str) and "\x00" not in value and "\ud800" not in value]
    word = words[rng.integers(len(words))]
    whole = str(honest("store") / "store")
    names = ("level", "alpha", "split", "calibration-fraction", "model", "at", "scorer", "parameter", "protocol", "task")
    options = [f"--{name}" for name in names]
    lines: list[tuple[str, ...]] = [
        ("analyze", "sets", "--store", whole, options[rng.integers(len(options))], word),
        ("store", "ls", "--store", word),
        ("store", "push", word, "--store", whole),
        ("analyze", "gate", "--store", whole, "--limit", f"flips={word}"),
        ("produce", "--model", "ref-s", "--method", "wanda", "--level", word, "--task", "urn", "--dry-run", "--store", str(folder / "s")),
        ("store", "gc", "--store", str(folder / "s"), "--older-than", word),
    ]
    return Trial([lines[rng.integers(len(lines))]], [None])


def damaged_model(rng: np.random.Generator, folder: Path) -> Trial:
    """A model folder with one file wrong."""
    shutil.copytree(honest("models") / "model", folder / "model")
    damage_one(rng, files_of(folder / "model"))
    words = ("--task", "urn", "--limit", "3", "--store", str(folder / "s"))
    return Trial([("produce", "--model", str(folder / "model"), *words, *(["--dry-run"] if rng.random() < 0.5 else []))], [None])


KINDS: dict[str, Callable[[np.random.Generator, Path], Trial]] = {
    "store": damaged_store,
    "cache": damaged_cache,
    "items": damaged_items,
    "table": imported("tables", "table", "--model", "m", "--task", "quiz", "FILE"),
    "lm-eval": imported("samples", "lm-eval", "--model", "m", "FILE"),
    "pickle": imported("pickles", "ye2024", "--data", "FOLDER", "--logits", "FOLDER"),
    "zip": imported("zips", "zip", "FILE"),
    "toml": damaged_toml,
    "words": hostile_words,
}
if HAS_TORCH:
    KINDS["model"] = damaged_model
