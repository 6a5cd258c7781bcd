"""Draw the pictures of the concepts from the example runs in `analyzer.api` and from larger ones that are simulated in the same way.

    python docs/concepts/pictures.py docs/concepts
"""

import sys
from collections.abc import Callable
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
import vl_convert
import xarray as xr

from analyzer.api import example_runs, gate, sets
from analyzer.report.charts.theme import for_paper

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"
LIMIT, N_SPLITS = 0.1, 200
RESULTS = {"pass": GREEN, "inconclusive": "#a8780a", "fail": ORANGE}


def threshold(data: xr.Dataset, alpha: float = 0.1) -> float:
    """Return the lac threshold when all items of a run calibrate: the ceil((n + 1)(1 - alpha))-th smallest of the answers' 1 - prob."""
    scores = np.sort(1 - probs(data)[np.arange(data.sizes["item"]), data["answer"].to_numpy()])
    return float(scores[int(np.ceil((scores.size + 1) * (1 - alpha))) - 1])


def probs(data: xr.Dataset) -> np.ndarray:
    """Return the probabilities (item, option) of a run without missing options."""
    exponentials = np.exp(data["logits"].to_numpy())
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def prediction_set() -> alt.Chart:
    """Draw the options of a sure, an unsure and a wrong question, and which of them are in the set."""
    dense = example_runs()[0]
    prob, answer, least = probs(dense), dense["answer"].to_numpy(), 1 - threshold(dense)
    size, right = (prob >= least).sum(axis=1), prob.argmax(axis=1) == answer
    covered = prob[np.arange(answer.size), answer] >= least
    kinds = {
        "sure and right": (size == 1) & right,
        "unsure: two options remain": (size == 2) & right,
        "its favourite is wrong, the set is right": (size == 2) & ~right & covered,
    }
    shown = {kind: int(np.flatnonzero(which)[0]) for kind, which in kinds.items()}
    rows = [
        {"question": kind, "option": f"{'ABCD'[j]}{' (right)' if answer[i] == j else ''}", "prob": float(prob[i, j]),
         "in": "in the set" if prob[i, j] >= least else "ruled out"}
        for kind, i in shown.items() for j in range(4)
    ]  # fmt: skip
    base = alt.Chart().encode(alt.Y("option:N", title=None))
    bars = base.mark_bar().encode(
        alt.X("prob:Q", title="probability", scale=alt.Scale(domain=[0, 1])),
        alt.Color("in:N", scale=alt.Scale(domain=["in the set", "ruled out"], range=[BLUE, "#b9c2cb"])),
    )
    line = alt.Chart().mark_rule(color=ORANGE, strokeWidth=2, strokeDash=[6, 4]).encode(x=alt.datum(least))
    of_kind = {kind: alt.Data(values=[row for row in rows if row["question"] == kind]) for kind in kinds}
    return alt.vconcat(*(alt.layer(bars, line, data=data).properties(title=kind, width=440, height=88) for kind, data in of_kind.items()))


def coverage_says_nothing() -> alt.Chart:
    """Draw coverage and set size of the dense run, a damaged one and one whose logits are noise."""
    dense, _, damaged = example_runs()
    noise = np.random.default_rng(1).normal(size=dense["logits"].shape)
    guessing = dense.assign(logits=(("item", "option"), noise)).assign_attrs(method="noise", level="-")
    names = {"dense": "the dense model", "wanda": "badly compressed", "noise": "logits are pure noise"}
    table = sets([dense, damaged, guessing], scorers="lac").with_columns(name=pl.col("method").replace_strict(names))
    order = list(names.values())

    def panel(column: str, title: str, top: float, text: str, colour: str) -> alt.Chart:
        base = alt.Chart(alt.Data(values=table.select("name", column).to_dicts())).encode(
            alt.Y("name:N", sort=order, title=None), alt.X(f"{column}:Q", title=title, scale=alt.Scale(domain=[0, top]))
        )
        numbers = base.mark_text(align="left", dx=4).encode(text=alt.Text(f"{column}:Q", format=text))
        return (base.mark_bar(color=colour) + numbers).properties(width=420, height=100)

    return panel("coverage", "coverage: share of answers in their sets", 1.1, ".2f", "#8a949e") & panel(
        "set_size", "set size: mean number of options in a set", 4.4, ".2f", BLUE
    )


