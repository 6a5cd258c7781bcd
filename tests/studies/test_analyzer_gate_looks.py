"""A gate that may be asked again: the plan of its looks, what every form of its result says about them, and its errors over all looks.

As a program it prints the rows of analyzer/validity.md about models at their limit:

    PYTHONPATH=tests/support python tests/studies/test_analyzer_gate_looks.py KIND TRIALS SPENDING
"""

import math
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from click.testing import CliRunner
from gate_models import ALPHA, KINDS, bounded, compared, draw, truth
from looks_on_runs import tallies
from scipy.special import betaincinv, ndtri

from analyzer import api
from analyzer.cli.main import main
from analyzer.gate.ci_reports import again, correction, junit, last_line, markdown
from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS, TAIL, gate, outcome
from analyzer.gate.looks import SPENDING, Looks, look_at
from analyzer.gate.policy import LIMITABLE, Limit, read_policy
from analyzer.measure.question import Question
from analyzer.runs.loading import Runs, select_runs
from analyzer.tables.columns import GATE
from analyzer.tables.terminal import render
from schemas.errors import UsageError

LAC = Question(scorers=("lac",))
THREE = Looks(items=(500, 1_000, 2_000))
TWENTY = tuple(range(100, 2_001, 100))
FIGURES = ("accuracy_loss", "flips", "kl", "set_size_growth", "coverage_after_transfer")
POLICY = "[limits]\naccuracy_loss = 0.02\n[looks]\n"


def models(n_items: int, seed: int = 0, noise: float = 0.5, subjects: int = 1) -> Runs:
    """A dense run and a noisy copy of it."""
    rng = np.random.default_rng(seed)
    items = item_set(rng.integers(0, 4, n_items), subjects=subjects)
    logits = skilled_logits(rng, items.answer, 4)
    runs = [make_run(items, logits), make_run(items, logits + noise * rng.normal(size=logits.shape), method="rtn", level="w4a16")]
    return select_runs(MemoryReader([items], runs), {})


@pytest.mark.parametrize(
    ("spending", "published"),
    [("obrien-fleming", 4.877), ("pocock", 2.438)],  # first of five equal looks, as in gsDesign and ldbounds
)
def test_the_first_boundary_is_the_published_one_golden(spending: str, published: float) -> None:
    """At the first look nothing was spent before, so that its boundary is that of the published tables, two-sided 5 %."""
    assert -ndtri(Looks(items=(1, 2, 3, 4, 5), spending=spending).tails(0.025)[0]) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("items", [(500,), (100, 150, 500, 520, 600), TWENTY, (1, 10**9)])
def test_the_looks_share_the_whole_error(spending: str, items: tuple[int, ...]) -> None:
    """Every look has a part that is not negative, and the parts sum to the error of a single look."""
    tails = Looks(items=items, spending=spending).tails(TAIL)
    assert min(tails) >= 0 and sum(tails) == pytest.approx(TAIL, rel=1e-12)


def test_which_look_follows_from_the_number_of_items() -> None:
    """A planned number is a look; any other is none, and the sentence says where to look next or that the plan is over."""
    look = look_at(THREE, 1_000, TAIL)
    assert (look.number, [later.items for later in look.later], look.problem) == (2, [2_000], None)
    assert look.tail == pytest.approx(THREE.tails(TAIL)[1])
    assert look_at(None, 777, TAIL).tail == TAIL
    for n_items, words in (
        (0, "0 items are no look of the plan (500, 1,000 and 2,000 items, obrien-fleming); ask again with 500"),
        (999, "999 items are no look of the plan (500, 1,000 and 2,000 items, obrien-fleming); ask again with 1,000"),
        (2_001, "its error is spent by then; make a new plan and use new items"),
    ):
        look = look_at(THREE, n_items, TAIL)
        assert look.number is None and look.tail == 0 and words in (look.problem or "")


