"""`analyze calibrate`: the threshold of one run, what it guarantees, and when none is made."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from analyzer_data import MemoryReader, item_set, make_run, skilled_logits
from click.testing import CliRunner
from shipping import data_set, made, rewritten
from store_tiny import write_runs

from analyzer.api import calibrate, example_runs, view_of
from analyzer.cli.main import main
from analyzer.predictor import Predictor
from analyzer.runs.loading import select_runs
from analyzer.scorers import RANDOM, SCORERS
from analyzer.ship.calibrate import calibrate as calibrate_run
from analyzer.ship.run_to_calibrate import one_of_each_cluster
from analyzer.ship.settings import PredictorSettings
from analyzer.studies.cost import Prices
from schemas.errors import UsageError
from schemas.items import Item
from schemas.itemset import build_item_set

DETERMINISTIC = [name for name in SCORERS if name not in RANDOM]


def naive_lac(data: xr.Dataset) -> list[float]:
    """1 - p of every answer, by hand."""
    scores = []
    for row, answer in zip(data["logits"].to_numpy(), data["answer"].to_numpy(), strict=True):
        own = [float(x) for x in row if not math.isnan(x)]
        scores.append(1 - math.exp(own[answer] - max(own)) / math.fsum(math.exp(x - max(own)) for x in own))
    return sorted(scores)


@pytest.mark.parametrize("alpha", ["0.1", "1/7", "0.01", "0.5"])
def test_threshold_is_the_kth_smallest_score_of_all_items(alpha: str) -> None:
    """All items calibrate: k = ceil((n + 1)(1 - alpha)) of n, in exact arithmetic."""
    one = made(alpha=alpha).document.thresholds[0]
    assert (one.n, one.k) == (400, math.ceil(401 * (1 - Fraction(alpha))))
    assert one.value == pytest.approx(naive_lac(data_set())[one.k - 1], abs=1e-12)
    assert one.below < one.k <= one.below + one.tied


def test_sure_threshold_covers_for_all_but_a_share_of_calibration_sets() -> None:
    """pac:0.95 takes the least k with P(Beta(k, n + 1 - k) >= 0.9) >= 0.95: 371 of 400 and not 361 (checked by its binomial sum)."""
    one = made(guarantee="pac:0.95").document.thresholds[0]

    def sure(k: int) -> float:
        return sum(math.comb(400, i) * 0.9**i * 0.1 ** (400 - i) for i in range(k))

    assert sure(one.k) >= 0.95 > sure(one.k - 1)
    assert one.k > made().document.thresholds[0].k


def passages(n_passages: int, rng: np.random.Generator, per_passage: int = 10) -> tuple[xr.Dataset, dict[str, str]]:
    """Questions whose difficulty is mostly that of their passage."""
    code = np.repeat(np.arange(n_passages), per_passage)
    answer = rng.integers(0, 4, code.size)
    logits = rng.normal(size=(code.size, 4))
    logits[np.arange(code.size), answer] += 1.5 + 2 * rng.normal(size=n_passages)[code]
    data = xr.Dataset({"logits": (("item", "option"), logits), "answer": ("item", answer)}, {"item": np.arange(code.size)})
    return data.assign_attrs(model="toy", method="dense", task="quiz"), {str(i): str(one) for i, one in enumerate(code)}


def test_one_question_of_each_cluster_calibrates() -> None:
    """As many items as clusters, one of each, the same ones again; the guarantee says so. Clusters that cannot be read are refused."""
    data, cluster = passages(60, np.random.default_rng(0))
    predictor = calibrate(data, cluster=cluster)
    assert predictor.document.thresholds[0].n == 60
    assert predictor.document.thresholds == calibrate(data, cluster=cluster).document.thresholds
    assert "60 calibration questions" in predictor.document.value["guarantee"]
    assert "a question of a new cluster" in predictor.document.value["guarantee"]
    view = replace(view_of(data), grouping=np.repeat(np.arange(60), 10))
    assert np.array_equal(view.cluster_of_set[one_of_each_cluster(view).position], np.arange(60))
    assert made().document.thresholds == made(cluster="question").document.thresholds
    with pytest.raises(UsageError, match="names no cluster for"):
        calibrate(data, cluster={"0": "a"})
    with pytest.raises(UsageError, match="expected question, item, subject, context"):
        calibrate(data, cluster="topic")


@pytest.mark.slow
@pytest.mark.parametrize("one_each", [True, False])
def test_confidence_holds_for_passages_only_with_one_question_each(one_each: bool) -> None:
    """pac:0.8 over 200 draws of 40 passages: new passages are covered in at least 80 % of draws with one question each, else in fewer."""
    rng, scores = np.random.default_rng(1), np.array(naive_lac(passages(20_000, np.random.default_rng(2), 1)[0]))
    covers = []
    for _ in range(200):
        data, cluster = passages(40, rng)
        predictor = calibrate(data, alpha="0.2", guarantee="pac:0.8", cluster=cluster if one_each else None, allow_unreliable=True)
        covers.append(np.mean(scores <= predictor.document.thresholds[0].value) >= 0.8)
    share = float(np.mean(covers))
    assert share >= 0.8 - 3 * math.sqrt(0.16 / 200) if one_each else share < 0.72, share


def test_repeated_questions_are_said_in_the_guarantee() -> None:
    """Every question asked twice: the guarantee says how many are different, and one of each can calibrate."""
    choices = [dict(zip("ABCD", (f"{i}{letter}" for letter in "abcd"), strict=True)) for i in range(200)]
    items = [Item(id=str(i), question=f"q{i // 2}", choices=choices[i], answer="ABCD"[i % 4]) for i in range(200)]
    stored = build_item_set("quiz", items)
    run = make_run(stored, skilled_logits(np.random.default_rng(0), stored.answer, 4))
    runs = select_runs(MemoryReader([stored], [run]), {})
    assert "only 100 of the 200 are different" in calibrate_run(runs, PredictorSettings()).document.value["guarantee"]
    assert calibrate_run(runs, PredictorSettings(one_each=True)).document.thresholds[0].n == 100


def test_every_subject_has_a_threshold_of_its_own() -> None:
    """--by subject calibrates each subject on its own items, and the runtime needs to know the subject."""
    predictor = made(by="subject")
    assert [(one.subject, one.n, one.k) for one in predictor.document.thresholds] == [("history", 200, 181), ("law", 200, 181)]
    with pytest.raises(UsageError, match="threshold per subject"):
        predictor.predict([1.0, 0.0, 0.0, 0.0])
    with pytest.raises(UsageError, match="'art' has no threshold; known: history, law"):
        predictor.predict([1.0, 0.0, 0.0, 0.0], subject="art")


def test_a_temperature_is_fitted_on_items_that_do_not_calibrate() -> None:
    """A fifth of the items fits the temperature, four fifths calibrate; logits that are twice too large come back to about the half."""
    cold = data_set()
    cold["logits"] = cold["logits"] * 3
    warm, cooled = made(reliability="temperature").document, calibrate(cold, reliability="temperature").document
    assert warm.thresholds[0].n == 320 and warm.value["made_on"]["n_items"] == 400
    assert cooled.temperature == pytest.approx(3 * warm.temperature, rel=1e-6)


def test_a_limit_on_wrong_answers_is_written_down_and_kept() -> None:
    """--max-wrong answers alone above a certified threshold of the largest prob alone, whatever the set."""
    predictor = calibrate(data_set(2000, skill=3.0), max_wrong="0.05")
    alone = predictor.document.alone
    assert alone is not None and (alone.max_wrong, alone.confidence) == (Fraction(1, 20), Fraction(19, 20))
    logits = np.nan_to_num(data_set(2000, skill=3.0)["logits"].to_numpy(), nan=-50.0)
    top = np.exp(logits - logits.max(axis=1, keepdims=True))
    top = 1 / top.sum(axis=1)
    answered = predictor.decide(logits) == "answer"
    assert answered.any() and (answered == (top >= alone.threshold)).all()
    with pytest.raises(UsageError, match="can be answered alone"):
        calibrate(data_set(100, skill=0.5), max_wrong="0.001")


def test_the_file_says_what_it_was_made_of() -> None:
    """The run, its digests, the guarantee in words, what the calibration items come to, and prices where given."""
    predictor = made(prices=Prices(review=2.0, wrong=1.0, ask_again_up_to=3))
    value = predictor.document.value
    assert value["made_on"]["model"] == "m" and value["made_on"]["items_hash"] and value["made_on"]["unreliable"] is None
    assert "at least 90 %" in value["guarantee"].lower() and "task t" in value["guarantee"]
    assert value["option_counts"] == {"3": 58, "4": 342}
    assert value["rules"]["ask_again_up_to"] == 3 and value["rules"]["prices"]["review"] == "2.0"
    assert math.fsum(float(share) for share in value["promised"]["decisions"].values()) == pytest.approx(1)
    assert float(value["promised"]["cost_per_1000"]) > 0
    assert all(sum(counts) == 400 for counts in value["looks"].values())


@pytest.mark.parametrize("scorer", DETERMINISTIC)
def test_every_predictor_has_test_vectors_that_it_meets(scorer: str) -> None:
    """A dozen rows or so, ties and two options among them, clear of the threshold."""
    vectors = made(scorer=scorer).document.vectors
    assert len(vectors) >= 10 and any(len(one.logits) == 2 for one in vectors)
    assert len({len(one.letters) for one in vectors}) > 1 or scorer == "topk"


@pytest.mark.parametrize("scorer", sorted(RANDOM))
def test_random_scores_are_refused(scorer: str) -> None:
    """A random scorer would answer the same question with other sets."""
    with pytest.raises(UsageError, match=f"scorer {scorer} draws a random number"):
        made(scorer=scorer)


def test_too_few_items_are_refused_with_the_number_needed() -> None:
    """At alpha 0.01 a threshold needs 99 items, with confidence 0.95 it needs 299; fewer would make every set full."""
    with pytest.raises(UsageError, match="expected 99 or more"):
        calibrate(data_set(98), alpha="0.01")
    assert calibrate(data_set(99), alpha="0.01").document.thresholds[0].k == 99
    with pytest.raises(UsageError, match="expected 299 or more"):
        calibrate(data_set(298), alpha="0.01", guarantee="pac:0.95")


def test_an_unreliable_run_is_refused_unless_told_so() -> None:
    """A run whose answers are below chance gives no predictor; --allow-unreliable gives one that says it."""
    broken = data_set()
    broken["logits"] = -4 * broken["logits"]
    with pytest.raises(UsageError, match=r"is unreliable: accuracy .* below chance"):
        calibrate(broken)
    predictor = calibrate(broken, allow_unreliable=True)
    assert "below chance" in predictor.document.value["made_on"]["unreliable"]


def test_one_run_is_meant_and_named() -> None:
    """Two selected runs are no run, even if one of them is dense: nothing is chosen silently."""
    with pytest.raises(UsageError, match="made of one run, and 3 are selected"):
        calibrate(example_runs())
    assert calibrate(example_runs(), method="wanda", level="0.3").document.value["made_on"]["level"] == "0.3"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alpha": "0:1:0.1"}, "outside"),
        ({"alpha": "0.1:0.3:0.1"}, "one alpha"),
        ({"by": "label"}, "by none or subject"),
        ({"guarantee": "pac"}, "confidence of pac"),
        ({"guarantee": "pac:1"}, "confidence of pac"),
        ({"guarantee": "always"}, "is not one"),
        ({"max_wrong": 0}, "max_wrong is 0"),
        ({"expect": ["prompt_hash"]}, "has no value"),
        ({"expect": {"colour": "red"}}, "no field 'colour'"),
        ({"expect": {"prompt": "task"}}, "has prompt 'base', not the expected 'task'"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], said: str) -> None:
    """A sentence for every slip."""
    with pytest.raises(UsageError, match=said):
        made(**options)


def test_command_refuses_another_prompt_tokenizer_or_checkpoint(tmp_path: Path, store_url: str) -> None:
    """--expect names what will be deployed, hashes in full or by 8 digits; a run of anything else makes no predictor."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 90)
    items = item_set(answers)
    key: dict[str, Any] = {"prompt_hash": "ab" * 32, "tokens_hash": "cd" * 32, "weights_hash": "ef" * 32, "option_tokens": tuple("ABCD")}
    write_runs(store_url, items, [make_run(items, skilled_logits(rng, answers, 4), **key)])
    out = tmp_path / "p.json"

    def run(*expect: str) -> Any:
        words = [word for one in expect for word in ("--expect", one)]
        return CliRunner().invoke(main, ["calibrate", "--store", store_url, "--out", str(out), *words])

    done = run("prompt_hash=abababab", f"tokens_hash={'cd' * 32}", "option_tokens=A,B,C,D")
    assert done.exit_code == 0 and out.exists() and done.stdout.strip() == str(out), done.output
    assert Predictor.load(out).document.value["made_on"]["weights_hash"] == "ef" * 32
    for wrong in ("prompt_hash=abababac", "tokens_hash=cd", "weights_hash=efefefee", "option_tokens=1,2,3,4"):
        out.unlink(missing_ok=True)
        refused = run(wrong)
        assert refused.exit_code == 2 and "not the expected" in refused.output and not out.exists()