def all_splits() -> alt.Chart:
    """Draw coverage and set size of single random splits, and their exact mean over all splits."""
    dense = example_runs()[0]
    one = pl.concat([sets(dense, scorers="lac", split=f"seed:{seed}") for seed in range(N_SPLITS)])
    exact = sets(dense, scorers="lac")
    x = alt.X("coverage:Q", title="coverage", scale=alt.Scale(domain=[0.75, 1]))
    y = alt.Y("set_size:Q", title="set size", scale=alt.Scale(domain=[0.9, 1.8]))
    drawn, exactly = (alt.Chart(alt.Data(values=table.select("coverage", "set_size").to_dicts())).encode(x, y) for table in (one, exact))
    dots = drawn.mark_circle(color=BLUE, opacity=0.25, size=40)
    mean = exactly.mark_point(color=ORANGE, filled=True, size=220, shape="diamond", opacity=1)
    return (dots + mean).properties(width=460, height=280)


def simulated(n_items: int, rng: np.random.Generator) -> list[xr.Dataset]:
    """Return a dense run of n_items, one that is hardly changed and one that is damaged, in the manner of `example_runs`."""
    answer = rng.integers(0, 4, n_items)
    logits = rng.normal(size=(n_items, 4))
    logits[np.arange(n_items), answer] += 2
    change = rng.normal(size=logits.shape)
    same = {"model": "example-7b", "task": "quiz"}
    return [
        xr.Dataset(
            {"logits": (("item", "option"), logits + noise * change), "answer": ("item", answer)},
            attrs=same | {"method": method, "level": level},
        )
        for method, level, noise in (("dense", "-", 0.0), ("wanda", "0.3", 0.25), ("wanda", "0.5", 0.7))
    ]


def gate_decides() -> alt.Chart:
    """Draw what the gate knows of two compressed models from 100, 400, 1,600 and 6,400 questions; with 100 there is no interval."""
    rng = np.random.default_rng(5)
    tables = [gate(simulated(n, rng), scorers="lac", limits={"set_size_growth": LIMIT}) for n in (100, 400, 1600, 6400)]
    names = {"0.3": "slightly changed model", "0.5": "damaged model"}
    columns = ["level", "n_items", "amount", "amount_low", "amount_high", "result"]
    rows = [row for table in tables for row in table.filter(check="set_size_growth").select(columns).to_dicts()]
    y = alt.Y("n_items:O", title="questions", sort="ascending")
    colour = alt.Color("result:N", scale=alt.Scale(domain=list(RESULTS), range=list(RESULTS.values())))
    x = alt.X("amount_low:Q", title="growth of the mean set, in options", scale=alt.Scale(domain=[-0.4, 0.8]))
    limit = alt.Chart().mark_rule(strokeWidth=2, strokeDash=[6, 4], color="#1c2127").encode(x=alt.datum(LIMIT))
    charts = []
    for level, name in names.items():
        data = alt.Data(values=[row for row in rows if row["level"] == level])
        known = alt.Chart().transform_filter("datum.amount_low != null")
        bar = known.mark_rule(strokeWidth=5).encode(x, alt.X2("amount_high:Q"), y, colour)
        dot = alt.Chart().mark_point(filled=True, size=90, opacity=1).encode(alt.X("amount:Q"), y, colour)
        charts.append(alt.layer(bar, dot, limit, data=data).properties(width=440, height=120, title=name))
    return alt.vconcat(*charts)


PICTURES: dict[str, Callable[[], alt.Chart]] = {
    "prediction_set": prediction_set,
    "coverage_says_nothing": coverage_says_nothing,
    "all_splits": all_splits,
    "gate": gate_decides,
}


def main(folder: Path) -> None:
    """Write every picture as SVG into a folder."""
    for name, draw in PICTURES.items():
        (folder / f"{name}.svg").write_text(vl_convert.vegalite_to_svg(for_paper(draw().to_dict())), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
