"""`make bench` as one command: figures are found in what parts print, a slow part ends, records of other machines do not count."""

import json
import sys

import bench
import pytest

PRINTED = {
    "law": """exact law, all splits of W             0.044 s (0.043 s busy)   (limit 0.10 s)
1,000 drawn splits of W, numpy         0.321 s (0.320 s busy)   (limit 0.50 s), 1.62 us a cell""",
    "rates": """smollm2-135m mmlu few-shot, 8 items: 2.41 items/s with the prefill engine
    0.21 items/s with one prompt per forward pass, full head: the engine is 11.40 (9.01 to 12.00) times as fast
    0.48 items/s with lm-evaluation-harness, batches of 16: the engine is 4.90 (2.80 to 6.30) times as fast (target: at least 2.5)""",
    "published": "54 published runs, 2 scorers, 10,692 records with intervals   13.100 s (12.900 s busy)   (limit 3 s on one)",
    "compare": """780 runs, 1,440 comparisons in 9.1 s (9.0 s of CPU, 6.25 ms each)
54,000 comparisons, the costs of all models being alike: 337 s of CPU   (limit 40)""",
    "journal": "ref-l urn, 700 items, in memory, kept every 0.5 s: 1.04 (1.03 to 1.06) times the time of keeping none",
    "layers": "    1.17 (1.13 to 1.26) times the time in memory (target: at most 1.3)",
}


@pytest.mark.parametrize(
    ("part", "figure", "value"),
    [
        ("law", "exact law of W", 0.043),
        ("law", "1,000 splits, numpy", 0.32),
        ("law", "1,000 splits, numba", None),
        ("rates", "smollm2-135m mmlu few-shot, engine", 2.41),
        ("rates", "smollm2-135m mmlu few-shot, lm-evaluation-harness", 4.9),
        ("layers", "layer by layer", 1.17),
        ("journal", "answers kept twice a second, in memory", 1.04),
        ("published", "54 runs x 99 alphas x 2 scorers", 12.9),
        ("published", "54 runs x 99 alphas x 7 scorers", None),
        ("compare", "a comparison", 6.25),
        ("compare", "54,000 comparisons", 337),
    ],
)
def test_figures_are_found_in_what_a_part_prints(part: str, figure: str, value: float | None) -> None:
    """Each figure is the number of its own line; one that a part did not print is missing and not taken from another line."""
    if part == "published" and not bench.PUBLISHED.is_dir():
        pytest.skip("needs ../shared, the published runs")
    (one,) = [each for each in bench.PARTS[part].figures if each.name == figure]
    assert one.find(PRINTED[part]) == value


def test_names_of_figures_are_unlike() -> None:
    """A record holds figures by name, so two figures of one name would replace each other."""
    names = [figure.name for part in bench.PARTS.values() for figure in part.figures]
    assert len(names) == len(set(names))


def test_a_part_ends_with_its_time() -> None:
    """A part that never ends is stopped with what it started, and costs only its own figures."""
    child = (
        "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); print('1.5 s', flush=True)"
    )
    slow = bench.run("slow", bench.Part((sys.executable, "-c", f"{child}; time.sleep(60)"), 2, (bench.Figure("one", "s", ""),)))
    assert slow.status == bench.FAILED and slow.figures == {"one": 1.5}
    assert bench.run("wrong", bench.Part((sys.executable, "-c", "raise SystemExit(3)"), 20)).status == 3


def test_figures_are_compared_with_the_same_kind_of_machine() -> None:
    """Of the records of this machine each figure's last one counts, and the ratio is now over then."""
    known = [("ours", {"exact law of W": 0.5}), ("ours", {"other": 3.0}), ("theirs", {"exact law of W": 9.0})]
    text = "".join(json.dumps({"machine": machine, "figures": figures}) + "\n" for machine, figures in known)
    before = bench.last_record(text, "ours")
    assert before == {"exact law of W": 0.5, "other": 3.0}
    done = {"law": bench.Outcome(0, 2.0, {figure.name: 0.25 for figure in bench.PARTS["law"].figures})}
    (line,) = [line for line in bench.table(done, before) if line.startswith("exact law of W")]
    assert line.split()[4:8] == ["0.25", "0.5", "0.50", "s"]
    assert json.loads(bench.record(done))["figures"]["law: all of it"] == 2.0
    assert not json.loads(bench.record({"law": bench.Outcome(1, 2.0, {"exact law of W": 1.0})}))["figures"]