CHANGES: list[tuple[Any, str]] = [
    (lambda v: v.update(version=3), "version 3; this one reads versions 1 to 2; upgrade hedgemark"),
    (lambda v: v.update(version="1"), "version '1'"),
    (lambda v: v.update(format="other"), "no predictor"),
    (lambda v: v.pop("scorer"), "lacks 'scorer'"),
    (lambda v: v.update(extra=1), "has a field 'extra'"),
    (lambda v: v.update(scorer="aps-rand"), "scorer is 'aps-rand'"),
    (lambda v: v.update(alpha="1/5"), "asks for score 321"),
    (lambda v: v.update(alpha=0.1), "expected a value in"),
    (lambda v: v.update(temperature="0.0"), "above 0"),
    (lambda v: v.update(letters=["A", "A", "B", "C"]), "different ones"),
    (lambda v: v.update(letters=["A", "B", "C"]), "test vector"),
    (lambda v: v["thresholds"][0].update(threshold="0.1"), "test vector"),
    (lambda v: v["thresholds"][0].update(threshold="nan"), "finite number"),
    (lambda v: v["thresholds"][0].update(threshold="inf"), "is inf where"),
    (lambda v: v["thresholds"][0].update(threshold=0.9), "as text"),
    (lambda v: v["thresholds"][0].update(k=300), "asks for score 361"),
    (lambda v: v["thresholds"][0].update(below=390), "cannot have"),
    (lambda v: v["thresholds"].append(dict(v["thresholds"][0])), "doubled"),
    (lambda v: v["test_vectors"][5].update(set=[]), "test vector 6 gives"),
    (lambda v: v.update(test_vectors=[]), "no test vectors"),
    (lambda v: v["rules"].update(ask_again_up_to=0), "1 or more"),
    (lambda v: v["rules"].update(prices={"review": "1.0"}), "price answer is None"),
    (lambda v: v["looks"].update(top_prob=[1, 2]), "'top_prob' with 2 counts; expected 256"),
    (lambda v: v["looks"].update(entropy=[0] * 256), "'entropy' with 256 counts"),
    (lambda v: v["promised"].update(set_size=2.5), "set_size is 2.5"),
    (lambda v: v["promised"]["decisions"].pop("review"), "share of review is None"),
    (lambda v: v["made_on"].pop("task"), "task is None; expected text"),
    (lambda v: v["option_counts"].update(four=3), "option_counts has 'four'"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES, ids=[said for _, said in CHANGES])
def test_a_file_that_is_none_is_refused_with_the_reason(change: Any, said: str, tmp_path: Path) -> None:
    """Whatever is wrong with a file is one sentence that names the file, also where its digest was made to fit."""
    path = rewritten(tmp_path / "p.json", made(), change)
    with pytest.raises(UsageError, match=said) as error:
        Predictor.load(path)
    assert str(error.value).count("\n") == 0


def test_a_file_edited_by_hand_is_refused(tmp_path: Path) -> None:
    """A threshold moved in an editor does not match the digest any more."""
    path = rewritten(tmp_path / "p.json", made(), lambda v: v["thresholds"][0].update(threshold="0.99"), seal=False)
    with pytest.raises(UsageError, match="changed after it was written"):
        Predictor.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match=r"predictor .*p\.json: "):
        Predictor.load(path)
    with pytest.raises(UsageError, match="No such file"):
        Predictor.load(tmp_path / "none.json")