@pytest.mark.parametrize("figure", FIGURES)
def test_the_printed_interval_is_the_one_of_the_look(figure: str) -> None:
    """At each look the ends are those of its own part of the error, and they alone decide; outside the plan there is no interval."""
    question = LAC
    for number, n_items in enumerate(THREE.items):
        runs, tail = models(n_items, noise=1.0), THREE.tails(TAIL)[number]
        for limit in (0.01, 0.2, 0.85, 0.95):
            asked = [Limit(figure, limit, worst_value=40.0), Limit("flips_to_wrong", 0.5)]
            (record,) = (r for r in gate(runs, question, asked, looks=THREE) if r["check"] == figure)
            (once,) = (r for r in gate(runs, question, asked) if r["check"] == figure)
            assert (record["look"], record["n_looks"], record["look_error"]) == (number + 1, 3, pytest.approx(tail))
            low, high = record["amount_low"], record["amount_high"]
            assert (low is None or low < once["amount_low"]) and (high is None or high > once["amount_high"])
            low, high = -math.inf if low is None else low, math.inf if high is None else high
            good, bad = (low >= limit, high < limit) if LIMITABLE[figure].at_least else (high <= limit, low > limit)
            assert record["result"] == (INCONCLUSIVE if record["reason"] else PASS if good else FAIL if bad else INCONCLUSIVE)
            assert record["next_look"] == ([1_000, 2_000, None][number] if record["result"] == INCONCLUSIVE else None)
    (record,) = (r for r in gate(models(700), question, [Limit(figure, 0.5)], looks=THREE) if r["check"] == figure)
    assert (record["result"], record["amount_low"], record["look"], record["next_look"]) == (INCONCLUSIVE, None, None, 1_000)
    assert "700 items are no look of the plan" in record["reason"] and record["amount"] is not None


def test_one_planned_look_is_the_gate_asked_once() -> None:
    """A plan of a single look gives the ends, results and numbers of items of no plan, but names no further look."""
    runs, limits = models(600), [Limit("flips", 0.3), Limit("kl", 0.001), Limit("accuracy_loss", 0.02)]
    planned, once = (gate(runs, LAC, limits, looks=looks) for looks in (Looks(items=(600,)), None))
    for name in ("result", "result_together"):
        assert [r[name] for r in planned] == [r[name] for r in once]
    for name in ("amount_low", "amount_high"):  # the level of a look is computed, and may differ in the last digit
        ends = [np.array([r[name] for r in records], dtype=np.float64) for records in (planned, once)]
        np.testing.assert_allclose(*ends, rtol=1e-12)
    assert {r["next_look"] for r in planned} == {None}


def test_items_needed_are_those_of_a_later_look() -> None:
    """The number of items that would decide has the error of the first later look that has as many; subjects count their own."""
    runs = models(500, noise=0.7, subjects=2)
    limits = [Limit("accuracy_loss", 0.06), Limit("accuracy_loss", 0.1, worst_subject=True)]
    open_checks = [r for r in gate(runs, LAC, limits, looks=THREE) if r["result"] == INCONCLUSIVE and r["limit"]]
    assert open_checks
    for record in open_checks:
        assert record["next_look"] == 1_000
        assert record["items_needed"] is None or record["items_needed"] > 500 / (2 if record["subject"] else 1)
    last = gate(models(2_000, noise=0.7), LAC, [Limit("accuracy_loss", 0.05)], looks=THREE)
    assert last[-1]["result"] != INCONCLUSIVE or last[-1]["items_needed"] is None


