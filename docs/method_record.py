"""Every compression method at its usual levels: how far answers and tokens move, how large the model is, how long it took.

    python docs/method_record.py record-store --model ref-m --model ref-l > docs/method_record.md

Runs `produce` for each model and method, over the items of the tasks and a text, into the store; what the store already holds is not run
again. Prints a table in Markdown, then which orders of methods the text shows: differences of the mean KL per token, with 95 % intervals by
document. A method that a model cannot take is listed with the reason.
"""

import argparse
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from analyzer.api import compare, text
from analyzer.stats.clusters import clusters_of
from analyzer.stats.estimate import mean
from analyzer.tables.numbers import fixed, fixed_interval
from schemas.run import DENSE, Run, TokenArrays
from store import open_reader


class Made(NamedTuple):
    """One call of `produce`: a method at some levels, with further options."""

    method: str
    levels: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


MADE = (
    Made(DENSE),
    Made("rtn", ("w8a16-g32", "w4a16-g32", "w3a16-g32", "w2a16-g32", "w8a8-fp8", "mxfp8", "nvfp4", "mxfp4")),
    Made("rtn", ("w4afp8",)),  # by itself, since it needs groups of 128 columns, which not every model has
    Made("gptq", ("w4a16-g32", "w3a16-g32", "w2a16-g32", "nvfp4", "mxfp4")),
    Made("awq", ("w4a16-g32", "w3a16-g32")),
    Made("awq", ("w3a16-g32",), ("--set", "clip=none")),
    Made("autoround", ("w4a16-g32", "w3a16-g32", "w2a16-g32")),
    Made("smoothquant", ("w8a8", "w6a6")),
    Made("quarot", ("w8a8", "w4a4")),
    Made("quarot", ("w4a4",), ("--set", "weight_clip=none", "--set", "activation_clip=1")),
    Made("quarot", ("w4a4",), ("--kv", "int4")),
    Made("spinquant", ("w4a4",)),
    Made("magnitude", ("0.3", "0.5", "2:4")),
    Made("wanda", ("0.3", "0.5", "2:4")),
    Made("sparsegpt", ("0.3", "0.5", "2:4")),
    Made("llm-pruner", ("0.2",)),
    Made("slicegpt", ("0.2",)),
    Made("kv", ("fp8", "int8", "int4", "nvfp4")),
)
UNLIKE = {"awq": ("clip",), "quarot": ("weight_clip", "activation_clip")}  # settings that MADE varies, which the table names
# The first of two is expected to change the model less.
ORDERS = (
    ("rtn w8a8-fp8", "rtn nvfp4"),
    ("rtn nvfp4", "rtn mxfp4"),
    ("gptq nvfp4", "gptq mxfp4"),
    ("gptq nvfp4", "rtn nvfp4"),
    ("gptq w3a16-g32", "rtn w3a16-g32"),
    ("awq w3a16-g32 clip=search", "awq w3a16-g32 clip=none"),
    ("autoround w3a16-g32", "rtn w3a16-g32"),
    ("quarot w4a4 weight_clip=search activation_clip=0.9", "quarot w4a4 weight_clip=none activation_clip=1"),
    ("wanda 0.5", "magnitude 0.5"),
    ("sparsegpt 0.5", "wanda 0.5"),
    ("sparsegpt 2:4", "wanda 2:4"),
    ("kv fp8", "kv nvfp4"),
    ("kv int8", "kv int4"),
)
COLUMNS = ("method and level", "MB", "bits", "KL of options", "KL per token", "Δ accuracy", "Δ set size", "seconds to compress")