def test_a_file_read_again_is_the_same(tmp_path: Path) -> None:
    """Saving and loading changes nothing, to the last digit."""
    predictor = made(scorer="raps", parameters=["raps.penalty=0.3"], guarantee="pac:0.9", by="subject")
    predictor.save(tmp_path / "p.json")
    again = Predictor.load(tmp_path / "p.json").document
    assert again == predictor.document
    assert json.loads((tmp_path / "p.json").read_text())["parameters"] == {"penalty": "0.3", "k_reg": "2.0"}
    with pytest.raises(UsageError, match="cannot write"):
        predictor.save(tmp_path / "no" / "p.json")


@pytest.mark.slow
def test_answers_given_alone_are_wrong_as_seldom_as_promised() -> None:
    """500 draws of 300 calibration questions whose law is known: at most 5 % of the rules answer over 10 % wrongly, and most answer."""
    population = data_set(200_000, seed=9, skill=2.5)
    logits, answer = population["logits"].to_numpy().astype(float), population["answer"].to_numpy()
    power = np.exp(logits - np.nanmax(logits, axis=1, keepdims=True))
    top = np.nanmax(power, axis=1) / np.nansum(power, axis=1)
    wrong = np.nanargmax(logits, axis=1) != answer
    order = np.argsort(-top)
    sorted_top, wrong_so_far = top[order], np.cumsum(wrong[order])
    broken = answering = 0
    for seed in range(500):
        try:
            alone = calibrate(data_set(300, seed=10_000 + seed, skill=2.5), max_wrong="0.1").document.alone
        except UsageError:  # no rule can be certified on these questions, so nothing is answered alone
            continue
        assert alone is not None
        answering += 1
        n_answered = int(np.searchsorted(-sorted_top, -alone.threshold, side="right"))
        broken += bool(n_answered and wrong_so_far[n_answered - 1] / n_answered > 0.1)
    print(f"{answering} of 500 rules answer, {broken} wrongly too often")
    assert broken <= 500 * 0.05 + 3 * np.sqrt(500 * 0.05 * 0.95) and answering >= 250


def test_of_a_run_asked_again_with_more_questions_the_larger_calibrates() -> None:
    """Model, method, level, task and prompt are the same, so that no option could tell them apart; two halves are refused."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 200)
    logits = skilled_logits(rng, answers, 4)

    def predictor(*parts: slice) -> Predictor:
        items = [Item(id=str(number), answer="ABCD"[answer]) for number, answer in enumerate(answers)]
        sets = [build_item_set("quiz", items[part], n_options=[4] * len(items[part])) for part in parts]
        runs = [make_run(of_part, logits[part]) for of_part, part in zip(sets, parts, strict=True)]
        return calibrate_run(select_runs(MemoryReader(sets, runs), {}), PredictorSettings())

    whole = predictor(slice(0, 200))
    assert predictor(slice(0, 90), slice(0, 200)).document.thresholds == whole.document.thresholds
    with pytest.raises(UsageError, match=r"2 are selected: .*; delete the others with store rm"):
        predictor(slice(0, 100), slice(100, 200))
