"""Make the golden store of schema version 4: python tests/golden/make_store_v4.py TARGET.zip.

Run once, with the version that first had the schema; the file is kept and never made again. It holds a run of every kind: with and
without text, with NaN logits, imported, with and without the fields that version 2 added, and one over a text.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from schemas.items import Item
from schemas.itemset import build_item_set
from schemas.run import Environment, Run, RunKey, TokenArrays
from store import init_store, open_reader, open_writer
from store.exchange.zip_file import write_zip

TOKENS = "ab" * 32
NOTES = ("2 of 9 items were not asked",)


def make(target: Path) -> None:
    """Write the golden file."""
    with tempfile.TemporaryDirectory() as folder:
        url = str(Path(folder) / "store")
        init_store(url)
        choices = [{letter: f"{letter}{i}" for letter in "ABC"} for i in range(7)]
        with_text = []
        for i, options in enumerate(choices):
            with_text.append(Item(id=str(i), answer="ABC"[i % 3], question=f"Größe {i}?", choices=options, subject=f"s{i % 2}"))
        without = [Item(id=str(i), answer="ABCDEF"[i % 6], source="halusum") for i in range(5)]
        urn = build_item_set("urn", with_text, revision="seed:1", demonstrations=("1",))
        halusum = build_item_set("halusum", without, n_options=[6] * len(without))
        with open_writer(url) as writer:
            for items, method, level in ((urn, "dense", "-"), (urn, "wanda", "2:4"), (halusum, "rtn", "w4a16-g128")):
                shape = len(items), int(items.n_options.max())
                logits = (np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape) - 3) / 8
                if method == "rtn":
                    logits[0, 0] = np.nan
                names = {"model": "ref-s", "method": method, "level": level, "task": items.task, "prompt": "base"}
                key = RunKey(
                    **names, items_hash=items.digest, method_settings={"a": [1, 0.5]}, tokens_hash=TOKENS if method == "dense" else ""
                )
                env = Environment(
                    libraries={"numpy": "2.0"},
                    created="2026-01-02T03:04:05+00:00",
                    duration_s=1.5,
                    origin="made by hand",
                    **({"notes": NOTES, "dropped_items": 2} if method == "dense" else {}),
                )
                run = Run(key, logits, logits[:, 0].copy(), np.arange(shape[0], dtype=np.int32), env=env)
                writer.write(items, run, allow_nonfinite=True)
            documents = build_item_set("text:story", [Item(id=str(i), answer="A", source="story") for i in range(2)], n_options=[1, 1])
            logprob, kl = -np.arange(1, 6, dtype=np.float32) / 4, np.arange(5, dtype=np.float32) / 8
            tokens = TokenArrays(logprob, kl, np.array([True, False, True, True, False]), np.array([0, 2, 5], dtype=np.int64))
            key = RunKey(model="ref-s", method="rtn", level="w4a16", task="text:story", items_hash=documents.digest, prompt="text")
            means = np.array([[logprob[:2].mean()], [logprob[2:].mean()]], dtype=np.float32)
            unknown = np.zeros(2, np.float32), np.full(2, -1, np.int32)
            writer.write(documents, Run(key, means, *unknown, env=Environment(created="2026-01-02T03:04:05+00:00"), tokens=tokens))
        write_zip(open_reader(url).keys, target)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