def test_every_form_says_which_look_it_is_and_which_is_next() -> None:
    """Table, JUnit, Markdown and the last lines name look, error and next look; asked once, they warn of asking again."""
    runs, limits = models(1_000), [Limit("accuracy_loss", 0.02), Limit("flips", 0.9)]
    records = gate(runs, LAC, limits, looks=THREE)
    assert outcome(records) == INCONCLUSIVE
    said = again(records)
    assert "Looks are planned at 500, 1,000 and 2,000 items, obrien-fleming" in said
    assert "Look 2 of 3, at 1,000 items, may err with 0.15 %" in said
    assert said.endswith("Look next at 2,000 items, which the plan has error left for.")
    assert "2.5 % over all looks" in correction(records)
    assert said in markdown(records) and said in "".join(ET.fromstring(junit(records)).itertext())
    assert "look 2 of 3" in markdown(records) and "next look at 2,000 items" in junit(records)
    table = render(records, GATE, width=200)
    assert "2 of 3, 0.15 %" in table and "next look" in table and "2,000" in table
    assert "20 such looks pass up to 12 %" in again(gate(runs, LAC, limits)) and "over all looks" not in correction(gate(runs, LAC, limits))
    assert again(gate(runs, LAC, limits[1:])) == "" and "Look next" not in again(gate(runs, LAC, limits[1:], looks=THREE))
    ended = again(gate(models(2_000), LAC, [Limit("accuracy_loss", 0.036)], looks=THREE))
    assert "This was the last look: its plan has no error left" in ended
    assert "gate: inconclusive" in last_line(records)
    failed = [record | {"level": "w3a16", "result": FAIL} for record in records]
    assert again([*records, *failed]) == said and "Look next" not in again(failed)


