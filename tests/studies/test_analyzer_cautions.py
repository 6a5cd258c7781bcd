"""What is said below a table without being asked: repeated questions, KL, prompts, recalibrated figures, missing intervals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from report_stores import embedded
from store_tiny import tiny_items, tiny_run, write_runs

from analyzer.cli.main import main
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.view import view_run
from analyzer.tables.cautions import KL, ONE_PROMPT, RECALIBRATED, TEMPERED, cautions
from producer.tasks.facts import facts
from schemas.items import Item
from schemas.itemset import build_item_set
from schemas.run import Run, RunKey
from store import init_store

BASE = {"model": "m", "method": "rtn", "level": "w4a16", "task": "quiz", "scorer": "lac", "alpha": 0.1, "accuracy": 0.5, "set_size": 2.0}


def items_of(texts: list[str], options: str = "xy") -> list[Item]:
    choices = [dict(zip("AB", (f"{options[0]}{i}", f"{options[1]}{i}"), strict=True)) for i in range(len(texts))]
    return [Item(id=str(i), answer="A", question=text, choices=choices[i]) for i, text in enumerate(texts)]


def test_questions_are_counted_whatever_their_options() -> None:
    """The demo's `facts` asks 1,239 questions 2,005 times; what all items share is an instruction; items without text are one each."""
    assert len(np.unique(build_item_set("facts", facts()).question)) == 1_239
    assert len(np.unique(build_item_set("t", items_of(["Which is right?"] * 40)).question)) == 40
    assert len(np.unique(build_item_set("t", items_of(["a", "b", "a", "c"])).question)) == 3
    bare = build_item_set("t", [Item(id=str(i), answer="A") for i in range(5)], n_options=[4] * 5)
    assert len(np.unique(bare.question)) == 5


@pytest.mark.parametrize(("copies", "effect"), [(1, None), (2, 2.0), (5, 5.0)])
def test_the_design_effect_of_copied_items_is_their_number(copies: int, effect: float | None) -> None:
    """Every question asked twice with the same answers: half as many independent items, so twice the variance."""
    rng = np.random.default_rng(0)
    right = np.repeat(rng.random(400) < 0.6, copies)
    items = build_item_set("t", items_of([f"q{i // copies}" for i in range(right.size)]))
    logits = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0]).astype(np.float32)
    key = RunKey(model="m", method="dense", task="t", items_hash=items.digest, prompt="base")
    run = Run(key, logits, np.full(right.size, np.nan, np.float32), np.full(right.size, -1, np.int32))
    found = dependence(view_run(run, items, {}, "(in memory)"))
    assert found["n_questions"] == 400 and found["design_effect"] == (None if effect is None else pytest.approx(effect, rel=0.01))


def test_each_caution_stands_where_its_figures_are() -> None:
    """A table without KL, prompts or recalibrated figures has none of these sentences."""
    one = BASE | {"prompt": "base"}
    assert cautions([{"check": "kl"}], ["check"]) == []
    assert cautions([one], ["accuracy"]) == [ONE_PROMPT]
    assert cautions([one | {"kl": 0.1}], ["KL"]) == [KL, ONE_PROMPT] and cautions([one | {"kl": None}], ["KL"]) == [ONE_PROMPT]
    assert RECALIBRATED in cautions([one], ["coverage", "recalibrated"])
    assert TEMPERED in cautions([one | {"reliability": "temperature"}], ["accuracy"])
    assert cautions([one | {"set_size_note": "set size has no interval"}], [])[0] == "Set size has no interval."
    asked = {"n_items": 2005, "n_clusters": 1239, "n_questions": 1239, "cluster": "question", "design_effect": 1.31}
    repeated = cautions([one | asked], [])[0]
    assert repeated.startswith("2,005 items of quiz ask 1,239 different questions") and "1.31 times" in repeated


def test_the_spread_over_prompts_is_said() -> None:
    """Of two prompts the largest differences within one run, not between runs."""
    records = [BASE | {"prompt": "base"}, BASE | {"prompt": "task", "accuracy": 0.47, "set_size": 2.25}]
    records += [BASE | {"prompt": prompt, "level": "w3a16", "accuracy": 0.1} for prompt in ("base", "task")]
    assert cautions(records, []) == [
        "Between 2 prompts the accuracy of one run differs by up to 3.0 points, its set size by up to 0.25 options."
    ]


def test_what_was_noted_when_a_run_was_made_is_said_wherever_it_is_shown(tmp_path: Path) -> None:
    """Doubtful items of the compressed run stand below tables, in JUnit and Markdown, on the page, and in the records."""
    note = "3 of 60 items hold characters that the tokenizer does not know"
    items = tiny_items(n_items=60)
    made = tiny_run(items, method="wanda", level="0.5", seed=1)
    noted_run = replace(made, env=made.env.model_copy(update={"notes": (note,)}))
    url = str(tmp_path / "s")
    init_store(url)
    write_runs(url, items, [tiny_run(items), noted_run])

    def said(*words: str) -> str:
        return CliRunner().invoke(main, [*words, "--store", url]).stdout

    for command in (["sets"], ["compare"], ["gate", "--limit", "accuracy_loss=0.9"]):
        assert f"Noted when {made.key.name} was made: {note}." in " ".join(said(*command).split()), command
    assert note in said("sets", "--format", "json")
    said("gate", "--limit", "accuracy_loss=0.9", "--junit", str(tmp_path / "g.xml"), "--markdown", str(tmp_path / "g.md"))
    assert note in (tmp_path / "g.xml").read_text() and note in (tmp_path / "g.md").read_text()
    said("report", "--out", str(tmp_path / "r.html"))
    html = (tmp_path / "r.html").read_text()
    assert note in json.dumps(embedded(html)) and "1 of 2 runs has notes." in html


def test_many_notes_do_not_bury_a_table() -> None:
    """Five different notes are told, and how many runs have more."""
    records = [{"run": f"r{number}", "noted": f"note {number}"} for number in range(8)]
    told = cautions(records, [])
    assert len(told) == 6 and told[0] == "Noted when r0 was made: note 0." and told[-1].startswith("3 more runs")