def main() -> None:
    """Make the runs that are missing, and print the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--model", action="append", required=True, dest="models", help="as for produce; repeatable")
    parser.add_argument("--text", default="embedded", help="as for produce [embedded]")
    parser.add_argument("--workers", type=int, default=1, help="models at a time [1]")
    arguments, options = parser.parse_known_args()  # the rest is for produce, such as --task, --limit and --device
    with ThreadPoolExecutor(arguments.workers) as pool:
        refused = list(pool.map(lambda model: list(_make(arguments, model, options)), arguments.models))
    for model, reasons in zip(arguments.models, refused, strict=True):
        print("\n".join(_section(arguments.store, model, reasons)))


def _make(arguments: argparse.Namespace, model: str, options: list[str]) -> Iterator[str]:
    """Run `produce` for every method; yield a sentence for each call that failed."""
    for made in MADE:
        levels = [word for level in made.levels for word in ("--level", level)]
        asked = ["--store", arguments.store, "--model", model, "--text", arguments.text, *options]
        words = [sys.executable, "-m", "producer", *asked, "--method", made.method, *levels, *made.options]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"{made.method} {', '.join(made.levels)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"


def _section(store: str, model: str, refused: list[str]) -> Iterator[str]:
    """Yield the lines about one model."""
    reader = open_reader(store)
    runs = {row["name"]: reader.run(row["name"]) for row in reader.catalog.to_dicts() if row["model"] == model}
    usual = Counter(run.key.dtype for run in runs.values()).most_common(1)[0][0]
    texts = {_label(run, usual): run for run in runs.values() if run.tokens}
    changes: dict[str, list[dict[str, Any]]] = {}
    for row in compare(store, model=model, scorers="lac").to_dicts():
        changes.setdefault(_label(runs[row["run"]], usual), []).append(row)
    dense = texts[DENSE]
    n_items = {run.key.task: len(run.logits) for run in runs.values() if not run.tokens}
    asked = ", ".join(f"{count:,} items of {task}" for task, count in sorted(n_items.items()))
    tokens = f"a text of {len(dense.tokens.kl):,} tokens in {len(dense.tokens.offsets) - 1} documents"
    yield f"## {model}\n\n{asked}; {tokens}. {dense.env.device}, {dense.key.dtype}.\n"
    yield f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
    on_text = {row["run"]: row for row in text(store, model=model).to_dicts()}
    for label, run in sorted(texts.items(), key=_in_order):
        if run.key.method != DENSE:
            yield _row(label, run, changes.get(label, []), on_text[run.key.name])
    yield ""
    others = sorted({run.key.dtype for run in texts.values()} - {usual})
    for less, more in ((f"{a}{end}", f"{b}{end}") for a, b in ORDERS for end in ("", *map(_of_dtype, others))):
        if less in texts and more in texts:
            yield _order(less, texts[less].tokens, more, texts[more].tokens)
    yield "".join(f"\n- Not run: {reason}" for reason in refused) + "\n"


def _of_dtype(dtype: str) -> str:
    return f" in {dtype}"


def _label(run: Run, usual: str) -> str:
    """Return method, level, the settings in which runs here differ, and the dtype if it is not the usual one of the model's runs."""
    key = run.key
    settings = [f"{name}={_plain(key.method_settings[name])}" for name in UNLIKE.get(key.method, ()) if name in key.method_settings]
    label = " ".join([key.method, *([key.level] if key.method != DENSE else []), *settings])
    return label if key.dtype == usual else label + _of_dtype(key.dtype)


def _plain(setting: object) -> str:
    """Return a setting as it is given to `produce`: a search is stored with its own settings, none as an empty mapping."""
    if isinstance(setting, Mapping):
        return "search" if setting else "none"
    return f"{setting:g}" if isinstance(setting, float) else str(setting)


def _in_order(labelled: tuple[str, Run]) -> tuple[int, int, str]:
    """Sort by the order of MADE."""
    key = labelled[1].key
    methods = list(dict.fromkeys(made.method for made in MADE))
    levels = [level for made in MADE if made.method == key.method for level in made.levels]
    return methods.index(key.method), levels.index(key.level) if key.level in levels else len(levels), labelled[0]


def _row(label: str, run: Run, changes: list[dict[str, Any]], on_text: dict[str, Any]) -> str:
    """Return a line of the table; figures over several tasks stand side by side."""
    measured = run.env.post_conditions
    tasks = sorted(changes, key=lambda row: row["task"])
    cells = [
        label,
        f"{measured['bytes'] / 1e6:.2f}" if "bytes" in measured else "-",
        f"{measured['bits_per_weight']:.2f}" if "bits_per_weight" in measured else "-",
        ", ".join(f"{row['kl']:.5f}" for row in tasks),
        f"{on_text['kl']:.5f} {fixed_interval(on_text['kl_low'], on_text['kl_high'], 5)}",
        ", ".join(_change(row, "accuracy_change") for row in tasks),
        ", ".join(_change(row, "set_size_change") for row in tasks),
        f"{run.env.throughput['compression_s']:.1f}" if "compression_s" in run.env.throughput else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _change(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return fixed(row[name], 3, sign=True) + (f" {fixed_interval(low, high, 3, sign=True)}" if low is not None else "")


def _order(less: str, of_less: TokenArrays, more: str, of_more: TokenArrays) -> str:
    """Say whether the first changes tokens less than the second: the mean difference of their KL, by document."""
    lengths = np.diff(of_less.offsets)
    documents = clusters_of(np.repeat(np.arange(len(lengths)), lengths), len(lengths))
    change = mean(of_more.kl.astype(np.float64) - of_less.kl, documents)
    low, high = change.interval()
    result = "as expected" if low > 0 else "the other way round" if high < 0 else "no difference shown"
    return f"- {less} before {more}: {result}, {fixed(change.value, 5, sign=True)} {fixed_interval(low, high, 5, sign=True)} nats a token"


if __name__ == "__main__":
    main()