def test_the_command_and_the_function_agree(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit 3 says on stderr at how many items to look next; the API has the same fields; a file's looks reach both."""
    runs, path = models(1_000), tmp_path / "policy.toml"
    path.write_text(POLICY + "items = [500, 1000, 2000]\nspending = 'pocock'\n")
    monkeypatch.setattr("analyzer.runs.loading.open_runs", lambda *args, **kwargs: runs)
    result = CliRunner().invoke(main, ["gate", "--scorer", "lac", "--policy", str(path), "--format", "json"])
    assert result.exit_code == 3 and "Look next at 2,000 items" in result.stderr
    monkeypatch.setattr("analyzer.api.sources.open_runs", lambda *args, **kwargs: runs)
    table = api.gate("store", policy=path, scorers="lac")
    assert table["look"].to_list() == [2, 2] and table["looks"][0] == "500, 1,000 and 2,000 items, pocock"
    assert f'"amount_high": {table["amount_high"][1]}' in result.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "looks.items"),
        ("items = []\n", "looks.items"),
        ("items = [500, 500]\n", "does not rise"),
        ("items = [500, 200]\n", "does not rise"),
        ("items = [0, 200]\n", "looks.items.0.* is 0"),
        ("items = [true]\n", "looks.items.0.* is True"),
        ("items = [5.5]\n", "looks.items.0.* is 5.5"),
        ("items = ['500']\n", "looks.items.0"),
        ("items = 500\n", "looks.items"),
        ("items = [500]\nspending = 'all'\n", "'looks.spending' is 'all'.*'obrien-fleming' or 'pocock'"),
        ("items = [500]\nspendings = 'pocock'\n", "unknown key 'looks.spendings'; did you mean spending\\? known: items, spending"),
    ],
)
def test_looks_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """A plan without numbers, or with numbers that do not rise, is quoted."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY + text)
    with pytest.raises(UsageError, match=words):
        read_policy(path, [])


@lru_cache
def upper(events: int, n_items: int, tail: float) -> float:
    return float(betaincinv(events + 1, n_items - events, 1 - tail)) if events < n_items else 1.0


@pytest.mark.parametrize("spending", SPENDING)
@pytest.mark.parametrize("share", [0.02, 0.2])
def test_twenty_looks_at_a_share_err_as_often_as_one(spending: str, share: float) -> None:
    """A share at its limit: unplanned, 20 looks with exact bounds pass 8 to 13 % of 20,000 models; planned, under 2.5 % on either side."""
    events = np.random.default_rng(1).binomial(100, share, (20_000, 20)).cumsum(axis=1)
    tails = Looks(items=TWENTY, spending=spending).tails(TAIL)
    ever = Counter[str]()
    errors = {"naive": [TAIL] * 20, "planned": tails}
    for name, probabilities in errors.items():
        passed, failed = np.zeros(len(events), bool), np.zeros(len(events), bool)
        for look, (n_items, tail) in enumerate(zip(TWENTY, probabilities, strict=True)):
            if tail < 1e-9:
                continue
            bounds = np.array([upper(x, n_items, tail) for x in range(n_items + 1)])
            passed |= bounds[events[:, look]] < share
            failed |= 1 - bounds[n_items - events[:, look]] > share
        ever[f"{name} pass"], ever[f"{name} fail"] = int(passed.sum()), int(failed.sum())
    assert min(ever["naive pass"], ever["naive fail"]) > 0.07 * len(events), ever
    assert max(ever["planned pass"], ever["planned fail"]) < 0.025 * len(events), ever


def errors_over_looks(kind: str, trials: int, items: tuple[int, ...], spending: str, seed: int = 1) -> dict[str, Counter[str]]:
    """Count by figure how many of the simulated models whose figure is at its limit at every look are ever passed, and ever failed.

    Planned looks are compared with the same looks unplanned, where each has the whole error. A look's items are among the next one's.
    """
    rng, tails = np.random.default_rng([seed, KINDS.index(kind)]), Looks(items=items, spending=spending).tails(TAIL)
    question, limits = Question(scorers=("lac",), alphas=(ALPHA,)), [truth(kind, n_items, "lac") for n_items in items]
    counts: dict[str, Counter[str]] = {name: Counter() for name in FIGURES}
    for _ in range(trials):
        dense, compressed = draw(kind, rng, items[-1])
        ever: dict[str, set[str]] = {name: set() for name in FIGURES}
        for n_items, tail, limit in zip(items, tails, limits, strict=True):
            cell = compared(dense[:n_items], compressed[:n_items], question)
            for name in FIGURES:
                amount = bounded(cell, name, question)
                if amount.undecided:
                    continue
                for plan, error in (("naive", TAIL), ("planned", tail)):
                    above, below = amount.low(error) > limit[name], amount.high(error) < limit[name]
                    passed, failed = (above, below) if LIMITABLE[name].at_least else (below, above)
                    ever[name] |= {f"{plan} {word}" for word, found in (("pass", passed), ("fail", failed)) if found}
                    if not above and not below:
                        break  # a smaller error decides nothing that a larger one does not
        for name in FIGURES:
            counts[name].update(ever[name])
    return counts


def most(trials: int) -> int:
    """The count that 2.5 % exceeds once in a thousand times."""
    return math.floor(0.025 * trials + 3.1 * math.sqrt(0.025 * trials) + 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_planned_looks_err_as_little_as_one(kind: str) -> None:
    """100 models at their limits, looked at 20 times: neither error is beyond 2.5 % and Monte Carlo noise, for any figure."""
    for name, found in errors_over_looks(kind, 100, TWENTY, "pocock").items():
        assert max(found["planned pass"], found["planned fail"]) <= most(100), (name, found)


def test_the_replay_of_looks_on_stored_runs_counts_each_model_once() -> None:
    """A model that is the dense one passes early and never wrongly; the first items of an order are those of the smaller look."""
    runs = models(2_000, noise=1e-3)
    found = {(policy, plan): tally for policy, plan, tally in tallies(runs, 1)}
    flips = found["flips", "pocock"]
    assert flips.items_of_right == flips.items == [250]
    assert all(len(tally.items) == 1 and not tally.counts["wrong"] for tally in found.values())


if __name__ == "__main__":
    for chosen in sys.argv[1].split(","):
        n_trials, how = int(sys.argv[2]), sys.argv[3]
        for figure, found in errors_over_looks(chosen, n_trials, TWENTY, how).items():
            shares = [found[f"{plan} {word}"] / n_trials for plan in ("naive", "planned") for word in ("pass", "fail")]
            cells = [f"{100 * s:.1f} ± {100 * math.sqrt(max(s * (1 - s), 0.25 / n_trials) / n_trials):.1f}" for s in shares]
            print(f"| {figure} | {chosen} | {how} | {' | '.join(cells)} |", flush=True)
